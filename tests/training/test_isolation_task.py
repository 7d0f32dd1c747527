"""Training input of isolation: no information that is missing in use."""

import jax
import jax.numpy as jnp
import pytest
from jax.random import key_data, split

from dartjax import camera, transforms
from dartjax.models import ISOLATION_PRESETS, IsolationNet
from dartjax.registration import stack
from dartjax.training import IsolationBatch
from dartjax.training import _isolation_task as isolation_task
from tests.registration import scenes


class Enough(Exception):
    """All that was asked for is known."""


def test_a_crop_is_independent_of_the_error_of_its_estimate(monkeypatch):
    crops, shown = [], []

    def crop(own, key):
        crops.append(key)
        return own

    def show(models, own, key, tone):
        shown.append(key)
        raise Enough

    monkeypatch.setattr(isolation_task, "_other_crop", crop)
    monkeypatch.setattr(isolation_task, "_shown", show)
    empty = jnp.zeros((2, 1, 1))
    view = camera.from_carm(transforms.carm_rotation(0.3, 0.1), jnp.zeros(3))
    poses = stack([transforms.SE3.identity()] * 2)
    batch = IsolationBatch(
        empty, empty, stack([view, view]), empty, poses, empty, jnp.zeros(2, int)
    )
    net, models = IsolationNet(ISOLATION_PRESETS["smoke"]), stack([scenes.model()])
    cost = isolation_task.isolation_training_loss(net, models)
    with jax.disable_jit(), pytest.raises(Enough):
        cost({}, batch, jax.random.key(0))

    def below(key):
        """Collect the data of a key and of the keys split from it."""
        children = [child for n in (2, 3, 5) for child in split(key, n)]
        further = [each for child in children for n in (2, 3, 5) for each in split(child, n)]
        return {tuple(key_data(each).tolist()) for each in (key, *children, *further)}

    assert len(crops) == 2 and len(shown) == 1
    assert not below(crops[0]) & below(shown[0])
