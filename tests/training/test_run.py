"""Training runs: resume, early stopping, TensorBoard, damaged checkpoints."""

import shutil
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.data import DataError, only_writer
from dartjax.training import Schedule
from dartjax.training import _run as training_run

PARAMS = {"w": jnp.zeros(3)}
TRUE = jnp.array([1.0, -1.0, 2.0])


def loss(params, batch, key):
    off = params["w"] - TRUE + 0.1 * jax.random.normal(key, (3,))
    return jnp.sum(off**2) + 0.0 * batch, {"first": params["w"][0]}


def score(params):
    return {"score": float(jnp.sum((params["w"] - TRUE) ** 2))}


def training(patience=100, validate=score):
    return training_run.Training(
        loss=loss,
        batch_of=lambda step: jnp.asarray(float(step)),
        validate=validate,
        schedule=Schedule(60, learning_rate=0.1, warmup_steps=5),
        seed=3,
        validate_every=10,
        patience=patience,
    )


def quiet(note):
    pass


def test_a_resumed_run_has_the_same_curve(tmp_path):
    whole = training_run.train(PARAMS, training(), tmp_path / "whole", quiet)
    for _ in range(12):  # no more time than one step each: stopped before and after a validation
        parts = training_run.train(PARAMS, training(), tmp_path / "parts", quiet, minutes=0.0)
        assert parts.steps_run == 1
    parts = training_run.train(PARAMS, training(), tmp_path / "parts", quiet)
    assert parts.steps_run == 48 and whole.steps_run == 60
    assert parts.curve == whole.curve and parts.validations == whole.validations
    assert parts.step == whole.step and parts.score < 0.1
    np.testing.assert_array_equal(parts.params["w"], whole.params["w"])
    assert list((tmp_path / "parts" / "tensorboard").glob("events*"))


def test_the_curves_are_written_for_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    written = []
    writer = SimpleNamespace(
        add_scalar=lambda *row: written.append(row), flush=lambda: None, close=lambda: None
    )
    monkeypatch.setattr("tensorboardX.SummaryWriter", lambda *args, **options: writer)
    found = training_run.train(PARAMS, training(), tmp_path / "work", quiet)
    scores = {step: value for name, value, step in written if name == "validation/score"}
    assert scores == {row["step"]: row["score"] for row in found.validations}
    assert {name for name, *_ in written} >= {"training/loss", "training/first"}


def test_tensorboard_can_be_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert training_run.train(PARAMS, training(), tmp_path / "work", quiet).steps_run == 60
    assert not (tmp_path / "work" / "tensorboard").exists()


def test_it_ends_when_validation_no_longer_improves(tmp_path):
    scores = iter([3.0, 2.0, 2.5, 2.6, 2.7, 1.0])
    found = training_run.train(
        PARAMS, training(3, lambda params: {"score": next(scores)}), tmp_path, quiet
    )
    assert [row["score"] for row in found.validations] == [3.0, 2.0, 2.5, 2.6, 2.7]
    assert found.step == 20 and found.score == 2.0


def test_what_a_killed_save_left_is_removed(tmp_path):
    training_run.train(PARAMS, training(), tmp_path, quiet, minutes=0.0)
    half = tmp_path / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    found = training_run.train(PARAMS, training(), tmp_path, quiet, minutes=0.0)
    assert found.steps_run == 1 and not half.exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with only_writer(tmp_path), pytest.raises(DataError, match="another process"):
        training_run.train(PARAMS, training(), tmp_path, quiet)


def test_a_checkpoint_of_another_network_is_rejected(tmp_path):
    training_run.train(PARAMS, training(), tmp_path / "work", quiet, minutes=0.0)
    with pytest.raises(DataError, match="does not fit this network or is damaged"):
        training_run.train({"w": jnp.zeros((2, 2))}, training(), tmp_path / "work", quiet)
    for file in (tmp_path / "work").rglob("manifest*"):
        file.write_bytes(b"")
    for file in (tmp_path / "work").rglob("_METADATA"):
        file.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        training_run.train(PARAMS, training(), tmp_path / "work", quiet)
    shutil.rmtree(tmp_path / "work")
