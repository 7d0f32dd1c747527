"""The bi-planar target that the robot holds in the C-arm's two views, and its recognition.

The target has one part per view, and each part has two layers of 4 mm balls. A pixel corresponds to
one point on each layer; the two points define a ray in the target's frame. Source: [L] section III,
which does not print the number of balls, the layers and the pattern; these are our own design.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Pixels, Point, Scalar
from dartjax.robot._errors import BadParameter, Status, StatusCode, first_status
from dartjax.robot.carm import apply_homography, homography_dlt, homography_refine
from dartjax.transforms import SE3, SO3

AP, LATERAL = 0, 1  # the parts of the target, in the order of every array of views
PITCH, DIAMETER = 6.0, 4.0
CLEAR_WIDTH = 64.0  # w1 of [L]: free width between the balls, where the path is visible
PATIENT_WIDTH = 165.0  # w2 of [L]: free width for the patient
LAYER_DISTANCES = (110.0, 170.0)  # from the middle of the target toward the detector
_COLUMNS = ((-42.0, -36.0, 36.0, 42.0), (-60.0, -54.0, 54.0, 60.0))  # u of each layer, mm
# Balls of a layer by column, from v = -60 to 60 mm. No shift or reflection maps more than 43 of the
# 60 balls of a part onto the balls of the same or the other part.
_PATTERNS = (
    (
        "xxx......xxx.x.xxxxxx",
        "x.x..x..xx.xxxxxxxxx.",
        "xx..xxxx..x.xxxxxxxxx",
        "x.xxxx.xxxxxxxx..xxxx",
    ),
    (
        "xx...xxxxxxxxxxxxx.xx",
        "xxx.xxxxxxxxxxx.xx..x",
        ".x.x..xxx.xx.x.xxxxxx",
        "x....x.xx...x.xxxxxxx",
    ),
)

MIN_LAYER = 8  # balls of a layer
MIN_SHARE = 0.8  # smallest recognised fraction of a part's balls; a wrong match reaches 0.72
_MAX_FOREIGN = 0.35  # largest ratio of foreign balls to recognised ones
_TURNS = np.deg2rad(np.arange(-6.0, 6.1, 1.0))
_SCALES = (0.984, 1.0, 1.016)
_STEP_PX = 3.0
_REACH_PX = 5.0  # matching distance of the search
_REFINEMENT_PX = (8.0, 5.0, 3.0, 2.5)  # matching distances of the refinement rounds
_GRID = 2  # px, resolution of the map of detected balls


class BiPlanar(eqx.Module):
    """Bi-planar target: balls by part and layer.

    The origin of its frame is the middle of the patient. x, y and z are u, v and the beam of the AP
    view; the lateral beam is along +x.
    """

    uv: Float[Array, "part layer ball 2"]  # in the plane of the layer, mm
    distance: Float[Array, " layer"]  # of a layer from the origin, along the part's beam
    R_biplanar_part: Float[Array, "part 3 3"]  # columns: u, v and beam of the part
    radius: Scalar

    def points(self, part: int) -> Float[Array, "layer ball 3"]:
        """Compute the balls of one part in the target's frame."""
        height = jnp.broadcast_to(self.distance[:, None, None], (*self.uv.shape[1:3], 1))
        local = jnp.concatenate([self.uv[part], height], axis=-1)
        return local @ self.R_biplanar_part[part].T


class PartMatch(eqx.Module):
    """Matched balls of one part. Pixels of undetected balls are not meaningful."""

    pixels: Float[Array, "layer ball 2"]  # px of the pinhole image
    seen: Bool[Array, "layer ball"]
    rms_px: Scalar  # residual of the homographies of both layers


