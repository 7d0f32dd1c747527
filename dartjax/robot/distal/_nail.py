"""Detection of the nail in a radiograph: contour, two holes and subpixel edge points of both.

The contour is found by a Hough transform of bands, [Y] section III B.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Pixels, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm import sample, steepest_rise

NUM_STATIONS = 64  # along each contour
NUM_RAYS = 64  # around each hole
_COARSE = 4  # px of the image per px of the band search
_EDGES = 1024
_ANGLES, _OFFSETS = 90, 260  # bins of the accumulator
_OFFSET_BIN = 4.0  # px
_BANDS = 8  # candidates verified in full resolution
_STEP = 0.5  # px along profiles


class NailOptions(eqx.Module):
    """Options of the nail detector: candidate widths of the nail's shadow (px), and the ratios of
    hole diameter and hole spacing to the nail's diameter."""

    widths_px: tuple[float, ...] = eqx.field(
        static=True, default=(40.0, 44.0, 48.0, 52.0, 56.0, 61.0)
    )
    spacing_ratio: float = eqx.field(static=True, default=2.5)
    hole_ratio: float = eqx.field(static=True, default=5.0 / 12.0)


class NailEdges(eqx.Module):
    """Detected edges of the nail, px of the recorded image.

    `holes` are the centres of the bright areas, in order along the axis. `hole_edges` lie around
    each hole, `contour` lies on both sides of the nail near the holes.
    """

    holes: Float[Array, "2 2"]
    axis: Float[Array, "2"]  # unit vector
    width: Scalar
    hole_edges: Float[Array, "2 ray 2"]
    hole_valid: Bool[Array, "2 ray"]
    contour: Float[Array, "2 station 2"]
    contour_valid: Bool[Array, "2 station"]
    contrast: Scalar  # of the darker hole to the metal next to it, relative to its brightness


def detect_nail(image: Image, options: NailOptions = NailOptions()) -> tuple[NailEdges, Status]:
    """Detect the nail and its holes in an image of grey values 0 to 255.

    1. Band: every edge pixel votes for the axis half a width to its dark side; a band needs votes
       from both sides. Of the best candidates, the band that is darker than both its sides over the
       longest distance in full resolution is kept.
    2. Holes: the two brightest places on the axis at the distance of the holes.
    3. Edges: the steepest change of brightness along rays from each hole's centre and across the
       contour.
    Status DETECTION_FAILED if there is no such band, no pair of holes, or too few edges.
    """
    line, width, support = _band(image, options)
    holes, axis, contrast, _ = _holes(image, line, width, options)
    # Refine near the holes, because distortion bends the axis slightly.
    middle = 0.5 * (holes[0] + holes[1])
    contour, contour_valid, width = _contour(image, middle, axis, width)
    line, axis = _midline(contour, contour_valid, middle, axis)
    holes, axis, contrast, brightness = _holes(image, line, width, options, middle)
    hole_edges, hole_valid, holes = _hole_edges(image, holes, width, options)
    edges = NailEdges(holes, axis, width, hole_edges, hole_valid, contour, contour_valid, contrast)
    enough_rays = jnp.min(jnp.sum(hole_valid, axis=1)) >= NUM_RAYS // 2
    enough_contour = jnp.min(jnp.sum(contour_valid, axis=1)) >= NUM_STATIONS // 2
    status = first_status(
        (StatusCode.DETECTION_FAILED, ~(support > 100.0)),
        (StatusCode.DETECTION_FAILED, ~(contrast > 0.06) | ~(brightness > 2.0)),
        (StatusCode.DETECTION_FAILED, ~(enough_rays & enough_contour)),
    )
    return edges, status


