"""The hybrid robot: against a chain of 4 x 4 matrices, round trips, singularities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dartjax.robot import StatusCode
from dartjax.robot.arms import (
    branch_of,
    closing_sine,
    conditioning,
    hybrid_forward,
    hybrid_inverse,
    hybrid_inverse_jacobian,
    hybrid_jacobian,
    hybrid_margins,
    sample_joints,
    spine_hybrid,
    tool_frame,
    wire_direction,
    wire_pose,
    wire_tip,
)
from tests.gradients import assert_gradient

COUNT = 100_000
TILT = np.pi / 6
BOX = np.array([(550, 700), (350, 600), (-250, -20), (-TILT, TILT), (-TILT, TILT)])
MIDDLE = BOX.mean(1)


@pytest.fixture(scope="module")
def robot():
    with jax.enable_x64(True):
        return spine_hybrid()


@pytest.fixture(scope="module")
def poses():
    """Poses in the box of the experiments, and their joints and statuses."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        return jnp.asarray(BOX[:, 0] + rng.random((COUNT, 5)) * np.ptp(BOX, axis=1))


forward = jax.jit(hybrid_forward, static_argnames="assembly")
inverse = jax.jit(hybrid_inverse)
forward_all = jax.jit(jax.vmap(hybrid_forward, in_axes=(0, None)))
inverse_all = jax.jit(jax.vmap(hybrid_inverse, in_axes=(0, None)))


def rotation_x(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotation_y(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def chain_of_matrices(q, robot):
    """Tool point and rotation, link by link; the hinge by bisection on the angle of link CD."""
    l11, l14, l3, th4, th5 = q
    slider_b, slider_d = np.array([-l11, 0.0]), np.array([0.0, -l14])
    l12, l13 = float(robot.l12), float(robot.l13)

    def hinge(angle):
        return slider_d + l13 * np.array([np.cos(angle), np.sin(angle)])

    toward_b = np.arctan2(*(slider_b - slider_d)[::-1])
    low, high = toward_b - np.pi, toward_b  # the side of +y, +z; the gap to l12 falls
    for _ in range(200):
        middle = 0.5 * (low + high)
        is_far = np.linalg.norm(hinge(middle) - slider_b) > l12
        low, high = (middle, high) if is_far else (low, middle)
    angle = 0.5 * (low + high)
    th3 = angle + float(robot.gamma)
    arm = hinge(angle) + float(robot.L1) * np.array([np.cos(th3), np.sin(th3)])
    rotation = rotation_x(th3 + float(robot.theta)) @ rotation_x(th4) @ rotation_y(-th5)
    origin = np.array([l3, *arm])
    return origin + rotation @ [float(robot.d), 0.0, -float(robot.L2)], rotation


def test_forward_is_the_chain_of_links(robot, x64):
    drawn = jax.jit(lambda: sample_joints(robot, 40, key=jax.random.key(3)))()
    q, found, status = map(np.asarray, drawn)
    for each, pose in zip(q[status == 0], found[status == 0], strict=True):
        point, rotation = chain_of_matrices(np.asarray(each), robot)
        np.testing.assert_allclose(pose[:3], point, atol=1e-9)
        turned = rotation_x(float(pose[3])) @ rotation_y(float(pose[4]))
        np.testing.assert_allclose(turned, rotation, atol=1e-12)


def test_round_trips_of_100_000_poses(robot, poses, x64):
    q, status = inverse_all(poses, robot)
    assert (status == StatusCode.OK).all()
    back, status = forward_all(q, robot)
    assert (status == StatusCode.OK).all()
    assert np.abs(back - poses).max() < 1e-9
    again, _ = inverse_all(back, robot)
    assert np.abs(again - q).max() < 1e-9


def test_round_trips_from_joints_within_limits(robot, x64):
    q, found, status = sample_joints(robot, COUNT, key=jax.random.key(0))
    good = np.asarray(status) == StatusCode.OK
    assert good.mean() > 0.95  # the rest do not close
    back, status = inverse_all(found[good], robot)
    assert (status == StatusCode.OK).all()
    assert np.abs(back - q[good]).max() < 1e-9


def test_float32_stays_within_two_micrometres(poses):
    robot, poses = spine_hybrid(), jnp.asarray(np.asarray(poses), jnp.float32)
    q, _ = inverse_all(poses, robot)
    back, _ = forward_all(q, robot)
    error = np.abs(back - poses)
    assert error[:, :3].max() < 2e-3
    assert error[:, 3:].max() < 2e-6


by_branch = jax.jit(
    jax.vmap(
        lambda p, robot, sides, assembly: hybrid_inverse(p, robot, branch=sides, assembly=assembly)[
            0
        ],
        (0, None, None, None),
    )
)


@jax.jit
@jax.vmap
def on_both_sides(q, robot):
    """Pose and branch with the hinge on either side of the sliders' line."""
    both = [
        (hybrid_forward(q, robot, assembly=side)[0], branch_of(q, robot, assembly=side))
        for side in (1, -1)
    ]
    return tuple(jnp.stack(each) for each in zip(*both, strict=True))


@pytest.mark.parametrize("branch", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_every_branch_reaches_the_pose(robot, poses, branch, x64):
    """On one of the two assemblies; only (1, 1) within the joint limits."""
    few = poses[:200]
    q, mirrored = (by_branch(few, robot, jnp.asarray(branch, float), side) for side in (1, -1))
    assert not (np.isfinite(q) & np.isfinite(mirrored)).any()
    q = jnp.where(jnp.isfinite(q), q, mirrored)
    real = np.isfinite(q).all(1)
    within = (q >= robot.lower[None, :5]) & (q <= robot.upper[None, :5])
    assert within.all() if branch == (1, 1) else not within.all(1).any()
    assert real.sum() > 50
    q, few = q[real], few[real]
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(q), *leaf.shape)), robot)
    back, sides = on_both_sides(q, stacked)
    gap = np.array(back - few[:, None])
    gap[..., 3] -= 2.0 * np.pi * np.round(gap[..., 3] / (2.0 * np.pi))  # th4: up to whole turns
    gap = np.abs(gap).max(2)
    assert gap.min(1).max() < 1e-8
    assert (np.asarray(sides)[np.arange(len(q)), gap.argmin(1)] == np.asarray(branch)).all()


