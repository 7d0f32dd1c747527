"""Residual of tool-weight compensation, as in table 7 of Li, Du and Yu (2020).

Simulated robots have a 30 N tool, a sensor with a mounting error of 2 degrees and gain errors of
1 %, noise, and a cable with a drag of 0.25 N (0.5 N peak to peak) against the direction of
approach. Three compensations are compared: the authors' with nominal weight and fitted torque
polynomials, the same with all parameters fitted, and a rigid tool identified by least squares. They
are fitted on one grid of tilts and evaluated on another.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax.robot import cooperation
from dartjax.robot.cooperation import PolynomialTool, RigidTool, ToolModel

COMPENSATION_METHODS = ("nominal weight", "fitted polynomials", "rigid tool")
COMPENSATION_THX_DEG = np.arange(-40.0, 41.0, 10.0)  # the grid of table 7
COMPENSATION_TH5_DEG = np.arange(-30.0, 31.0, 10.0)

_WEIGHT_N, _CENTRE_MM = (
    30.0,
    np.array([25.0, -69.0, -62.0]),
)  # of the tool that the printed polynomials describe
_MOUNTING_RAD, _GAIN_SD = np.deg2rad(2.0), 0.01
_NOISE_N, _NOISE_NM = 0.1, 0.003
_DRAG_N = 0.25  # in each direction
_CABLE_MM = 40.0  # distance of the cable's exit from the sensor

Tilts = tuple[Float[Array, " n"], Float[Array, " n"]]


class _Robot(eqx.Module):
    """True sensor and tool, and the exit point of the cable."""

    tool: RigidTool
    cable: Float[Array, "3"]  # transducer frame, mm


def compensation_residuals(
    seed: int, num_robots: int = 200
) -> dict[str, Float[np.ndarray, "robot pose 6"]]:
    """Simulate the residual wrenches in the frame of joint 5 (N and N m) by method.

    Poses are those of the grid COMPENSATION_THX_DEG x COMPENSATION_TH5_DEG, the first the slow
    axis. Raises RuntimeError if the identification of a tool failed.
    """
    fit_grid, test_grid = tilt_grid(45, 10, 35, 10), tilt_grid(40, 10, 30, 10)
    keys = jax.random.split(jax.random.key(seed), num_robots)
    residual, status = jax.jit(jax.vmap(_one_robot, (0, None, None)))(keys, fit_grid, test_grid)
    if np.any(np.asarray(status)):
        raise RuntimeError(
            f"identification failed for {np.count_nonzero(status)} of {num_robots} tools"
        )
    return {method: np.asarray(values) for method, values in residual.items()}


def tilt_grid(thx_deg: int, thx_step: int, th5_deg: int, th5_step: int) -> Tilts:
    """Build a grid of tilts (thx, thy) in rad over +-thx_deg and +-th5_deg, thx the slow axis."""
    thx = np.arange(-thx_deg, thx_deg + 1, thx_step)
    th5 = np.arange(-th5_deg, th5_deg + 1, th5_step)
    x, y = np.meshgrid(np.deg2rad(thx), np.deg2rad(-th5), indexing="ij")
    return jnp.asarray(x.ravel(), jnp.float32), jnp.asarray(y.ravel(), jnp.float32)


def _one_robot(
    key: Array,
    fit_grid: tuple[Float[Array, " fit"], Float[Array, " fit"]],
    test_grid: tuple[Float[Array, " test"], Float[Array, " test"]],
) -> tuple[dict[str, Array], Array]:
    """Residual wrenches in joint 5 on the test grid, (63, 6) by method, and the fit's status."""
    robot_key, fit_key, test_key, zero_key = jax.random.split(key, 4)
    truth = _zeroed(_random_robot(robot_key), zero_key)
    known = _readings(truth, *fit_grid, fit_key)
    new = _readings(truth, *test_grid, test_key)
    polynomial = cooperation.fit_polynomial_tool(known, *fit_grid)
    estimate, status = cooperation.fit_rigid_tool(known, *fit_grid)
    nominal = PolynomialTool(
        jnp.asarray(_WEIGHT_N), jnp.array([0.0, 0.0, _WEIGHT_N]), polynomial.torque
    )
    tools = dict(zip(COMPENSATION_METHODS, (nominal, polynomial, estimate.tool), strict=True))
    return {name: _residual_wrenches(tool, new, *test_grid) for name, tool in tools.items()}, status


def _residual_wrenches(
    tool: ToolModel, readings: Array, thx: Array, thy: Array
) -> Float[Array, "n 6"]:
    def one(reading: Array, x: Array, y: Array) -> Array:
        return cooperation.compensate(reading, x, y, tool)[0].joint

    return jax.vmap(one)(readings, thx, thy)


def _random_robot(key: Array) -> _Robot:
    mounting, gains, offsets, cable = jax.random.split(key, 4)
    axis = jax.random.normal(mounting, (3,))
    exit_ = jax.random.normal(cable, (3,))
    tool = RigidTool(
        weight=jnp.asarray(_WEIGHT_N),
        centre=jnp.asarray(_CENTRE_MM, jnp.float32),
        force_offset=jnp.zeros(3),
        torque_offset=0.05 * jax.random.normal(offsets, (3,)),
        mounting=_MOUNTING_RAD * axis / jnp.linalg.norm(axis),
        gains=1.0 + _GAIN_SD * jax.random.normal(gains, (6,)),
    )
    return _Robot(tool, _CABLE_MM * exit_ / jnp.linalg.norm(exit_))


def _zeroed(truth: _Robot, key: Array) -> _Robot:
    """Robot after zeroing its force channels upright, with the noise and drag of that reading."""
    upright = jnp.zeros(1)
    reading = _readings(truth, upright, upright, key)[0]
    return eqx.tree_at(lambda r: r.tool.force_offset, truth, -reading[:3])


def _readings(truth: _Robot, thx: Array, thy: Array, key: Array) -> Float[Array, "n 6"]:
    """Simulated readings at tilts approached from random directions."""
    drag_key, noise_key = jax.random.split(key)
    toward = jax.random.normal(drag_key, (len(thx), 3))
    drag = -_DRAG_N * toward / jnp.linalg.norm(toward, axis=1, keepdims=True)
    torque = jnp.cross(jnp.broadcast_to(truth.cable[None], drag.shape), drag) / 1000.0
    spread = jnp.array([_NOISE_N] * 3 + [_NOISE_NM] * 3)
    noise = spread[None] * jax.random.normal(noise_key, (len(thx), 6))
    load = jax.vmap(truth.tool.load)(thx, thy)
    return load + jnp.concatenate([drag, torque], axis=1) + noise
