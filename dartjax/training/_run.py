"""Training of one network: steps, checkpoints every few minutes, validation, curves.

An interrupted run continues from its last checkpoint and gives the same curve as an uninterrupted
one, because batches and random numbers are functions of the step.
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

from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.training._loop import Loss, Schedule, TrainState, train_state, train_step


class Training(NamedTuple):
    """Definition of a training: loss, batches, validation and schedule."""

    loss: Loss
    batch_of: Callable[[int], PyTree]  # of a step
    validate: Callable[
        [PyTree], dict[str, float]
    ]  # of the averaged parameters; lowest "score" wins
    schedule: Schedule
    seed: int
    validate_every: int  # steps
    patience: int  # validations without a better score, after which training ends


class Trained(NamedTuple):
    """Result of a training: the averaged parameters with the best score, and the curves."""

    params: PyTree
    score: float
    step: int
    curve: list[dict[str, float | int]]  # means of the training metrics between validations
    validations: list[dict[str, float]]
    seconds: float  # of this process
    steps_run: int  # by this process


def train(
    params: PyTree,
    training: Training,
    work: pathlib.Path,
    step: Step = no_step,
    *,
    minutes: float = np.inf,
    checkpoint_minutes: float = 3.0,
) -> Trained:
    """Train a network to the end of the schedule, until validation stops improving, or for a number
    of `minutes` in this process.

    After a stop by time the checkpoint stays in `work`, and a second call continues from it. If
    tensorboardX is installed (`dartjax[log]`), the curves are written to `work`/tensorboard during
    the training. DataError for a checkpoint that is damaged or of another network, and while
    another process trains in `work`.
    """
    with data.only_writer(work):
        return _trained(params, training, work, step, minutes, checkpoint_minutes)


def _trained(
    params: PyTree,
    training: Training,
    work: pathlib.Path,
    step: Step,
    minutes: float,
    checkpoint_minutes: float,
) -> Trained:
    run = _Run(params, training, work)
    started = saved = time.monotonic()
    first, late = run.step, False
    while not (late or run.is_finished):
        run.advance()
        if run.validation_is_due:
            run.validate()
            step(f"step {run.step}: {run.log.summary()}")
            _write(run.board, run.log)
        late = time.monotonic() - started > 60.0 * minutes
        since_saved = time.monotonic() - saved
        if late or run.is_last or since_saved > 60.0 * checkpoint_minutes:
            run.save()
            saved = time.monotonic()
    run.close()
    # Validate the current parameters of a stopped run; its checkpoint does not contain this.
    if run.log.recent:
        run.validate()
    log, seconds = run.log, time.monotonic() - started
    return Trained(
        run.best, log.best, log.best_step, log.curve, log.validations, seconds, run.step - first
    )


class _Run:
    """Running training: its state, the best parameters so far, the log and the checkpoints."""

    def __init__(self, params: PyTree, training: Training, work: pathlib.Path):
        self.training = training
        self.state, self.best = train_state(params, training.schedule), params
        self.log = _Log()
        self.manager = ocp.CheckpointManager(
            work.absolute(),
            # A process that was killed while it wrote a checkpoint leaves a temporary folder.
            options=ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True),
        )
        if self.manager.latest_step() is not None:
            self.state, self.best, self.log = _restored(self.manager, self.state, self.best, work)
        self.board = _board(work / "tensorboard", self.step)
        self._advanced = jax.jit(
            lambda state, batch: train_step(
                state, batch, training.loss, training.schedule, key=jax.random.key(training.seed)
            )
        )

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return int(self.state.step)

    @property
    def is_last(self) -> bool:
        """Return whether the schedule has ended."""
        return self.step >= self.training.schedule.num_steps

    @property
    def is_finished(self) -> bool:
        """Return whether the schedule has ended or validation has stopped improving."""
        return self.is_last or self.log.ended(self.training.patience)

    @property
    def validation_is_due(self) -> bool:
        """Return whether to validate now: every `validate_every` steps, and after the last."""
        return self.step % self.training.validate_every == 0 or self.is_last

    def advance(self) -> None:
        """Take one training step."""
        self.state, numbers = self._advanced(self.state, self.training.batch_of(self.step))
        numbers = jax.device_get(numbers)
        self.log.recent.append({key: float(value) for key, value in numbers.items()})

    def validate(self) -> None:
        """Validate the averaged parameters, and keep them if they are the best so far."""
        if self.log.add({"step": self.step, **self.training.validate(self.state.average)}):
            self.best = self.state.average

    def save(self) -> None:
        """Write a checkpoint."""
        _save(self.manager, self.state, self.best, self.log)

    def close(self) -> None:
        """Close the checkpoint manager and the TensorBoard writer."""
        self.manager.close()
        if self.board is not None:
            self.board.close()


class _Log:
    """Log of a training: curves and validations."""

    def __init__(self, **content: Any):
        self.recent: list[dict[str, float]] = content.get("recent", [])  # since a validation
        self.curve: list[dict[str, float | int]] = content.get("curve", [])
        self.validations: list[dict[str, float]] = content.get("validations", [])

    @property
    def best(self) -> float:
        """Return the lowest score."""
        return min((row["score"] for row in self.validations), default=float("inf"))

    @property
    def best_step(self) -> int:
        """Return the step of the lowest score."""
        rows = [row for row in self.validations if row["score"] == self.best]
        return int(rows[0]["step"]) if rows else 0

    def add(self, scores: dict[str, float | int]) -> bool:
        """Add a validation; return whether its score is the best so far."""
        names = self.recent[0]
        means = {key: float(np.mean([row[key] for row in self.recent])) for key in names}
        self.recent = []
        better = scores["score"] < self.best
        self.curve.append({"step": scores["step"], **means})
        self.validations.append({key: float(value) for key, value in scores.items()})
        return better

    def ended(self, patience: int) -> bool:
        """Return whether the last `patience` validations gave no better score."""
        since = [row["step"] for row in self.validations if row["step"] > self.best_step]
        return len(since) >= patience

    def summary(self) -> str:
        """Format the last losses and metrics for the progress bar."""
        own = self.validations[-1]
        shown = ", ".join(f"{key} {value:.3f}" for key, value in own.items() if key != "step")
        return f"loss {self.curve[-1]['loss']:.3f}, {shown}"


def _board(folder: pathlib.Path, step: int) -> Any:
    """Make a TensorBoard writer; None if tensorboardX is not installed. Entries of an earlier
    process after `step` are dropped."""
    try:
        module = importlib.import_module("tensorboardX")
    except ImportError:
        return None
    return module.SummaryWriter(str(folder), purge_step=step + 1)


def _write(board: Any, log: _Log) -> None:
    """Write the last rows of the curves to TensorBoard."""
    if board is None:
        return
    for kind, row in (("training", log.curve[-1]), ("validation", log.validations[-1])):
        for key in row.keys() - {"step"}:
            board.add_scalar(f"{kind}/{key}", row[key], int(row["step"]))
    board.flush()


def _save(manager: ocp.CheckpointManager, state: TrainState, best: PyTree, log: _Log) -> None:
    """Save the state, the best parameters and the curves in one checkpoint."""
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
            f"({str(error).splitlines()[0]}): remove the folder to start again"
        ) from error
    return found["state"], found["best"], _Log(**found["log"])
