"""Recipes: order of the results, flags, and compilation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.pipeline import _joint, _recipes, _task
from dartjax.registration import TIERS, Reconstruction, _presets
from tests.pipeline.vertebrae import answer_of, two_tasks


@pytest.fixture(scope="module")
def tasks():
    return two_tasks()


def of_scene(models, observations, starts, order, coefficients=None):
    """Replace `fit_together` by one that returns the starts; the status is `present`."""

    def one(start, along, present, coefficients):
        if coefficients is None:
            coefficients = jnp.zeros(models.modes.shape[1])
        agreement = jnp.ones(1)
        return Reconstruction(
            start, coefficients, along, jnp.zeros(1), agreement, present.astype(jnp.int32)
        )

    return jax.vmap(one)(starts, order.along, order.present, coefficients)


@pytest.mark.slow
def test_the_joint_fit_returns_results_in_the_order_of_the_tasks(tasks, monkeypatch):
    monkeypatch.setattr(_joint, "_program", lambda options: of_scene)
    other = dataclasses.replace(tasks[0], pair=1, tier=TIERS[2])
    mixed = [tasks[0], other, dataclasses.replace(tasks[0], level="T10")]
    estimates, seconds = _recipes.run_method(
        _presets.JOINT, mixed, num_starts=1, seed=0, step=lambda note: None
    )
    assert [estimate.status for estimate in estimates] == [1, 0, 1]
    for task, estimate in zip(mixed, estimates, strict=True):
        np.testing.assert_allclose(estimate.pose.parameters(), task.start.parameters(), atol=1e-6)
    assert seconds >= 0.0
    initial = [answer_of(task, coefficients=jnp.full(15, float(i))) for i, task in enumerate(mixed)]
    found, _ = _joint.fit_jointly(
        _presets.FIT_OPTIONS[_presets.JOINT],
        mixed,
        step=lambda note: None,
        initial=initial,
    )
    for was, now in zip(initial, found, strict=True):
        np.testing.assert_array_equal(now.coefficients, was.coefficients)
        np.testing.assert_allclose(now.pose.parameters(), was.pose.parameters(), atol=1e-6)


def test_a_spine_of_unusual_size_is_flagged_as_a_whole(tasks):
    grown = dataclasses.replace(tasks[0].model, modes=tasks[0].model.mean_shape[None])
    first, second = (dataclasses.replace(tasks[0], model=grown, level=x) for x in ("T9", "T10"))

    def statuses(*sizes, status=0):
        given = [
            _task.Estimate(first.start, jnp.array([size - 1.0]), status, 0.9) for size in sizes
        ]
        return [each.status for each in _task.flag_unusual_sizes([first, second], given)]

    assert statuses(1.1, 1.1) == statuses(1.2, 0.9) == statuses(0.95, 0.9) == [0, 0]
    assert statuses(1.1, 1.25) == statuses(0.8, 0.85) == [_task.UNUSUAL_SIZE] * 2
    assert statuses(1.2, 1.2, status=2) == [2, 2]


def test_equal_settings_share_one_fit_function():
    assert _recipes._case_fit("ncc", 1) is _recipes._case_fit("ncc", 1)
    assert _recipes._case_fit("ncc", 1) is not _recipes._case_fit("ncc", 2)
    rows = {*_recipes.FITTED_ALONE, _presets.JOINT, *_recipes.NEEDED_NETWORK}
    assert set(_recipes.RECIPES.values()) == rows - {_recipes.TRUE_ISOLATION}


@pytest.mark.slow
def test_a_second_subject_compiles_no_program(tasks, monkeypatch):
    """Two subjects of different size: the function of a method is traced once for both."""
    traced = []

    def fit(model, seen, start, options):
        traced.append(options)
        return _recipes._from_landmarks(model, seen, start)

    monkeypatch.setattr(_recipes, "fit", fit)
    _recipes._case_fit.cache_clear()
    for subject in (tasks, [*tasks, tasks[0]], tasks[:1]):
        estimates, _ = _recipes.run_method(
            "ncc", subject, num_starts=1, seed=0, step=lambda note: None
        )
        assert len(estimates) == len(subject)
        assert all(np.isfinite(jax.tree.leaves(e.pose)[0]).all() for e in estimates)
    assert len(traced) == 1
    _recipes._case_fit.cache_clear()
