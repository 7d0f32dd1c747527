"""A tiny experiment, run by test_launch.py in a process of its own.

It sums the numbers 1 to --count.
"""

import os
import signal

import jax.numpy as jnp
from absl import flags

from dartjax.data import DataError
from experiments import launch

_COUNT = flags.DEFINE_integer("count", 3, "How many numbers to sum.", lower_bound=1)
_END = flags.DEFINE_enum(
    "end", "done", ["done", "raise", "bad_input", "missing", "killed", "three"], "How to end."
)


def main(ctx: launch.RunContext) -> int | None:
    """Write half of a run, then end as asked."""
    (ctx.out / "half.txt").write_text("half of a run")
    if _END.value == "raise":
        raise ValueError("the sum\ndoes not converge")
    if _END.value == "bad_input":
        raise DataError("numbers.csv: column 2 is empty; fill it")
    if _END.value == "missing":
        raise FileNotFoundError("no numbers.csv: give --data")
    if _END.value == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    with launch.progress("adding", total=_COUNT.value) as step:
        total = 0
        for number in range(1, _COUNT.value + 1):
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
    return 3 if _END.value == "three" else None


if __name__ == "__main__":
    launch.run(main, presets=("default", "fast"))
