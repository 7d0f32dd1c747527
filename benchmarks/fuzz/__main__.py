"""Damage small valid files in many ways and check what the readers of dartjax do with them.

    python -m benchmarks.fuzz --minutes=5 --seed=1 --out=runs/fuzz
    python -m benchmarks.fuzz --seed=1 --only=1234        one mutation again, with its traceback

Every reader of files gets damaged copies of small synthetic files: changed bytes, header fields,
keys, rows, attributes, encodings. It must return the right value or raise `DataError` (URDF:
`robot.BadParameter`) with the name of the file. Anything else is a failure: another exception, over
10 s, over 2 GB, a value with NaN or of another type, a changed value where the damage does not
touch it. Mutations depend only on the seed and their index. Failures are saved with their files.
"""

import argparse
import collections
import json
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

from benchmarks._timing import machine_info, print_table, versions, write_json
from benchmarks.fuzz.worker import Found, results

_MAX_SAVED = 300


def main() -> int:
    """Run mutations until the time or number is reached; print the table and write JSON."""
    options = _options()
    out = pathlib.Path(options.out)
    if options.only is not None:
        return _again(options)
    shutil.rmtree(out / "failures", ignore_errors=True)
    began, found = time.monotonic(), []
    for each in results(options.seed, options.reader, options.mutations, options.minutes):
        found.append(each)
        if each.result == "failure":
            _save(out, options.seed, each, sum(f.result == "failure" for f in found))
    seconds = time.monotonic() - began
    rows = _rows(found)
    _print(rows, found, seconds)
    failures = [each._replace(content=b"")._asdict() for each in found if each.result == "failure"]
    for failure in failures:
        del failure["content"]
    record = {"machine": machine_info(), "versions": versions("jax", "numpy", "dartjax")}
    run = {"seed": options.seed, "mutations": len(found), "seconds": seconds}
    write_json(out / "fuzz.json", {**record, **run, "readers": rows, "failures": failures})
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="stop after this time")
    parser.add_argument("--mutations", type=int, help="stop after this number of mutations")
    parser.add_argument("--seed", type=int, default=0, help="seed of all mutations")
    parser.add_argument("--reader", default="", help="only readers whose name contains this")
    parser.add_argument("--only", type=int, help="run only the mutation with this index")
    parser.add_argument("--out", default="runs/fuzz", help="folder for fuzz.json and the failures")
    return parser.parse_args()


def _again(options: argparse.Namespace) -> int:
    """Run one mutation in this process and print what happens."""
    from benchmarks.fuzz import trial
    from benchmarks.fuzz.readers import all_readers

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trials = trial.Trial(all_readers(), pathlib.Path(folder))
        trial.limit_memory()
        number, path, mutation = trials.mutation(options.seed, options.only)
        verdict = trials.judge(number, path, mutation)
    print(f"{trials.readers[number].name}, {path.name}: {mutation.kind}, must be", mutation.expects)
    print(*verdict, sep="\n")
    return 1 if verdict.result == "failure" else 0


def _save(out: pathlib.Path, seed: int, failure: Found, number: int) -> None:
    if number > _MAX_SAVED:
        return
    folder = out / "failures" / f"{seed}-{failure.index}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / failure.file.replace("?", "unknown")).write_bytes(failure.content)
    about = failure._asdict() | {"content": None, "seed": seed}
    about["again"] = f"python -m benchmarks.fuzz --seed={seed} --only={failure.index}"
    (folder / "failure.txt").write_text(
        json.dumps({k: v for k, v in about.items() if k not in ("content", "details")}, indent=1)
        + f"\n\n{failure.details}\n",
        encoding="utf-8",
    )


def _rows(found: list[Found]) -> list[dict[str, Any]]:
    rows = {}
    for each in found:
        row = rows.setdefault(each.reader, {"reader": each.reader, "mutations": 0})
        row["mutations"] += 1
        row[each.result] = row.get(each.result, 0) + 1
    return [{"right": 0, "refused": 0, "failure": 0, **row} for row in rows.values()]


def _print(rows: list[dict[str, Any]], found: list[Found], seconds: float) -> None:
    columns = ("reader", "mutations", "right", "refused", "failure")
    total = {name: sum(row[name] for row in rows) for name in columns[1:]}
    table = [*rows, {"reader": "all", **total}]
    title = f"{len(found)} mutations in {seconds:.0f} s"
    print_table(title, columns, [[str(row[name]) for name in columns] for row in table])
    failed = [each for each in found if each.result == "failure"]
    if not failed:
        return
    kinds = collections.Counter((each.reader, each.reason, each.kind) for each in failed)
    example = {(each.reader, each.reason, each.kind): str(each.index) for each in reversed(failed)}
    lines = [[*kind, str(count), example[kind]] for kind, count in kinds.most_common(60)]
    print_table("Failures", ("reader", "what", "damage", "number", "--only"), lines)


if __name__ == "__main__":
    sys.exit(main())
