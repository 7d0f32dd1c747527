"""Two-plane registration: a pixel maps to a ray through two known planes, two rays to a point.

Source: [L] section III, after Martins et al. 1981. It assumes no pinhole camera: each layer of the
bi-planar target has its own map from the image.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dartjax._numerics import normalize, safe_norm
from dartjax._types import Matrix3, Pixels, Point, Scalar
from dartjax.observations import NeedlePath
from dartjax.robot._errors import (
    CorrespondenceFailed,
    Status,
    StatusCode,
    first_status,
    raise_for_status,
)
from dartjax.robot._reductions import largest
from dartjax.robot.arms import tool_frame, wire_pose
from dartjax.robot.carm import apply_homography, homography_dlt, homography_refine
from dartjax.robot.navigation._biplanar import BiPlanar, PartMatch
from dartjax.transforms import SE3, apply

MAX_GAP = 2.0  # mm, between the rays of one point
MAX_RESIDUAL = 2.0  # mm, rms of the balls in a layer
_EXCHANGED_GAP = 1.0  # mm, rms; above it marks may have been exchanged between the views
MIN_ANGLE = 0.349  # rad, 20 degrees, between the rays of one point
_UNIT_PX, _UNIT_MM = 200.0, 60.0  # units in which the entries of the maps are about 1
_NEWTON_STEPS = 6

Pixel = Float[Array, "2"]


class TwoPlaneView(eqx.Module):
    """One registered view: maps from pixels to both layers of the target.

    `H` maps (pixel - center) / 200 px to (u, v) / 60 mm of a layer; `covariance` is that of its
    first eight entries. Functions of several views take views stacked by `jax.tree.map`.
    """

    H: Float[Array, "2 3 3"]
    covariance: Float[Array, "2 8 8"]
    center: Pixel
    distance: Float[Array, "2"]  # of the layers from the target's origin
    R_biplanar_part: Matrix3
    rms_mm: Float[Array, "2"]  # residual of the balls, in the layer


class LocatedPoint(eqx.Module):
    """Point located from its marks in several views, target's frame, mm."""

    point: Point
    gap: Scalar  # between the rays
    covariance: Float[Array, "3 3"]


def register_view(match: PartMatch, target: BiPlanar, part: int) -> tuple[TwoPlaneView, Status]:
    """Register one view: fit its maps to the recognised balls.

    Normalised DLT, refined on the distances in the layer (at least 4 balls, no three of them
    collinear). The covariance is (J^T J)^-1 sigma^2 with sigma from the residual of the layer.
    Status TOO_FEW_FIDUCIALS and DEGENERATE_GEOMETRY as in `homography_dlt`, CORRESPONDENCE_FAILED
    if the residual of a layer exceeds 2 mm. Pixels of balls that were not seen have no influence.
    """
    pixels = jnp.where(match.seen[..., None], match.pixels, 0.0)
    center = jnp.sum(pixels, (0, 1)) / jnp.maximum(jnp.sum(match.seen), 1)

    def layer(pixels: Pixels, uv: Pixels, seen: Bool[Array, " ball"]):
        source, plane = (pixels - center[None]) / _UNIT_PX, uv / _UNIT_MM
        source = jnp.where(seen[:, None], source, 0.0)
        H, status = homography_dlt(source, plane, seen)
        H, rms = homography_refine(H, source, plane, seen)
        return H, _covariance(H, source, seen, rms), rms * _UNIT_MM, status

    H, covariance, rms, status = jax.vmap(layer)(pixels, target.uv[part], match.seen)
    fits = jnp.all(rms < MAX_RESIDUAL)
    view = TwoPlaneView(H, covariance, center, target.distance, target.R_biplanar_part[part], rms)
    status = jnp.max(status)
    failed = (status == StatusCode.OK) & ~fits
    return view, jnp.where(failed, jnp.int32(StatusCode.CORRESPONDENCE_FAILED), status)


def _matrix(h: Float[Array, "8"]) -> Matrix3:
    return jnp.append(h, 1.0).reshape(3, 3)


def _covariance(
    H: Matrix3, source: Pixels, seen: Bool[Array, " ball"], rms: Scalar
) -> Float[Array, "8 8"]:
    count = jnp.sum(seen)

    def mapped(h: Float[Array, "8"]) -> Pixels:
        return seen[:, None] * apply_homography(_matrix(h), source)

    jacobian = jax.jacfwd(mapped)(H.reshape(-1)[:8]).reshape(-1, 8)
    variance = rms**2 * count / jnp.maximum(2 * count - 8, 1)  # per coordinate
    return jnp.linalg.inv(jacobian.T @ jacobian) * variance


