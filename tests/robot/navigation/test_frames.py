"""The chain of frames, and the hand-eye calibration against simulated ground truth."""

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.robot import StatusCode
from dartjax.robot.navigation import FrameChain, hand_eye
from dartjax.transforms import SE3

solve = jax.jit(hand_eye)


def frame(seed, mm=200.0, rad=0.8):
    key_v, key_w = jax.random.split(jax.random.key(seed))
    shift, turn = mm * jax.random.normal(key_v, (3,)), rad * jax.random.normal(key_w, (3,))
    return SE3.exp(jnp.concatenate([shift, turn]))


def stacked(frames):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *frames)


def scene(count=8, noise_mm=0.0):
    """Flange poses and what a tracker sees of the marker on the flange."""
    T_flange_marker, T_base_tracker = frame(100), frame(101)
    flanges = [frame(seed) for seed in range(count)]
    markers = [T_base_tracker.inverse() @ flange @ T_flange_marker for flange in flanges]
    noise = noise_mm * jax.random.normal(jax.random.key(9), (count, 6)).at[:, 3:].mul(1e-3)
    seen = [marker @ SE3.exp(each) for marker, each in zip(markers, noise, strict=True)]
    return T_flange_marker, T_base_tracker, stacked(flanges), stacked(seen)


def test_the_chain_closes(x64):
    """A point of the patient measured by the tracker maps to its position in the base frame."""
    T_base_tracker, T_flange_marker, T_base_flange = frame(0), frame(1), frame(2)
    T_tracker_patientmarker, T_patientmarker_patient = frame(3), frame(4)
    chain = FrameChain(
        T_base_flange,
        T_flange_marker,
        T_base_tracker.inverse() @ T_base_flange @ T_flange_marker,
        T_tracker_patientmarker,
        T_patientmarker_patient,
    )
    point = jnp.array([10.0, -20.0, 30.0])
    on_tracker = T_tracker_patientmarker.apply(T_patientmarker_patient.apply(point))
    expected = T_base_tracker.apply(on_tracker)
    np.testing.assert_allclose(chain.T_base_patient.apply(point), expected, atol=1e-9)


def test_hand_eye_is_recovered(x64):
    T_flange_marker, T_base_tracker, flanges, markers = scene()
    found, status = solve(flanges, markers)
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(
        found.T_flange_marker.as_matrix(), T_flange_marker.as_matrix(), atol=1e-8
    )
    np.testing.assert_allclose(
        found.T_base_tracker.as_matrix(), T_base_tracker.as_matrix(), atol=1e-8
    )
    assert float(found.residual_mm) < 1e-8


def test_hand_eye_with_noise(x64):
    T_flange_marker, _, flanges, markers = scene(count=8, noise_mm=0.1)
    found, status = solve(flanges, markers)
    gap = found.T_flange_marker.translation() - T_flange_marker.translation()
    assert int(status) == StatusCode.OK
    assert 1e-3 < float(jnp.linalg.norm(gap)) < 0.5
    assert 0.05 < float(found.residual_mm) < 0.5


def test_rotations_about_one_axis_do_not_determine_it(x64):
    T_flange_marker, T_base_tracker = frame(100), frame(101)
    turns = [jnp.array([10.0 * i, 5.0, 3.0, 0.0, 0.0, 0.3 * i]) for i in range(8)]
    flanges = [SE3.exp(turn) for turn in turns]
    markers = [T_base_tracker.inverse() @ flange @ T_flange_marker for flange in flanges]
    _, status = solve(stacked(flanges), stacked(markers))
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY


def test_nan_has_a_status(x64):
    _, _, flanges, markers = scene()
    lost = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), markers)
    assert int(solve(flanges, lost)[1]) == StatusCode.BAD_PARAMETER


def test_two_poses_do_not_determine_it(x64):
    _, _, flanges, markers = scene(count=2)
    assert int(hand_eye(flanges, markers)[1]) == StatusCode.DEGENERATE_GEOMETRY


def half_turns(*axes):
    """Flange poses turned by pi about each axis."""
    frames = [SE3.exp(jnp.array([50.0, -20.0, 10.0, *(np.pi * np.array(axis))])) for axis in axes]
    return [SE3.identity(), *frames]


def seen_by_tracker(flanges):
    T_flange_marker, T_base_tracker = frame(100), frame(101)
    return T_flange_marker, [T_base_tracker.inverse() @ each @ T_flange_marker for each in flanges]


def test_half_turns_alone_do_not_determine_it(x64):
    flanges = 2 * half_turns((1, 0, 0), (0, 1, 0), (0, 0, 1))
    _, markers = seen_by_tracker(flanges)
    _, status = solve(stacked(flanges), stacked(markers))
    assert int(status) == StatusCode.DEGENERATE_GEOMETRY


def test_a_half_turn_among_others_does_no_harm(x64):
    flanges = [*half_turns((0.6, 0.8, 0.0)), *(frame(seed) for seed in range(6))]
    T_flange_marker, markers = seen_by_tracker(flanges)
    found, status = solve(stacked(flanges), stacked(markers))
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(
        found.T_flange_marker.as_matrix(), T_flange_marker.as_matrix(), atol=1e-6
    )


def test_inverted_markers_do_not_close(x64):
    _, _, flanges, markers = scene()
    found, status = solve(flanges, jax.vmap(lambda T: T.inverse())(markers))
    assert float(found.residual_mm) > 100.0
    assert int(status) == StatusCode.CLOSURE_TOO_LARGE
