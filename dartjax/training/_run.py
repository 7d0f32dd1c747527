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

from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.training._loop import Loss, Schedule, TrainState, train_state, train_step


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
    curve: list[dict[str, float | int]]  # mean of the training numbers between validations
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
    """Train to the end of the schedule, or until it no longer helps, or for so many minutes of
    this process (the checkpoint stays, and a second call goes on). Where tensorboardX is installed
    (`dartjax[log]`), the curves are written to `work`/tensorboard as they grow."""
    run = _Run(params, training, work)
    begun = saved = time.monotonic()
    first, late = run.step, False
    while not (late or run.is_finished):
        run.advance()
        if run.validation_is_due:
            run.validate()
            step(f"step {run.step}: {run.log.summary()}")
            _write(run.board, run.log)
        late = time.monotonic() - begun > 60.0 * minutes
        since_saved = time.monotonic() - saved
        if late or run.is_last or since_saved > 60.0 * checkpoint_minutes:
            run.save()
            saved = time.monotonic()
    run.close()
    # A run that was stopped is judged as it stands; the checkpoint goes on without that.
    if run.log.recent:
        run.validate()
    log, seconds = run.log, time.monotonic() - begun
    return Trained(
        run.best, log.best, log.best_step, log.curve, log.validations, seconds, run.step - first
    )


class _Run:
    """A training that goes on: its state, the best parameters so far, and where both are kept."""

    def __init__(self, params: PyTree, training: Training, work: pathlib.Path):
        work.mkdir(parents=True, exist_ok=True)
        self.training = training
        self.state, self.best = train_state(params, training.schedule), params
        self.log = _Log()
        self.manager = ocp.CheckpointManager(
            work.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=1)
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
        """How many steps have been made."""
        return int(self.state.step)

    @property
    def is_last(self) -> bool:
        """Whether the schedule has come to its end."""
        return self.step >= self.training.schedule.num_steps

    @property
    def is_finished(self) -> bool:
        """Whether it is at its end, or no longer helps."""
        return self.is_last or self.log.ended(self.training.patience)

    @property
    def validation_is_due(self) -> bool:
        """Every so many steps, and after the last."""
        return self.step % self.training.validate_every == 0 or self.is_last

    def advance(self) -> None:
        """One step."""
        self.state, numbers = self._advanced(self.state, self.training.batch_of(self.step))
        numbers = jax.device_get(numbers)
        self.log.recent.append({key: float(value) for key, value in numbers.items()})

    def validate(self) -> None:
        """Judge the averaged parameters, and keep them if they are the best."""
        if self.log.add({"step": self.step, **self.training.validate(self.state.average)}):
            self.best = self.state.average

    def save(self) -> None:
        """Write a checkpoint."""
        _save(self.manager, self.state, self.best, self.log)

    def close(self) -> None:
        """Nothing is written any more."""
        self.manager.close()
        if self.board is not None:
            self.board.close()


class _Log:
    """The curves so far, and the best validation."""

    def __init__(self, **content: Any):
        self.recent: list[dict[str, float]] = content.get("recent", [])  # since a validation
        self.curve: list[dict[str, float | int]] = content.get("curve", [])
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

    def add(self, scores: dict[str, float | int]) -> bool:
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