def two_plane_points(pixel: Pixel, view: TwoPlaneView) -> Float[Array, "2 3"]:
    """Map a pixel to its points on the near and the far layer, target's frame."""
    x = (pixel - view.center)[None] / _UNIT_PX
    uv = jax.vmap(lambda H: apply_homography(H, x)[0])(view.H) * _UNIT_MM
    local = jnp.concatenate([uv, view.distance[:, None]], axis=1)
    return local @ view.R_biplanar_part.T


def two_plane_ray(pixel: Pixel, view: TwoPlaneView) -> tuple[Point, Point]:
    """Compute the ray of a pixel: its point on the near layer, and its unit direction toward the
    far layer."""
    near, far = two_plane_points(pixel, view)
    return near, normalize(far - near)


def triangulate_rays(
    points: Float[Array, "view 3"], directions: Float[Array, "view 3"]
) -> tuple[Point, Scalar]:
    """Compute the point nearest to all rays, argmin sum |(I - d d^T)(X - P)|^2, and the gap.

    The gap is twice the largest distance of the point from a ray, which for two rays is their
    distance. Directions may have any length above 0. A direction of length 0, or parallel rays,
    give NaN or infinity.
    """
    lengths = safe_norm(directions)[:, None]
    directions = directions / jnp.where(lengths > 0.0, lengths, jnp.nan)
    across = jnp.eye(3)[None] - directions[:, :, None] * directions[:, None, :]
    right = jnp.einsum("vij,vj->i", across, points)
    X = jnp.linalg.solve(jnp.sum(across, axis=0), right)
    offsets = jnp.einsum("vij,vj->vi", across, X[None] - points)
    return X, 2.0 * largest(safe_norm(offsets))


def locate_point(
    marks: Float[Array, "view 2"], views: TwoPlaneView, *, mark_sigma_px: Scalar | float = 0.0
) -> tuple[LocatedPoint, Status]:
    """Locate a point from its marks, one pixel per view (stacked), in the order of the views.

    Marks that were exchanged between the views give another point, often with a small gap: one
    point does not show it, see `marks_are_exchanged`. The covariance of the point includes the
    residuals of the balls and the standard deviation of the marks. Status DEGENERATE_GEOMETRY if
    the rays meet at less than 20 degrees, CLOSURE_TOO_LARGE if their gap exceeds 2 mm; NaN marks
    give NaN and DETECTION_FAILED.
    """
    entries = views.H.reshape(-1, 2, 9)[..., :8]

    def locate(h: Float[Array, "view 2 8"], at: Float[Array, "view 2"]):
        maps = jax.vmap(jax.vmap(_matrix))(h)
        with_maps = eqx.tree_at(lambda v: v.H, views, maps)
        points, directions = jax.vmap(two_plane_ray)(at, with_maps)
        X, gap = triangulate_rays(points, directions)
        return X, (gap, directions)

    X, (gap, directions) = locate(entries, marks)
    of_maps, of_marks = jax.jacfwd(lambda h, at: locate(h, at)[0], argnums=(0, 1))(entries, marks)
    covariance = jnp.einsum("ivla,vlab,jvlb->ij", of_maps, views.covariance, of_maps)
    covariance += mark_sigma_px**2 * jnp.einsum("iva,jva->ij", of_marks, of_marks)
    # The two views that differ most decide.
    is_wide = jnp.any(jnp.abs(directions @ directions.T) < jnp.cos(MIN_ANGLE))
    status = first_status(
        (StatusCode.DETECTION_FAILED, ~jnp.all(jnp.isfinite(marks))),
        (StatusCode.DEGENERATE_GEOMETRY, ~is_wide),
        (StatusCode.CLOSURE_TOO_LARGE, ~(gap < MAX_GAP)),
    )
    return LocatedPoint(X, gap, covariance), status


def marks_are_exchanged(
    marks: Float[Array, "point 2 2"], views: TwoPlaneView
) -> tuple[Bool[Array, ""], Float[Array, "2"]]:
    """Judge whether the marks (point, view, pixel) of two views were exchanged.

    Returns also the rms gaps (mm) of the rays as given and with the marks of each point exchanged.
    They count as exchanged if the gap as given exceeds 1 mm and is more than three times the other
    one. AP and lateral images share their vertical axis, so points near the middle of the target
    fit either way: take points at different heights. False also if nothing can be decided.
    """

    def gap(marks: Float[Array, "point view 2"]) -> Scalar:
        rays = jax.vmap(lambda each: jax.vmap(two_plane_ray)(each, views))(marks)
        return jnp.sqrt(jnp.mean(jax.vmap(triangulate_rays)(*rays)[1] ** 2))

    gaps = jnp.stack([gap(marks), gap(marks[:, ::-1])])
    return (gaps[0] > _EXCHANGED_GAP) & (gaps[0] > 3.0 * gaps[1]), gaps


