"""Table 7 of Li, Du and Yu (2020): what is left of a tool's weight after compensation.

Simulated robots with a 30 N tool: a sensor mounted askew by 2 degrees, axis gains off by 1 %,
noise, and a cable that drags with 0.25 N (0.5 N peak to peak) against the direction from which a
pose was approached. Three compensations: the authors' with the nominal weight and torque
polynomials, the same with everything fitted, and a rigid tool identified by least squares.
All are fitted on one grid of tilts and judged on another.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax.robot import cooperation
from dartjax.robot.cooperation import PolynomialTool, RigidTool, ToolModel

NUM_ROBOTS = 200
AXES = ("Fx", "Fy", "Fz", "Tx", "Ty", "Tz")  # of joint 5
NOMINAL, POLYNOMIAL, RIGID = "nominal weight", "fitted polynomials", "rigid tool"
WEIGHT_N, CENTRE_MM = 30.0, np.array([25.0, -69.0, -62.0])  # behind the printed polynomials
MOUNTING_RAD, GAIN_SD = np.deg2rad(2.0), 0.01
NOISE_N, NOISE_NM = 0.1, 0.003
DRAG_N = 0.25  # each way
CABLE_MM = 40.0  # distance of the cable's exit from the sensor
PUBLISHED = {  # share above 1 N or 0.1 N m, max, min, mean
    "Fx": (0.1270, 1.501, 0.002, 0.5115),
    "Fy": (0.1746, 1.776, 0.047, 0.7477),
    "Fz": (0.0635, 1.496, 0.007, 0.4430),
    "Tx": (0.0, 0.093, 0.0, 0.0359),
    "Ty": (0.0, 0.064, 0.0, 0.0264),
    "Tz": (0.206, 0.133, 0.006, 0.0617),
}
_TARGETS = {"force": 1.0, "torque": 0.1}  # what the shares are above

Tilts = tuple[Float[Array, " n"], Float[Array, " n"]]


class ToolWeightFields(NamedTuple):
    """Residual maps of the first robot on the grid of table 7."""

    thx_deg: np.ndarray  # (9,)
    th5_deg: np.ndarray  # (7,)
    residual: dict[str, np.ndarray]  # by method, (9, 7, 6): frame of joint 5, N and N m


class _Robot(eqx.Module):
    """A sensor and tool as they are, and where its cable leaves."""

    tool: RigidTool
    cable: Float[Array, "3"]  # transducer frame, mm


def study(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], ToolWeightFields]:
    """The summary, the rows of the table, and the residual maps of one robot.

    Summary: means over poses and robots for the worst axis, maxima over everything, of the
    rigid tool (`force_residual_mean_N` and so on), and the same for the other two by prefix.
    """
    fit_grid, test_grid = tilt_grid(45, 10, 35, 10), tilt_grid(40, 10, 30, 10)
    keys = jax.random.split(jax.random.key(seed), NUM_ROBOTS)
    residual, status = jax.jit(jax.vmap(_one_robot, (0, None, None)))(keys, fit_grid, test_grid)
    if np.any(np.asarray(status)):
        raise RuntimeError(f"{np.count_nonzero(status)} of {NUM_ROBOTS} tools were not identified")
    left = {method: np.asarray(values) for method, values in residual.items()}
    rows = [_row(method, axis, left[method][..., i]) for method in left for i, axis in _axes()]
    maps = {method: values[0].reshape(9, 7, 6) for method, values in left.items()}
    fields = ToolWeightFields(np.arange(-40.0, 41.0, 10.0), np.arange(-30.0, 31.0, 10.0), maps)
    return _summary(left), rows, fields


def tilt_grid(thx_deg: int, thx_step: int, th5_deg: int, th5_step: int) -> Tilts:
    """(thx, thy) in rad of a grid over +-thx_deg and +-th5_deg, thx the slow axis."""
    thx = np.arange(-thx_deg, thx_deg + 1, thx_step)
    th5 = np.arange(-th5_deg, th5_deg + 1, th5_step)
    x, y = np.meshgrid(np.deg2rad(thx), np.deg2rad(-th5), indexing="ij")
    return jnp.asarray(x.ravel(), jnp.float32), jnp.asarray(y.ravel(), jnp.float32)


def _one_robot(key: Array, fit_grid: Tilts, test_grid: Tilts) -> tuple[dict[str, Array], Array]:
    """Residual wrenches in joint 5 on the test grid, (63, 6) by method."""
    own, fit_key, test_key, zero_key = jax.random.split(key, 4)
    truth = _zeroed(_random_robot(own), zero_key)
    known = _readings(truth, *fit_grid, fit_key)
    new = _readings(truth, *test_grid, test_key)
    polynomial = cooperation.fit_polynomial_tool(known, *fit_grid)
    estimate, status = cooperation.fit_rigid_tool(known, *fit_grid)
    nominal = PolynomialTool(
        jnp.asarray(WEIGHT_N), jnp.array([0.0, 0.0, WEIGHT_N]), polynomial.torque
    )
    tools = {NOMINAL: nominal, POLYNOMIAL: polynomial, RIGID: estimate.tool}
    return {name: _left(tool, new, *test_grid) for name, tool in tools.items()}, status


def _left(tool: ToolModel, readings: Array, thx: Array, thy: Array) -> Float[Array, "n 6"]:
    def one(reading: Array, x: Array, y: Array) -> Array:
        return cooperation.compensate(reading, x, y, tool)[0].joint

    return jax.vmap(one)(readings, thx, thy)


def _random_robot(key: Array) -> _Robot:
    mounting, gains, offsets, cable = jax.random.split(key, 4)
    axis = jax.random.normal(mounting, (3,))
    exit_ = jax.random.normal(cable, (3,))
    tool = RigidTool(
        weight=jnp.asarray(WEIGHT_N),
        centre=jnp.asarray(CENTRE_MM, jnp.float32),
        force_offset=jnp.zeros(3),
        torque_offset=0.05 * jax.random.normal(offsets, (3,)),
        mounting=MOUNTING_RAD * axis / jnp.linalg.norm(axis),
        gains=1.0 + GAIN_SD * jax.random.normal(gains, (6,)),
    )
    return _Robot(tool, CABLE_MM * exit_ / jnp.linalg.norm(exit_))


def _zeroed(truth: _Robot, key: Array) -> _Robot:
    """The robot after its force channels were zeroed upright, noise and drag of that moment
    included."""
    upright = jnp.zeros(1)
    reading = _readings(truth, upright, upright, key)[0]
    return eqx.tree_at(lambda r: r.tool.force_offset, truth, -reading[:3])


def _readings(truth: _Robot, thx: Array, thy: Array, key: Array) -> Float[Array, "n 6"]:
    """What the sensor shows at tilts approached from random directions."""
    drag_key, noise_key = jax.random.split(key)
    toward = jax.random.normal(drag_key, (len(thx), 3))
    drag = -DRAG_N * toward / jnp.linalg.norm(toward, axis=1, keepdims=True)
    torque = jnp.cross(jnp.broadcast_to(truth.cable[None], drag.shape), drag) / 1000.0
    spread = jnp.array([NOISE_N] * 3 + [NOISE_NM] * 3)
    noise = spread[None] * jax.random.normal(noise_key, (len(thx), 6))
    load = jax.vmap(truth.tool.load)(thx, thy)
    return load + jnp.concatenate([drag, torque], axis=1) + noise


def _axes() -> list[tuple[int, str]]:
    return list(enumerate(AXES))


def _row(method: str, axis: str, residual: np.ndarray) -> dict[str, Any]:
    """One line of the table; `residual` is (robot, pose) of one axis."""
    size = np.abs(residual)
    limit = _TARGETS["force" if axis.startswith("F") else "torque"]
    share, most, least, mean = PUBLISHED[axis]
    return {
        "method": method,
        "axis": axis,
        "unit": "N" if axis.startswith("F") else "N m",
        "mean": float(size.mean()),
        "max": float(size.max()),
        "max, median robot": float(np.median(size.max(axis=1))),
        "min": float(size.min()),
        "share above 1 N or 0.1 N m": float((size > limit).mean()),
        "mean, reported by the authors": mean,
        "max, reported by the authors": most,
        "min, reported by the authors": least,
        "share, reported by the authors": share,
    }


def _summary(left: dict[str, np.ndarray]) -> dict[str, Any]:
    prefix = {NOMINAL: "nominal_", POLYNOMIAL: "polynomial_", RIGID: ""}
    summary: dict[str, Any] = {}
    for method in (RIGID, POLYNOMIAL, NOMINAL):
        mean = np.abs(left[method]).mean(axis=(0, 1))
        most = np.abs(left[method]).max(axis=(0, 1))
        for name, own, unit in (("force", slice(0, 3), "N"), ("torque", slice(3, 6), "Nm")):
            summary[f"{prefix[method]}{name}_residual_mean_{unit}"] = float(mean[own].max())
            summary[f"{prefix[method]}{name}_residual_max_{unit}"] = float(most[own].max())
    return summary