def biplanar_target(
    distances: tuple[float, float] = LAYER_DISTANCES, ball_diameter: float = DIAMETER
) -> BiPlanar:
    """Build the target: 60 balls per layer, in columns at |u| = 36 and 42 mm (near layer) and at
    54 and 60 mm (far layer), so that the shadows of the layers are 8 mm apart.

    Raises BadParameter unless the balls are smaller than the pitch of 6 mm and both layers lie
    beyond half the patient's width, the near one first.
    """
    near, far = distances
    if not 0.0 < ball_diameter < PITCH:
        raise BadParameter(
            f"balls of {ball_diameter:g} mm at a pitch of {PITCH:g} mm touch: give smaller balls"
        )
    if not 0.5 * PATIENT_WIDTH < near < far < np.inf:
        raise BadParameter(
            f"layers at {near:g} and {far:g} mm: place the near layer beyond "
            f"{0.5 * PATIENT_WIDTH:g} mm, and the far layer beyond the near one"
        )
    uv = [[_layer(columns, pattern) for columns in _COLUMNS] for pattern in _PATTERNS]
    axes = [np.eye(3), np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]).T]
    return BiPlanar(
        jnp.asarray(np.array(uv), float),
        jnp.asarray(distances, float),
        jnp.asarray(np.stack(axes), float),
        jnp.asarray(0.5 * ball_diameter, float),
    )


def _layer(columns: tuple[float, ...], pattern: tuple[str, ...]) -> np.ndarray:
    rows = PITCH * (np.arange(len(pattern[0])) - len(pattern[0]) // 2)
    places = zip(columns, pattern, strict=True)
    return np.array(
        [(u, v) for u, kept in places for v, at in zip(rows, kept, strict=True) if at == "x"]
    )


def aligned_target(R_world_camera: SO3, isocenter: Point) -> SE3:
    """Compute T_world_biplanar of a target perpendicular to the beam of an AP view, centred at the
    isocentre."""
    return SE3.from_rotation_and_translation(R_world_camera, isocenter)


def match_part(
    found: Pixels,
    valid: Bool[Array, " n"],
    target: BiPlanar,
    part: int,
    *,
    focal_length: Scalar | float,
    source_to_isocenter: Scalar | float,
    center: Float[Array, "2"],
    reach_px: int = 48,
) -> tuple[PartMatch, Status]:
    """Match detected balls (pinhole pixels, n) to the balls of one part of the target.

    The robot holds the target nearly perpendicular to the beam. The search covers in-plane
    rotations within 6 degrees, scales within 2.4 % and shifts within `reach_px` of the nominal
    view, whose principal point is `center`, for the near layer; then shifts of the far layer within
    24 px. Nearest-ball matching and homographies then alternate. Status TOO_FEW_FIDUCIALS for
    fewer than 8 balls in a layer; CORRESPONDENCE_FAILED if less than 80 % of the part's balls are
    recognised or too many foreign balls are in the image, as with another target, the other view,
    or a target partly outside the image.
    """
    found = jnp.where(valid[:, None], found, -1e4)
    scales = focal_length / (source_to_isocenter + target.distance)
    near_map = _near_map(found, center, reach_px)
    turns = jnp.asarray(_TURNS, found.dtype)
    wide = _shifts(reach_px)
    first, found_pose = _search(target.uv[part, 0] * scales[0], near_map, turns, wide, _SCALES)
    narrow = _shifts(24)
    shift = found_pose[2:] * scales[1] / scales[0]
    far = _rotated(target.uv[part, 1] * scales[1] * found_pose[1], found_pose[0]) + shift[None]
    second, _ = _search(far, near_map, turns[6:7], narrow, (1.0,))
    expected = jnp.stack([first, second]) + center[None, None]
    match = _refined_match(expected, found, target.uv[part])
    return match, _status(match, valid)


def _status(match: PartMatch, valid: Bool[Array, " n"]) -> Status:
    seen, count = jnp.sum(match.seen), match.seen.size
    foreign = jnp.sum(valid) - seen
    too_few = (jnp.sum(valid) < 2 * MIN_LAYER) | jnp.any(jnp.sum(match.seen, axis=1) < MIN_LAYER)
    return first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, too_few),
        (StatusCode.CORRESPONDENCE_FAILED, seen < MIN_SHARE * count),
        (StatusCode.CORRESPONDENCE_FAILED, foreign > _MAX_FOREIGN * seen),
    )


