"""Identification of a tool's weight from readings in several poses, and its later updates.

An estimate is a tool with the square root of its information matrix. `update_tool_estimate` adds
readings to it. The first fit starts from a wide prior; an update starts from the last estimate,
whose information it discounts. All readings are recorded without contact: nobody touches the tool.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from dartjax._types import Scalar
from dartjax.robot._errors import (
    BadParameter,
    BadWrench,
    DegenerateGeometry,
    Status,
    StatusCode,
    first_status,
)
from dartjax.robot.cooperation._tool_weight import (
    SENSOR_RANGE_N,
    SENSOR_RANGE_NM,
    PolynomialTool,
    RigidTool,
    ToolModel,
    gravity_in_joint,
    sensor_to_joint,
    torque_terms,
)

Readings = Float[Array, "pose 6"]
Tilts = Float[Array, " pose"]

MIN_ORIENTATIONS = 6
SAME_TILT_RAD = np.deg2rad(1.0)
_NUM_WELL_KNOWN = 10  # weight, centre, two offsets: must be determined by the readings alone
_MIN_CONDITION = 1e-3
_PAYLOAD_RATIO = 3.0  # residuals over expected noise above which the payload has changed


class ReadingNoise(eqx.Module):
    """Standard deviation of the difference between a reading and the load of a rigid tool; the
    drag of the cable counts as noise."""

    force: float = 0.2  # N
    torque: float = 0.008  # N m


class ToolEstimate(eqx.Module):
    """Rigid tool with the uncertainty of its parameters: covariance (S^T S)^-1 of its leaves."""

    tool: RigidTool
    root_information: Float[Array, "19 19"]  # S, upper triangular


def fit_rigid_tool(
    wrenches: Readings,
    thx: Tilts,
    thy: Tilts,
    noise: ReadingNoise = ReadingNoise(),
    *,
    num_steps: int = 6,
) -> tuple[ToolEstimate, Status]:
    """Fit a rigid tool to readings without contact at tilts (thx, thy) rad.

    Gauss-Newton on the residuals over `noise`, with a wide prior (weight 0 +- 100 N, centre
    0 +- 300 mm, offsets 0 +- 100 N and 10 N m, mounting 0 +- 5 deg, gains 1 +- 2 %). The prior
    separates the weight from a gain common to all axes. Each step is a QR decomposition of the
    stacked square roots, for which float32 is accurate enough.

    Status DEGENERATE_GEOMETRY (and a NaN tool) for fewer than 6 tilts more than 1 deg apart, or
    tilts that do not determine weight, centre and offsets; BAD_WRENCH for a reading that is not
    finite or out of range; BAD_PARAMETER for tilts that are not finite or beyond pi.
    """
    estimate = update_tool_estimate(_prior(), wrenches, thx, thy, noise, num_steps=num_steps)
    jacobian = _jacobian(ravel_pytree(estimate.tool)[0], wrenches, thx, thy, noise)
    status = first_status(
        (StatusCode.BAD_WRENCH, ~_all_in_range(wrenches)),
        (StatusCode.BAD_PARAMETER, ~_all_tilts(thx, thy)),
        (StatusCode.DEGENERATE_GEOMETRY, _num_orientations(thx, thy) < MIN_ORIENTATIONS),
        (StatusCode.DEGENERATE_GEOMETRY, ~(_condition(jacobian) >= _MIN_CONDITION)),
    )
    good = status == StatusCode.OK
    return jax.tree.map(lambda leaf: jnp.where(good, leaf, jnp.nan), estimate), status


def update_tool_estimate(
    estimate: ToolEstimate,
    wrenches: Readings,
    thx: Tilts,
    thy: Tilts,
    noise: ReadingNoise = ReadingNoise(),
    *,
    forget: float = 1.0,
    num_steps: int = 1,
) -> ToolEstimate:
    """Update an estimate with more readings without contact.

    Recursive least squares in square-root form. `forget` < 1 discounts earlier readings: 0.98
    follows a sensor that drifts within some 50 poses. Readings or tilts that are not finite or out
    of range are left out, so that they do not spoil the estimate.
    """
    usable = _in_range(wrenches, thx, thy)
    wrenches = jnp.where(usable[:, None], wrenches, 0.0)
    thx, thy = (jnp.where(usable, tilt, 0.0) for tilt in (thx, thy))
    rows = jnp.repeat(usable, 6)
    previous, unravel = ravel_pytree(estimate.tool)
    root = jnp.sqrt(forget) * estimate.root_information

    def step(theta: Array, _: None) -> tuple[Array, Array]:
        residual = jnp.where(rows, _residual(theta, wrenches, thx, thy, noise), 0.0)
        jacobian = jnp.where(rows[:, None], _jacobian(theta, wrenches, thx, thy, noise), 0.0)
        q, r = jnp.linalg.qr(jnp.concatenate([root, jacobian]))
        right = q.T @ jnp.concatenate([root @ (previous - theta), -residual])
        return theta + jax.scipy.linalg.solve_triangular(r, right), r

    theta, roots = jax.lax.scan(step, previous, length=num_steps)
    return ToolEstimate(unravel(theta), roots[-1])


def fit_polynomial_tool(wrenches: Readings, thx: Tilts, thy: Tilts) -> PolynomialTool:
    """Fit weight, force offset and the torque polynomials of [L] to readings without contact.

    Two linear least-squares problems. At least 15 tilts in general position are needed; with fewer
    the polynomials are not determined, and the tool is NaN.
    """
    joint = jax.vmap(sensor_to_joint)(wrenches)[:, :3]
    one = jnp.ones((), thx.dtype)
    down = jax.vmap(gravity_in_joint, (0, 0, None))(thx, thy, one)
    slope = down - jnp.mean(down, 0)[None]
    weight = jnp.sum(slope * (joint - jnp.mean(joint, 0)[None])) / jnp.sum(slope**2)
    offset = jnp.mean(joint - weight * down, 0)
    terms = jax.vmap(torque_terms)(thx, thy)
    scale = jnp.max(jnp.abs(terms), 0)
    scaled, _, rank, _ = jnp.linalg.lstsq(terms / scale[None], 1000.0 * wrenches[:, 3:])
    tool = PolynomialTool(weight, offset, (scaled / scale[:, None]).T)
    return jax.tree.map(lambda leaf: jnp.where(rank == terms.shape[1], leaf, jnp.nan), tool)


def residuals(tool: ToolModel, wrenches: Readings, thx: Tilts, thy: Tilts) -> Readings:
    """Compute readings without contact minus the tool's prediction: transducer frame, N and N m."""
    return wrenches - jax.vmap(tool.load)(thx, thy)


