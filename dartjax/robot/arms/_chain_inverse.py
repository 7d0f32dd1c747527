"""Iterative inverse kinematics of a serial arm: damped least squares, Levenberg-Marquardt.

Both take a fixed number of steps, so thousands of targets run in one vmap, and both stay within the
joint limits. They are local: use several start positions (vmap) to avoid local minima.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.arms._chain import (
    JointPositions,
    SerialChain,
    chain_jacobian,
    damped_inverse,
    pose_error,
    to_middle,
    tool_pose,
)
from dartjax.transforms import SE3

_REACHED_MM, _REACHED_RAD = 1e-3, 1e-5
_DAMPING_SHARE = 1e-3  # damping over the error's norm, so that the last steps are Newton steps
_SINGULAR_SHARE = 1e-3  # smallest over largest singular value of the scaled Jacobian


class ChainSolution(eqx.Module):
    """Joint positions for a target; check the status before use."""

    q: JointPositions
    distance_mm: Scalar  # remaining to the target
    angle_rad: Scalar  # remaining to the target


def solve_damped(
    target: SE3,
    chain: SerialChain,
    start: JointPositions,
    *,
    num_steps: int = 100,
    characteristic_length_mm: float = 200.0,
    longest_step_rad: float = 0.3,
    centering: Scalar | float = 0.05,
) -> tuple[ChainSolution, Status]:
    """Solve inverse kinematics by damped least squares, with centering of the joints in the null
    space.

    Each step is J^+ e + centering N (middle - q), with the error e scaled to mm by the
    characteristic length and a damping of 1e-3 |e| + 1e-3. The last quarter of the steps has no
    centering, so that the target is reached.
    Status: BAD_PARAMETER, UNREACHABLE_POSE (more than 1e-3 mm or 1e-5 rad remain; ten times as much
    in float32), SINGULAR_CONFIGURATION; the joints are returned in every case.
    """
    scale = _row_scale(characteristic_length_mm)
    step_limit = _step_limit(chain, longest_step_rad, characteristic_length_mm)

    def step(q: JointPositions, centre: Scalar) -> tuple[JointPositions, None]:
        error = scale * pose_error(tool_pose(q, chain), target)
        jacobian = scale[:, None] * chain_jacobian(q, chain)
        inverse = damped_inverse(jacobian, _DAMPING_SHARE * jnp.linalg.norm(error) + 1e-3)
        free = to_middle(q, chain)
        move = inverse @ error + centre * (free - inverse @ (jacobian @ free))
        shrink = jnp.minimum(1.0, jnp.min(step_limit / jnp.maximum(jnp.abs(move), 1e-12)))
        return jnp.clip(q + shrink * move, chain.lower, chain.upper), None

    steps = jnp.arange(num_steps)
    centre = jnp.where(steps < 0.75 * num_steps, centering, 0.0).astype(start.dtype)
    q, _ = jax.lax.scan(step, jnp.clip(start, chain.lower, chain.upper), centre)
    return _solution(q, target, chain, scale)


def solve_levenberg_marquardt(
    target: SE3,
    chain: SerialChain,
    start: JointPositions,
    *,
    num_steps: int = 60,
    characteristic_length_mm: float = 200.0,
) -> tuple[ChainSolution, Status]:
    """Solve inverse kinematics by Levenberg-Marquardt on the pose error.

    A joint at a limit that the step would exceed is fixed for that step (active set), and the other
    joints compensate. Status as in `solve_damped`.
    """
    scale = _row_scale(characteristic_length_mm)

    def error_of(q: JointPositions) -> Float[Array, "6"]:
        return scale * pose_error(tool_pose(q, chain), target)

    def step(state, _):
        q, damping = state
        error = error_of(q)
        jacobian = scale[:, None] * chain_jacobian(q, chain)
        move = _limited_move(q, jacobian, error, damping, chain)
        candidate = jnp.clip(q + move, chain.lower, chain.upper)
        better = jnp.sum(error_of(candidate) ** 2) < jnp.sum(error**2)
        damping = jnp.clip(damping * jnp.where(better, 0.2, 5.0), 1e-12, 1e6)
        return (jnp.where(better, candidate, q), damping), None

    start = jnp.clip(start, chain.lower, chain.upper)
    first = jnp.asarray(1e-2, start.dtype)
    (q, _), _ = jax.lax.scan(step, (start, first), length=num_steps)
    return _solution(q, target, chain, scale)


def _limited_move(
    q: JointPositions,
    jacobian: Float[Array, "6 joint"],
    error: Float[Array, "6"],
    damping: Scalar,
    chain: SerialChain,
) -> JointPositions:
    def solve(free: Bool[Array, " joint"]) -> JointPositions:
        columns = jnp.where(free[None, :], jacobian, 0.0)
        weight = jnp.sum(jacobian**2, axis=0) + 1e-9 * jnp.max(jacobian**2)
        normal = columns.T @ columns + damping * jnp.diag(weight)
        normal = normal + 1e-12 * jnp.max(weight) * jnp.eye(len(q))
        return jnp.where(free, jnp.linalg.solve(normal, columns.T @ error), 0.0)

    move = solve(jnp.ones(len(q), bool))
    pushes = ((q <= chain.lower) & (move < 0.0)) | ((q >= chain.upper) & (move > 0.0))
    return solve(~pushes)


def _solution(
    q: JointPositions, target: SE3, chain: SerialChain, scale: Float[Array, "6"]
) -> tuple[ChainSolution, Status]:
    error = pose_error(tool_pose(q, chain), target)
    distance, angle = jnp.linalg.norm(error[:3]), jnp.linalg.norm(error[3:])
    slack = 1.0 if q.dtype == jnp.float64 else 10.0
    reached = (distance < slack * _REACHED_MM) & (angle < slack * _REACHED_RAD)
    values = jnp.linalg.svd(scale[:, None] * chain_jacobian(q, chain), compute_uv=False)
    finite = jnp.all(jnp.isfinite(q)) & jnp.isfinite(distance)
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.UNREACHABLE_POSE, ~reached),
        (StatusCode.SINGULAR_CONFIGURATION, ~(values[-1] >= _SINGULAR_SHARE * values[0])),
    )
    return ChainSolution(q, distance, angle), status


def _row_scale(length: float) -> Float[Array, "6"]:
    return jnp.array([1.0, 1.0, 1.0, length, length, length])


def _step_limit(chain: SerialChain, longest_rad: float, length: float) -> JointPositions:
    return jnp.where(chain.is_revolute, longest_rad, longest_rad * length)