def test_jacobian_is_the_derivative(robot, poses, x64):
    step, jacobian_of = 1e-5, jax.jit(hybrid_jacobian)
    for q in inverse_all(poses[:5], robot)[0]:
        jacobian = np.asarray(jacobian_of(q, robot))
        for joint, move in enumerate(step * jnp.eye(5)):
            ahead, behind = (forward(q + sign * move, robot)[0] for sign in (1.0, -1.0))
            expected = (ahead - behind) / (2.0 * step)
            np.testing.assert_allclose(jacobian[:, joint], expected, atol=1e-6)


def test_closed_inverse_jacobian(robot, poses, x64):
    few = poses[:2000]
    q, _ = inverse_all(few, robot)
    jacobian = jax.jit(jax.vmap(hybrid_jacobian, in_axes=(0, None)))(q, robot)
    closed = jax.jit(jax.vmap(hybrid_inverse_jacobian, in_axes=(0, None)))(few, robot)
    np.testing.assert_allclose(
        jacobian @ closed, np.broadcast_to(np.eye(5), (2000, 5, 5)), atol=1e-9
    )


def test_the_box_is_well_conditioned(robot, poses, x64):
    q, _ = inverse_all(poses[:2000], robot)
    found = jax.jit(jax.vmap(conditioning, in_axes=(0, None)))(q, robot)
    assert found.slider_condition.max() < 5.8
    assert np.abs(found.determinant).min() > 1.0
    assert found.condition.max() < 6.0
    assert found.least_singular_value.min() > 0.4


