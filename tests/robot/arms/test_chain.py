"""Serial arms: against MuJoCo, finite differences, hand-made poses, and round trips."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import BadParameter, StatusCode
from dartjax.robot.arms import (
    DHRow,
    chain_forward,
    chain_from_dh,
    chain_from_urdf,
    chain_jacobian,
    manipulability,
    null_space_projector,
    pose_error,
    sample_chain,
    solve_damped,
    solve_levenberg_marquardt,
    tool_pose,
)
from dartjax.transforms import SE3, SO3
from tests.robot.arms import arms

PLANAR = [DHRow(300.0, 0.0, 0.0, 0.0), DHRow(200.0, 0.0, 0.0, 0.0)]


def load(folder, joints):
    pytest.importorskip("yourdfpy")
    path = folder / "arm.urdf"
    path.write_text(arms.urdf(joints))
    return chain_from_urdf(path)


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    with jax.enable_x64(True):
        return load(tmp_path_factory.mktemp("arm"), arms.SEVEN)


def samples(chain, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.vmap(lambda key: sample_chain(chain, key=key))(keys)


@pytest.mark.parametrize("joints", [arms.SEVEN, arms.SLIDING], ids=["seven", "sliding"])
def test_pose_and_jacobian_are_those_of_mujoco(x64, tmp_path, joints):
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(arms.mjcf(joints))
    state, site = mujoco.MjData(model), mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, "tool")
    chain = load(tmp_path, joints)
    slides = ~np.asarray(chain.is_revolute)
    q = np.asarray(samples(chain, 20))
    program = jax.jit(
        jax.vmap(lambda x: (tool_pose(x, chain).as_matrix(), chain_jacobian(x, chain)))
    )
    for each, pose, jacobian in zip(q, *map(np.asarray, program(jnp.asarray(q))), strict=True):
        state.qpos[:] = np.where(slides, each / 1000.0, each)
        mujoco.mj_kinematics(model, state)
        mujoco.mj_comPos(model, state)
        shift, turn = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, state, shift, turn, site)
        np.testing.assert_allclose(pose[:3, 3], 1000.0 * state.site_xpos[site], atol=1e-9)
        np.testing.assert_allclose(pose[:3, :3], state.site_xmat[site].reshape(3, 3), atol=1e-12)
        per_mm = np.where(slides, 1e-3, 1.0)  # MuJoCo's sliders are in metres
        np.testing.assert_allclose(jacobian[:3], 1000.0 * shift * per_mm, atol=1e-9)
        np.testing.assert_allclose(jacobian[3:], turn * per_mm, atol=1e-12)


def test_limits_and_names_come_from_the_urdf(tmp_path, x64):
    chain = load(tmp_path, arms.SLIDING)
    assert chain.names == ("rail", "turn", "lift", "wrist")
    np.testing.assert_allclose(chain.lower, [-400.0, -2.0, -200.0, -np.inf])
    np.testing.assert_allclose(chain.upper, [500.0, 2.0, 200.0, np.inf])
    for bad, code in ((501.0, StatusCode.JOINT_LIMIT), (jnp.nan, StatusCode.BAD_PARAMETER)):
        assert int(chain_forward(jnp.array([bad, 0.0, 0.0, 9.0]), chain)[1]) == code


def test_a_planar_arm_computed_by_hand(x64):
    chain = chain_from_dh(PLANAR)
    pose = tool_pose(jnp.deg2rad(jnp.array([90.0, -90.0])), chain)
    np.testing.assert_allclose(pose.translation(), [200.0, 300.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(pose.rotation().as_matrix(), np.eye(3), atol=1e-12)
    jacobian = chain_jacobian(jnp.deg2rad(jnp.array([90.0, -90.0])), chain)
    np.testing.assert_allclose(jacobian[:3, 0], [-300.0, 200.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(jacobian[3:, 1], [0.0, 0.0, 1.0], atol=1e-12)


def test_both_dh_conventions_describe_one_arm(x64):
    rows = [(0.0, np.pi / 2, 330.0), (400.0, 0.3, 20.0), (35.0, -np.pi / 2, 80.0)]
    standard = chain_from_dh([DHRow(a, alpha, d, 0.1) for a, alpha, d in rows])
    # Modified rows carry the a and alpha of the joint before.
    shifted = [(0.0, 0.0), *[(a, alpha) for a, alpha, _ in rows]]
    modified = [DHRow(*shifted[i], rows[i][2], 0.1) for i in range(3)]

    a, alpha = shifted[3]
    last = SE3.from_rotation_and_translation(SO3.from_x_radians(alpha), jnp.array([a, 0.0, 0.0]))
    other = chain_from_dh(modified, convention="modified", T_last_tool=last)
    q = jnp.array([0.3, -0.7, 1.1])
    np.testing.assert_allclose(
        tool_pose(q, standard).as_matrix(), tool_pose(q, other).as_matrix(), atol=1e-9
    )


def test_jacobian_is_the_derivative_of_the_pose(seven, x64):
    q, step = samples(seven, 1)[0], 1e-6
    gap = jax.jit(lambda a, b: pose_error(tool_pose(a, seven), tool_pose(b, seven)))
    jacobian = np.asarray(jax.jit(chain_jacobian)(q, seven))
    for joint, move in enumerate(step * np.eye(7)):
        error = gap(q - move, q + move)
        np.testing.assert_allclose(jacobian[:, joint], error / (2.0 * step), atol=1e-5)


def start_near(q):
    return q + 0.3 * jax.random.normal(jax.random.key(1), q.shape)


def check_reached(found, status, chain):
    reached = np.isin(np.asarray(status), (StatusCode.OK, StatusCode.SINGULAR_CONFIGURATION))
    assert reached.mean() >= 0.9
    assert np.asarray(found.distance_mm)[reached].max() < 1e-3
    assert (found.q >= chain.lower[None] - 1e-12).all()
    assert (found.q <= chain.upper[None] + 1e-12).all()


# Fifty targets at a time, so that tests share one compiled program.
poses_of = jax.jit(jax.vmap(tool_pose, in_axes=(0, None)))
damped = jax.jit(
    jax.vmap(lambda t, chain, s, c: solve_damped(t, chain, s, centering=c), (0, None, 0, 0))
)
marquardt = jax.jit(jax.vmap(solve_levenberg_marquardt, (0, None, 0)))


@pytest.mark.slow
def test_damped_steps_reach_what_the_arm_reaches(seven, x64):
    """From start positions 0.3 rad away; the joints stay in their ranges."""
    q = samples(seven, 50)
    centering = jnp.full(50, 0.05)
    check_reached(*damped(poses_of(q, seven), seven, start_near(q), centering), seven)


@pytest.mark.slow
def test_levenberg_marquardt_reaches_what_the_arm_reaches(seven, x64):
    q = samples(seven, 50)
    check_reached(*marquardt(poses_of(q, seven), seven, start_near(q)), seven)


def test_out_of_reach_has_a_status(seven, x64):
    poses = poses_of(samples(seven, 50), seven)
    away = jnp.tile(jnp.array([3000.0, 0.0, 0.0]), (50, 1))
    far = jax.vmap(SE3.from_rotation_and_translation)(poses.rotation(), away)
    middle = jnp.tile(0.5 * (seven.lower + seven.upper), (50, 1))
    assert (damped(far, seven, middle, jnp.full(50, 0.05))[1] == StatusCode.UNREACHABLE_POSE).all()
    assert (marquardt(far, seven, middle)[1] == StatusCode.UNREACHABLE_POSE).all()


def test_null_space_motion_does_not_move_the_tool(seven, x64):
    q = 0.5 * (seven.lower + seven.upper)
    jacobian = chain_jacobian(q, seven)
    projector = null_space_projector(jacobian, 0.0)
    np.testing.assert_allclose(jnp.trace(projector), 1.0, atol=1e-9)  # one redundant joint
    np.testing.assert_allclose(jacobian @ projector, 0.0, atol=1e-9)
    assert float(manipulability(jacobian)) > 0.0


@pytest.mark.slow
def test_null_space_brings_joints_to_the_middle(seven, x64):
    middle = 0.5 * (seven.lower + seven.upper)
    start = middle + jnp.array([0.8, 0.2, -0.8, 0.3, 0.5, 0.4, 0.5])
    starts = jnp.tile(start, (50, 1))
    centering = jnp.zeros(50).at[1].set(0.05)
    found, _ = damped(poses_of(starts, seven), seven, starts, centering)
    away = np.linalg.norm(np.asarray(found.q) - np.asarray(middle), axis=1)
    assert away[1] < 0.9 * away[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([DHRow(1.0, np.nan, 0.0, 0.0)], "row 1"),
        ([DHRow(1.0, 90.0, 0.0, 0.0)], "degrees"),
        ([DHRow(1.0, 0.0, 0.0, 0.0, kind="prismatic")], "row 1 is prismatic without limits"),
        ([DHRow(1.0, 0.0, 0.0, 0.0, lower=1.0, upper=0.0)], "lower limit"),
    ],
)
def test_bad_tables_are_named(rows, message):
    with pytest.raises(BadParameter, match=message):
        chain_from_dh(rows)


def _with_joint(parent, child):
    """The seven-joint arm with one joint more."""
    joint = (
        f'<joint name="more" type="fixed"><parent link="{parent}"/><child link="{child}"/></joint>'
    )
    return arms.urdf(arms.SEVEN).replace("</robot>", f"{joint}</robot>")


def test_a_bound_that_a_limit_omits_is_zero(tmp_path):
    pytest.importorskip("yourdfpy")
    path = tmp_path / "arm.urdf"
    text = arms.urdf(arms.SEVEN).replace('lower="-1.7" ', "").replace('upper="-0.1" ', "")
    path.write_text(text.replace('lower="0.0" upper="3.7" ', ""))
    chain = chain_from_urdf(path)
    np.testing.assert_allclose(chain.lower[jnp.array([1, 3, 5])], [0.0, -3.0, 0.0])
    np.testing.assert_allclose(chain.upper[jnp.array([1, 3, 5])], [1.7, 0.0, 0.0])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("no xml", {}, "not XML"),
        ("<mujoco/>", {}, "not a URDF"),
        (arms.urdf(arms.SLIDING), {"tool_link": "hand"}, "unknown link 'hand'"),
        (arms.urdf(arms.SLIDING), {"base_link": "l2", "tool_link": "l1"}, "not between the root"),
        (arms.urdf(arms.SLIDING), {"base_link": "l4"}, "no moving joint"),
        (arms.urdf(arms.SLIDING).replace("continuous", "floating"), {}, "floating"),
        (arms.urdf(arms.SEVEN).replace('lower="-1.7"', 'lower="1.8"'), {}, "above the upper"),
        (arms.urdf(arms.SEVEN).replace('lower="-1.7"', 'lower="nan"'), {}, "above the upper"),
        (arms.urdf([(*arms.SEVEN[0][:5], None, None)]), {}, "j1.*without <limit>"),
        (arms.urdf(arms.SEVEN).replace('<axis xyz="0 0 1"/>', '<axis xyz="0 0 0"/>'), {}, "axis"),
        (_with_joint("l3", "l1"), {}, "'l1' is the child of two joints"),
        (_with_joint("l3", "l0"), {}, "loop through link"),
        (_with_joint("l3", "l0"), {"base_link": "l0", "tool_link": "tool"}, "loop"),
    ],
)
def test_bad_urdf_is_named(tmp_path, text, options, message):
    pytest.importorskip("yourdfpy")
    path = tmp_path / "arm.urdf"
    path.write_text(text)
    with pytest.raises(BadParameter, match=message):
        chain_from_urdf(path, **options)


def test_missing_urdf_is_named(tmp_path):
    pytest.importorskip("yourdfpy")
    with pytest.raises(BadParameter, match="not a file"):
        chain_from_urdf(tmp_path / "none.urdf")


def test_limits_that_are_nan_are_not_kept(x64):
    chain = chain_from_dh(PLANAR)
    lost = dataclasses.replace(chain, upper=chain.upper.at[1].set(jnp.nan))
    assert int(chain_forward(jnp.zeros(2), chain)[1]) == StatusCode.OK
    assert int(chain_forward(jnp.zeros(2), lost)[1]) == StatusCode.JOINT_LIMIT


def test_a_small_turn_moves_a_long_lever_exactly_in_single_precision():
    arm = chain_from_dh([DHRow(a=300.0, alpha=0.0, d=0.0, theta=0.0)])
    for angle in (1e-4, 1e-3, 2.9e-3, 0.01):
        pose, _ = chain_forward(jnp.array([angle], jnp.float32), arm)
        exact = [300.0 * np.cos(angle), 300.0 * np.sin(angle), 0.0]
        np.testing.assert_allclose(pose.translation(), exact, atol=1e-4)
