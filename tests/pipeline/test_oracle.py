"""Oracle ablation: tasks with one part of the ground truth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, ssm
from dartjax.pipeline import _oracle
from dartjax.simulation import _ground_truth
from tests.pipeline.vertebrae import answer_of, two_tasks

REVEAL_FUNCTIONS = (
    _oracle.with_true_isolation,
    _oracle.with_true_masks,
    _oracle.with_true_landmarks,
    _oracle.with_true_start,
    _oracle.with_true_shape,
)


@pytest.fixture(scope="module")
def tasks():
    return two_tasks()


def test_each_function_reveals_one_part_of_the_truth(tasks):
    task = tasks[0]
    revealed = {reveal: reveal(task) for reveal in REVEAL_FUNCTIONS}
    masks = np.asarray(revealed[_oracle.with_true_masks].observations.masks)
    truth = _ground_truth.true_masks(task.truth, _views_of(task))
    np.testing.assert_array_equal(masks > 0.5, truth)
    seen = revealed[_oracle.with_true_landmarks].observations
    expected = camera.project(_views_of(task)[1], task.truth.landmarks)
    np.testing.assert_allclose(seen.landmarks[1], expected, atol=1e-3)
    assert np.isfinite(np.asarray(seen.landmark_sigma)).all()
    start = revealed[_oracle.with_true_start].start.parameters()
    np.testing.assert_array_equal(start, task.truth.oracle.pose.parameters())
    best = ssm.instance(task.model, task.truth.oracle.coefficients)
    np.testing.assert_array_equal(revealed[_oracle.with_true_shape].model.mean_shape, best)
    parts = ("observations", "start", "model")
    changed = [
        [part for part in parts if getattr(each, part) is not getattr(task, part)]
        for each in revealed.values()
    ]
    assert changed == [["observations"]] * 3 + [["start"], ["model"]]


def test_the_result_for_a_true_shape_uses_the_modes_of_the_model(tasks):
    best = jnp.linspace(-1.0, 1.0, tasks[0].model.num_modes)
    oracle = tasks[0].truth.oracle._replace(coefficients=best)
    truth = dataclasses.replace(tasks[0].truth, oracle=oracle)
    task = dataclasses.replace(tasks[0], truth=truth)
    revealed = _oracle.with_true_shape(task)
    found = answer_of(revealed, coefficients=jnp.full(task.model.num_modes, 2.0))
    own = _oracle.in_own_modes(task, revealed, found)
    np.testing.assert_allclose(
        ssm.instance(task.model, own.coefficients),
        ssm.instance(revealed.model, found.coefficients),
        atol=1e-4,
    )


def _views_of(task):
    cameras = task.observations.cameras
    return [jax.tree.map(lambda leaf, k=k: leaf[k], cameras) for k in range(2)]
