"""Optical tracker: frames of a marker, their mean, and the tool's pose in the patient's frame.

The tracker reports one pose per marker and frame. Its noise is normal and independent, so the mean
of n frames has 1 / sqrt(n) of the noise of one frame. At a point far from the marker, the rotation
error adds its product with the distance.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dartjax._types import Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.transforms import SE3, SO3

NUM_FRAMES = 60  # of one measurement: one second for most trackers
MIN_VISIBLE = 0.5  # smallest fraction of frames with the marker
_MAX_SCATTER = 3.0  # over the noise of the tracker


class Tracker(eqx.Module):
    """Noise of one frame: standard deviations of position and rotation per axis."""

    sigma_mm: float = 0.1
    sigma_rad: float = 8.7e-4  # 0.05 degrees


class MarkerPose(eqx.Module):
    """Mean pose of a marker's frames, and their rms scatter per axis."""

    T_tracker_marker: SE3
    scatter_mm: Scalar
    scatter_rad: Scalar


def marker_frames(
    T_tracker_marker: SE3, tracker: Tracker, num_frames: int = NUM_FRAMES, *, key: PRNGKeyArray
) -> SE3:
    """Simulate `num_frames` noisy poses (stacked) of a marker at rest."""
    for_shift, for_turn = jax.random.split(key)
    shift = tracker.sigma_mm * jax.random.normal(for_shift, (num_frames, 3))
    turn = tracker.sigma_rad * jax.random.normal(for_turn, (num_frames, 3))

    def noisy(shift: Float[Array, "3"], turn: Float[Array, "3"]) -> SE3:
        return SE3.from_rotation_and_translation(
            T_tracker_marker.rotation() @ SO3.exp(turn), T_tracker_marker.translation() + shift
        )

    return jax.vmap(noisy)(shift, turn)


def mean_marker(
    frames: SE3, visible: Bool[Array, " frame"], tracker: Tracker
) -> tuple[MarkerPose, Status]:
    """Average the frames in which the marker was visible.

    Status DETECTION_FAILED if it was visible in fewer than half of the frames; CLOSURE_TOO_LARGE if
    the scatter exceeds three times the tracker's noise, because the marker moved or is loose.
    """
    weight = visible.astype(frames.translation().dtype)
    total = jnp.maximum(jnp.sum(weight), 1.0)
    # Hidden frames, which may be NaN, are replaced by the first visible one and have no weight.
    chosen = jnp.where(visible, jnp.arange(len(visible)), jnp.argmax(visible))
    frames = jax.tree.map(lambda leaf: leaf[chosen], frames)
    shift = weight @ frames.translation() / total
    first = jax.tree.map(lambda leaf: leaf[chosen[0]], frames).rotation()

    def turns_from(R: SO3) -> Float[Array, "frame 3"]:
        turns = jax.vmap(lambda T: (R.inverse() @ T.rotation()).log())(frames)
        return weight[:, None] * turns

    rotation = first @ SO3.exp(jnp.sum(turns_from(first), axis=0) / total)
    deviations = weight[:, None] * (frames.translation() - shift[None])
    scatter_mm = jnp.sqrt(jnp.sum(deviations**2) / (3.0 * total))
    scatter_rad = jnp.sqrt(jnp.sum(turns_from(rotation) ** 2) / (3.0 * total))
    is_still = (scatter_mm <= _MAX_SCATTER * tracker.sigma_mm) & (
        scatter_rad <= _MAX_SCATTER * tracker.sigma_rad
    )
    status = first_status(
        (StatusCode.DETECTION_FAILED, ~(jnp.mean(weight) >= MIN_VISIBLE)),
        (StatusCode.CLOSURE_TOO_LARGE, ~is_still),
    )
    mean = SE3.from_rotation_and_translation(rotation, shift)
    return MarkerPose(mean, scatter_mm, scatter_rad), status


def measure_marker(
    T_tracker_marker: SE3, tracker: Tracker, num_frames: int = NUM_FRAMES, *, key: PRNGKeyArray
) -> SE3:
    """Simulate one measurement of a marker that is always visible: the mean frame."""
    frames = marker_frames(T_tracker_marker, tracker, num_frames, key=key)
    return mean_marker(frames, jnp.ones(num_frames, bool), tracker)[0].T_tracker_marker


def tool_in_patient(
    T_tracker_patientmarker: SE3, T_tracker_robotmarker: SE3, T_robotmarker_tool: SE3
) -> SE3:
    """Compute the tool's pose in the frame of the patient's marker, [L] section III.

    T_patientmarker_tool = T_patientmarker_tracker T_tracker_robotmarker T_robotmarker_tool. The
    pose of the tracker cancels. With T_robotmarker_biplanar as the last frame the result is the
    pose of the bi-planar target.
    """
    return T_tracker_patientmarker.inverse() @ T_tracker_robotmarker @ T_robotmarker_tool