def test_directions(robot, x64):
    """l3 moves +x; the wire points down; tilting about x leans it to +y, about y to -x."""
    q, _ = inverse(jnp.asarray(MIDDLE), robot)
    ahead, _ = forward(q + jnp.array([0.0, 0.0, 5.0, 0.0, 0.0]), robot)
    np.testing.assert_allclose(ahead - MIDDLE, [5.0, 0.0, 0.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(wire_direction(jnp.zeros(2)), [0.0, 0.0, -1.0], atol=1e-12)
    assert wire_direction(jnp.array([0.2, 0.0]))[1] > 0.1
    assert wire_direction(jnp.array([0.0, 0.2]))[0] < -0.1


def test_feed_moves_the_tip_along_the_wire(x64):
    pose = jnp.array([600.0, 450.0, -100.0, 0.3, -0.2])
    frame, tip = tool_frame(pose), wire_tip(pose, 30.0)
    np.testing.assert_allclose(frame.inverse().apply(tip), [0.0, 0.0, -30.0], atol=1e-9)
    np.testing.assert_allclose(wire_tip(pose, 0.0), pose[:3], atol=1e-12)
    again = wire_pose(pose[:3], wire_direction(pose[3:]))
    np.testing.assert_allclose(again, pose, atol=1e-12)


def at(**changes):
    pose = dict(zip("xyz", MIDDLE[:3], strict=True)) | {"tilt_x": 0.0, "tilt_y": 0.0} | changes
    return jnp.array(list(pose.values()), float)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, StatusCode.OK),
        ({"y": 860.0}, StatusCode.UNREACHABLE_POSE),  # the arm's greatest reach is 859.7 mm
        ({"y": -860.0}, StatusCode.UNREACHABLE_POSE),
        ({"z": 900.0}, StatusCode.UNREACHABLE_POSE),  # hinge farther than l12 from slider B
        ({"y": 859.5, "z": -250.0}, StatusCode.SINGULAR_CONFIGURATION),
        ({"y": 859.5}, StatusCode.UNREACHABLE_POSE),  # only with the hinge on the other side
        ({"z": -505.0}, StatusCode.SINGULAR_CONFIGURATION),
        ({"x": 1200.0}, StatusCode.JOINT_LIMIT),
        ({"tilt_x": 1.2}, StatusCode.JOINT_LIMIT),
        ({"tilt_y": 0.8}, StatusCode.JOINT_LIMIT),
        ({"z": jnp.nan}, StatusCode.BAD_PARAMETER),
        ({"x": jnp.inf}, StatusCode.BAD_PARAMETER),
    ],
)
def test_status_of_the_inverse(robot, x64, changes, code):
    q, status = inverse(at(**changes), robot)
    assert StatusCode(int(status)) == code
    without = code in (StatusCode.UNREACHABLE_POSE, StatusCode.BAD_PARAMETER)
    assert np.isnan(q).all() if without else np.isfinite(q).all()


@pytest.mark.parametrize(
    ("l11", "l14", "code"),
    [
        (400.0, 600.0, StatusCode.OK),
        (0.0, 0.0, StatusCode.UNREACHABLE_POSE),  # both sliders in one point
        (570.0, 930.0, StatusCode.UNREACHABLE_POSE),  # farther apart than both links
        (10.0, 20.0, StatusCode.UNREACHABLE_POSE),  # nearer than the links' difference
        (500.0, np.sqrt(1029.9**2 - 500.0**2), StatusCode.SINGULAR_CONFIGURATION),
        (580.0, 600.0, StatusCode.JOINT_LIMIT),
        (np.nan, 600.0, StatusCode.BAD_PARAMETER),
    ],
)
def test_status_of_the_forward_map(robot, x64, l11, l14, code):
    q = jnp.array([l11, l14, 500.0, 0.0, 0.0])
    pose, status = forward(q, robot)
    assert StatusCode(int(status)) == code
    without = code in (StatusCode.UNREACHABLE_POSE, StatusCode.BAD_PARAMETER)
    assert np.isnan(pose).all() if without else np.isfinite(pose).all()
    assert (float(closing_sine(q, robot)) > 0.05) == (
        code in (StatusCode.OK, StatusCode.JOINT_LIMIT)
    )


@pytest.mark.parametrize("name", ["l12", "l13", "L1", "L2"])
def test_a_length_must_be_positive(robot, x64, name):
    wrong = dataclasses.replace(robot, **{name: jnp.asarray(-1.0)})
    assert int(forward(jnp.array([400.0, 600.0, 500.0, 0.0, 0.0]), wrong)[1]) == 1
    assert int(inverse(at(), wrong)[1]) == StatusCode.BAD_PARAMETER


