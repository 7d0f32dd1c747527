"""Serial arms as products of exponentials: forward kinematics, Jacobian, redundancy.

T_base_tool(q) = exp(S_1 q_1) ... exp(S_n q_n) M (Lynch, Park, Modern Robotics, 2017, chapter 4).
A screw S = (v, w) is given in the base frame at q = 0: for a revolute joint w is the axis and
v = -w x (a point on it, mm); for a prismatic joint w = 0 and v is the direction. Twists are
(v, w), as in jaxlie. Lengths mm, angles rad.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SE3, from_twist

JointPositions = Float[Array, " joint"]
Jacobian = Float[Array, "6 joint"]


class SerialChain(eqx.Module):
    """Serial arm: screws, home pose and joint limits, which may be infinite."""

    screws: Float[Array, "joint 6"]
    home: SE3  # M = T_base_tool at q = 0
    lower: JointPositions
    upper: JointPositions
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def is_revolute(self) -> Bool[Array, " joint"]:
        """Mask of the revolute joints; the others are prismatic."""
        return jnp.any(self.screws[:, 3:] != 0.0, axis=1)


def chain_forward(q: JointPositions, chain: SerialChain) -> tuple[SE3, Status]:
    """Compute T_base_tool of joint positions.

    Status: BAD_PARAMETER (not finite), JOINT_LIMIT (the pose is returned in either case).
    """
    finite = jnp.all(jnp.isfinite(q)) & jnp.all(jnp.isfinite(chain.screws))
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~finite),
        (StatusCode.JOINT_LIMIT, ~jnp.all(chain_excess(q, chain) <= 0.0)),
    )
    return tool_pose(q, chain), status


def tool_pose(q: JointPositions, chain: SerialChain) -> SE3:
    """Compute T_base_tool of joint positions without a status."""
    return _products(q, chain)[0] @ chain.home


def chain_jacobian(q: JointPositions, chain: SerialChain) -> Jacobian:
    """Compute the geometric Jacobian: (velocity of the tool's origin, angular velocity) per joint
    rate, both along the base's axes."""
    after, before = _products(q, chain)
    origin = (after @ chain.home).translation()

    def column(T_base_moved: SE3, screw: Float[Array, "6"]) -> Float[Array, "6"]:
        turn = T_base_moved.rotation()
        axis = turn.apply(screw[3:])
        lever = origin - T_base_moved.translation()
        return jnp.concatenate([turn.apply(screw[:3]) + jnp.cross(axis, lever), axis])

    return jax.vmap(column)(before, chain.screws).T


def _products(q: JointPositions, chain: SerialChain) -> tuple[SE3, SE3]:
    """Product of all exponentials, and the products of those before each joint (stacked)."""
    motions = jax.vmap(from_twist)(chain.screws * q[:, None])
    identity = from_twist(0.0 * chain.screws[0])
    return jax.lax.scan(lambda before, motion: (before @ motion, before), identity, motions)


def pose_error(T_base_tool: SE3, target: SE3) -> Float[Array, "6"]:
    """Compute the error of the tool's pose: shift (mm) and rotation vector (rad) that move the tool
    to the target, along the base's axes."""
    turn = target.rotation() @ T_base_tool.rotation().inverse()
    return jnp.concatenate([target.translation() - T_base_tool.translation(), turn.log()])


def chain_excess(q: JointPositions, chain: SerialChain) -> JointPositions:
    """Compute the excess of each joint beyond its range; 0 within the range."""
    return jnp.maximum(jnp.maximum(chain.lower - q, q - chain.upper), 0.0)


def manipulability(jacobian: Jacobian) -> Scalar:
    """Compute the manipulability sqrt(det(J J^T)) (Yoshikawa 1985): 0 at a singularity. In the
    units of J."""
    return jnp.sqrt(jnp.maximum(jnp.linalg.det(jacobian @ jacobian.T), 0.0))


def null_space_projector(jacobian: Jacobian, damping: Scalar | float) -> Float[Array, "j j"]:
    """Compute N = I - J^+ J with the damped inverse: joint rates N z do not move the tool.

    Exact for damping 0 away from singularities; 0 for an arm without redundancy.
    """
    return jnp.eye(jacobian.shape[1]) - damped_inverse(jacobian, damping) @ jacobian


def damped_inverse(jacobian: Jacobian, damping: Scalar | float) -> Float[Array, "joint 6"]:
    """Compute the damped inverse J^T (J J^T + damping^2 I)^-1 (Nakamura, Hanafusa 1986), in the
    units of J."""
    square = jacobian @ jacobian.T + damping**2 * jnp.eye(6)
    return jnp.linalg.solve(square, jacobian).T


def to_middle(q: JointPositions, chain: SerialChain) -> JointPositions:
    """Compute the joint motion toward the middle of the ranges, for use in the null space; 0 for a
    joint without limits."""
    bounded = jnp.isfinite(chain.lower) & jnp.isfinite(chain.upper)
    middle = 0.5 * (jnp.where(bounded, chain.lower, 0.0) + jnp.where(bounded, chain.upper, 0.0))
    return jnp.where(bounded, middle - q, 0.0)


def sample_chain(chain: SerialChain, *, key: Array) -> JointPositions:
    """Draw joint positions uniformly within limits, or within +-pi for a joint without limits."""
    lower = jnp.where(jnp.isfinite(chain.lower), chain.lower, -jnp.pi)
    upper = jnp.where(jnp.isfinite(chain.upper), chain.upper, jnp.pi)
    share = jax.random.uniform(key, lower.shape, lower.dtype)
    return lower + share * (upper - lower)