def _band(image: Image, options: NailOptions) -> tuple[Float[Array, "2 2"], Scalar, Scalar]:
    """Best band: point and direction of the nail's axis, width, and dark length (px)."""
    height, width = (side // _COARSE for side in image.shape)
    coarse = image[: height * _COARSE, : width * _COARSE]
    coarse = coarse.reshape(height, _COARSE, width, _COARSE).mean(axis=(1, 3))
    log = jnp.log(coarse + 4.0)
    gu = jnp.pad(log[1:-1, 2:] - log[1:-1, :-2], 1)
    gv = jnp.pad(log[2:, 1:-1] - log[:-2, 1:-1], 1)
    strength, index = jax.lax.top_k(jnp.hypot(gu, gv).reshape(-1), _EDGES)
    u = (index % width + 0.5) * _COARSE
    v = (index // width + 0.5) * _COARSE
    normal = jnp.stack([gu.reshape(-1)[index], gv.reshape(-1)[index]], axis=1)
    normal = normal / jnp.maximum(strength, 1e-6)[:, None]  # toward the bright side
    angle = jnp.arctan2(normal[:, 1], normal[:, 0])
    side = (angle < 0.0).astype(int)
    angle = angle + jnp.pi * side  # [0, pi)
    offset = u * jnp.cos(angle) + v * jnp.sin(angle)
    sign = 1.0 - 2.0 * side
    center = jnp.asarray([0.5 * image.shape[1], 0.5 * image.shape[0]])

    def accumulate(width_px: Array) -> Float[Array, "angle offset"]:
        at = offset - sign * 0.5 * width_px
        at = at - center[0] * jnp.cos(angle) - center[1] * jnp.sin(angle)
        column = jnp.floor(at / _OFFSET_BIN + 0.5 * _OFFSETS).astype(int)
        row = jnp.floor(angle / jnp.pi * _ANGLES).astype(int) % _ANGLES
        votes = jnp.zeros((2, _ANGLES, _OFFSETS)).at[side, row, column].add(1.0, mode="drop")
        return jnp.min(_smooth(votes), axis=0)

    widths = jnp.asarray(options.widths_px)
    votes = jax.vmap(accumulate)(widths).reshape(len(options.widths_px), -1)
    peak = jnp.max(votes, axis=0)
    best_width = widths[jnp.argmax(votes, axis=0)]
    grid = peak.reshape(_ANGLES, _OFFSETS)
    around = jax.lax.reduce_window(grid, -jnp.inf, jax.lax.max, (5, 5), (1, 1), "SAME")
    score, best = jax.lax.top_k(jnp.where(grid >= around, grid, 0.0).reshape(-1), _BANDS)
    del score
    theta = (best // _OFFSETS + 0.5) * jnp.pi / _ANGLES
    rho = (best % _OFFSETS + 0.5 - 0.5 * _OFFSETS) * _OFFSET_BIN
    normal = jnp.stack([jnp.cos(theta), jnp.sin(theta)], axis=1)
    points = center[None] + rho[:, None] * normal
    along = jnp.stack([-normal[:, 1], normal[:, 0]], axis=1)
    support = jax.vmap(lambda p, a, w: _dark_length(image, p, a, w))(
        points, along, best_width[best]
    )
    chosen = jnp.argmax(support)
    return jnp.stack([points[chosen], along[chosen]]), best_width[best][chosen], support[chosen]


def _smooth(votes: Float[Array, "2 angle offset"]) -> Float[Array, "2 angle offset"]:
    """Sum votes over three bins in angle and in offset. At angle 0 the offset would change sign,
    which is neglected."""
    rows = votes + jnp.roll(votes, 1, axis=1) + jnp.roll(votes, -1, axis=1)
    padded = jnp.pad(rows, ((0, 0), (0, 0), (1, 1)))
    return padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]


def _perpendicular(axis: Float[Array, "2"]) -> Float[Array, "2"]:
    return jnp.array([-axis[1], axis[0]])


def _dark_length(
    image: Image, point: Float[Array, "2"], axis: Float[Array, "2"], width: Scalar
) -> Scalar:
    """Length (px) over which a band is darker than both its sides, weighted by its contrast."""
    step = 8.0
    s = step * (jnp.arange(120) - 60.0)
    off = jnp.array([-0.85, -0.7, -0.3, -0.15, 0.15, 0.3, 0.7, 0.85]) * width
    at = point[None, None] + s[:, None, None] * axis[None, None]
    at = at + off[None, :, None] * _perpendicular(axis)[None, None]
    grey = sample(image, at[..., 0], at[..., 1])
    inside, left, right = grey[:, 2:6].mean(1), grey[:, :2].mean(1), grey[:, 6:].mean(1)
    height, width_px = image.shape
    middle = point[None] + s[:, None] * axis[None]
    inside_image = (middle[:, 0] > 0) & (middle[:, 0] < width_px)
    inside_image &= (middle[:, 1] > 0) & (middle[:, 1] < height)
    darker = (inside < 0.75 * left - 2.0) & (inside < 0.75 * right - 2.0) & inside_image
    # The contrast separates the nail from a rib next to it.
    depth = 1.0 - jnp.minimum(inside / jnp.maximum(jnp.minimum(left, right), 1.0), 1.0)
    return step * jnp.sum(darker * depth)


def _holes(
    image: Image,
    line: Float[Array, "2 2"],
    width: Scalar,
    options: NailOptions,
    near: Float[Array, "2"] | None = None,
) -> tuple[Float[Array, "2 2"], Float[Array, "2"], Scalar, Scalar]:
    """Pair of bright places on the axis at the distance of the holes, selected by the lower
    contrast of the two: centres, axis, contrast and brightness above the metal."""
    point, axis = line
    s = 2.0 * (jnp.arange(500) - 250.0)
    off = jnp.array([-0.42, -0.34, -0.08, 0.0, 0.08, 0.34, 0.42]) * width
    at = point[None, None] + s[:, None, None] * axis[None, None]
    at = at + off[None, :, None] * _perpendicular(axis)[None, None]
    grey = sample(image, at[..., 0], at[..., 1])
    metal = 0.5 * (jnp.maximum(grey[:, 0], grey[:, 1]) + jnp.maximum(grey[:, 5], grey[:, 6]))
    bright = grey[:, 2:5].mean(1) - metal
    bright = jnp.convolve(bright, jnp.ones(5) / 5.0, mode="same")
    # Along the axis, a hole has dark metal on both sides.
    reach = 0.75 * options.hole_ratio * width
    sides = jnp.maximum(jnp.interp(s - reach, s, grey[:, 3]), jnp.interp(s + reach, s, grey[:, 3]))
    bright = jnp.minimum(bright, grey[:, 2:5].mean(1) - sides)
    inside = (at[:, 3, 0] > 4) & (at[:, 3, 0] < image.shape[1] - 4)
    inside &= (at[:, 3, 1] > 4) & (at[:, 3, 1] < image.shape[0] - 4)
    bright = jnp.where(inside, bright, -1.0)
    if near is not None:
        distance = jnp.linalg.norm(at[:, 3] - near[None], axis=1)
        bright = jnp.where(distance < 1.0 * options.spacing_ratio * width, bright, -1.0)
    spacing = jnp.linspace(0.85, 1.15, 13) * options.spacing_ratio * width
    partner = jax.vmap(lambda gap: jnp.interp(s + gap, s, bright))(spacing)
    weaker = jnp.minimum(bright[None], partner)
    best = jnp.argmax(weaker + 0.05 * (bright[None] + partner))
    gap, first = spacing[best // len(s)], s[best % len(s)]
    holes = point[None] + jnp.stack([first, first + gap])[:, None] * axis[None]
    level = grey[best % len(s), 3]
    contrast = weaker.reshape(-1)[best] / jnp.maximum(level, 1.0)
    return holes, axis, contrast, weaker.reshape(-1)[best]


def _contour(
    image: Image, middle: Float[Array, "2"], axis: Float[Array, "2"], width: Scalar
) -> tuple[Float[Array, "2 station 2"], Bool[Array, "2 station"], Scalar]:
    """Edge points on both sides of the nail within 1.6 hole spacings of the middle, their validity,
    and the width of the nail."""
    s = jnp.linspace(-1.6, 1.6, NUM_STATIONS) * 2.5 * width
    normal = _perpendicular(axis)
    first, count = 0.2 * width, 56
    off = first + _STEP * jnp.arange(count) * (0.55 * width) / (_STEP * (count - 1))
    step = off[1] - off[0]

    def side(sign: float) -> tuple[Pixels, Bool[Array, " station"], Float[Array, " station"]]:
        at = middle[None, None] + s[:, None, None] * axis[None, None]
        at = at + sign * off[None, :, None] * normal[None, None]
        grey = sample(image, at[..., 0], at[..., 1])
        place, slope = steepest_rise(grey, step)
        points = middle[None] + s[:, None] * axis[None]
        points = points + sign * (first + place)[:, None] * normal[None]
        inside = (points > 3.0) & (points < jnp.asarray(image.shape[::-1], float)[None] - 3.0)
        # The profile must rise from dark metal to a clearly brighter value.
        dark = grey[:, 0] < 0.7 * jnp.max(grey, axis=1)
        return points, jnp.all(inside, axis=1) & dark & (slope > 1.0), first + place

    left, left_valid, left_off = side(-1.0)
    right, right_valid, right_off = side(1.0)
    both = []
    for valid, offset in ((left_valid, left_off), (right_valid, right_off)):
        fitted = _robust_line(s, offset, valid)
        both.append((valid & (jnp.abs(offset - fitted) < 1.5), fitted))
    width = jnp.mean(both[0][1] + both[1][1])
    return jnp.stack([left, right]), jnp.stack([both[0][0], both[1][0]]), width


def _robust_line(
    x: Float[Array, " n"], y: Float[Array, " n"], valid: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """Robust parabola fit to the contour of a straight nail with distortion. Starts from the
    median; the scale of the weights decreases from 8 to 0.5 px."""
    scale = jnp.max(jnp.abs(x))
    design = jnp.stack([jnp.ones_like(x), x / scale, (x / scale) ** 2], axis=1)
    start = jnp.array([jnp.nanmedian(jnp.where(valid, y, jnp.nan)), 0.0, 0.0])
    ridge = jnp.diag(jnp.array([1e-6, 1e-3, 1e-1]))

    def step(c: Float[Array, "3"], spread: Array) -> tuple[Float[Array, "3"], None]:
        r = y - design @ c
        weight = valid / (1.0 + (r / spread) ** 2) ** 2
        normal = design.T @ (weight[:, None] * design) + ridge
        return jnp.linalg.solve(normal, design.T @ (weight * y) + ridge @ c), None

    start = jnp.nan_to_num(start)
    c, _ = jax.lax.scan(step, start, jnp.array([8.0, 6.0, 4.0, 2.0, 1.0, 0.5, 0.5]))
    return design @ c


def _midline(
    contour: Float[Array, "2 station 2"],
    valid: Bool[Array, "2 station"],
    middle: Float[Array, "2"],
    axis: Float[Array, "2"],
) -> tuple[Float[Array, "2 2"], Float[Array, "2"]]:
    """Axis in the middle between both sides of the contour: (point, direction) and direction."""
    both = valid[0] & valid[1]
    points = contour.mean(axis=0) - middle[None]
    s, off = points @ axis, points @ _perpendicular(axis)
    weight = both.astype(s.dtype)
    design = jnp.stack([jnp.ones_like(s), s], axis=1)
    normal = design.T @ (weight[:, None] * design) + jnp.diag(jnp.array([1e-3, 1.0]))
    shift, slope = jnp.linalg.solve(normal, design.T @ (weight * off))
    turned = axis + slope * _perpendicular(axis)
    turned = turned / jnp.linalg.norm(turned)
    return jnp.stack([middle + shift * _perpendicular(axis), turned]), turned


def _hole_edges(
    image: Image, holes: Float[Array, "2 2"], width: Scalar, options: NailOptions
) -> tuple[Float[Array, "2 ray 2"], Bool[Array, "2 ray"], Float[Array, "2 2"]]:
    """Edge points around each hole. Rays start at the centre of its bright area, which is refined
    twice."""
    angles = 2.0 * jnp.pi * jnp.arange(NUM_RAYS) / NUM_RAYS
    direction = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    radius = 0.5 * options.hole_ratio * width
    count = 40
    off = jnp.linspace(0.15, 1.75, count)[None] * radius
    step = off[0, 1] - off[0, 0]

    def edges(center: Float[Array, "2"]) -> tuple[Pixels, Bool[Array, " ray"], Float[Array, "2"]]:
        at = center[None, None] + off[0][None, :, None] * direction[:, None]
        grey = sample(image, at[..., 0], at[..., 1])
        place, slope = steepest_rise(-grey, step)
        place = place + off[0, 0]
        points = center[None] + place[:, None] * direction
        strong = slope > 0.35 * jnp.median(slope)
        weight = (strong & (place < 1.3 * radius)).astype(grey.dtype)
        # Centre of the edge points; the area may be lens-shaped.
        middle = jnp.sum(weight[:, None] * points, axis=0) / jnp.maximum(jnp.sum(weight), 1.0)
        return points, strong & (slope > 1.0) & (place < 1.4 * radius), middle

    def find_edges(center: Float[Array, "2"]):
        for _ in range(2):
            _, _, middle = edges(center)
            center = jnp.where(jnp.linalg.norm(middle - center) < radius, middle, center)
        points, valid, _ = edges(center)
        return points, valid, center

    return jax.vmap(find_edges)(holes)
