"""The chain to the robot, guidance, and the protocol."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import BadParameter, StatusCode, distal
from dartjax.robot.distal import Event, Protocol, ProtocolError, State
from dartjax.transforms import SE3, SO3


def pose(seed, place):
    rng = np.random.default_rng(seed)
    turn = SO3.from_rpy_radians(*rng.uniform(-0.2, 0.2, 3)) @ SO3.from_x_radians(np.pi)
    return SE3.from_rotation_and_translation(turn, jnp.asarray(place, float))


GUIDE, NAIL = pose(0, (4.0, -3.0, 580.0)), pose(1, (8.0, 5.0, 630.0))


def test_the_goal_is_on_the_holes_axis_at_the_guides_depth(x64):
    goal, status = distal.goal_in_nail(GUIDE, NAIL)
    assert int(status) == StatusCode.OK
    np.testing.assert_allclose(goal.translation()[:2], 0.0)
    assert float(goal.translation()[2]) > 40.0  # toward the source
    np.testing.assert_allclose((NAIL @ goal).translation()[2], 580.0, atol=1e-4)
    aside = SE3.from_rotation_and_translation(SO3.from_x_radians(np.pi / 2), NAIL.translation())
    assert int(distal.goal_in_nail(GUIDE, aside)[1]) == StatusCode.DEGENERATE_GEOMETRY


def test_the_required_pose_brings_the_guide_over_the_nail(x64):
    T_tip_guide = pose(2, (15.0, -16.0, 20.0))
    T_base_tip = pose(3, (0.0, 0.0, 50.0))
    T_camera_base = GUIDE @ (T_base_tip @ T_tip_guide).inverse()
    tip, _ = distal.required_tip(T_base_tip, T_tip_guide, GUIDE, NAIL)
    arrived = NAIL.inverse() @ T_camera_base @ tip @ T_tip_guide
    error = distal.locking_error(arrived)
    assert error.angle_deg < 1e-4
    assert max(error.entry_mm, error.exit_mm) < 1e-4


def test_error_of_a_shifted_and_tilted_guide():
    shifted = SE3.from_rotation_and_translation(SO3.identity(), jnp.array([0.3, 0.4, 50.0]))
    assert distal.locking_error(shifted).entry_mm == pytest.approx(0.5, abs=1e-5)
    tilted = SE3.from_rotation(SO3.from_x_radians(0.02))
    error = distal.locking_error(tilted)
    assert error.angle_deg == pytest.approx(np.degrees(0.02), abs=1e-3)
    assert error.exit_mm == pytest.approx(10.0 * np.tan(0.02), abs=1e-4)


def test_a_rotation_about_the_first_hole_moves_the_second():
    turned = SE3.from_rotation(SO3.from_z_radians(np.deg2rad(5.0)))
    error = distal.locking_error(turned)
    assert error.angle_deg == pytest.approx(0.0, abs=1e-4)
    for distance in (error.entry_mm, error.exit_mm):
        assert distance == pytest.approx(60.0 * np.sin(np.deg2rad(2.5)), abs=1e-4)


def test_distances_are_those_in_the_planes_of_the_worse_hole():
    """Computed by hand: the guide leans by 0.1 about y and is 1 mm off along y."""
    T = SE3.from_rotation_and_translation(SO3.from_y_radians(0.1), jnp.array([0.0, 1.0, 0.0]))
    error = distal.locking_error(T, planes=(6.0, -6.0))
    # The second hole of the guide is at (-30 cos a, 1, 30 sin a), its axis is (sin a, 0, cos a).
    along = -30.0 * np.cos(0.1) + 30.0
    rise = 30.0 * np.sin(0.1)
    for found, z in ((error.entry_mm, 6.0), (error.exit_mm, -6.0)):
        first = z * np.tan(0.1)
        second = along + (z - rise) * np.tan(0.1)
        expected = max(np.hypot(first, 1.0), np.hypot(second, 1.0))
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_guide_across_the_holes_never_meets_the_planes():
    across = distal.locking_error(SE3(jnp.array([np.sqrt(0.5), np.sqrt(0.5), 0, 0, 0, 0, 0.0])))
    assert across.angle_deg == pytest.approx(90.0, abs=1e-3)
    assert across.entry_mm > 1e4 and across.exit_mm > 1e4


@pytest.mark.parametrize("function", [distal.locking_error, distal.turn_advice])
def test_measures_of_a_pose_that_is_not_finite_are_refused(function):
    with pytest.raises(BadParameter, match="not finite"):
        function(SE3.from_translation(jnp.array([jnp.nan, 0.0, 0.0])))


@pytest.mark.parametrize(
    ("tilt", "axis"), [((0.1, 0.0), 0), ((-0.1, 0.0), 0), ((0.0, 0.1), 1), ((0.0, -0.1), 1)]
)
def test_advice_turns_the_beam_onto_the_holes_axis(tilt, axis):
    turn = SO3.from_x_radians(tilt[0]) @ SO3.from_y_radians(tilt[1]) @ SO3.from_x_radians(np.pi)
    middle = jnp.array([0.0, 0.0, 620.0])  # between the holes
    half = jnp.array([15.0, 0.0, 0.0])
    T = SE3.from_rotation_and_translation(turn, middle + turn.apply(half))
    advice = distal.turn_advice(T)
    assert advice.tilt_deg == pytest.approx(np.degrees(0.1), abs=0.01)
    angles = (advice.about_x_deg, advice.about_y_deg)
    assert angles[axis] == pytest.approx(np.degrees(tilt[axis]), abs=0.01)
    # Turning the C-arm turns the nail the other way in its frame: it then looks straight through.
    turned = SO3.exp(-jnp.deg2rad(jnp.array([*angles, 0.0]))) @ turn
    straight = SE3.from_rotation_and_translation(turned, middle + turned.apply(half))
    assert distal.tilt_deg(straight) < 0.05
    assert "use it" in distal.turn_advice(straight).text


@pytest.mark.parametrize("mounting", ["bone", "nail_head"])
def test_the_protocol_from_mounting_to_drilling(mounting):
    protocol = Protocol(mounting, "generic")
    for event in (Event.MOUNT, Event.CALIBRATE, Event.SEEN, Event.MOVED, Event.LOCK, Event.DRILL):
        protocol = protocol.after(event)
    assert protocol.state is State.DRILLED
    assert protocol.is_over
    assert protocol.images == 1
    assert len(protocol.log) == 6


def test_nothing_is_drilled_without_a_measured_pose():
    protocol = Protocol("bone", "generic").after(Event.MOUNT).after(Event.CALIBRATE)
    for event in (Event.DRILL, Event.LOCK, Event.MOVED):
        with pytest.raises(ProtocolError, match="allowed now"):
            protocol.after(event)
    assert protocol.after(Event.NOT_SEEN).state is State.MOUNTED


def test_the_protocol_ends_by_hand_after_repeated_failures():
    protocol = Protocol("bone", "fronto_parallel").after(Event.MOUNT)
    while not protocol.is_over:
        protocol = protocol.after(Event.CALIBRATE).after(Event.NOT_SEEN)
    assert protocol.state is State.BY_HAND
    assert protocol.images == 10
    protocol = Protocol("nail_head", "generic")
    for _ in range(2):
        for event in (Event.MOUNT, Event.CALIBRATE, Event.SEEN, Event.OUT_OF_REACH):
            protocol = protocol.after(event)
    assert protocol.state is State.BY_HAND


@pytest.mark.parametrize("place", range(4))
def test_a_pose_that_is_not_finite_is_a_bad_parameter(place):
    poses = [SE3.identity(), SE3.identity(), GUIDE, NAIL]
    poses[place] = SE3.from_translation(jnp.array([jnp.nan, 0.0, 0.0]))
    assert int(distal.required_tip(*poses)[1]) == StatusCode.BAD_PARAMETER
