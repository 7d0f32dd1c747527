"""Path following: the wire reaches its target, within limits and without collision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.observations import NeedlePath
from dartjax.robot import StatusCode
from dartjax.robot.arms import (
    ApproachOptions,
    MotionLimits,
    ToolShape,
    follow,
    guide_tool,
    hybrid_forward,
    motion_clearance,
    plan_approach,
    spine_hybrid,
    spine_motion_limits,
    stack_paths,
    straight,
    timed,
    tool_clearance,
    tool_frame,
    tube_distance,
    wire_tip,
)
from dartjax.transforms import SE3, SO3

# A prone patient, head toward +x of the base: anterior is down, right is -y.
PRONE = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def body(points):
    """A tube of 100 mm along z whose back is 40 mm behind the entry points."""
    nodes = jnp.array([[[0.0, 60.0, -300.0], [0.0, 60.0, 300.0]]])
    return tube_distance(points, nodes=nodes, radius=100.0)


def pedicle(side, inward_deg=15.0, down_deg=5.0):
    """A path in patient coordinates, forward and inward; side +1 is the right one."""
    inward, down = np.deg2rad(inward_deg), np.deg2rad(down_deg)
    along = [-side * np.sin(inward), np.cos(inward) * np.cos(down), -np.cos(inward) * np.sin(down)]
    entry = np.array([side * 20.0, 0.0, 0.0])
    points = jnp.asarray(np.stack([entry, entry + 45.0 * np.array(along)]))
    return NeedlePath(points[0], points[1], jnp.asarray(2.5))


def prone(x=625.0, y=475.0, z=-135.0):
    return SE3.from_rotation_and_translation(
        SO3.from_matrix(jnp.asarray(PRONE)), jnp.array([x, y, z])
    )


@jax.jit
def approach_of(path, T_base_patient, robot, options=ApproachOptions()):
    return plan_approach(path, T_base_patient, robot, body=body, tool=guide_tool(), options=options)


approach_all = jax.jit(jax.vmap(approach_of, in_axes=(0, None, None)))


@pytest.fixture(scope="module")
def robot():
    with jax.enable_x64(True):
        return spine_hybrid()


@pytest.mark.slow
@pytest.mark.parametrize("side", [-1, 1])
def test_the_wire_passes_the_entry_and_ends_at_the_target(robot, x64, side):
    path, T_base_patient = pedicle(side), prone()
    approach, status = approach_of(path, T_base_patient, robot)
    assert int(status) == StatusCode.OK
    pose, _ = hybrid_forward(approach.q, robot)
    for feed, point in (
        (approach.feed_at_entry, path.entry_point),
        (approach.feed_at_target, path.target_point),
    ):
        np.testing.assert_allclose(wire_tip(pose, feed), T_base_patient.apply(point), atol=1e-9)
    assert float(approach.feed_at_target) == pytest.approx(55.0)
    # The right path starts at the patient's right, which is -y, and leans inward to +y.
    assert np.sign(float(approach.pose[3])) == side


@pytest.mark.slow
def test_a_trajectory_is_within_limits_and_straight(robot, x64):
    approach, _ = approach_of(pedicle(1), prone(), robot)
    home, limits = 0.5 * (robot.lower + robot.upper)[:5], spine_motion_limits()
    run = jax.jit(lambda a, q: follow(a, q, robot, limits))(approach, home)
    q, count = np.asarray(run.positions), 51
    assert (q >= robot.lower[None] - 1e-9).all()
    assert (q <= robot.upper[None] + 1e-9).all()
    assert (np.abs(run.rates) <= limits.rate[None] * (1.0 + 1e-9)).all()
    assert (np.abs(run.accelerations) <= limits.acceleration[None] * (1.0 + 1e-9)).all()
    assert (np.diff(run.times) > -1e-9).all()
    np.testing.assert_allclose(q[0, :5], home, atol=1e-9)
    # The stated rates are those of the positions, within each of the three parts.
    for part in range(3):
        piece = slice(part * count, (part + 1) * count)
        rates = np.gradient(q[piece], np.asarray(run.times)[piece], axis=0)[1:-1]
        largest = np.abs(run.rates[piece]).max() + 1e-9
        assert np.abs(rates - run.rates[piece][1:-1]).max() < 0.01 * largest
    # The approach is a straight line along the wire; then the feed moves alone.
    line = jax.vmap(lambda each: hybrid_forward(each, robot)[0])(
        run.positions[count : 2 * count, :5]
    )
    along = np.asarray(line[:, :3]) - np.asarray(approach.entry_point)
    axis = np.asarray(approach.target_point - approach.entry_point)
    assert np.abs(np.cross(along, axis / np.linalg.norm(axis))).max() < 1e-9
    np.testing.assert_allclose(np.linalg.norm(along[0]), 70.0, atol=1e-9)
    assert np.ptp(q[2 * count :, :5], axis=0).max() < 1e-9
    np.testing.assert_allclose(q[-1, 5], approach.feed_at_target, atol=1e-9)


def test_time_scaling_by_hand(x64):
    """Peak rate of the quintic is 15/8, peak acceleration 10/sqrt(3), of the way."""
    slow = MotionLimits(jnp.array([10.0, 1.0]), jnp.array([1e6, 1e6]))
    path = straight(jnp.zeros(2), jnp.array([100.0, 1.0]))
    time_of = jax.jit(lambda limits: timed(path, limits, num_samples=1001))
    run = time_of(slow)
    np.testing.assert_allclose(run.duration, 1.875 * 10.0, rtol=1e-6)
    weak = MotionLimits(jnp.array([1e6, 1e6]), jnp.array([10.0, 10.0]))
    run = time_of(weak)
    np.testing.assert_allclose(run.duration, np.sqrt(10.0 / np.sqrt(3.0) * 10.0), rtol=1e-4)


@pytest.mark.slow
def test_thousands_of_paths_in_one_program(robot, x64):
    rng, few = np.random.default_rng(0), stack_paths([pedicle(-1), pedicle(1)])
    jitter = jnp.asarray(rng.normal(0.0, 5.0, (2000, 3)))
    paths = jax.tree.map(lambda leaf: jnp.repeat(leaf, 1000, axis=0), few)
    paths = jax.vmap(NeedlePath)(paths.entry_point, paths.target_point + jitter, paths.radius)
    found, status = approach_all(paths, prone(), robot)
    assert (np.asarray(status) == StatusCode.OK).mean() > 0.9
    good = np.asarray(status) == StatusCode.OK
    assert (np.asarray(found.margin)[good] > 0.0).all()


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ({"y": 900.0}, StatusCode.UNREACHABLE_POSE),
        ({"y": 879.2, "z": -250.0}, StatusCode.SINGULAR_CONFIGURATION),
        ({"x": 1200.0}, StatusCode.JOINT_LIMIT),
        ({"x": np.nan}, StatusCode.BAD_PARAMETER),
    ],
)
def test_status(robot, x64, place, code):
    path = pedicle(1, inward_deg=0.0, down_deg=0.0)
    approach, status = approach_of(path, prone(**place), robot)
    assert StatusCode(int(status)) == code
    assert not float(approach.margin) > 0.0


def test_a_path_too_long_for_the_feed_is_a_joint_limit(robot, x64):
    path = pedicle(1)
    far = NeedlePath(
        path.entry_point,
        path.entry_point + 2.0 * (path.target_point - path.entry_point),
        path.radius,
    )
    assert int(approach_of(far, prone(), robot)[1]) == StatusCode.JOINT_LIMIT


def test_clearance_of_a_capsule_from_a_tube(x64):
    """A tool along +z above a tube along x: the distance is known by hand."""
    tool = ToolShape(
        jnp.array([[0.0, 0.0, 50.0]]), jnp.array([[0.0, 0.0, 90.0]]), jnp.array([10.0])
    )
    nodes = jnp.array([[[-500.0, 0.0, 0.0], [0.0, 0.0, 0.0], [500.0, 0.0, 0.0]]])

    def tube(points):
        return tube_distance(points, nodes=nodes, radius=25.0)

    room = jax.jit(lambda pose: tool_clearance(tool_frame(pose), tool, tube))
    pose = jnp.array([3.0, 0.0, 100.0, 0.0, 0.0])
    assert float(room(pose)) == pytest.approx(150.0 - 10.0 - 25.0)
    touching = jnp.array([3.0, 0.0, -30.0, 0.0, 0.0])
    assert float(room(touching)) < 0.0
    # Beyond the tube's round end the distance is to its last node.
    beyond = jnp.array([[503.0, 4.0, 0.0]])
    np.testing.assert_allclose(tube(beyond), [5.0 - 25.0], atol=1e-9)


def test_clearance_falls_when_the_tool_leans_over_the_patient(robot, x64):
    rooms = [
        float(approach_of(pedicle(1, down_deg=down), prone(), robot)[0].clearance)
        for down in (0.0, 30.0)
    ]
    assert rooms[0] > rooms[1]


def test_options_move_the_standoff(robot, x64):
    options = ApproachOptions(standoff_mm=20.0, retreat_mm=40.0)
    approach, _ = approach_of(pedicle(1), prone(), robot, options)
    gap = jnp.linalg.norm(approach.pose[:3] - approach.entry_point)
    np.testing.assert_allclose(gap, 20.0, atol=1e-9)


def test_no_paths_is_an_error():
    with pytest.raises(ValueError, match="no paths"):
        stack_paths([])


def test_a_path_without_length_is_a_bad_parameter(robot, x64):
    path = pedicle(1)
    point = NeedlePath(path.entry_point, path.entry_point, *jax.tree.leaves(path)[2:])
    assert int(approach_of(point, prone(), robot)[1]) == StatusCode.BAD_PARAMETER


# Joints from which the straight way of the joints to the retreat leads through the patient.
THROUGH = [289.7, 842.4, 582.0, -0.3146, -0.1079]


@jax.jit
def whole_motion(start, robot):
    """Clearance and status from a start, and the least clearance of the samples of `follow`."""
    path, frame, tool = pedicle(1), prone(), guide_tool()
    approach, status = plan_approach(path, frame, robot, body=body, tool=tool, start=start)
    motion = follow(approach, start, robot, spine_motion_limits(), num_samples=201)
    least = motion_clearance(motion, frame, robot, body=body, tool=tool)
    return approach.clearance, status, least


def test_clearance_is_that_of_the_whole_motion(robot, x64):
    """The straight approach alone is clear of the patient."""
    alone, _ = approach_of(pedicle(1), prone(), robot)
    assert float(alone.clearance) > 50.0
    found, status, least = whole_motion(jnp.array(THROUGH), robot)
    assert int(status) == StatusCode.OK
    assert float(found) < -20.0
    assert float(found) == pytest.approx(float(least), abs=1.0)
    home = 0.5 * (robot.lower + robot.upper)[:5]
    found, status, least = whole_motion(home, robot)
    assert int(status) == StatusCode.OK and 0.0 < float(found) < float(alone.clearance)
    assert float(found) == pytest.approx(float(least), abs=1.0)
    found, status, least = whole_motion(home.at[2].set(jnp.nan), robot)
    assert int(status) == StatusCode.BAD_PARAMETER
    assert np.isnan(found) and np.isnan(least)


def test_a_way_on_which_the_links_do_not_close_is_out_of_reach(robot, x64):
    start = robot.upper[:5]  # both sliders at their upper limits
    assert int(hybrid_forward(start, robot)[1]) == StatusCode.UNREACHABLE_POSE
    assert int(whole_motion(start, robot)[1]) == StatusCode.UNREACHABLE_POSE


@pytest.mark.parametrize("rate", [0.0, -1.0, np.nan])
def test_a_limit_that_is_not_above_zero_gives_no_duration(rate, x64):
    path = straight(jnp.zeros(2), jnp.array([100.0, 1.0]))
    limits = MotionLimits(jnp.array([10.0, rate]), jnp.ones(2))
    assert np.isnan(timed(path, limits).duration)
    lost = straight(jnp.zeros(2), jnp.array([jnp.nan, 1.0]))
    assert np.isnan(timed(lost, MotionLimits(jnp.ones(2), jnp.ones(2))).duration)


def test_an_unknown_distance_of_the_patient_gives_no_clearance(robot, x64):
    def hole(points):
        return jnp.where(points[:, 0] > 600.0, jnp.nan, 100.0)

    pose = jnp.array([625.0, 475.0, -135.0, 0.0, 0.0])
    assert np.isnan(tool_clearance(tool_frame(pose), guide_tool(), hole))
