"""Jacobian of the hybrid robot, its inverse in closed form, and its conditioning.

The Jacobian in appendix A of [L] has a wrong sign in the tool's offset and the derivative of
another angle in its last row; appendix B is incomplete. Here the Jacobian is the derivative of the
forward kinematics, and the closed inverse is derived independently.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Scalar
from dartjax.robot.arms._hybrid import (
    WORKING_BRANCH,
    Assembly,
    Branch,
    HybridRobot,
    Joints,
    ToolPose,
    arm_triangle,
    hinge_drop,
    hybrid_forward,
    hybrid_inverse,
)

Matrix5 = Float[Array, "5 5"]


class Conditioning(eqx.Module):
    """Conditioning of the Jacobian at one configuration."""

    least_singular_value: Scalar  # of the 5 x 5 Jacobian, angles scaled by a length
    condition: Scalar  # of the same
    slider_condition: Scalar  # of d(x, y, z) / d(l11, l14, l3), which needs no scale
    determinant: Scalar  # of the unscaled Jacobian; 0 at a singularity


def hybrid_jacobian(q: Joints, robot: HybridRobot, *, assembly: Assembly = 1) -> Matrix5:
    """Compute d pose / d q, mm and rad; rows x, y, z, tilt_x, tilt_y.

    NaN if the links do not close.
    """
    return jax.jacfwd(lambda each: hybrid_forward(each, robot, assembly=assembly)[0])(q)


def hybrid_inverse_jacobian(
    pose: ToolPose,
    robot: HybridRobot,
    *,
    branch: Branch = WORKING_BRANCH,
    assembly: Assembly = 1,
) -> Matrix5:
    """Compute d q / d pose in closed form, rows l11, l14, l3, th4, th5.

    NaN for an unreachable pose; unbounded near a singularity.
    """
    q, _ = hybrid_inverse(pose, robot, branch=branch, assembly=assembly)
    tilt_x, tilt_y = pose[3], pose[4]
    sin_x, cos_x = jnp.sin(tilt_x), jnp.cos(tilt_x)
    drop = hinge_drop(tilt_y, robot)
    drop_rate = -robot.L2 * jnp.sin(tilt_y) + robot.d * jnp.cos(tilt_y)
    th13 = tilt_x - q[3] - robot.gamma - robot.theta
    longest, bend = arm_triangle(robot)
    arm_rate = -longest * jnp.sin(th13 + bend)  # d(wrist y) / d(th13)
    hinge_z = robot.l13 * jnp.sin(th13) - q[1]
    slider_y = q[0] + robot.l13 * jnp.cos(th13)  # hinge to slider B along y

    wrist_y = jnp.array([0.0, 1.0, 0.0, -drop * cos_x, -drop_rate * sin_x])
    wrist_z = jnp.array([0.0, 0.0, 1.0, -drop * sin_x, drop_rate * cos_x])
    to_th13 = wrist_y / arm_rate
    to_hinge_z = wrist_z - robot.L1 * jnp.cos(th13 + robot.gamma) * to_th13
    to_l11 = robot.l13 * jnp.sin(th13) * to_th13 - hinge_z / slider_y * to_hinge_z
    to_l14 = robot.l13 * jnp.cos(th13) * to_th13 - to_hinge_z
    to_l3 = jnp.array([1.0, 0.0, 0.0, 0.0, 0.0]).at[4].set(drop)
    to_th4 = jnp.array([0.0, 0.0, 0.0, 1.0, 0.0]) - to_th13
    to_th5 = jnp.array([0.0, 0.0, 0.0, 0.0, -1.0])
    return jnp.stack([to_l11, to_l14, to_l3, to_th4, to_th5])


def conditioning(
    q: Joints, robot: HybridRobot, *, characteristic_length_mm: float = 200.0
) -> Conditioning:
    """Compute the conditioning of the Jacobian at joint positions.

    Angles are multiplied by the characteristic length, so that all rows and columns are in mm; the
    default is about the length of the tool.
    """
    jacobian = hybrid_jacobian(q, robot)
    scale = jnp.array([1.0, 1.0, 1.0, characteristic_length_mm, characteristic_length_mm])
    values = _singular_values(scale[:, None] * jacobian / scale[None, :])
    sliders = _singular_values(jacobian[:3, :3])
    return Conditioning(
        least_singular_value=values[-1],
        condition=values[0] / values[-1],
        slider_condition=sliders[0] / sliders[-1],
        determinant=jnp.linalg.det(jacobian),
    )


def _singular_values(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    return jnp.linalg.svd(matrix, compute_uv=False)
