"""Kill jobs at random moments, continue them, and check that nothing is lost, broken or different.

    python -m benchmarks.kills --job=all --kills=50 --seed=0 --out=runs/kills

Jobs: `reconstruct` (experiments.reconstruct, two subjects and a damaged scan), `dataset`
(experiments.simulate_xrays, three scans) and `train` (experiments.train_isolation, a checkpoint
after every step). Each runs undisturbed once to compile, and once more as the reference. Then it is
killed again and again, and continued by the same command; after 2 to 8 kills in a row it may end,
and a fresh one starts. One of three kills comes after a random time, the others at a random change
of the job's files; three of five are SIGKILL, the others SIGTERM and SIGINT, all to the process
group.

After every kill all files under final names are read, and finished pieces are compared with those
before the kill and with the reference. At the end of a job the results are compared with the
reference: JSON without times, arrays by value, other files by byte. FOLDER/kills.json keeps all
numbers. Exit code 1 if anything is wrong. Edit no code meanwhile: a job does not continue with
other code.
"""

import argparse
import collections
import dataclasses
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from benchmarks._kill_files import (
    Piece,
    changes_of_pieces,
    differences,
    incomplete_run,
    is_unfinished,
    leftovers,
    pieces_of,
)
from benchmarks._kill_jobs import JOBS, Job, run_of, write_cohorts
from benchmarks._timing import machine_info, print_table, versions, write_json

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL,) * 3 + (signal.SIGTERM, signal.SIGINT)
POLL_SECONDS, PATIENCE_SECONDS, MOST_SECONDS = 0.004, 30.0, 900.0
MARGIN = 1.1  # kills may come a little after the expected end
KILLS_IN_A_ROW = (2, 8)
MOST_FAILURES = 5  # to continue a job, after which it is given up
WRONG = ("not resumed", "lost", "done again", "half-written", "differing", "left behind")


@dataclasses.dataclass(frozen=True)
class Plan:
    """When to kill: after seconds of work, or at a change of the files; never if both are None."""

    number: signal.Signals = signal.SIGKILL
    seconds: float | None = None
    change: int | None = None

    def is_due(self, seconds: float, changes: int) -> bool:
        """Return whether to kill now."""
        late = self.seconds is not None and seconds >= self.seconds
        return late or (self.change is not None and changes >= self.change)


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the files of a job: seconds since it began to work, and its progress."""

    seconds: float
    progress: int


@dataclasses.dataclass
class Attempt:
    """One start of a job."""

    code: int = 0
    killed: bool = False
    phase: str = ""
    message: str = ""
    seconds: float = 0.0  # of work
    changes: list[Change] = dataclasses.field(default_factory=list)
    seen: set[str] = dataclasses.field(default_factory=set)  # finished pieces
    progress: int = 0


@dataclasses.dataclass
class Tally:
    """Counts and findings of one job."""

    kills: int = 0
    resumed: int = 0
    finished: int = 0
    phases: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    signals: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: {kind: [] for kind in WRONG}
    )

    def as_json(self) -> dict[str, Any]:
        """Return all counts and findings as plain values."""
        counters = {"phases": dict(self.phases), "signals": dict(self.signals)}
        return {**vars(self), **counters}


def main() -> int:
    """Kill the chosen jobs, print the table, and write kills.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--job", default="all", choices=(*JOBS, "all"), help="job to kill")
    parser.add_argument("--kills", type=int, default=50, help="kills per job")
    parser.add_argument("--seed", type=int, default=0, help="seed of all choices")
    parser.add_argument("--out", default="runs/kills", help="folder, kept")
    options = parser.parse_args()
    # A shell may start background jobs with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = pathlib.Path(options.out).absolute()
    if not (out / "cohorts").is_dir():
        write_cohorts(out / "cohorts.partial")
        (out / "cohorts.partial").rename(out / "cohorts")
    names = list(JOBS) if options.job == "all" else [options.job]
    started, found = time.monotonic(), {}
    for name in names:
        found[name] = kill_job(JOBS[name], options.kills, options.seed, out)
        _write(out, {"kills": options.kills, "seed": options.seed}, found, started)
    _print(found)
    return int(any(rows for tally in found.values() for rows in tally.wrong.values()))


def _write(
    out: pathlib.Path, counts: dict[str, Any], found: dict[str, Tally], start: float
) -> None:
    """Write what was found so far: the next job may take an hour."""
    used = os.times()
    minutes = {
        "minutes": round((time.monotonic() - start) / 60.0, 1),
        "cpu_minutes": round((used.children_user + used.children_system) / 60.0, 1),
    }
    record = {"machine": machine_info(), "versions": versions("jax", "dartjax", "orbax-checkpoint")}
    jobs = {name: tally.as_json() for name, tally in found.items()}
    write_json(out / "kills.json", {**record, **counts, **minutes, "jobs": jobs})