def identify_tool(
    wrenches: Float[Array, "..."],
    thx: Float[Array, "..."],
    thy: Float[Array, "..."],
    noise: ReadingNoise = ReadingNoise(),
) -> ToolEstimate:
    """Identify a rigid tool on the host; see `fit_rigid_tool`. Record 12 poses or more.

    Raises BadWrench, BadParameter or DegenerateGeometry with the pose or the missing data; and
    BadWrench if the residuals exceed 3 times the expected noise, because the tool is not rigid or
    was touched.
    """
    _check_readings(wrenches, thx, thy)
    count = int(_num_orientations(thx, thy))
    if count < MIN_ORIENTATIONS:
        raise DegenerateGeometry(_undetermined_message(count))
    estimate, status = jax.jit(fit_rigid_tool)(wrenches, thx, thy, noise)
    if status == StatusCode.DEGENERATE_GEOMETRY:
        raise DegenerateGeometry(_undetermined_message(count))
    check_payload(estimate.tool, wrenches, thx, thy, noise)
    return estimate


def check_payload(
    tool: ToolModel,
    wrenches: Readings,
    thx: Tilts,
    thy: Tilts,
    noise: ReadingNoise = ReadingNoise(),
) -> None:
    """Raise BadWrench ("payload changed") if readings without contact no longer match the tool.

    The limit is an rms over poses and axes of 3 times the expected noise.
    """
    ratio = float(jnp.sqrt(jnp.mean(_weighted(residuals(tool, wrenches, thx, thy), noise) ** 2)))
    if not ratio <= _PAYLOAD_RATIO:
        raise BadWrench(
            f"payload changed: the residual is {ratio:.1f} times the expected noise, at most "
            f"{_PAYLOAD_RATIO:g} times are allowed; identify the tool again"
        )


def _undetermined_message(count: int) -> str:
    return (
        f"{count} tilts more than 1 deg apart do not determine weight, centre and offsets: record "
        f"at least {MIN_ORIENTATIONS}, preferably 12 or more, about both axes"
    )


