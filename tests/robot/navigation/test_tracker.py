"""The simulated tracker: noise of frames and their mean, and the chain of markers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode
from dartjax.robot.navigation import (
    Tracker,
    marker_frames,
    mean_marker,
    measure_marker,
    tool_in_patient,
)
from dartjax.transforms import SE3, SO3

TRACKER = Tracker()
TRUTH = SE3.from_rotation_and_translation(
    SO3.from_rpy_radians(2.5, -0.7, 3.0), jnp.array([200.0, -400.0, 1500.0])
)
measure = jax.jit(jax.vmap(lambda key: measure_marker(TRUTH, TRACKER, key=key)))
single = jax.jit(jax.vmap(lambda key: measure_marker(TRUTH, TRACKER, 1, key=key)))
mean_of = jax.jit(mean_marker)


def errors(measured):
    gap = jax.vmap(lambda T: TRUTH.inverse() @ T)(measured)
    return np.asarray(gap.translation()), np.asarray(jax.vmap(lambda T: T.rotation().log())(gap))


@pytest.mark.slow
def test_the_mean_of_60_frames_has_an_eighth_of_the_noise():
    keys = jax.random.split(jax.random.key(0), 600)
    for each, frames in ((single(keys), 1), (measure(keys), 60)):
        shift, turn = errors(each)
        expected = 1.0 / np.sqrt(frames)
        np.testing.assert_allclose(shift.std(axis=0), 0.1 * expected, rtol=0.1)
        np.testing.assert_allclose(turn.std(axis=0), 8.7e-4 * expected, rtol=0.1)
        assert np.abs(shift.mean(axis=0)).max() < 0.02


def test_error_of_a_tool_200_mm_from_both_markers():
    """One frame of each marker gives about 0.39 mm."""
    lever = jnp.array([0.0, 0.0, 200.0])
    first, second = (single(jax.random.split(jax.random.key(i), 2000)) for i in (1, 2))
    at = jax.vmap(lambda T: (TRUTH.inverse() @ T).apply(lever) - lever)
    distance = np.linalg.norm(at(first) - at(second), axis=1)
    assert np.mean(distance) == pytest.approx(0.39, abs=0.02)


def test_hidden_frames_are_ignored():
    frames = marker_frames(TRUTH, TRACKER, key=jax.random.key(3))
    wild = jax.tree.map(lambda leaf: leaf.at[:20].set(jnp.nan), frames)
    found, status = mean_of(wild, jnp.arange(60) >= 20, TRACKER)
    assert status == StatusCode.OK
    shift = (TRUTH.inverse() @ found.T_tracker_marker).translation()
    assert float(jnp.max(jnp.abs(shift))) < 0.08
    assert float(found.scatter_mm) == pytest.approx(0.1, rel=0.3)


def test_a_hidden_or_loose_marker_is_rejected():
    frames = marker_frames(TRUTH, TRACKER, key=jax.random.key(4))
    assert mean_of(frames, jnp.arange(60) < 20, TRACKER)[1] == StatusCode.DETECTION_FAILED
    assert mean_of(frames, jnp.zeros(60, bool), TRACKER)[1] == StatusCode.DETECTION_FAILED
    drift = jnp.linspace(0.0, 2.0, 60)[:, None] * jnp.array([[1.0, 0.0, 0.0]])
    moved = jax.vmap(lambda T, d: SE3.from_translation(d) @ T)(frames, drift)
    assert mean_of(moved, jnp.ones(60, bool), TRACKER)[1] == StatusCode.CLOSURE_TOO_LARGE


def test_the_pose_of_the_tracker_cancels():
    def pose(seed):
        return SE3.exp(jax.random.normal(jax.random.key(seed), (6,)))

    T_patient_robot, T_robot_tool = pose(1), pose(2)
    for seed in (3, 4):
        T_tracker_patient = pose(seed)
        chain = tool_in_patient(
            T_tracker_patient, T_tracker_patient @ T_patient_robot, T_robot_tool
        )
        expected = (T_patient_robot @ T_robot_tool).as_matrix()
        np.testing.assert_allclose(chain.as_matrix(), expected, atol=1e-5)
