"""Tiny experiment that test_launch.py runs in its own process.

It sums the numbers 1 to --count.
"""

import dataclasses
import os
import signal

import jax.numpy as jnp

from dartjax.cli import launch, setting
from dartjax.data import DataError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the sum is of, and how the run ends."""

    count: int = setting(3, "How many numbers to sum.", lower_bound=1)
    end: str = setting(
        "done",
        "How to end.",
        choices=("done", "raise", "bad_input", "missing", "killed", "three"),
    )
    names: tuple[str, ...] = setting((), "What the numbers are called.")
    scale: float | None = setting(None, "What the sum is multiplied by.")


def main(ctx: launch.RunContext, settings: Settings) -> int | None:
    """Write half of a run, then end as the settings say."""
    (ctx.out / "half.txt").write_text("half of a run")
    if settings.end == "raise":
        raise ValueError("the sum\ndoes not converge")
    if settings.end == "bad_input":
        raise DataError("numbers.csv: column 2 is empty; fill it")
    if settings.end == "missing":
        raise FileNotFoundError("no numbers.csv: give --data")
    if settings.end == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with launch.progress("adding", total=settings.count) as step:
        total = 0
        for number in range(1, settings.count + 1):
            total += number
            step(f"at {number}")
    record = ctx.record(
        dataset="numbers",
        dataset_kind="synthetic",
        subjects=["a", "b"],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    summary = {"total": jnp.float32(total), "masd_mm": float("nan")}
    ctx.save_metrics(record, summary, [{"level": "L1", "hd95_mm": jnp.inf}])
    return 3 if settings.end == "three" else None


if __name__ == "__main__":
    launch.run(main, Settings, presets=("default", "fast"))
