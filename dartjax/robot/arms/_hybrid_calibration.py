"""Calibration of the hybrid robot's structure parameters: identifiability, poses, estimation.

A tracker measures the tool point in its own frame at known joint positions. Legs (distances between
successive points) need no common frame but determine less: if the orientation of the tool is
constant, L2, d and theta shift all points equally and cannot be determined.
"""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dartjax import transforms
from dartjax._least_squares import LeastSquares, levenberg_marquardt
from dartjax._numerics import safe_norm
from dartjax._types import Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot._reductions import largest
from dartjax.robot.arms._hybrid import (
    HybridRobot,
    Joints,
    ToolPose,
    closing_sine,
    hybrid_forward,
    hybrid_margins,
    sample_joints,
)
from dartjax.transforms import SE3

STRUCTURE_NAMES: tuple[str, ...] = ("l12", "l13", "L1", "L2", "gamma", "theta", "d")
Structure = Float[Array, "7"]
_UNIT_MM, _UNIT_RAD = 1.0, 2e-3  # manufacturing errors of similar effect, for scaling
_LEAST_SINGULAR = 1e-2  # of the largest: below it a direction is not identifiable
_NUM_STEPS = 12
_GREATEST_GAP_MM = 5.0  # of a point or leg; trackers and manufacturing errors leave far less
_CLEAR_SINE, _CLEAR_REACH = 0.4, 0.03  # distance of planned poses from singularities


class Identifiability(eqx.Module):
    """Identifiability of parameters from measurements.

    From the singular values of the Jacobian with parameters in units of 1 mm and 2 mrad. A
    direction with a singular value below 1 % of the largest is not identifiable: noise would change
    it by more than any manufacturing error.
    """

    singular_values: Float[Array, " n"]  # descending, mm per unit
    rank: Int[Array, ""]
    seen: Float[Array, " n"]  # fraction of each parameter in identifiable directions, 0 to 1


class HybridCalibration(eqx.Module):
    """Result of a calibration; `sigma` has the standard deviations in mm and rad."""

    robot: HybridRobot
    T_tracker_base: SE3
    residual_rms_mm: Scalar
    residual_max_mm: Scalar  # of the worst point
    sigma: Structure
    identifiability: Identifiability


def structure_of(robot: HybridRobot) -> Structure:
    """Return the seven structure parameters in the order of STRUCTURE_NAMES."""
    return jnp.stack([getattr(robot, name) for name in STRUCTURE_NAMES])


def with_structure(robot: HybridRobot, structure: Structure) -> HybridRobot:
    """Replace the structure parameters of a robot."""
    named = zip(STRUCTURE_NAMES, structure, strict=True)
    return dataclasses.replace(robot, **dict(named))


def perturbed(
    robot: HybridRobot, sigma_mm: Scalar | float, sigma_rad: Scalar | float, *, key: Array
) -> HybridRobot:
    """Simulate a robot as built: add normal errors to every structure parameter."""
    sigma = jnp.where(_is_angle(), sigma_rad, sigma_mm)
    nominal = structure_of(robot)
    return with_structure(robot, nominal + sigma * jax.random.normal(key, (7,), nominal.dtype))


def tool_points(q: Float[Array, "n 5"], robot: HybridRobot) -> Points:
    """Compute tool points of joint positions in the base frame, mm."""
    return jax.vmap(lambda each: hybrid_forward(each, robot)[0][:3])(q)


def leg_lengths(points: Points) -> Float[Array, " leg"]:
    """Compute the distances between successive points, mm."""
    return jnp.linalg.norm(jnp.diff(points, axis=0), axis=1)


