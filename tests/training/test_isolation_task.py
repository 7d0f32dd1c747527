"""What isolation is shown in training: nothing that it will not have in use."""

import jax
import jax.numpy as jnp
import pytest
from jax.random import key_data, split

from dartjax.models import ISOLATION_PRESETS, IsolationNet
from dartjax.training import Batch
from dartjax.training import _isolation_task as isolation_task


class Enough(Exception):
    """All that was asked for is known."""


def test_a_crop_does_not_foretell_how_wrong_its_guess_is(monkeypatch):
    crops, shown = [], []

    def crop(own, key):
        crops.append(key)
        return own

    def show(models, own, key, tone):
        shown.append(key)
        raise Enough

    monkeypatch.setattr(isolation_task, "_other_crop", crop)
    monkeypatch.setattr(isolation_task, "_shown", show)
    empty = jnp.zeros((2, 1))
    batch = Batch(empty, empty, empty, empty, empty, empty, jnp.zeros(2, int))  # pyright: ignore
    cost = isolation_task.loss(IsolationNet(ISOLATION_PRESETS["smoke"]), None)  # pyright: ignore
    with jax.disable_jit(), pytest.raises(Enough):
        cost({}, batch, jax.random.key(0))

    def below(key):
        """The numbers a key and those split off it stand for."""
        children = [child for n in (2, 3, 5) for child in split(key, n)]
        further = [each for child in children for n in (2, 3, 5) for each in split(child, n)]
        return {tuple(key_data(each).tolist()) for each in (key, *children, *further)}

    assert len(crops) == 2 and len(shown) == 1
    assert not below(crops[0]) & below(shown[0])