def _check_readings(wrenches: Array, thx: Array, thy: Array) -> None:
    if wrenches.ndim != 2 or wrenches.shape[1] != 6 or not len(wrenches) == len(thx) == len(thy):
        raise BadParameter(
            f"wrenches {wrenches.shape}, thx {thx.shape}, thy {thy.shape}: give (n, 6), (n,), (n,)"
        )
    for name, tilt in (("thx", thx), ("thy", thy)):
        wrong = np.flatnonzero(~(np.abs(np.asarray(tilt)) <= np.pi))
        if len(wrong):
            raise BadParameter(
                f"{name}[{wrong[0]}] = {float(tilt[wrong[0]]):g} is above pi: give rad, not degrees"
            )
    limit = np.array([SENSOR_RANGE_N] * 3 + [SENSOR_RANGE_NM] * 3)
    wrong = np.argwhere(~(np.abs(np.asarray(wrenches)) <= limit))
    if len(wrong):
        pose, axis = wrong[0]
        raise BadWrench(
            f"wrenches[{pose}, {axis}] = {float(wrenches[pose, axis]):g} is beyond the sensor's "
            f"{limit[axis]:g} {'N' if axis < 3 else 'N m'}: remove that pose"
        )


def _prior() -> ToolEstimate:
    zero = jnp.zeros(3)
    tool = RigidTool(jnp.asarray(0.0), zero, zero, zero, zero, jnp.ones(6))
    spread = RigidTool(
        weight=jnp.asarray(100.0),
        centre=jnp.full(3, 300.0),
        force_offset=jnp.full(3, 100.0),
        torque_offset=jnp.full(3, 10.0),
        mounting=jnp.full(3, np.deg2rad(5.0)),
        gains=jnp.full(6, 0.02),
    )
    return ToolEstimate(tool, jnp.diag(1.0 / ravel_pytree(spread)[0]))


def _residual(
    theta: Array, wrenches: Readings, thx: Tilts, thy: Tilts, noise: ReadingNoise
) -> Float[Array, " m"]:
    tool = ravel_pytree(_prior().tool)[1](theta)
    return -_weighted(residuals(tool, wrenches, thx, thy), noise).reshape(-1)


def _jacobian(
    theta: Array, wrenches: Readings, thx: Tilts, thy: Tilts, noise: ReadingNoise
) -> Float[Array, "m 19"]:
    return jax.jacfwd(_residual)(theta, wrenches, thx, thy, noise)


def _weighted(difference: Readings, noise: ReadingNoise) -> Readings:
    sigma = jnp.stack([jnp.asarray(noise.force, difference.dtype)] * 3 + [noise.torque] * 3)
    return difference / sigma[None]


def _condition(jacobian: Float[Array, "m 19"]) -> Scalar:
    """Smallest over largest singular value of the first ten columns, each scaled to length 1."""
    columns = jacobian[:, :_NUM_WELL_KNOWN]
    length = jnp.linalg.norm(columns, axis=0)
    scaled = columns / jnp.where(length > 0.0, length, 1.0)[None]
    values = jnp.linalg.svd(scaled, compute_uv=False)
    return values[-1] / values[0] if len(jacobian) >= _NUM_WELL_KNOWN else jnp.zeros(())


def _num_orientations(thx: Tilts, thy: Tilts) -> Array:
    """Number of tilts that differ by more than 1 deg from every earlier one."""
    apart = jnp.hypot(thx[:, None] - thx[None], thy[:, None] - thy[None]) > SAME_TILT_RAD
    return jnp.sum(jnp.all(apart | jnp.triu(jnp.ones_like(apart)), axis=1))


def _in_range(wrenches: Readings, thx: Tilts, thy: Tilts) -> Bool[Array, " pose"]:
    """Which poses have a finite reading within the sensor's range, and tilts within pi."""
    most = jnp.array([SENSOR_RANGE_N] * 3 + [SENSOR_RANGE_NM] * 3, wrenches.dtype)
    in_sensor = jnp.all(jnp.abs(wrenches) <= most[None], axis=1)
    return in_sensor & (jnp.abs(thx) <= jnp.pi) & (jnp.abs(thy) <= jnp.pi)


def _all_in_range(wrenches: Readings) -> Array:
    force, torque = jnp.abs(wrenches[:, :3]), jnp.abs(wrenches[:, 3:])
    return jnp.all(force <= SENSOR_RANGE_N) & jnp.all(torque <= SENSOR_RANGE_NM)


def _all_tilts(thx: Tilts, thy: Tilts) -> Array:
    return jnp.all(jnp.abs(thx) <= jnp.pi) & jnp.all(jnp.abs(thy) <= jnp.pi)
