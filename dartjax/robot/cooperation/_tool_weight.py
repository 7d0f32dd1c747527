"""Tool-weight compensation: the hand's wrench from a force sensor that carries the tool.

Frames as in [L]: base, joint 5 (rotated from the base by Rx(thx) Ry(thy), thy = -th5), and the
transducer. A wrench is (fx, fy, fz, tx, ty, tz), N and N m. Readings carry offsets, because the
sensor is zeroed under load.

[L] = Li, Du, Yu, IEEE Access 8 (2020), doi 10.1109/ACCESS.2020.2979993.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax._types import Matrix3, Point, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SO3

Wrench = Float[Array, "6"]  # N, N m

# Joint 5 from transducer, [L] eq 16: F_J = (-fy, -fz, fx).
R_JOINT_TRANSDUCER = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], np.float32)
SENSOR_RANGE_N, SENSOR_RANGE_NM = 145.0, 5.0  # a reading beyond these is rejected

# Exponents (of x = thx, of t = th5) of the fifteen terms, and [L] eqs 20-22: degrees in,
# mN m out, transducer frame. The x^2 t^2 coefficient of the last row is printed without its
# power of ten; 1e-5 makes the polynomial match a rigid tool.
_EXPONENTS = [(n - k, k) for n in range(5) for k in range(n + 1)]
# fmt: off
_PAPER_TORQUE = np.array([
    [6.945, -35.98, 32.32, -0.001347, -0.006577, -0.007828, 0.001725, -0.00412, 5.266e-6,
     -0.001286, 0, 0, 0, 0, 0],
    [-77.1, -13.52, -0.03748, -0.2096, -0.001301, -0.2228, 0.0006763, -1.077e-5, 8.217e-5,
     -5.86e-5, 0, 0, 0, 0, 0],
    [40.66, -0.2027, 12.29, 0.3109, -0.004489, 0.3013, 0.0003569, -0.001594, -5.961e-5,
     -0.0006359, -9.58e-6, 1.15e-6, -3.946e-5, -1.005e-6, -5.059e-6],
])
# fmt: on


class ToolModel(eqx.Module):
    """Model of a tool on a force sensor: its no-contact reading, and the mounting of the sensor."""

    @abc.abstractmethod
    def load(self, thx: Scalar, thy: Scalar) -> Wrench:
        """Predict the reading without contact at the tilt (thx, thy) rad, transducer frame."""

    @abc.abstractmethod
    def to_joint(self, wrench: Wrench) -> Wrench:
        """Transform a wrench (offset and load removed) to the frame of joint 5."""


class RigidTool(ToolModel):
    """Rigid tool on a sensor with a mounting error and a gain per axis.

    reading = gains * (g, centre x g) + (force_offset, torque_offset), where g is the weight in
    the transducer frame, rotated by `mounting` from the nominal mounting.
    """

    weight: Scalar  # N
    centre: Point  # centre of mass in the transducer frame, mm
    force_offset: Float[Array, "3"]  # N
    torque_offset: Float[Array, "3"]  # N m
    mounting: Float[Array, "3"]  # rotation vector transducer_true <- transducer_nominal, rad
    gains: Wrench  # reading over true force (N) or torque (N m)

    def load(self, thx: Scalar, thy: Scalar) -> Wrench:
        """Predict the reading without contact at the tilt (thx, thy) rad, transducer frame."""
        nominal = R_JOINT_TRANSDUCER.T @ gravity_in_joint(thx, thy, self.weight)
        gravity = SO3.exp(self.mounting).as_matrix() @ nominal
        torque = jnp.cross(self.centre, gravity) / 1000.0
        offset = jnp.concatenate([self.force_offset, self.torque_offset])
        return self.gains * jnp.concatenate([gravity, torque]) + offset

    def to_joint(self, wrench: Wrench) -> Wrench:
        """Transform a wrench (offset and load removed) to the frame of joint 5."""
        nominal_from_true = SO3.exp(self.mounting).as_matrix().T
        return sensor_to_joint(_rotate_wrench(nominal_from_true, wrench / self.gains))


class PolynomialTool(ToolModel):
    """Tool model of [L]: a known weight on a sensor without mounting error (eqs 17-18), and torque
    polynomials of fourth order in the two tilts in degrees (eqs 20-22)."""

    weight: Scalar  # N
    force_offset: Float[Array, "3"]  # N, joint frame
    torque: Float[Array, "3 15"]  # mN m per degree^n, transducer frame

    def load(self, thx: Scalar, thy: Scalar) -> Wrench:
        """Predict the reading without contact at the tilt (thx, thy) rad, transducer frame."""
        force = gravity_in_joint(thx, thy, self.weight) + self.force_offset
        torque = self.torque @ torque_terms(thx, thy) / 1000.0
        return jnp.concatenate([R_JOINT_TRANSDUCER.T @ force, torque])

    def to_joint(self, wrench: Wrench) -> Wrench:
        """Transform a wrench (offset and load removed) to the frame of joint 5."""
        return sensor_to_joint(wrench)


class HandWrench(eqx.Module):
    """Wrench of the operator's hand on the tool, N and N m."""

    joint: Wrench  # frame of joint 5, for rotating the tool
    base: Wrench  # base axes, for translating the tool