def test_margins_agree_with_the_status(robot, x64):
    rng = np.random.default_rng(1)
    wide = MIDDLE + rng.uniform(-1.0, 1.0, (3000, 5)) * [300.0, 300.0, 400.0, 1.0, 1.0]
    margins = jax.jit(jax.vmap(hybrid_margins, in_axes=(0, None)))(jnp.asarray(wide), robot)
    _, status = inverse_all(jnp.asarray(wide), robot)
    assert np.isfinite(margins).all()
    positive = np.asarray(margins).min(1) > 0.0
    assert 0.05 < positive.mean() < 0.95
    np.testing.assert_array_equal(positive, np.asarray(status) == StatusCode.OK)


@pytest.mark.parametrize("changes", [{}, {"y": 700.0, "tilt_y": 0.3}, {"y": 950.0, "z": -900.0}])
def test_gradients(robot, x64, changes):
    """Of the margins within reach and beyond, and of the joints within."""
    pose, weights = at(**changes), jnp.arange(1.0, 9.0)
    assert_gradient(lambda p: jnp.sum(weights * hybrid_margins(p, robot)), pose, rtol=1e-5)
    if float(pose[1]) < 860.0:
        weights = jnp.array([1.0, 2.0, 3.0, 40.0, 50.0])
        assert_gradient(lambda p: jnp.sum(weights * hybrid_inverse(p, robot)[0]), pose, rtol=1e-5)


WIDE = np.array([(-400, 1600), (-900, 900), (-900, 700), (-4, 4), (-2, 2)])


def test_a_pose_of_the_other_assembly_is_out_of_reach(robot, x64):
    """The branch's joints bring the tool there only with the hinge on the other side."""
    pose = jnp.array([810.995, -512.529, -340.578, 1.118, 0.126])
    q, status = inverse(pose, robot)
    assert StatusCode(int(status)) == StatusCode.UNREACHABLE_POSE
    assert np.isnan(q).all()
    assert float(hybrid_margins(pose, robot).min()) < 0.0
    q, status = inverse(pose, robot, assembly=-1)
    assert StatusCode(int(status)) == StatusCode.OK
    np.testing.assert_allclose(forward(q, robot, assembly=-1)[0], pose, atol=1e-9)


inverse_of_side = jax.jit(
    jax.vmap(lambda p, robot, side: hybrid_inverse(p, robot, assembly=side), (0, None, None))
)
forward_of_side = {
    1: forward_all,
    -1: jax.jit(jax.vmap(lambda q, robot: hybrid_forward(q, robot, assembly=-1), (0, None))),
}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from((1, -1)))
def test_the_forward_map_returns_every_pose_that_has_joints(seed, assembly):
    with jax.enable_x64(True):
        robot = spine_hybrid()
        share = np.random.default_rng(seed).random((200, 5))
        wide = jnp.asarray(WIDE[:, 0] + share * np.ptp(WIDE, axis=1))
        q, status = inverse_of_side(wide, robot, assembly)
        back, _ = forward_of_side[assembly](q, robot)
        given_joints = np.isfinite(q).all(1)
        np.testing.assert_array_equal(
            given_joints, ~np.isin(status, (StatusCode.UNREACHABLE_POSE, StatusCode.BAD_PARAMETER))
        )
        gap = np.array(back - wide)[given_joints]
        gap[:, 3:] -= 2.0 * np.pi * np.round(gap[:, 3:] / (2.0 * np.pi))
        assert np.abs(gap).max(initial=0.0) < 1e-6


@pytest.mark.parametrize("turns", [-1, 1, 2])
@pytest.mark.parametrize("tilt", ["tilt_x", "tilt_y"])
def test_a_whole_turn_of_a_tilt_is_the_same_pose(robot, x64, tilt, turns):
    q, _ = inverse(at(**{tilt: 0.1}), robot)
    turned, status = inverse(at(**{tilt: 0.1 + 2.0 * np.pi * turns}), robot)
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(turned, q, atol=1e-9)


def test_the_length_of_a_direction_does_not_matter(robot, x64):
    direction = wire_direction(jnp.array([0.3, -0.2]))
    pose = wire_pose(jnp.array(MIDDLE[:3]), 7.0 * direction)
    np.testing.assert_allclose(pose[3:], [0.3, -0.2], atol=1e-12)
    nowhere = wire_pose(jnp.array(MIDDLE[:3]), jnp.zeros(3))
    assert int(inverse(nowhere, robot)[1]) == StatusCode.BAD_PARAMETER
