"""Tasks, estimates and a failure model with hand-chosen values."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from dartjax import camera, data, transforms
from dartjax.image import Radiograph
from dartjax.pipeline import ALL_FEATURE_NAMES, Estimate, Task
from dartjax.registration import FEATURE_NAMES, observe
from tests.registration import scenes

LEVELS = ("T8", "T9", "T10")
MODELS = {level: data.load_shape_model(level) for level in LEVELS}
OWN, ALL = len(FEATURE_NAMES), len(ALL_FEATURE_NAMES)


@functools.cache
def nothing_seen():
    """Make empty observations of two views of 8 x 8 pixels."""
    views = [camera.resize(view, (8, 8)) for view in scenes.views(-30.0, 50.0)]
    return observe([Radiograph(jnp.zeros((8, 8)), view) for view in views], views)


def task(level="T9", pair=0, observations=None, **changes):
    """Make the task of a vertebra in one pair of views, without ground truth."""
    start = transforms.SE3.identity()
    seen = nothing_seen() if observations is None else observations
    plain = Task("someone", level, pair, MODELS[level], seen, start, None, 90.0)
    return dataclasses.replace(plain, **changes)


def answer(pose=None, status=0):
    """Make the estimate of the mean shape at a pose."""
    return Estimate(pose or transforms.SE3.identity(), jnp.zeros(15), status, 0.9)


def stored(**changes):
    """Make a failure model with equal weights."""
    parts = {
        "features": ALL_FEATURE_NAMES,
        "mean": np.full(ALL, 2.0),
        "scale": np.ones(ALL),
        "weights": np.ones(ALL),
        "bias": 0.0,
        "threshold": 0.4,
        "inflation": np.array([2.0, 5.0]),
        "path_inflation": np.array([3.0, 8.0]),
        "card": {},
    }
    return data.StoredFailureModel(**{**parts, **changes})