def pixel_of_point(point: Point, view: TwoPlaneView) -> Pixel:
    """Compute the pixel whose ray passes through a point (target's frame), by Newton's method."""
    local = view.R_biplanar_part.T @ point
    share = (local[2] - view.distance[0]) / (view.distance[1] - view.distance[0])

    def offset_of_ray(pixel: Pixel) -> Pixel:
        near, far = two_plane_points(pixel, view) @ view.R_biplanar_part
        return (near + share * (far - near))[:2] - local[:2]

    def step(pixel: Pixel, _) -> tuple[Pixel, None]:
        return pixel - jnp.linalg.solve(
            jax.jacfwd(offset_of_ray)(pixel), offset_of_ray(pixel)
        ), None

    return jax.lax.scan(step, view.center, length=_NEWTON_STEPS)[0]


def snap_to_epipolar(
    mark: Pixel, view: TwoPlaneView, other_mark: Pixel, other_view: TwoPlaneView
) -> Pixel:
    """Move a mark to the nearest pixel on its epipolar line, the image of the other view's ray."""
    point, direction = two_plane_ray(other_mark, other_view)
    foot = point - jnp.dot(point, direction) * direction  # nearest to the target's origin
    start = pixel_of_point(foot - 30.0 * direction, view)
    along = normalize(pixel_of_point(foot + 30.0 * direction, view) - start)
    return start + jnp.dot(mark - start, along) * along


def path_in_base(path: NeedlePath, T_base_biplanar: SE3, T_biplanar_image: SE3) -> NeedlePath:
    """Transform a path from the frame of the images (or of the planner) to the robot's base.

    [L] equation 23, T_base_path = T_base_biplanar T_biplanar_image T_image_path.
    """
    ends = jnp.stack([path.entry_point, path.target_point])
    entry, target = apply(T_base_biplanar @ T_biplanar_image, ends)
    return NeedlePath(entry, target, path.radius)


def path_frame(entry: Point, target: Point) -> SE3:
    """Compute the tool frame of a path: origin at the entry, wire along -z.

    The rotation about the wire is that of the hybrid robot, see `tool_frame`.
    """
    return tool_frame(wire_pose(entry, normalize(target - entry)))


def locate_path(
    entry_marks: Float[Array, "view 2"],
    target_marks: Float[Array, "view 2"],
    views: TwoPlaneView,
    *,
    radius: float = 2.5,
    mark_sigma_px: float = 0.0,
) -> tuple[NeedlePath, LocatedPoint]:
    """Locate a path from the marks of its entry and its target in every view, target's frame.

    Also returns both points (stacked). Host only: raises ClosureTooLarge, DegenerateGeometry or
    DetectionFailed; and CorrespondenceFailed if the marks of two views fit far better exchanged.
    Two points near the middle of the images cannot show that, see `marks_are_exchanged`.
    """
    both = jnp.stack([entry_marks, target_marks])
    if both.shape[1] == 2:
        exchanged, gaps = _are_exchanged(both, views)
        if exchanged:
            raise CorrespondenceFailed(
                f"the rays of the marks are {float(gaps[0]):.2f} mm apart, and "
                f"{float(gaps[1]):.2f} mm with the marks of both views exchanged: give the marks "
                "in the order of the views"
            )
    located, status = _locate_points(both, views, jnp.asarray(mark_sigma_px, both.dtype))
    for name, i in (("entry", 0), ("target", 1)):
        raise_for_status(
            status[i],
            f"the marks of the {name} give rays {float(located.gap[i]):.2f} mm apart: mark the "
            "same point in views at least 20 degrees apart",
        )
    ends = located.point
    return NeedlePath(ends[0], ends[1], jnp.asarray(radius, ends.dtype)), located


_are_exchanged = jax.jit(marks_are_exchanged)


@jax.jit
def _locate_points(
    marks: Float[Array, "point view 2"], views: TwoPlaneView, sigma: Scalar
) -> tuple[LocatedPoint, Int[Array, " point"]]:
    return jax.vmap(lambda point: locate_point(point, views, mark_sigma_px=sigma))(marks)