def calibrate_from_points(
    q: Float[Array, "n 5"], points_tracker: Points, nominal: HybridRobot
) -> tuple[HybridCalibration, Status]:
    """Calibrate structure parameters and T_tracker_base from tool points of a tracker (mm).

    Levenberg-Marquardt over 7 + 6 unknowns, from the nominal robot aligned with the points. `sigma`
    is estimated from the residuals. Status: BAD_PARAMETER (not finite), DEGENERATE_GEOMETRY (the
    poses do not determine all directions: vary the tilts; undetermined directions stay nominal) and
    CLOSURE_TOO_LARGE (a point is more than 5 mm from that of the fitted robot, see
    `residual_max_mm`: points in another unit or in another order).
    """
    start = transforms.align_points(tool_points(q, nominal), points_tracker)

    def unpack(x: Float[Array, "13"]) -> tuple[HybridRobot, SE3]:
        robot = with_structure(nominal, structure_of(nominal) + _units() * x[:7])
        return robot, transforms.perturb(start, _UNIT_RAD * x[7:10], x[10:])

    def residual(x: Float[Array, "13"]) -> Float[Array, " m"]:
        robot, T_tracker_base = unpack(x)
        return (transforms.apply(T_tracker_base, tool_points(q, robot)) - points_tracker).ravel()

    found, seen = _solve(residual, jnp.zeros(13, q.dtype))
    freedom = max(3 * len(q) - 13, 1)
    variance = 2.0 * found.cost / freedom
    sigma = _units() * jnp.sqrt(variance * _inverse_diagonal(found.jacobian)[:7])
    robot, T_tracker_base = unpack(found.x)
    rms = jnp.sqrt(2.0 * found.cost / len(q))
    gaps = safe_norm(found.residual.reshape(-1, 3))
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~found.finite),
        (StatusCode.DEGENERATE_GEOMETRY, seen.rank < 13),
        (StatusCode.CLOSURE_TOO_LARGE, ~jnp.all(gaps < _GREATEST_GAP_MM)),
    )
    return HybridCalibration(robot, T_tracker_base, rms, largest(gaps), sigma, seen), status


def calibrate_from_legs(
    q: Float[Array, "n 5"], legs: Float[Array, " leg"], nominal: HybridRobot
) -> tuple[HybridRobot, Identifiability, Status]:
    """Calibrate structure parameters from distances between successive tool points, mm.

    Directions that the legs do not determine stay nominal, with status DEGENERATE_GEOMETRY. The
    robot then reproduces these legs, but its accuracy elsewhere is unknown. Status
    CLOSURE_TOO_LARGE (before that one) if a leg of the fitted robot differs by more than 5 mm, and
    BAD_PARAMETER for legs that are not finite.
    """

    def residual(x: Structure) -> Float[Array, " leg"]:
        return leg_lengths(tool_points(q, unpack(x))) - legs

    def unpack(x: Structure) -> HybridRobot:
        return with_structure(nominal, structure_of(nominal) + _units() * x)

    found, seen = _solve(residual, jnp.zeros(7, q.dtype))
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~found.finite),
        (StatusCode.CLOSURE_TOO_LARGE, ~jnp.all(jnp.abs(found.residual) < _GREATEST_GAP_MM)),
        (StatusCode.DEGENERATE_GEOMETRY, seen.rank < 7),
    )
    return unpack(found.x), seen, status


def identifiability_of_legs(q: Float[Array, "n 5"], robot: HybridRobot) -> Identifiability:
    """Compute the identifiability of the seven structure parameters from legs between these joint
    positions."""
    of_structure = jax.jacfwd(lambda p: leg_lengths(tool_points(q, with_structure(robot, p))))
    return identifiability_of(of_structure(structure_of(robot)) * _units()[None, :])


def identifiability_of_points(q: Float[Array, "n 5"], robot: HybridRobot) -> Identifiability:
    """Compute the identifiability of the structure (first seven) and of the tracker's pose
    (rotation, then translation) from tool points in a tracker's frame."""
    return identifiability_of(jax.vmap(lambda each: _point_rows(each, robot))(q).reshape(-1, 13))


def identifiability_of(jacobian: Float[Array, "m n"]) -> Identifiability:
    """Compute the rank and the identifiable directions of a scaled Jacobian."""
    _, values, rows = jnp.linalg.svd(jacobian, full_matrices=False)
    is_seen: Bool[Array, " n"] = values > _LEAST_SINGULAR * values[0]
    seen = jnp.sum(jnp.where(is_seen[:, None], rows**2, 0.0), axis=0)
    return Identifiability(values, jnp.sum(is_seen).astype(jnp.int32), seen)


