"""Detection of steel balls in a radiograph, with centres accurate to a few hundredths of a pixel.

The steps are those of [Y] section III and of the detector in [L]: candidate regions, edge points,
circles by RANSAC, votes, overlap rule. All arrays have a fixed size and a mask.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Pixels, Scalar
from dartjax.image import gaussian_blur
from dartjax.robot.carm._sampling import sample, steepest_rise

NUM_RAYS = 24
_RAY_STEP = 0.5  # px
_HALF_BRIGHTNESS = 0.933  # radius of half brightness of a steel ball's shadow over its radius
_DARK = 4.0  # grey value added before the logarithm
_BLUR = 1.0  # px, of the image


class BallOptions(eqx.Module):
    """Options of the ball detector.

    `radius_px` is the expected radius of a shadow. The common radius of all balls may differ from
    it by the factors `radius_range`; single balls may differ from the common radius by the fraction
    `radius_spread`.
    """

    radius_px: float = eqx.field(static=True, default=6.0)
    radius_range: tuple[float, float] = eqx.field(static=True, default=(0.75, 1.35))
    radius_spread: float = eqx.field(static=True, default=0.12)
    candidates: int = eqx.field(static=True, default=128)
    capacity: int = eqx.field(static=True, default=64)
    support: float = eqx.field(static=True, default=0.7)  # fraction of the circle with an edge
    tolerance_px: float = eqx.field(static=True, default=0.7)  # of an edge from the circle
    contrast: float = eqx.field(static=True, default=0.02)  # least slope of log grey, per px
    refine_steps: int = eqx.field(static=True, default=6)


class Balls(eqx.Module):
    """Balls in an image, best first. `support` is the fraction of the circle with an edge."""

    centers: Pixels  # px of the recorded image
    radius: Float[Array, " n"]  # px
    support: Float[Array, " n"]
    valid: Bool[Array, " n"]


def detect_balls(image: Image, options: BallOptions = BallOptions()) -> Balls:
    """Detect dark round shadows of the expected radius in an image (grey values 0 to 255).

    1. Candidates: the strongest local maxima of a difference of Gaussians of the image's log.
    2. Circles: edge points at the steepest rise of 24 radial profiles; RANSAC with fixed triples
       takes the circle with the most edges within `tolerance_px` and refits it.
    3. Votes: a circle needs the support, the contrast and the common radius, which is the median of
       the five best.
    4. Overlap: of two circles that share more than 60 % of their area, the better one is kept.
    5. Centres: a blurred disc on a plane of grey is fitted to the pixels with robust weights.
    """
    log = jnp.log(image + _DARK)
    start = _candidates(log, options)
    center, radius, support, contrast = _circles(log, start, options)
    expected = options.radius_px
    low, high = (expected * bound for bound in options.radius_range)
    is_ball = (support >= options.support) & (contrast > options.contrast)
    is_ball &= (radius > low) & (radius < high)
    quality = jnp.where(is_ball, support * jnp.minimum(contrast, 0.5), 0.0)
    quality, order = jax.lax.top_k(quality, options.capacity)
    center, radius, support = center[order], radius[order], support[order]
    valid = (quality > 0.0) & _common_radius(radius, quality, options.radius_spread)
    valid &= _is_best_of_overlap(center, radius, valid)
    center, radius, good = jax.vmap(lambda c, r: _refined(image, c, r, options))(center, radius)
    return Balls(center, radius / _HALF_BRIGHTNESS, support, valid & good)


def _candidates(log: Image, options: BallOptions) -> Pixels:
    """Centres of dark blobs, px, detected at half the resolution."""
    height, width = (side // 2 for side in log.shape)
    half = log[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3))
    sigma = 0.25 * options.radius_px
    narrow = gaussian_blur(half, sigma, truncate=2.5)
    response = gaussian_blur(narrow, 1.7 * sigma, truncate=2.0) - narrow
    border = round(options.radius_px / 2.0) + 1
    inner = response[border:-border, border:-border]
    around = jax.lax.reduce_window(inner, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
    peaks = jnp.where(inner >= around, inner, -1.0)
    # Keep the best of every 4 x 4 block: two balls are never that close, and the list is shorter.
    rows, columns = peaks.shape[0] // 4, peaks.shape[1] // 4
    blocks = peaks[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4)
    blocks = blocks.transpose(0, 2, 1, 3).reshape(rows * columns, 16)
    within = jnp.argmax(blocks, axis=1)
    _, best = jax.lax.top_k(jnp.max(blocks, axis=1), options.candidates)
    row = (best // columns) * 4 + within[best] // 4 + border
    column = (best % columns) * 4 + within[best] % 4 + border
    return 2.0 * jnp.stack([column, row], axis=1) + 1.0


def _angles() -> Float[Array, " ray"]:
    return jnp.asarray(2.0 * np.pi * np.arange(NUM_RAYS) / NUM_RAYS)


def _triples() -> np.ndarray:
    """Fixed samples of three well-separated rays."""
    first = np.arange(NUM_RAYS)
    pairs = ((8, 16), (6, 13))
    both = [np.stack([first, first + a, first + b], axis=1) for a, b in pairs]
    return np.concatenate([both[0][:8], both[1]]) % NUM_RAYS


def _circles(
    log: Image, start: Pixels, options: BallOptions
) -> tuple[Pixels, Float[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
    """Circle, support and contrast of every candidate. Edges are detected twice, the second time
    from the centre of the first circle."""
    angles = _angles()
    direction = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    reach = 1.45 * options.radius_range[1] * options.radius_px
    first = 0.3 * options.radius_px
    steps = first + _RAY_STEP * jnp.arange(round((reach - first) / _RAY_STEP))

    def edges(center: Pixels) -> tuple[Float[Array, "n ray 2"], Float[Array, "n ray"]]:
        at = center[:, None, None] + steps[None, None, :, None] * direction[None, :, None]
        profiles = sample(log, at[..., 0], at[..., 1])
        radius, slope = jax.vmap(lambda p: steepest_rise(p, _RAY_STEP))(profiles)
        radius = radius + first
        return center[:, None] + radius[..., None] * direction[None], slope

    def fit(points: Float[Array, "ray 2"], slope: Float[Array, " ray"]):
        return _ransac_circle(points, slope, options)

    points, slope = edges(start)
    center, *_ = jax.vmap(fit)(points, slope)
    moved = jnp.linalg.norm(center - start, axis=1, keepdims=True) < 1.2 * options.radius_px
    points, slope = edges(jnp.where(moved, center, start))
    return jax.vmap(fit)(points, slope)


def _ransac_circle(
    points: Float[Array, "ray 2"], slope: Float[Array, " ray"], options: BallOptions
) -> tuple[Float[Array, "2"], Scalar, Scalar, Scalar]:
    """RANSAC circle of edge points, refitted to its inliers; fraction of inliers and their mean
    slope."""
    strong = slope > 0.3 * jnp.mean(jnp.maximum(slope, 0.0))

    def near(center: Float[Array, "2"], radius: Scalar) -> Bool[Array, " ray"]:
        distance = jnp.sqrt(jnp.sum((points - center[None]) ** 2, axis=1) + 1e-9) - radius
        return (jnp.abs(distance) < options.tolerance_px) & strong

    centers, radii = jax.vmap(_circle_through)(points[jnp.asarray(_triples())])
    votes = jnp.sum(jax.vmap(near)(centers, radii), axis=1)
    low, high = (options.radius_px * bound for bound in options.radius_range)
    votes = jnp.where((radii > 0.9 * low) & (radii < 1.1 * high), votes, 0)
    best = jnp.argmax(votes)
    inlier = near(centers[best], radii[best]).astype(points.dtype)
    center, radius = _fit_circle(points, inlier)
    inlier = near(center, radius).astype(points.dtype)
    center, radius = _fit_circle(points, inlier)
    count = jnp.sum(inlier)
    return center, radius, count / NUM_RAYS, jnp.sum(inlier * slope) / jnp.maximum(count, 1.0)


def _circle_through(corners: Float[Array, "3 2"]) -> tuple[Float[Array, "2"], Scalar]:
    a, b = corners[1] - corners[0], corners[2] - corners[0]
    twice = 2.0 * (a[0] * b[1] - a[1] * b[0])
    twice = jnp.where(jnp.abs(twice) < 1e-6, 1e-6, twice)
    aa, bb = jnp.sum(a**2), jnp.sum(b**2)
    offset = jnp.array([b[1] * aa - a[1] * bb, a[0] * bb - b[0] * aa]) / twice
    return corners[0] + offset, jnp.sqrt(jnp.sum(offset**2))


def _fit_circle(
    points: Float[Array, "ray 2"], weight: Float[Array, " ray"]
) -> tuple[Float[Array, "2"], Scalar]:
    """Algebraic (Kasa) circle fit to weighted points; unbiased because most of the circle is
    covered."""
    total = jnp.maximum(jnp.sum(weight), 1e-6)
    mean = jnp.sum(weight[:, None] * points, axis=0) / total
    p = points - mean[None]
    square = jnp.sum(p**2, axis=1)
    xx, yy = jnp.sum(weight * p[:, 0] ** 2), jnp.sum(weight * p[:, 1] ** 2)
    xy = jnp.sum(weight * p[:, 0] * p[:, 1])
    xs, ys = jnp.sum(weight * p[:, 0] * square), jnp.sum(weight * p[:, 1] * square)
    det = jnp.maximum(xx * yy - xy**2, 1e-6)
    offset = 0.5 * jnp.array([yy * xs - xy * ys, xx * ys - xy * xs]) / det
    return mean + offset, jnp.sqrt(jnp.sum(weight * square) / total + jnp.sum(offset**2))


def _common_radius(
    radius: Float[Array, " n"], quality: Float[Array, " n"], spread: float
) -> Bool[Array, " n"]:
    """Whether each radius is close to the median of the five best."""
    best = jnp.where(quality[:5] > 0.0, radius[:5], jnp.nan)
    common = jnp.nanmedian(best)
    return jnp.abs(radius - common) < spread * common


def _is_best_of_overlap(
    center: Pixels, radius: Float[Array, " n"], valid: Bool[Array, " n"]
) -> Bool[Array, " n"]:
    """False where a better circle (earlier in the list) covers more than 60 % of this one, that is,
    for circles of one radius, where the centres are less than 0.64 radii apart."""
    distance = jnp.sqrt(jnp.sum((center[:, None] - center[None]) ** 2, axis=-1) + 1e-9)
    near = (distance < 0.64 * radius[:, None]) & valid[None, :]
    return ~jnp.any(jnp.tril(near, -1), axis=1)


def _refined(
    image: Image, center: Float[Array, "2"], radius: Scalar, options: BallOptions
) -> tuple[Float[Array, "2"], Scalar, Bool[Array, ""]]:
    """Refine centre and radius by fitting grey = plane x (1 - depth x disc) to the pixels.

    `disc` is a step at `radius` with the image's blur. Damped Gauss-Newton with Cauchy weights; the
    returned flag is false if the fit diverged.
    """
    half = round(options.radius_px * options.radius_range[1]) + 3
    corner = jnp.clip(
        jnp.floor(center).astype(int) - half, 0, jnp.array(image.shape[::-1]) - (2 * half + 1)
    )
    patch = jax.lax.dynamic_slice(image, (corner[1], corner[0]), (2 * half + 1,) * 2)
    grid = jnp.arange(2 * half + 1) + 0.5
    u, v = grid[None, :] + corner[0] - center[0], grid[:, None] + corner[1] - center[1]
    u, v = jnp.broadcast_arrays(u, v)
    u, v, grey = u.reshape(-1), v.reshape(-1), patch.reshape(-1)
    bright = jnp.max(patch) + 1.0
    near = jax.nn.sigmoid((radius + 2.5 - jnp.sqrt(u**2 + v**2)) / 0.4)
    x = jnp.array([0.0, 0.0, radius, 1.0, 0.0, 0.0, 0.8])  # shift, radius, plane, depth
    grey = grey / bright
    x = x.at[3].set(jnp.sum(near * grey) / jnp.sum(near) * 1.6)

    def step(x: Float[Array, "7"], _):
        r, jacobian = _disc_residual(x, u, v, grey)
        scale = 1.5 * jnp.sum(near * jnp.abs(r)) / jnp.sum(near) + 0.01
        weight = near / (1.0 + (r / scale) ** 2)
        normal = (jacobian * weight[:, None]).T @ jacobian
        damped = normal + jnp.diag(1e-3 * jnp.diag(normal) + 1e-6)
        change = jnp.linalg.solve(damped, (jacobian * weight[:, None]).T @ r)
        limit = jnp.array([1.0, 1.0, 1.0, 0.3, 0.1, 0.1, 0.3])
        return x - jnp.clip(change, -limit, limit), None

    x, _ = jax.lax.scan(step, x, length=options.refine_steps)
    moved = jnp.sqrt(jnp.sum(x[:2] ** 2))
    good = jnp.all(jnp.isfinite(x)) & (moved < 0.5 * radius) & (x[6] > 0.15)
    return center + x[:2], x[2], good


def _disc_residual(
    x: Float[Array, "7"], u: Float[Array, " n"], v: Float[Array, " n"], grey: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, "n 7"]]:
    """Residual and Jacobian of the disc model."""
    softness = 0.65 * _BLUR  # a logistic edge as wide as a Gaussian blur of _BLUR
    du, dv = u - x[0], v - x[1]
    rho = jnp.sqrt(du**2 + dv**2 + 1e-6)
    disc = jax.nn.sigmoid((x[2] - rho) / softness)
    slope = disc * (1.0 - disc) / softness  # d disc / d radius
    plane = x[3] + 0.1 * (x[4] * du + x[5] * dv)
    through = 1.0 - x[6] * disc
    pull = plane * x[6] * slope / rho
    columns = [
        -pull * du - 0.1 * x[4] * through,
        -pull * dv - 0.1 * x[5] * through,
        -plane * x[6] * slope,
        through,
        0.1 * du * through,
        0.1 * dv * through,
        -plane * disc,
    ]
    return plane * through - grey, jnp.stack(columns, axis=1)
