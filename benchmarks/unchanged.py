"""Check that the main commands give the same results before and after a change of the code.

  python -m benchmarks.unchanged run FOLDER [NAME ...]   runs the commands, one folder each
  python -m benchmarks.unchanged compare BEFORE AFTER    exit code 1 and a table if they differ

A reconstruction may differ by .001 in its mean Dice and by .003 in the Dice of a case, robots by
1e-6 relative in any number. Words, counts and statuses must be equal. Times and the commit are
ignored.
"""

import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks._timing import print_table

RECONSTRUCT = ("experiments.reconstruct", "--demo")
COMMANDS: dict[str, tuple[str, ...]] = {
    "demo": (*RECONSTRUCT, "--seed=3", "--nobaselines"),
    "simulated": (*RECONSTRUCT, "--pairs=2", "--observations=simulated", "--seed=21"),
    "hybrid_robot": ("experiments.hybrid_robot",),
    "admittance": ("experiments.admittance",),
    "distal_locking": ("experiments.distal_locking",),
    "navigate": ("experiments.navigate",),
}
RECONSTRUCTIONS = ("demo", "simulated")
MEAN_DICE, CASE_DICE, RELATIVE = 0.001, 0.003, 1e-6
TIMES = ("seconds", "_ms", "per_second", "_hz", "minutes")


def run(folder: pathlib.Path, names: Sequence[str]) -> int:
    """Run the commands one after the other; skip those whose folder exists."""
    failed = 0
    for name in names or COMMANDS:
        out = folder / name
        if out.exists():
            continue
        print(f"== {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", *COMMANDS[name], f"--out={out}"]
        failed += subprocess.run(command, check=False).returncode != 0
    return int(failed > 0)


def compare(before: pathlib.Path, after: pathlib.Path) -> int:
    """Print every difference that is too large. Return 1 if there is one."""
    rows = []
    for name in COMMANDS:
        first, second = (
            json.loads((folder / name / "metrics.json").read_text()) for folder in (before, after)
        )
        differ = _reconstruction if name in RECONSTRUCTIONS else _robot
        found = list(differ(first, second))
        print(f"{name}: {len(first['cases'])} cases, {'differs' if found else 'the same'}")
        rows += [(f"{name} {where}", str(a), str(b)) for where, a, b in found]
    if rows:
        print_table("Differences", ("where", str(before), str(after)), rows)
    return int(bool(rows))


def _reconstruction(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Compare the cases, their statuses, the Dice of every case, and the mean Dice."""
    if len(first["cases"]) != len(second["cases"]):
        yield "number of cases", len(first["cases"]), len(second["cases"])
        return
    keys = [{_renamed(key) for key in each["summary"]} for each in (first, second)]
    if keys[0] != keys[1]:
        yield "summary keys", *map(sorted, keys)
    dice = []
    for number, (a, b) in enumerate(zip(first["cases"], second["cases"], strict=True)):
        where = f"case {number}"
        for key in ("subject", "level", "status"):
            if a[key] != b[key]:
                yield f"{where} {key}", a[key], b[key]
        pair = [_number(each["dice"]) for each in (a, b)]
        dice.append(pair)
        if not _near(*pair, CASE_DICE):
            yield f"{where} dice", *pair
    known = [pair for pair in dice if all(map(math.isfinite, pair))]
    means = [sum(column) / len(known) for column in zip(*known, strict=True)]
    if not _near(*means, MEAN_DICE):
        yield "mean dice", *means


def _renamed(key: str) -> str:
    """Translate a key of version 0.1 to its present name."""
    return key.replace("share_rung_", "share_tier_")


def _robot(first: Any, second: Any) -> Iterator[tuple[str, Any, Any]]:
    """Compare all values of the summary and the cases, except times."""
    for key in ("summary", "cases"):
        yield from _values(key, first[key], second[key])


def _values(where: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if any(where.rpartition(".")[2].endswith(time) for time in TIMES):
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from _values(f"{where}.{key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _values(f"{where}[{index}]", x, y)
    elif isinstance(a, float) or isinstance(b, float):
        x, y = _number(a), _number(b)
        if not _near(x, y, RELATIVE * max(abs(x), abs(y), 1e-12)):
            yield where, a, b
    elif a != b:
        yield where, a, b


def _near(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance or (math.isnan(a) and math.isnan(b))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def main(arguments: Sequence[str]) -> int:
    """Dispatch on the first argument."""
    if len(arguments) >= 2 and arguments[0] == "run" and set(arguments[2:]) <= COMMANDS.keys():
        return run(pathlib.Path(arguments[1]), arguments[2:])
    if len(arguments) == 3 and arguments[0] == "compare":
        return compare(pathlib.Path(arguments[1]), pathlib.Path(arguments[2]))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
