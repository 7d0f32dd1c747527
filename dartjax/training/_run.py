"""Training of one network: steps, checkpoints every few minutes, validation, curves.

A run that was stopped goes on from its last checkpoint, with the same curve as if it had not been:
a batch is a function of the step, and so are all random numbers.
"""

import importlib
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dartjax import data
from dartjax.training._loop import Loss, Schedule, TrainState, train_state, train_step

Step = Callable[[str], None]


class Training(NamedTuple):
    """What is trained, and on what."""

    loss: Loss
    batch_of: Callable[[int], PyTree]  # of a step
    validate: Callable[[PyTree], dict[str, float]]  # of the averaged parameters; "score" is best
    schedule: Schedule
    seed: int
    validate_every: int
    patience: int  # validations without a better score, after which training ends


class Trained(NamedTuple):
    """The averaged parameters with the best score, and the curves."""

    params: PyTree
    score: float
    step: int
    curve: list[dict[str, float]]  # mean of the training numbers between validations
    validations: list[dict[str, float]]
    seconds: float  # of this process
    steps_run: int  # by this process


def run(
    params: PyTree,
    training: Training,
    work: pathlib.Path,
    step: Step,
    *,
    minutes: float = np.inf,
    checkpoint_minutes: float = 3.0,
) -> Trained:
    """Train to the end of the schedule, or until it no longer helps, or for so many minutes of
    this process (the checkpoint stays, and a second call goes on). Where tensorboardX is installed
    (`dartjax[log]`), the curves are written to `work`/tensorboard as they grow."""
    work.mkdir(parents=True, exist_ok=True)
    state, best = train_state(params, training.schedule), params
    log = _Log()
    manager = ocp.CheckpointManager(
        work.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=1)
    )
    if manager.latest_step() is not None:
        state, best, log = _restored(manager, state, best, work)
    advance = jax.jit(
        lambda state, batch: train_step(
            state, batch, training.loss, training.schedule, key=jax.random.key(training.seed)
        )
    )
    board = _board(work / "tensorboard", int(state.step))
    begun = saved = time.monotonic()
    first, last = int(state.step), training.schedule.num_steps
    late = False
    while int(state.step) < last and not (late or log.ended(training.patience)):
        now = int(state.step)
        state, numbers = advance(state, training.batch_of(now))
        log.recent.append({key: float(value) for key, value in jax.device_get(numbers).items()})
        if (now + 1) % training.validate_every == 0 or now + 1 == last:
            if log.add({"step": now + 1, **training.validate(state.average)}):
                best = state.average
            step(f"step {now + 1}: {log.summary()}")
            _write(board, log)
        late = time.monotonic() - begun > 60.0 * minutes
        if late or now + 1 == last or time.monotonic() - saved > 60.0 * checkpoint_minutes:
            _save(manager, state, best, log)
            saved = time.monotonic()
    manager.close()
    if board is not None:
        board.close()
    # A run that was stopped is judged as it stands; the checkpoint goes on without that.
    if log.recent and log.add({"step": int(state.step), **training.validate(state.average)}):
        best = state.average
    return Trained(
        best,
        log.best,
        log.best_step,
        log.curve,
        log.validations,
        time.monotonic() - begun,
        int(state.step) - first,
    )


class _Log:
    """The curves so far, and the best validation."""

    def __init__(self, **content: Any):
        self.recent: list[dict[str, float]] = content.get("recent", [])  # since a validation
        self.curve: list[dict[str, float]] = content.get("curve", [])
        self.validations: list[dict[str, float]] = content.get("validations", [])

    @property
    def best(self) -> float:
        """Lowest score."""
        return min((row["score"] for row in self.validations), default=float("inf"))

    @property
    def best_step(self) -> int:
        """The step of the lowest score."""
        rows = [row for row in self.validations if row["score"] == self.best]
        return int(rows[0]["step"]) if rows else 0

    def add(self, scores: dict[str, float]) -> bool:
        """Whether the score is the best so far."""
        names = self.recent[0]
        means = {key: float(np.mean([row[key] for row in self.recent])) for key in names}
        self.recent = []
        better = scores["score"] < self.best
        self.curve.append({"step": scores["step"], **means})
        self.validations.append({key: float(value) for key, value in scores.items()})
        return better

    def ended(self, patience: int) -> bool:
        """Whether the last `patience` validations brought nothing."""
        since = [row["step"] for row in self.validations if row["step"] > self.best_step]
        return len(since) >= patience

    def summary(self) -> str:
        """For the progress bar."""
        own = self.validations[-1]
        shown = ", ".join(f"{key} {value:.3f}" for key, value in own.items() if key != "step")
        return f"loss {self.curve[-1]['loss']:.3f}, {shown}"


def _board(folder: pathlib.Path, step: int) -> Any:
    """A writer of what TensorBoard reads; None where tensorboardX is not installed. What an
    earlier process wrote beyond `step` is dropped."""
    try:
        module = importlib.import_module("tensorboardX")
    except ImportError:
        return None
    return module.SummaryWriter(str(folder), purge_step=step + 1)


def _write(board: Any, log: _Log) -> None:
    """The last rows of the curves."""
    if board is None:
        return
    for kind, row in (("training", log.curve[-1]), ("validation", log.validations[-1])):
        for key in row.keys() - {"step"}:
            board.add_scalar(f"{kind}/{key}", row[key], int(row["step"]))
    board.flush()


def _save(manager: ocp.CheckpointManager, state: TrainState, best: PyTree, log: _Log) -> None:
    """The state, the best parameters and the curves, in one checkpoint."""
    content = {"recent": log.recent, "curve": log.curve, "validations": log.validations}
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            best=ocp.args.StandardSave(best),
            log=ocp.args.JsonSave(content),
        ),
    )
    manager.wait_until_finished()


def _restored(
    manager: ocp.CheckpointManager, state: TrainState, best: PyTree, work: pathlib.Path
) -> tuple[TrainState, PyTree, _Log]:
    like = jax.tree.map(ocp.utils.to_shape_dtype_struct, (state, best))
    try:
        found = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like[0]),
                best=ocp.args.StandardRestore(like[1]),
                log=ocp.args.JsonRestore(),
            ),
        )
    except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
        raise data.DataError(
            f"the checkpoint in {work} does not fit this network or is damaged "
            f"({str(error).splitlines()[0]}): remove the folder to begin anew"
        ) from error
    return found["state"], found["best"], _Log(**found["log"])


def draw_curves(path: pathlib.Path, trained: Trained, title: str) -> None:
    """Loss of the training, and what validation found, against the step."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([row["step"] for row in trained.curve], [row["loss"] for row in trained.curve])
    left.set(xlabel="step", ylabel="training loss", title=title)
    names = [key for key in trained.validations[0] if key != "step"]
    for name in names:
        values = np.array([row[name] for row in trained.validations])
        right.plot([row["step"] for row in trained.validations], values, label=name)
    right.axvline(trained.step, color="0.7", linewidth=0.8)
    right.set(xlabel="step", title="subjects left out")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)
