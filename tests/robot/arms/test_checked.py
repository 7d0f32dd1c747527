"""Invalid input on the host raises the named error with the joint and its value."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import (
    ERROR_OF_STATUS,
    BadParameter,
    JointLimit,
    NavigationError,
    RobotError,
    SingularConfiguration,
    StatusCode,
    UnreachablePose,
    first_status,
    raise_for_status,
)
from dartjax.robot.arms import (
    DHRow,
    bone_mounted_guide,
    chain_from_dh,
    checked_chain_forward,
    checked_chain_inverse,
    checked_guide_forward,
    checked_guide_inverse,
    checked_hybrid_forward,
    checked_hybrid_inverse,
    neutral_pose,
    spine_hybrid,
    tool_pose,
)
from dartjax.transforms import SE3, SO3

POSE = [625.0, 475.0, -135.0, 0.0, 0.0]
JOINTS = [400.0, 600.0, 500.0, 0.0, 0.0]


def changed(values, index, value):
    return [*values[:index], value, *values[index + 1 :]]


def test_good_input_passes(x64):
    robot, guide = spine_hybrid(), bone_mounted_guide()
    q = checked_hybrid_inverse(POSE, robot)
    np.testing.assert_allclose(checked_hybrid_forward(q, robot), POSE, atol=1e-9)
    legs = checked_guide_inverse(neutral_pose(guide), guide)
    np.testing.assert_allclose(checked_guide_forward(legs, guide).translation()[2], 50.0)


@pytest.mark.parametrize(
    ("pose", "error", "words"),
    [
        (changed(POSE, 1, 900.0), UnreachablePose, r"along y .*900\.0.*1\.05"),
        (changed(POSE, 2, -900.0), UnreachablePose, "along z"),
        (changed(changed(POSE, 1, 859.5), 2, -250.0), SingularConfiguration, "straight"),
        (changed(POSE, 1, 859.5), UnreachablePose, "hinge on the other side"),
        (changed(POSE, 0, 1200.0), JointLimit, "l3 = 1130 is 360 beyond"),
        (changed(POSE, 4, 0.8), JointLimit, "th5"),
        (changed(POSE, 2, np.nan), BadParameter, "z is nan"),
        (changed(POSE, 3, 20.0), BadParameter, "tilt_x = 20 rad looks like degrees"),
        (POSE[:4], BadParameter, r"shape \(4,\)"),
        (np.array([POSE]), BadParameter, r"shape \(1, 5\)"),
    ],
)
def test_poses_of_the_hybrid_robot(x64, pose, error, words):
    with pytest.raises(error, match=words):
        checked_hybrid_inverse(pose, spine_hybrid())


@pytest.mark.parametrize(
    ("joints", "error", "words"),
    [
        (changed(JOINTS, 0, 600.0), JointLimit, r"l11 = 600 is 30 beyond \[230, 570\]"),
        ([570.0, 930.0, 500.0, 0.0, 0.0], UnreachablePose, "do not close"),
        ([500.0, 900.4, 500.0, 0.0, 0.0], SingularConfiguration, "in line"),
        (changed(JOINTS, 3, 30.0), BadParameter, "th4 = 30 rad looks like degrees"),
        (changed(JOINTS, 1, np.inf), BadParameter, "l14 is inf"),
        ([*JOINTS, 0.0], BadParameter, r"shape \(6,\)"),
    ],
)
def test_joints_of_the_hybrid_robot(x64, joints, error, words):
    with pytest.raises(error, match=words):
        checked_hybrid_forward(joints, spine_hybrid())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("l12", -590.0, "l12 = -590"),
        ("L2", np.nan, "L2 is nan"),
        ("l13", 0.44, "looks like metres"),
        ("gamma", -30.0, "looks like degrees"),
    ],
)
def test_parameters_of_the_hybrid_robot(x64, name, value, words):
    robot = dataclasses.replace(spine_hybrid(), **{name: jnp.asarray(value)})
    with pytest.raises(BadParameter, match=words):
        checked_hybrid_inverse(POSE, robot)


def test_legs_of_the_guide_robot(x64):
    guide = bone_mounted_guide()
    neutral = neutral_pose(guide)
    high = SE3.from_rotation_and_translation(neutral.rotation(), jnp.array([0.0, 0.0, 80.0]))
    wound = SE3.from_rotation_and_translation(SO3.from_z_radians(jnp.pi / 2), high.translation())
    with pytest.raises(JointLimit, match=r"leg \d = 80\.\d+ mm is 13\.\d+ beyond \[39, 67\]"):
        checked_guide_inverse(high, guide)
    with pytest.raises(SingularConfiguration, match="condition"):
        checked_guide_inverse(wound, guide)
    with pytest.raises(UnreachablePose, match="no pose"):
        checked_guide_forward([500.0, 50, 50, 50, 50, 50], guide)
    with pytest.raises(BadParameter, match="leg 2 is nan"):
        checked_guide_forward([50.0, np.nan, 50, 50, 50, 50], guide)
    with pytest.raises(BadParameter, match="finite rigid"):
        checked_guide_inverse(SE3.exp(jnp.full(6, jnp.nan)), guide)


def test_joints_of_a_chain(x64):
    chain = chain_from_dh(
        [DHRow(300.0, 0.0, 0.0, 0.0, lower=-1.0, upper=1.0), DHRow(200.0, np.pi / 2, 0.0, 0.0)]
    )
    with pytest.raises(JointLimit, match=r"q1 = 1\.5 is 0\.5 beyond \[-1, 1\]"):
        checked_chain_forward([1.5, 0.0], chain)
    with pytest.raises(JointLimit, match="degrees"):
        checked_chain_forward([0.0, 90.0], chain)
    with pytest.raises(BadParameter, match="q2 is nan"):
        checked_chain_forward([0.0, np.nan], chain)
    far = SE3.from_rotation_and_translation(
        tool_pose(jnp.zeros(2), chain).rotation(), jnp.array([900.0, 0.0, 0.0])
    )
    with pytest.raises(UnreachablePose, match="remain to the target"):
        checked_chain_inverse(far, chain, [0.1, 0.1])


def test_every_status_has_its_error():
    assert set(ERROR_OF_STATUS) == set(StatusCode) - {StatusCode.OK}
    for code, error in ERROR_OF_STATUS.items():
        family = RobotError if code < 10 else NavigationError
        assert issubclass(error, family)
        with pytest.raises(error, match="what"):
            raise_for_status(code, "what")
    raise_for_status(0, "nothing")


def test_the_first_true_check_gives_the_status():
    one, two = StatusCode.JOINT_LIMIT, StatusCode.BAD_WRENCH
    assert int(first_status((one, jnp.asarray(False)), (two, jnp.asarray(True)))) == two
    assert int(first_status((one, jnp.asarray(True)), (two, jnp.asarray(True)))) == one
    assert int(first_status((one, jnp.asarray(False)))) == StatusCode.OK