def kill_job(job: Job, kills: int, seed: int, out: pathlib.Path) -> Tally:
    """Make the reference of a job, then kill it as often as asked; return what was found."""
    rng = np.random.default_rng([seed, *job.name.encode()])
    tester = _Tester(job, out)
    tally = tester.tally
    number = 0
    while tally.kills < kills and len(tally.wrong["not resumed"]) < MOST_FAILURES:
        number += 1
        burst = int(rng.integers(KILLS_IN_A_ROW[0], KILLS_IN_A_ROW[1] + 1))
        tester.chain(out / f"{job.name}-{number}", min(burst, kills - tally.kills), rng)
    return tally


class _Tester:
    """A job with its reference and what has been found so far."""

    def __init__(self, job: Job, out: pathlib.Path):
        self.job, self.out, self.tally = job, out, Tally()
        first, reference = out / f"reference-1-{job.name}", out / f"reference-2-{job.name}"
        for base in (first, reference):
            shutil.rmtree(base, ignore_errors=True)
            self.undisturbed = self.attempt(base, Plan())
            if self.undisturbed.code:
                raise SystemExit(f"{job.name} fails undisturbed: {self.undisturbed.message}")
        self.expected = job.outcome(reference)
        self.expected_pieces = pieces_of(job.pieces(reference), job.volatile)
        same = differences(job.outcome(first), self.expected)
        self._note("differing", "undisturbed", same)

    def chain(self, base: pathlib.Path, kills: int, rng: np.random.Generator) -> None:
        """Start a fresh job, kill it up to `kills` times, let it finish, and check everything."""
        shutil.rmtree(base, ignore_errors=True)
        known: dict[str, Piece] = {}
        progress = after_kills = 0
        while True:
            plan = self._plan(rng, progress) if after_kills < kills else Plan()
            attempt = self.attempt(base, plan)
            if attempt.killed:
                after_kills += 1
                self.tally.kills += 1
                self.tally.phases[attempt.phase] += 1
                self.tally.signals[plan.number.name] += 1
            where = f"{base.name} after {after_kills} kills ({attempt.phase or 'not killed'})"
            is_done = run_of(base).exists()
            if not (attempt.killed or is_done):
                self._note("not resumed", where, [attempt.message or f"exit code {attempt.code}"])
                return
            was_killed_before = after_kills > attempt.killed
            self.tally.resumed += was_killed_before and attempt.seconds > 0.0
            self._check_files(base, where)
            known = self._check_pieces(base, where, attempt, known)
            self._check_progress(base, where, max(progress, attempt.progress))
            progress = self.job.progress(base)
            if is_done:
                self._finish(base, where, attempt)
                return

    def attempt(self, base: pathlib.Path, plan: Plan) -> Attempt:
        """Start the job, watch its files, and kill it when it is due."""
        base.mkdir(parents=True, exist_ok=True)
        log = base.with_name(f"{base.name}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.job.command(self.out / "cohorts", base),
                cwd=ROOT,
                env=os.environ | _environment(self.out),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                attempt = _watched(process, self.job, base, plan)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if attempt.code > 0:
            lines = log.read_text(errors="replace").strip().splitlines()
            attempt.message = " / ".join(lines[-4:])
        return attempt

    def _plan(self, rng: np.random.Generator, progress: int) -> Plan:
        """Choose signal and moment of the next kill for a job that has come so far."""
        number = SIGNALS[int(rng.integers(len(SIGNALS)))]
        by_change, share = bool(rng.integers(3)), float(rng.uniform())
        changes, whole = self.undisturbed.changes, self.undisturbed.seconds
        left = [change for change in changes if change.progress >= progress]
        if by_change:
            return Plan(number, change=1 + int(share * len(left)))
        pairs = itertools.pairwise(changes)
        steps = [later.seconds for one, later in pairs if later.progress > one.progress]
        start = steps[0] if steps else 0.0
        gap = (steps[-1] - start) / max(len(steps) - 1, 1) if steps else 0.0
        begun = max(start - gap, 0.0) if progress else 0.0  # is done again by every start
        since = left[0].seconds if progress and left else 0.0
        return Plan(number, seconds=share * MARGIN * (whole - since + begun))

    def _check_files(self, base: pathlib.Path, where: str) -> None:
        self._note("half-written", where, self.job.damaged(base))
        self._note("half-written", where, incomplete_run(run_of(base)))

    def _check_pieces(
        self, base: pathlib.Path, where: str, attempt: Attempt, known: dict[str, Piece]
    ) -> dict[str, Piece]:
        """Compare the finished pieces with those before, and with the reference."""
        if run_of(base).exists() and not self.job.keeps_pieces:
            return {}
        now = pieces_of(self.job.pieces(base), self.job.volatile)
        found = changes_of_pieces(known, attempt.seen, now, self.expected_pieces)
        for kind, names in found.items():
            self._note(kind, where, names)
        return now

    def _check_progress(self, base: pathlib.Path, where: str, before: int) -> None:
        now = self.job.progress(base)
        if now < before and not (run_of(base).exists() and not self.job.keeps_pieces):
            self._note("lost", where, [f"progress {now} of {before}"])

    def _finish(self, base: pathlib.Path, where: str, attempt: Attempt) -> None:
        """Compare a finished job with the reference."""
        if attempt.killed:  # after it was done: the same command says so, and cleans up
            again = self.attempt(base, Plan())
            if again.code != 2:
                self._note("not resumed", where, [f"exit code {again.code} of a finished job"])
        self.tally.finished += 1
        self._note("differing", where, differences(self.expected, self.job.outcome(base)))
        self._note("left behind", where, leftovers(base))
        if not any(self.tally.wrong.values()):
            shutil.rmtree(base)

    def _note(self, kind: str, where: str, found: list[str]) -> None:
        for line in found:
            self.tally.wrong[kind].append(f"{where}: {line}")
            print(f"{kind}: {where}: {line}", file=sys.stderr, flush=True)


def _environment(out: pathlib.Path) -> dict[str, str]:
    """Let all starts share compiled programs, and use processors only."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "DARTJAX_CACHE": str(out / "cache"),
    }


def _watched(process: subprocess.Popen[bytes], job: Job, base: pathlib.Path, plan: Plan) -> Attempt:
    """Watch a started job until it ends or is killed."""
    attempt, files, began = Attempt(), _listing(base), None
    begun, deadline = set(files), time.monotonic() + MOST_SECONDS
    while process.poll() is None:
        now, at = _listing(base), time.monotonic()
        if began is None and set(now) - begun:
            began = at
        if began is not None and now != files:
            attempt.seen |= job.pieces(base).keys()
            attempt.progress = max(attempt.progress, job.progress(base))
            attempt.changes.append(Change(at - began, attempt.progress))
        files = now
        attempt.seconds = 0.0 if began is None else at - began
        if began is not None and plan.is_due(attempt.seconds, len(attempt.changes)):
            _kill(process, plan.number)
            attempt.killed = process.returncode != 0
            is_at_once = plan.number == signal.SIGKILL
            new = (_listing(base) if is_at_once else files).keys() - begun
            attempt.phase = _phase(base, new)
            break
        if at > deadline:
            _kill(process, signal.SIGKILL)
            attempt.message = f"it does not end within {MOST_SECONDS:g} s"
        time.sleep(POLL_SECONDS)
    attempt.code = process.wait()
    return attempt


def _kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the group of a process, and wait; SIGKILL if it does not end."""
    os.killpg(process.pid, number)
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listing(base: pathlib.Path) -> dict[str, tuple[int, int]]:
    """List all files and folders with inode and size; a file that is moved meanwhile is skipped."""
    found: dict[str, tuple[int, int]] = {}
    folders = [str(base)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    size = 0 if is_folder else entry.stat(follow_symlinks=False).st_size
                    found[os.path.relpath(entry.path, base)] = (entry.inode(), size)
                    if is_folder:
                        folders.append(entry.path)
        except OSError:
            continue
    return found


def _phase(base: pathlib.Path, files: Collection[str]) -> str:
    """Name what a job was doing, by the files that are new since it started."""
    if run_of(base).exists():
        return "done"
    unfinished = [name for name in files if is_unfinished(pathlib.Path(name))]
    run = f".{run_of(base).name}."
    if any(not name.startswith(run) for name in unfinished):
        return "writing a piece"
    own = [name for name in unfinished if name.count("/") and not name.endswith("config.json")]
    return "writing the report" if own else "computing"


def _print(found: dict[str, Tally]) -> None:
    rows = [
        [name, *map(str, (tally.kills, tally.resumed, tally.finished)), *_counts(tally)]
        for name, tally in found.items()
    ]
    print_table("Killed and continued", ("job", "kills", "resumed", "finished", *WRONG), rows)
    phases = sorted({phase for tally in found.values() for phase in tally.phases})
    rows = [[name, *(str(tally.phases[p]) for p in phases)] for name, tally in found.items()]
    print_table("Kills by what the job was doing", ("job", *phases), rows)


def _counts(tally: Tally) -> list[str]:
    return [str(len(tally.wrong[kind])) for kind in WRONG]


if __name__ == "__main__":
    sys.exit(main())
