"""Location of drill guide and nail in one image of distal locking, with checks of the result."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Matrix3, Pixels, Scalar
from dartjax.robot._errors import (
    CorrespondenceFailed,
    DetectionFailed,
    Status,
    StatusCode,
    raise_for_status,
)
from dartjax.robot.carm import (
    BallOptions,
    Balls,
    DrillGuide,
    LocalDistortion,
    Nail,
    detect_balls,
    ideal_of_real,
    project_points,
)
from dartjax.robot.distal._correspondence import MIN_BALLS, GuideMatch, match_guide
from dartjax.robot.distal._nail import NailEdges, NailOptions, detect_nail
from dartjax.robot.distal._nail_pose import (
    EdgePoints,
    NailFit,
    first_hole,
    fronto_parallel_pose,
    through_hole_pose,
    unblocked,
)
from dartjax.transforms import SE3

MAX_SATURATED = 0.7  # largest fraction of white or of black pixels
NAIL_DEPTHS = (400.0, 800.0)  # mm from the source
MAX_SHIFT_PX = 1.0


class LocatedGuideAndNail(NamedTuple):
    """Drill guide and nail located in one image. A pose is valid only if its status is OK."""

    balls: Balls  # centres in ideal pixels
    guide: GuideMatch
    guide_status: Status
    nail_edges: NailEdges  # recorded pixels
    edges: EdgePoints  # ideal pixels, first hole first
    nail: NailFit
    nail_status: Status
    saturated: Scalar  # fraction of white or of black pixels


def locate_guide_and_nail(
    image: Image,
    distortion: LocalDistortion,
    K: Matrix3,
    guide: DrillGuide,
    nail: Nail,
    ball_options: BallOptions = BallOptions(),
    nail_options: NailOptions = NailOptions(),
) -> LocatedGuideAndNail:
    """Locate drill guide and nail in an image (grey values 0 to 255) of a calibrated C-arm.

    The guide is located first: it determines which of the nail's holes is the first, and which
    edges of the nail are hidden behind balls. Without a guide, the hole further right in the image
    is the first, and a nail within 10 degrees of vertical has the status DEGENERATE_GEOMETRY. Runs
    two programs, one for the guide and one for the nail, each compiled once.
    """
    balls, match, guide_status = locate_guide(image, distortion, K, guide, ball_options)
    has_guide = guide_status == StatusCode.OK
    found, edges, fit, nail_status = locate_nail(
        image, distortion, K, guide, nail, match.pose.T_camera_object, has_guide, nail_options
    )
    parts = balls, match, guide_status, found, edges, fit, nail_status
    return LocatedGuideAndNail(*parts, saturated_share(image))


@jax.jit
def locate_guide(
    image: Image,
    distortion: LocalDistortion,
    K: Matrix3,
    guide: DrillGuide,
    options: BallOptions = BallOptions(),
) -> tuple[Balls, GuideMatch, Status]:
    """Locate the drill guide: detected balls (ideal pixels), match and status."""
    balls = ideal_balls(detect_balls(image, options), distortion)
    match, status = match_guide(balls, guide, K)
    return balls, match, status


@jax.jit
def locate_nail(
    image: Image,
    distortion: LocalDistortion,
    K: Matrix3,
    guide: DrillGuide,
    nail: Nail,
    T_camera_guide: SE3,
    has_guide: Bool[Array, ""],
    options: NailOptions = NailOptions(),
) -> tuple[NailEdges, EdgePoints, NailFit, Status]:
    """Locate the nail: detected edges, ideal edges, pose and status.

    `T_camera_guide` is used only if `has_guide` is true. Status as in `detect_nail`,
    `through_hole_pose` and `first_hole`.
    """
    x_axis = T_camera_guide.rotation().as_matrix()[:2, 0]
    x_axis = jnp.where(has_guide, x_axis, jnp.array([1.0, 0.0]))
    found, found_status = detect_nail(image, options)
    edges, holes = _ideal_edges(found, distortion)
    swap, order_status = first_hole(holes, x_axis)
    holes = jnp.where(swap, holes[::-1], holes)
    start = fronto_parallel_pose(holes, holes[0] - holes[1], K, nail)
    edges = EdgePoints(
        jnp.where(swap, edges.hole[::-1], edges.hole),
        jnp.where(swap, edges.hole_valid[::-1], edges.hole_valid),
        edges.contour,
        edges.contour_valid,
    )
    centers = project_points(K, T_camera_guide, guide.balls)
    hidden = guide.radius * K[0, 0] / jnp.maximum(T_camera_guide.translation()[2], 1.0)
    clear = unblocked(edges, centers, hidden)
    edges = jax.tree.map(lambda visible, every: jnp.where(has_guide, visible, every), clear, edges)
    fit, fit_status = through_hole_pose(edges, start, K, nail)
    depth = fit.T_camera_nail.translation()[2]
    plausible = (depth > NAIL_DEPTHS[0]) & (depth < NAIL_DEPTHS[1])
    plausible &= jnp.all(jnp.abs(fit.edge_shift_px) < MAX_SHIFT_PX)
    implausible = (fit_status == StatusCode.OK) & ~plausible
    fit_status = jnp.where(implausible, int(StatusCode.DETECTION_FAILED), fit_status)
    fit_status = jnp.where(fit_status == StatusCode.OK, order_status, fit_status)
    status = jnp.where(found_status == StatusCode.OK, fit_status, found_status)
    return found, edges, fit, status


def ideal_balls(balls: Balls, distortion: LocalDistortion) -> Balls:
    """Convert ball centres to ideal pixels; balls outside the calibrated field become invalid."""
    ideal = ideal_of_real(distortion, balls.centers)
    known = jnp.isfinite(ideal[:, 0])
    return dataclasses.replace(
        balls, centers=jnp.where(known[:, None], ideal, 0.0), valid=balls.valid & known
    )


def _ideal_edges(
    found: NailEdges, distortion: LocalDistortion
) -> tuple[EdgePoints, Float[Array, "2 2"]]:
    def ideal(points: Float[Array, "part n 2"]) -> tuple[Array, Bool[Array, "part n"]]:
        flat: Pixels = ideal_of_real(distortion, points.reshape(-1, 2))
        known = jnp.isfinite(flat[:, 0])
        moved = jnp.where(known[:, None], flat, points.reshape(-1, 2))
        return moved.reshape(points.shape), known.reshape(points.shape[:2])

    hole, hole_known = ideal(found.hole_edges)
    contour, contour_known = ideal(found.contour)
    holes, _ = ideal(found.holes[None])
    edges = EdgePoints(
        hole, found.hole_valid & hole_known, contour, found.contour_valid & contour_known
    )
    return edges, holes[0]


def check_guide(located: LocatedGuideAndNail) -> GuideMatch:
    """Return the located drill guide, or raise the reason why it was not located. Host.

    DetectionFailed for a saturated image, TooFewFiducials, CorrespondenceFailed (no arrangement or
    several arrangements fit, or a second target is in the image).
    """
    check_exposure(located.saturated)
    match, status = located.guide, int(located.guide_status)
    seen, found = int(np.sum(match.seen)), int(np.sum(located.balls.valid))
    if status == StatusCode.TOO_FEW_FIDUCIALS:
        detail = f"{seen} of the {found} balls found fit the drill guide, {MIN_BALLS} are needed"
        raise_for_status(status, f"{detail}: bring it into the image, not behind the nail")
    raise_for_status(
        status,
        f"{seen} balls fit with {float(match.pose.rms_px):.2f} px rms, and another pose fits "
        f"{int(match.runner_up)} balls: take the image from another side",
    )
    others = found - seen
    if others >= MIN_BALLS:
        raise CorrespondenceFailed(
            f"{others} balls in addition to the {seen} of the drill guide: "
            "remove the second target from the image"
        )
    return match


def check_nail(located: LocatedGuideAndNail) -> NailFit:
    """Return the located nail, or raise the reason why it was not located. Host.

    DetectionFailed (no nail, no holes, or a saturated image), TooFewFiducials (a hole is mostly
    covered), PoseNotConverged, DegenerateGeometry (it is not known which hole is the first).
    """
    check_exposure(located.saturated)
    fit, status = located.nail, int(located.nail_status)
    if status == StatusCode.DEGENERATE_GEOMETRY:
        raise_for_status(
            status,
            "nail: without the drill guide, both holes of a nail across the image's x axis can be "
            "the first: bring the guide into the image, or turn the C-arm",
        )
    raise_for_status(
        status,
        f"nail: {100 * float(fit.inliers):.0f} % of its edges fit with {float(fit.rms_px):.2f} px "
        "rms: bring both holes into the image, uncovered",
    )
    return fit


def saturated_share(image: Image) -> Scalar:
    """Compute the larger of the fractions of white and of black pixels (grey 0 to 255)."""
    return jnp.maximum(jnp.mean(image >= 254.0), jnp.mean(image <= 1.0))


def check_exposure(saturated: Scalar | float) -> None:
    """Raise DetectionFailed if more than 70 % of an image is white or black. Host."""
    share = float(saturated)
    if not share <= MAX_SATURATED:
        raise DetectionFailed(
            f"{100 * share:.0f} % of the image is white or black: repeat the exposure"
        )