def plan_calibration(
    robot: HybridRobot, num_poses: int = 40, *, key: Array, num_candidates: int = 600
) -> Float[Array, "pose 5"]:
    """Plan joint positions with varied tilts whose tool points determine all parameters best.

    Greedy D-optimal design: of random candidates within limits, each next pose maximises log det of
    the information matrix of the 13 unknowns. Poses near a singularity are excluded, because the
    links of the robot as built may not close there.
    """
    q, poses, _ = sample_joints(robot, num_candidates, key=key)
    rows = jax.vmap(lambda each: _point_rows(each, robot))(q)  # (candidate, 3, 13)
    usable = jax.vmap(lambda each, pose: _is_clear_of_singularities(each, pose, robot))(q, poses)
    rows = jnp.where(usable[:, None, None], jnp.nan_to_num(rows), 0.0)

    def choose(state, _):
        information, taken = state
        spread = jnp.linalg.solve(information[None], jnp.swapaxes(rows, 1, 2))
        gain = jnp.linalg.slogdet(jnp.eye(3)[None] + rows @ spread)[1]
        best = jnp.argmax(jnp.where(taken, -jnp.inf, gain))
        return (information + rows[best].T @ rows[best], taken.at[best].set(True)), best

    start = (1e-6 * jnp.eye(13, dtype=q.dtype), jnp.zeros(num_candidates, bool))
    _, chosen = jax.lax.scan(choose, start, length=num_poses)
    return q[chosen]


def _solve(
    residual: Callable[[Float[Array, " n"]], Float[Array, " m"]], start: Float[Array, " n"]
) -> tuple[LeastSquares, Identifiability]:
    """Least squares over the directions that are identifiable at `start`; the others are fixed."""
    jacobian = jax.jacfwd(residual)(start)
    _, values, rows = jnp.linalg.svd(jacobian, full_matrices=False)
    kept = jnp.where((values > _LEAST_SINGULAR * values[0])[:, None], rows, 0.0)
    projector = kept.T @ kept
    found = levenberg_marquardt(
        lambda x: residual(start + projector @ (x - start)), start, num_steps=_NUM_STEPS
    )
    x = start + projector @ (found.x - start)
    return dataclasses.replace(found, x=x), identifiability_of(jacobian)


def _is_clear_of_singularities(q: Joints, pose: ToolPose, robot: HybridRobot) -> Bool[Array, ""]:
    of_reach = hybrid_margins(pose, robot)[:2]
    return (closing_sine(q, robot) > _CLEAR_SINE) & jnp.all(of_reach > _CLEAR_REACH)


def _point_rows(q: Joints, robot: HybridRobot) -> Float[Array, "3 13"]:
    """Jacobian of one tool point in the 13 unknowns, for tracker frame = base frame."""

    def point(x: Float[Array, "13"]) -> Float[Array, "3"]:
        moved = with_structure(robot, structure_of(robot) + _units() * x[:7])
        at = hybrid_forward(q, moved)[0][:3]
        return at + jnp.cross(_UNIT_RAD * x[7:10], at) + x[10:]

    return jax.jacfwd(point)(jnp.zeros(13, q.dtype))


def _inverse_diagonal(jacobian: Float[Array, "m n"]) -> Float[Array, " n"]:
    """Diagonal of (J^T J)^-1; infinite for parameters that are not identifiable."""
    _, values, rows = jnp.linalg.svd(jacobian, full_matrices=False)
    is_seen = values > _LEAST_SINGULAR * values[0]
    inverse = jnp.where(is_seen, 1.0 / jnp.where(is_seen, values, 1.0) ** 2, 0.0)
    unseen = jnp.sum(jnp.where(is_seen[:, None], 0.0, rows**2), axis=0)
    return jnp.where(unseen > 1e-6, jnp.inf, jnp.sum(inverse[:, None] * rows**2, axis=0))


def _is_angle() -> Bool[Array, "7"]:
    return jnp.array([name in ("gamma", "theta") for name in STRUCTURE_NAMES])


def _units() -> Structure:
    return jnp.where(_is_angle(), _UNIT_RAD, _UNIT_MM)
