"""The tool's weight on the sensor: frames, the published formulas, identification."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from dartjax import robot
from dartjax.robot import cooperation
from dartjax.robot.cooperation import RigidTool
from dartjax.simulation._tool_weight import tilt_grid
from tests.gradients import assert_gradient

GRID = tilt_grid(40, 20, 30, 15)
TOOL = RigidTool(
    weight=jnp.asarray(28.0),
    centre=jnp.array([25.0, -69.0, -62.0]),
    force_offset=jnp.array([0.5, -1.0, 2.0]),
    torque_offset=jnp.array([0.1, -0.05, 0.02]),
    mounting=jnp.array([0.02, -0.03, 0.01]),
    gains=jnp.array([1.01, 0.99, 1.0, 1.005, 0.995, 1.0]),
)


def readings(tool=TOOL, grid=GRID, sigma=0.0, seed=0):
    load = jax.vmap(tool.load)(*grid)
    spread = jnp.array([0.1] * 3 + [0.003] * 3)[None]
    return load + sigma * spread * jax.random.normal(jax.random.key(seed), load.shape)


@pytest.fixture(scope="module")
def identified():
    return cooperation.identify_tool(readings(sigma=1.0), *GRID)


@pytest.mark.parametrize(
    ("thx", "thy", "expected"),
    [
        (0.0, 0.0, [0.0, 0.0, -30.0]),
        (np.pi / 2, 0.0, [0.0, -30.0, 0.0]),  # +y of the joint points up
        (0.0, np.pi / 2, [30.0, 0.0, 0.0]),  # +x of the joint points down
    ],
)
def test_the_weight_hangs_down_in_the_joint(thx, thy, expected):
    found = cooperation.gravity_in_joint(*map(jnp.asarray, (thx, thy, 30.0)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_weight_is_that_of_the_rotation():
    thx, thy = jnp.asarray(0.4), jnp.asarray(-0.7)
    down = cooperation.tilt_rotation(thx, thy).T @ jnp.array([0.0, 0.0, -30.0])
    found = cooperation.gravity_in_joint(thx, thy, jnp.asarray(30.0))
    np.testing.assert_allclose(found, down, atol=1e-5)


def test_transducer_axes_in_the_joint():
    found = cooperation.sensor_to_joint(jnp.arange(1.0, 7.0))
    np.testing.assert_array_equal(found, [-2.0, -3.0, 1.0, -5.0, -6.0, 4.0])


def test_the_published_force_formula():
    """[L] eq 18, for a sensor zeroed upright."""
    thx, thy, w = jnp.asarray(0.5), jnp.asarray(-0.3), 30.0
    raw = jnp.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    hand, _ = cooperation.compensate(raw, thx, thy, cooperation.paper_tool())
    fx, fy, fz = cooperation.sensor_to_joint(raw)[:3]
    expected = [
        fx - w * np.cos(thx) * np.sin(thy),
        fy + w * np.sin(thx),
        fz + w * np.cos(thx) * np.cos(thy) - w,
    ]
    np.testing.assert_allclose(hand.joint[:3], expected, atol=1e-5)


def test_the_published_polynomials_are_those_of_a_rigid_tool():
    """All 35 coefficients against nine numbers, so units, signs and the lost exponent agree."""
    thx, thy = tilt_grid(40, 10, 30, 10)
    polynomial = 1000.0 * np.asarray(jax.vmap(cooperation.paper_tool().load)(thx, thy))[:, 3:]
    nominal = cooperation.paper_tool()
    force = np.asarray(jax.vmap(nominal.load)(thx, thy))[:, :3]
    down = force - force[np.argmin(np.hypot(thx, thy))]

    def left(numbers):
        return (np.cross(numbers[:3], down) + numbers[3:] - polynomial).ravel()

    found = optimize.least_squares(left, np.zeros(6))
    np.testing.assert_allclose(found.x[:3], [25.0, -69.0, -62.0], atol=3.0)
    assert np.sqrt(np.mean(found.fun**2)) < 25.0  # mN m, of some 2000


def test_the_hand_wrench_is_the_reading_minus_the_load():
    thx, thy = jnp.asarray(0.3), jnp.asarray(-0.4)
    hand_joint = jnp.array([3.0, -4.0, 5.0, 0.2, 0.1, -0.3])
    mounting = cooperation.tilt_rotation(jnp.asarray(0.02), jnp.asarray(0.0))  # mounted by Rx(0.02)
    tool = RigidTool(
        TOOL.weight,
        TOOL.centre,
        TOOL.force_offset,
        TOOL.torque_offset,
        jnp.array([0.02, 0.0, 0.0]),
        TOOL.gains,
    )
    to_sensor = mounting @ np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    seen = jnp.concatenate([to_sensor @ hand_joint[:3], to_sensor @ hand_joint[3:]])
    raw = tool.load(thx, thy) + tool.gains * seen
    hand, status = cooperation.compensate(raw, thx, thy, tool)
    assert status == 0
    np.testing.assert_allclose(hand.joint, hand_joint, atol=1e-4)
    turn = cooperation.tilt_rotation(thx, thy)
    np.testing.assert_allclose(hand.base[:3], turn @ hand_joint[:3], atol=1e-4)
    np.testing.assert_allclose(hand.base[3:], turn @ hand_joint[3:], atol=1e-4)


def test_the_gradient_of_the_compensated_force(x64):
    tool = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), TOOL)
    raw = jnp.array([1.0, 2.0, 3.0, 0.4, 0.5, 0.6])

    def size(tilts):
        return jnp.sum(cooperation.compensate(raw, tilts[0], tilts[1], tool)[0].base ** 2)

    assert_gradient(size, jnp.array([0.3, -0.2]))


@pytest.mark.parametrize(
    ("raw", "thx", "code"),
    [
        (np.full(6, np.nan), 0.1, robot.StatusCode.BAD_WRENCH),
        (np.array([200.0, 0, 0, 0, 0, 0]), 0.1, robot.StatusCode.BAD_WRENCH),
        (np.array([0, 0, 0, 0, 6.0, 0]), 0.1, robot.StatusCode.BAD_WRENCH),
        (np.zeros(6), 30.0, robot.StatusCode.BAD_PARAMETER),
        (np.zeros(6), np.nan, robot.StatusCode.BAD_PARAMETER),
    ],
)
def test_an_invalid_reading_has_a_status(raw, thx, code):
    raw = jnp.asarray(raw, jnp.float32)
    hand, status = cooperation.compensate(raw, jnp.asarray(thx), jnp.asarray(0.0), TOOL)
    assert status == code and np.isnan(hand.joint).all() and np.isnan(hand.base).all()


def test_an_identified_tool_predicts_unseen_tilts(identified):
    new = tilt_grid(35, 10, 25, 10)
    error = cooperation.residuals(identified.tool, readings(grid=new), *new)
    assert np.abs(error[:, :3]).max() < 0.25 and np.abs(error[:, 3:]).max() < 0.012
    assert float(identified.tool.weight) == pytest.approx(28.0, rel=0.02)
    np.testing.assert_allclose(identified.tool.centre, TOOL.centre, atol=3.0)


def test_the_fit_is_that_of_a_general_solver(identified):
    """Same residuals and prior, minimised by SciPy."""
    wrenches, noise = np.asarray(readings(sigma=1.0)), cooperation.ReadingNoise()
    sigma = np.array([noise.force] * 3 + [noise.torque] * 3)
    spread = np.array([100.0] + [300.0] * 3 + [100.0] * 3 + [10.0] * 3 + [np.deg2rad(5)] * 3)
    spread = np.concatenate([spread, np.full(6, 0.02)])
    middle = np.concatenate([np.zeros(13), np.ones(6)])
    start, unravel = jax.flatten_util.ravel_pytree(TOOL)
    load = jax.jit(lambda theta: jax.vmap(unravel(theta).load)(*GRID))

    def cost(theta):
        data = (np.asarray(load(jnp.asarray(theta, jnp.float32))) - wrenches) / sigma
        return np.concatenate([data.ravel(), (theta - middle) / spread])

    found = optimize.least_squares(cost, np.asarray(start, float), x_scale=spread, diff_step=1e-3)
    ours = np.asarray(jax.flatten_util.ravel_pytree(identified.tool)[0], float)
    assert np.sum(cost(ours) ** 2) <= np.sum(found.fun**2) * 1.001
    difference = np.abs(load(jnp.asarray(ours, jnp.float32)) - load(jnp.asarray(found.x)))
    assert difference[:, :3].max() < 0.02


@pytest.mark.slow
def test_the_stated_uncertainty_is_that_of_many_fits():
    noise = cooperation.ReadingNoise(0.1, 0.003)
    fit = jax.jit(jax.vmap(lambda w: cooperation.fit_rigid_tool(w, *GRID, noise)[0]))
    several = fit(jnp.stack([readings(sigma=1.0, seed=seed) for seed in range(200)]))
    root = several.root_information[0]
    covariance = np.linalg.inv(np.asarray(root.T @ root, np.float64))
    stated = np.sqrt(np.diag(covariance))[7:10]  # torque offset
    found = np.std(np.asarray(several.tool.torque_offset), axis=0)
    assert (found < 1.2 * stated).all() and (found > 0.3 * stated).all()


def test_updates_follow_a_drifting_sensor(identified):
    drifted = jax.tree.map(jnp.asarray, TOOL)
    drifted = RigidTool(
        TOOL.weight,
        TOOL.centre,
        TOOL.force_offset + 1.0,
        TOOL.torque_offset,
        TOOL.mounting,
        TOOL.gains,
    )
    thx, thy = (jnp.tile(tilt, 3) for tilt in GRID)
    new = readings(drifted, (thx, thy), sigma=1.0, seed=5)

    def step(estimate, pose):
        wrench, x, y = pose
        return cooperation.update_tool_estimate(
            estimate, wrench[None], x[None], y[None], forget=0.95
        ), None

    after = jax.jit(lambda e: jax.lax.scan(step, e, (new, thx, thy))[0])(identified)
    before = np.abs(cooperation.residuals(identified.tool, new, thx, thy)[:, :3]).mean()
    left = np.abs(cooperation.residuals(after.tool, readings(drifted), *GRID)[:, :3]).mean()
    assert before > 0.9 and left < 0.15


def test_too_few_or_equal_tilts_are_rejected():
    few = tuple(tilt[:5] for tilt in GRID)
    with pytest.raises(robot.DegenerateGeometry, match="5 tilts"):
        cooperation.identify_tool(readings(grid=few), *few)
    still = (jnp.full(20, 0.1), jnp.full(20, 0.2))
    with pytest.raises(robot.DegenerateGeometry, match="1 tilts"):
        cooperation.identify_tool(readings(grid=still), *still)


def test_errors_of_recordings_name_the_pose():
    wrenches = readings()
    with pytest.raises(robot.BadWrench, match=r"wrenches\[3, 1\]"):
        cooperation.identify_tool(wrenches.at[3, 1].set(jnp.nan), *GRID)
    with pytest.raises(robot.BadParameter, match=r"thx\[0\] = -40.*degrees"):
        cooperation.identify_tool(wrenches, jnp.rad2deg(GRID[0]), GRID[1])
    with pytest.raises(robot.BadParameter, match="give"):
        cooperation.identify_tool(wrenches[:, :3], *GRID)


def test_a_changed_payload_is_detected(identified):
    heavier = readings() + jnp.array([0.0, 0.0, 3.0, 0.0, 0.0, 0.0])[None]
    with pytest.raises(robot.BadWrench, match="payload changed"):
        cooperation.check_payload(identified.tool, heavier, *GRID)


def test_polynomials_are_fitted_to_a_rigid_tool():
    tool = cooperation.fit_polynomial_tool(readings(), *GRID)
    error = cooperation.residuals(tool, readings(), *GRID)
    assert np.abs(error[:, 3:]).max() < 0.01 and float(tool.weight) == pytest.approx(28, rel=0.03)


def test_a_bad_reading_does_not_spoil_the_estimate(identified):
    """The update equals one without that pose."""
    wrenches, few = readings(sigma=1.0, seed=3)[:4], [tilt[:4] for tilt in GRID]
    update = jax.jit(cooperation.update_tool_estimate)
    expected = update(identified, wrenches[:3], *(tilt[:3] for tilt in few))
    for bad in (jnp.nan, jnp.inf, 1e3):
        found = update(identified, wrenches.at[3, 2].set(bad), *few)
        for a, b in zip(*map(jax.tree.leaves, (found.tool, expected.tool)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    lost = update(identified, wrenches, few[0].at[3].set(jnp.nan), few[1])
    np.testing.assert_allclose(lost.tool.weight, expected.tool.weight, rtol=1e-4)


def test_polynomials_need_enough_tilts():
    few = [tilt[:10] for tilt in GRID]
    tool = cooperation.fit_polynomial_tool(readings()[:10], *few)
    assert np.isnan(tool.torque).all() and np.isnan(tool.weight)
    tool = cooperation.fit_polynomial_tool(readings(), *GRID)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tool))
