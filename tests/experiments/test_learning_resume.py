"""The checkpoints of a training are continued by the same command only."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest

from dartjax import training
from dartjax.data import DataError
from dartjax.training import _run as training_run
from experiments.common import learning
from experiments.train_isolation.settings import Settings


def train(settings, seed=0, subjects=("synth0000",), steps=3):
    plan = training.Training(
        loss=lambda params, batch, key: (jnp.sum(params["w"] ** 2), {}),
        batch_of=lambda step: jnp.zeros(()),
        validate=lambda params: {"score": float(jnp.sum(params["w"] ** 2))},
        schedule=training.Schedule(steps),
        seed=seed,
        validate_every=1,
        patience=9,
    )
    params, home = {"w": jnp.ones(2)}, settings.crops
    return learning.train("isolation", "smoke", settings, subjects, params, plan, home)


def test_a_training_with_other_settings_does_not_continue_from_these_checkpoints(tmp_path):
    settings = Settings(crops=str(tmp_path), validation=("synth0001",), minutes=0.0)
    assert train(settings).steps_run == 1
    different: list[dict[str, Any]] = [
        {"seed": 1},
        {"steps": 4},
        {"subjects": ("synth0000", "synth0002")},
    ]
    for others in different:
        with pytest.raises(DataError, match=r"was started with .*--work"):
            train(settings, **others)
    with pytest.raises(DataError, match="validation"):
        train(dataclasses.replace(settings, validation=("synth0003",)))
    whole = dataclasses.replace(settings, minutes=float("inf"), checkpoint_minutes=0.0)
    assert train(whole).steps_run == 2


def test_a_checkpoint_after_every_step(tmp_path, monkeypatch):
    saved = []
    settings = Settings(crops=str(tmp_path), checkpoint_minutes=0.0)
    write = training_run._save
    monkeypatch.setattr(
        training_run,
        "_save",
        lambda manager, state, *rest: (saved.append(int(state.step)), write(manager, state, *rest)),
    )
    train(settings)
    assert saved == [1, 2, 3]
