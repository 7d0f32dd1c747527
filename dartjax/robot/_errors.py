"""Errors of robots and navigation: status codes inside jit, named exceptions on the host.

Pure functions return `(value, status)` and never raise. `first_status` combines checks
into a status; `raise_for_status` raises the matching exception on the host.
"""

import enum

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

Status = Int[Array, ""]  # a StatusCode, int32


class RobotError(ValueError):
    """Base class of robot errors. The message names the joint or value and says what to do."""


class UnreachablePose(RobotError):
    """No joint positions bring the tool to this pose."""


class SingularConfiguration(RobotError):
    """The robot is so close to a singularity that joint rates become unbounded."""


class JointLimit(RobotError):
    """A joint would leave its range."""


class BadParameter(RobotError):
    """A parameter is invalid: not finite, or of the wrong sign, shape or unit."""


class BadWrench(RobotError):
    """A force or torque reading is not finite or out of the sensor's range."""


class NavigationError(ValueError):
    """Base class of errors of measurements in images. The message says why it failed."""


class TooFewFiducials(NavigationError):
    """Fewer fiducials were detected than the calculation needs."""


class CorrespondenceFailed(NavigationError):
    """The detected fiducials match no arrangement of the known ones."""


class DegenerateGeometry(NavigationError):
    """The points, lines or poses do not determine the result."""


class NotFrontoParallel(NavigationError):
    """The view is not along the axis of the holes, as the calculation assumes."""


class ClosureTooLarge(NavigationError):
    """A loop of measured frames does not close within tolerance."""


class DetectionFailed(NavigationError):
    """A feature was not detected in the image."""


class PoseNotConverged(NavigationError):
    """The refinement of a pose did not converge."""


class StatusCode(enum.IntEnum):
    """Status of a result; 0 means OK. Robot codes are below 10, navigation codes from 10."""

    OK = 0
    BAD_PARAMETER = 1
    UNREACHABLE_POSE = 2
    SINGULAR_CONFIGURATION = 3
    JOINT_LIMIT = 4
    BAD_WRENCH = 5
    TOO_FEW_FIDUCIALS = 10
    CORRESPONDENCE_FAILED = 11
    DEGENERATE_GEOMETRY = 12
    NOT_FRONTO_PARALLEL = 13
    CLOSURE_TOO_LARGE = 14
    DETECTION_FAILED = 15
    POSE_NOT_CONVERGED = 16


ERROR_OF_STATUS: dict[StatusCode, type[RobotError] | type[NavigationError]] = {
    StatusCode.BAD_PARAMETER: BadParameter,
    StatusCode.UNREACHABLE_POSE: UnreachablePose,
    StatusCode.SINGULAR_CONFIGURATION: SingularConfiguration,
    StatusCode.JOINT_LIMIT: JointLimit,
    StatusCode.BAD_WRENCH: BadWrench,
    StatusCode.TOO_FEW_FIDUCIALS: TooFewFiducials,
    StatusCode.CORRESPONDENCE_FAILED: CorrespondenceFailed,
    StatusCode.DEGENERATE_GEOMETRY: DegenerateGeometry,
    StatusCode.NOT_FRONTO_PARALLEL: NotFrontoParallel,
    StatusCode.CLOSURE_TOO_LARGE: ClosureTooLarge,
    StatusCode.DETECTION_FAILED: DetectionFailed,
    StatusCode.POSE_NOT_CONVERGED: PoseNotConverged,
}


def first_status(*checks: tuple[StatusCode, Bool[Array, ""] | bool]) -> Status:
    """Return the code of the first check that is true, OK if none is. For use inside jit."""
    status = jnp.int32(StatusCode.OK)
    for code, is_wrong in reversed(checks):
        status = jnp.where(is_wrong, jnp.int32(code), status)
    return status


def raise_for_status(status: Status | int, message: str) -> None:
    """Raise the exception of a status; do nothing for OK. Host only."""
    code = StatusCode(int(status))
    if code is not StatusCode.OK:
        raise ERROR_OF_STATUS[code](message)
