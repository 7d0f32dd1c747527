"""Scenes with misplaced cameras, and trials on disk."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, pipeline
from dartjax.pipeline import CameraMisplacement
from dartjax.pipeline.studies._stress import with_misplaced_cameras
from tests.pipeline.answers import task
from tests.pipeline.studies.failure_trials import trials
from tests.registration import scenes


def test_trials_are_saved_without_pickle(tmp_path):
    found = trials(20)
    pipeline.save_failure_trials(tmp_path / "trials.npz", found)
    again = pipeline.join_failure_trials(
        [pipeline.load_failure_trials(tmp_path / "trials.npz")] * 2
    )
    assert len(again.failed) == 40
    np.testing.assert_array_equal(again.subject[:20], found.subject)
    np.testing.assert_array_equal(again.path_error[20:], found.path_error)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    with pytest.raises(data.DataError, match="no trials"):
        pipeline.load_failure_trials(tmp_path / "bad.npz")
    pipeline.save_failure_trials(
        tmp_path / "old.npz", found._replace(features=found.features[:, 1:])
    )
    with pytest.raises(data.DataError, match="other features"):
        pipeline.load_failure_trials(tmp_path / "old.npz")


def test_cameras_are_wrong_for_a_whole_scene_and_within_the_bounds():
    middle = np.asarray(scenes.TRUE_POSE.translation())
    rng = np.random.default_rng(0)
    pair = [task("T9"), task("T10")]
    first, second = with_misplaced_cameras(pair, middle, 1.0, CameraMisplacement(), rng)
    moved, true = first.observations.cameras, pair[0].observations.cameras
    for a, b in zip(
        jax.tree.leaves(moved), jax.tree.leaves(second.observations.cameras), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    between = jax.vmap(lambda a, b: a.inverse() @ b)(
        moved.camera_from_world, true.camera_from_world
    )
    turn = np.rad2deg(np.linalg.norm(jax.vmap(lambda r: r.rotation().log())(between), axis=1))
    assert (turn > 0.0).all()
    assert (turn <= 3.0).all()
    shift = jax.vmap(lambda m: m.apply(jnp.asarray(middle, jnp.float32)))(between) - middle[None]
    distance = np.linalg.norm(shift, axis=1)
    assert (distance > 0.0).all()
    assert (distance <= 10.0).all()
    assert abs(turn[0] - turn[1]) > 1e-3  # every view has its own error


def test_zero_severity_leaves_the_cameras_unchanged():
    (same,) = with_misplaced_cameras(
        [task()], np.zeros(3), 0.0, CameraMisplacement(), np.random.default_rng(0)
    )
    before, after = (jax.tree.leaves(cast(Any, t).observations.cameras) for t in (task(), same))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