def compensate(
    wrench: Wrench, thx: Scalar, thy: Scalar, tool: ToolModel
) -> tuple[HandWrench, Status]:
    """Compute the hand's wrench from a raw reading at the tilt (thx, thy) rad, [L] eqs 18-19.

    Subtracts the no-contact reading of `tool`, then rotates to joint 5 and to the base.
    Status BAD_WRENCH (and NaN) for a reading that is not finite or beyond 145 N or 5 N m,
    BAD_PARAMETER for a tilt that is not finite or beyond pi (probably in degrees).
    """
    status = first_status(
        (StatusCode.BAD_WRENCH, ~_in_sensor_range(wrench)),
        (StatusCode.BAD_PARAMETER, ~_is_tilt(thx, thy)),
    )
    joint = tool.to_joint(wrench - tool.load(thx, thy))
    joint = jnp.where(status == StatusCode.OK, joint, jnp.nan)
    return HandWrench(joint, _rotate_wrench(tilt_rotation(thx, thy), joint)), status


def paper_tool() -> PolynomialTool:
    """Return the tool of [L]: 30 N, zeroed upright, with the printed torque polynomials.

    The paper prints no units and omits one exponent; both are inferred from the match with a rigid
    tool, which exists only in mN m.
    """
    return PolynomialTool(
        jnp.asarray(30.0), jnp.array([0.0, 0.0, 30.0]), jnp.asarray(_PAPER_TORQUE, jnp.float32)
    )


def sensor_to_joint(wrench: Wrench) -> Wrench:
    """Rotate force and torque from transducer axes to the axes of joint 5, [L] eq 16."""
    return _rotate_wrench(jnp.asarray(R_JOINT_TRANSDUCER), wrench)


def tilt_rotation(thx: Scalar, thy: Scalar) -> Matrix3:
    """Compute R_base_joint5 = Rx(thx) Ry(thy)."""
    return (SO3.from_x_radians(thx) @ SO3.from_y_radians(thy)).as_matrix()


def gravity_in_joint(thx: Scalar, thy: Scalar, weight: Scalar) -> Float[Array, "3"]:
    """Compute the weight vector (N) in the frame of joint 5, [L] eq 17:
    W (cos thx sin thy, -sin thx, -cos thx cos thy)."""
    cosine = jnp.cos(thx)
    down = jnp.stack([cosine * jnp.sin(thy), -jnp.sin(thx), -cosine * jnp.cos(thy)])
    return weight * down


def torque_terms(thx: Scalar, thy: Scalar) -> Float[Array, "15"]:
    """Compute the terms 1, x, t, x^2, x t, t^2 ... t^4 of [L] eqs 20-22, x = thx and
    t = th5 = -thy in degrees."""
    x, t = jnp.rad2deg(thx), jnp.rad2deg(-thy)
    return jnp.stack([x**i * t**k for i, k in _EXPONENTS])


def _rotate_wrench(rotation: Matrix3, wrench: Wrench) -> Wrench:
    return jnp.concatenate([rotation @ wrench[:3], rotation @ wrench[3:]])


def _in_sensor_range(wrench: Wrench) -> Array:
    force, torque = jnp.abs(wrench[:3]), jnp.abs(wrench[3:])  # also false for NaN
    return jnp.all(force <= SENSOR_RANGE_N) & jnp.all(torque <= SENSOR_RANGE_NM)


def _is_tilt(thx: Scalar, thy: Scalar) -> Array:
    return (jnp.abs(thx) <= jnp.pi) & (jnp.abs(thy) <= jnp.pi)
