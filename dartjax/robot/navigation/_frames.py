"""Chain of frames from the patient to the robot, and its hand-eye calibration.

A tracking camera measures a marker on the patient and one on the robot's flange:

    T_base_patient = T_base_flange T_flange_marker T_tracker_marker^-1
                     T_tracker_patientmarker T_patientmarker_patient

`patient` is the frame of the images and of planned paths, RAS+ mm. T_patientmarker_patient comes
from registering the images to the marker, T_flange_marker from `hand_eye`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SE3, SO3

MAX_RESIDUAL_MM, MAX_RESIDUAL_RAD = 5.0, 0.05  # of poses that fit together
_LEAST_SPREAD = 1e-3  # of the rotation axes: below it all rotations share one axis
_MOST_TURN = 3.0  # rad; the sign of the rotation vector of a half turn is arbitrary


class FrameChain(eqx.Module):
    """Chain of five frames from the robot's base to the patient's images."""

    T_base_flange: SE3
    T_flange_marker: SE3  # hand-eye
    T_tracker_marker: SE3
    T_tracker_patientmarker: SE3
    T_patientmarker_patient: SE3

    @property
    def T_base_patient(self) -> SE3:
        """Pose of the patient in the robot's base frame."""
        T_base_tracker = self.T_base_flange @ self.T_flange_marker @ self.T_tracker_marker.inverse()
        return T_base_tracker @ self.T_tracker_patientmarker @ self.T_patientmarker_patient


class HandEye(eqx.Module):
    """Hand-eye calibration: pose of the marker on the flange, and of the tracker."""

    T_flange_marker: SE3
    T_base_tracker: SE3
    residual_mm: Scalar  # rms distance of the marker by tracker from the marker by robot
    residual_rad: Scalar


def hand_eye(Ts_base_flange: SE3, Ts_tracker_marker: SE3) -> tuple[HandEye, Status]:
    """Solve A_i X = Z B_i from n stacked poses for the fixed frames X and Z.

    A = T_base_flange, B = T_tracker_marker, X = T_flange_marker, Z = T_base_tracker. The rotation
    aligns the rotation vectors of the relative motions (Park, Martin 1994), without motions of
    nearly half a turn, whose vectors have two signs; the translation follows by linear least
    squares. At least three poses with rotations about two different axes are needed. Status:
    BAD_PARAMETER (not finite), DEGENERATE_GEOMETRY (fewer poses, one axis, or half turns only) and
    CLOSURE_TOO_LARGE (a residual above 5 mm or 0.05 rad: wrong pairs, or inverted transforms).
    """
    turns_a, shifts_a = _relative(Ts_base_flange)
    turns_b, shifts_b = _relative(Ts_tracker_marker)
    vectors_a = jax.vmap(lambda R: SO3.from_matrix(R).log())(turns_a)
    vectors_b = jax.vmap(lambda R: SO3.from_matrix(R).log())(turns_b)
    is_clear = safe_norm(vectors_a)[:, None] < _MOST_TURN
    vectors_a, vectors_b = (jnp.where(is_clear, v, 0.0) for v in (vectors_a, vectors_b))
    rotation = _best_rotation(vectors_b, vectors_a)
    matrix = (turns_a - jnp.eye(3)[None]).reshape(-1, 3)
    right = (shifts_b @ rotation.as_matrix().T - shifts_a).reshape(-1)
    shift = jnp.linalg.lstsq(matrix, right)[0]
    T_flange_marker = SE3.from_rotation_and_translation(rotation, shift)

    T_base_markers = jax.vmap(lambda A: A @ T_flange_marker)(Ts_base_flange)
    T_base_tracker = _mean_pose(
        jax.vmap(lambda marker, B: marker @ B.inverse())(T_base_markers, Ts_tracker_marker)
    )
    gaps = jax.vmap(lambda marker, B: (T_base_tracker @ B).inverse() @ marker)(
        T_base_markers, Ts_tracker_marker
    )
    distance = jnp.sqrt(jnp.mean(jnp.sum(gaps.translation() ** 2, axis=1)))
    angle = jnp.sqrt(jnp.mean(jax.vmap(lambda T: jnp.sum(T.rotation().log() ** 2))(gaps)))
    spread = jnp.append(jnp.linalg.svd(vectors_a, compute_uv=False), 0.0)  # one motion: one axis
    status = first_status(
        (StatusCode.BAD_PARAMETER, ~(jnp.isfinite(distance) & jnp.isfinite(angle))),
        (
            StatusCode.DEGENERATE_GEOMETRY,
            ~(spread[1] >= _LEAST_SPREAD * jnp.maximum(spread[0], 1.0)),
        ),
        (
            StatusCode.CLOSURE_TOO_LARGE,
            ~((distance < MAX_RESIDUAL_MM) & (angle < MAX_RESIDUAL_RAD)),
        ),
    )
    return HandEye(T_flange_marker, T_base_tracker, distance, angle), status


def _relative(poses: SE3) -> tuple[Float[Array, "n 3 3"], Float[Array, "n 3"]]:
    """Rotations and translations of all other poses relative to the first one."""
    first = jax.tree.map(lambda leaf: leaf[0], poses).inverse()
    others = jax.tree.map(lambda leaf: leaf[1:], poses)
    moved = jax.vmap(lambda T: first @ T)(others)
    return jax.vmap(lambda T: T.rotation().as_matrix())(moved), moved.translation()


def _best_rotation(source: Float[Array, "n 3"], target: Float[Array, "n 3"]) -> SO3:
    """Rotation with R source = target: `align_points` of vectors and their negatives."""
    both = (jnp.concatenate([v, -v]) for v in (source, target))
    return transforms.align_points(*both).rotation()


def _mean_pose(poses: SE3) -> SE3:
    """Mean translation, and the rotation whose matrix is nearest to the mean one."""
    mean = jnp.mean(jax.vmap(lambda T: T.rotation().as_matrix())(poses), axis=0)
    u, _, vt = jnp.linalg.svd(mean)
    upright = jnp.array([1.0, 1.0, 1.0]).at[2].set(jnp.sign(jnp.linalg.det(u @ vt)))
    rotation = SO3.from_matrix((u * upright[None, :]) @ vt)
    return SE3.from_rotation_and_translation(rotation, jnp.mean(poses.translation(), axis=0))