def _shifts(reach: int) -> Float[Array, "shift 2"]:
    steps = jnp.arange(-reach, reach + 0.1, _STEP_PX)
    return jnp.stack(jnp.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


def _near_map(found: Pixels, center: Float[Array, "2"], reach_px: int) -> Float[Array, "h w"]:
    """Map with 1 where a detected ball is within reach, on a coarse grid around `center`."""
    half = 240 + reach_px
    at = jnp.arange(-half, half, _GRID) + 0.5 * _GRID
    moved = found - center[None]
    u, v = (at[:, None] - moved[None, :, i] for i in (0, 1))  # (grid, ball)
    square = u[None, :] ** 2 + v[:, None] ** 2
    return jnp.any(square < _REACH_PX**2, axis=-1).astype(found.dtype)


def _rotated(uv: Pixels, angle: Array) -> Pixels:
    c, s = jnp.cos(angle), jnp.sin(angle)
    return uv @ jnp.array([[c, s], [-s, c]])


def _search(
    points: Pixels,
    near_map: Float[Array, "h w"],
    turns: Float[Array, " turn"],
    shifts: Float[Array, "shift 2"],
    scales: tuple[float, ...],
) -> tuple[Pixels, Float[Array, "4"]]:
    """Rotate, scale and shift the points onto as many balls as possible.

    Returns the placed points, and (rotation, scale, shift).
    """
    half, size = near_map.shape[0] * _GRID // 2, near_map.shape[0]
    flat = near_map.reshape(-1)

    def score(turn: Array, scale: Array) -> Float[Array, " shift"]:
        at = (_rotated(points * scale, turn)[None] + shifts[:, None] + half) / _GRID
        index = jnp.clip(jnp.floor(at).astype(int), 0, size - 1)
        return jnp.sum(flat[index[..., 1] * size + index[..., 0]], axis=1)

    turn, scale = (a.reshape(-1) for a in jnp.meshgrid(turns, jnp.asarray(scales, points.dtype)))
    counts = jax.lax.map(lambda both: score(*both), (turn, scale))
    best = jnp.argmax(counts)
    pose, shift = best // len(shifts), shifts[best % len(shifts)]
    placed = _rotated(points * scale[pose], turn[pose]) + shift[None]
    return placed, jnp.concatenate([turn[pose][None], scale[pose][None], shift])


def _refined_match(
    expected: Float[Array, "layer ball 2"],
    found: Float[Array, "m 2"],
    uv: Float[Array, "layer ball 2"],
) -> PartMatch:
    """Alternate nearest-ball matching and homographies of both layers, with decreasing reach."""

    def match_layer(start: Pixels, plane: Pixels) -> tuple[Pixels, Bool[Array, " ball"], Scalar]:
        def one(at: Pixels, reach: Array) -> tuple[Pixels, None]:
            pixels, seen = _nearest(at, found, reach)
            H, _ = homography_dlt(plane, pixels, seen)
            return apply_homography(H, plane), None

        at, _ = jax.lax.scan(one, start, jnp.asarray(_REFINEMENT_PX, start.dtype))
        pixels, seen = _nearest(at, found, jnp.asarray(_REFINEMENT_PX[-1]))
        H, _ = homography_dlt(plane, pixels, seen)
        H, rms = homography_refine(H, plane, pixels, seen)
        # A residual above three times the median is a centre disturbed by its neighbourhood.
        error = jnp.linalg.norm(apply_homography(H, plane) - pixels, axis=1)
        median = jnp.nanmedian(jnp.where(seen, error, jnp.nan))
        kept = seen & (error < jnp.maximum(3.0 * median, 0.3))
        return pixels, kept, rms

    pixels, seen, rms = jax.vmap(match_layer)(expected, uv)
    return PartMatch(pixels, seen, jnp.sqrt(jnp.mean(rms**2)))


def _nearest(
    expected: Pixels, found: Float[Array, "m 2"], reach: Scalar | float
) -> tuple[Pixels, Bool[Array, " ball"]]:
    """Detected ball nearest to each expected one, and whether it is within reach."""
    square = jnp.sum((expected[:, None] - found[None]) ** 2, axis=-1)
    nearest = jnp.argmin(square, axis=1)
    smallest = jnp.take_along_axis(square, nearest[:, None], axis=1)[:, 0]
    return found[nearest], smallest < reach**2
