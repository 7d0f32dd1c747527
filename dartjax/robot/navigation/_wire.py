"""Detection of a placed wire in an X-ray image: axis and tip, near their planned position."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Image, Pixels, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm import sample, steepest_rise

NUM_STATIONS = 64
MIN_LENGTH_PX = 25.0  # shortest searched length: a wire seen end-on has no visible axis
MIN_SHARE = 0.5  # smallest fraction of stations on one line
_STEP = 0.5  # px, along profiles
_DARK = 4.0  # grey value added before the logarithm
_PAIRS = 64  # of stations, for RANSAC
_MARGIN_PX = 8.0  # ignored at the image's border
_NEAR_PX = 1.0  # largest distance of an inlier from the line


class WireOptions(eqx.Module):
    """Options of the wire detector.

    `width_px` is the width of the wire's shadow. The search extends before the planned entry by
    `before` lengths of the planned path, and beyond the planned target by `beyond_px`.
    """

    width_px: float = eqx.field(static=True, default=7.1)
    reach_px: float = eqx.field(static=True, default=16.0)  # search range to each side of the plan
    before: float = eqx.field(static=True, default=1.0)
    beyond_px: float = eqx.field(static=True, default=20.0)
    contrast: float = eqx.field(static=True, default=0.15)  # least contrast of log grey values


class DetectedWire(eqx.Module):
    """Wire detected in one image, px of the recorded image. Only valid points lie on the wire."""

    points: Float[Array, "station 2"]  # on its axis
    valid: Bool[Array, " station"]
    tip: Float[Array, "2"]


def detect_wire(
    image: Image,
    entry: Float[Array, "2"],
    target: Float[Array, "2"],
    options: WireOptions = WireOptions(),
) -> tuple[DetectedWire, Status]:
    """Detect a wire near the planned line from `entry` to `target` (recorded px, grey 0 to 255).

    At each of 64 stations along the plan, finds the offset at which a band of the wire's width has
    the highest contrast to its two flanks. RANSAC selects the stations within 1 px of one line, and
    a line is fitted to them. The tip is the end of the dark band along that line. Status
    DETECTION_FAILED if the plan is nearly end-on, or if less than half of the stations lie on one
    line.
    """
    log = jnp.log(image + _DARK)
    along = target - entry
    length = jnp.linalg.norm(along)
    unit = along / jnp.maximum(length, 1e-6)
    across = jnp.array([-unit[1], unit[0]])
    stations = jnp.linspace(-options.before, 1.0, NUM_STATIONS) * length
    middle = entry[None] + stations[:, None] * unit[None]
    offset, contrast = _darkest_band(log, middle, across, options)
    points = middle + offset[:, None] * across[None]
    inside = _inside(points, image.shape)
    valid = _on_one_line(stations, offset, inside & (contrast > options.contrast))
    slope, level = _line(stations, offset, valid)
    about_tip = length + jnp.arange(-options.beyond_px, options.beyond_px + 0.1, _STEP)
    offsets = level + slope * about_tip
    axis = entry[None] + about_tip[:, None] * unit[None] + offsets[:, None] * across[None]
    tip = _end_of_band(log, axis, across, options.width_px)
    searched = (1.0 + options.before) * length
    status = first_status(
        (StatusCode.DETECTION_FAILED, ~(searched > MIN_LENGTH_PX)),
        (StatusCode.DETECTION_FAILED, jnp.sum(valid) < MIN_SHARE * NUM_STATIONS),
    )
    return DetectedWire(points, valid, tip), status


def _darkest_band(
    log: Image, middle: Pixels, across: Float[Array, "2"], options: WireOptions
) -> tuple[Float[Array, " station"], Float[Array, " station"]]:
    """Offset (px) of the darkest band at every station, and its contrast to the flanks."""
    reach = options.reach_px + options.width_px
    steps = jnp.arange(-reach, reach + 0.1, _STEP)
    at = middle[:, None] + steps[None, :, None] * across[None, None]
    profiles = sample(log, at[..., 0], at[..., 1])
    kernel = jnp.asarray(_band_kernel(options.width_px), log.dtype)
    response = jax.vmap(lambda p: jnp.convolve(p, kernel, mode="valid"))(profiles)
    best = jnp.clip(jnp.argmax(response, axis=1), 1, response.shape[1] - 2)
    rows = jnp.arange(len(middle))
    low, peak, high = (response[rows, best + k] for k in (-1, 0, 1))
    bend = jnp.minimum(low - 2.0 * peak + high, -1e-9)
    shift = jnp.clip(0.5 * (low - high) / bend, -0.5, 0.5)
    start = steps[0] + 0.5 * (len(kernel) - 1) * _STEP
    return start + _STEP * (best + shift), peak


def _band_kernel(width_px: float) -> np.ndarray:
    """Kernel: mean of two flanks, each half as wide as the band, minus the mean of the band."""
    band, flank = round(width_px / _STEP), round(0.5 * width_px / _STEP)
    inner = -np.hanning(band + 2)[1:-1]
    outer = np.full(flank, 0.5 / flank)
    return np.concatenate([outer, inner / -inner.sum(), outer])


def _inside(points: Pixels, shape: tuple[int, ...]) -> Bool[Array, " n"]:
    limit = jnp.array([shape[1], shape[0]]) - _MARGIN_PX
    return jnp.all((points > _MARGIN_PX) & (points < limit[None]), axis=1)


def _on_one_line(
    at: Float[Array, " station"], offset: Float[Array, " station"], valid: Bool[Array, " station"]
) -> Bool[Array, " station"]:
    """Inliers of the RANSAC line through two stations."""
    rng = np.random.default_rng(0)
    pairs = np.sort(
        np.stack([rng.choice(NUM_STATIONS, 2, replace=False) for _ in range(_PAIRS)]), axis=1
    )
    i, j = jnp.asarray(pairs).T
    gap = at[j] - at[i]
    slope = (offset[j] - offset[i]) / jnp.where(gap == 0.0, 1.0, gap)
    distance = offset[None] - offset[i][:, None] - slope[:, None] * (at[None] - at[i][:, None])
    near = (jnp.abs(distance) < _NEAR_PX) & valid[None] & (valid[i] & valid[j])[:, None]
    return near[jnp.argmax(jnp.sum(near, axis=1))]


def _line(
    at: Float[Array, " station"], offset: Float[Array, " station"], valid: Bool[Array, " station"]
) -> tuple[Scalar, Scalar]:
    """Least-squares line of the offsets: slope and offset at 0."""
    weight = valid.astype(at.dtype)
    total = jnp.maximum(jnp.sum(weight), 1.0)
    mean_at, mean = jnp.sum(weight * at) / total, jnp.sum(weight * offset) / total
    spread = jnp.maximum(jnp.sum(weight * (at - mean_at) ** 2), 1e-6)
    slope = jnp.sum(weight * (at - mean_at) * (offset - mean)) / spread
    return slope, mean - slope * mean_at


def _end_of_band(
    log: Image, axis: Pixels, across: Float[Array, "2"], width_px: float
) -> Float[Array, "2"]:
    """Pixel at which the dark band ends along its axis, which is sampled every half pixel."""

    def grey(offset: float) -> Float[Array, " step"]:
        moved = axis + offset * across[None]
        return sample(log, moved[:, 0], moved[:, 1])

    band = (grey(-0.25 * width_px) + grey(0.0) + grey(0.25 * width_px)) / 3.0
    flanks = 0.5 * (grey(-width_px) + grey(width_px))
    smooth = jnp.convolve(band - flanks, jnp.full(5, 0.2), mode="valid")
    where, _ = steepest_rise(smooth[None], 1.0)
    step = axis[1] - axis[0]
    return axis[0] + (2.0 + where[0]) * step
