"""Calibration of a C-arm from one image of the phantom: distortion and pinhole parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Matrix3, Pixels
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm._balls import BallOptions, Balls
from dartjax.robot.carm._carm import CarmCalibration, calibrate_carm
from dartjax.robot.carm._distortion import LocalDistortion, fit_local, ideal_of_real
from dartjax.robot.carm._phantoms import CalibrationPhantom

MIN_SHARE = 0.6  # smallest detected fraction of the plate's balls
PLATE_BALLS = BallOptions(
    radius_px=3.8, radius_range=(0.65, 1.4), radius_spread=0.35, candidates=704, capacity=512
)
_REACH = 0.4  # of the pitch: largest distance of a detected ball from its expected place


class PlateCalibration(NamedTuple):
    """Calibration of the C-arm in one pose: distortion correction and pinhole camera."""

    distortion: LocalDistortion
    carm: CarmCalibration
    nodes: Bool[Array, "rows columns"]  # balls detected on the plate
    upper: Bool[Array, " n"]  # balls detected in the second plane


def calibrate_from_balls(
    found: Balls,
    phantom: CalibrationPhantom,
    *,
    nominal_focal_length: float,
    nominal_depth: float,
    center: tuple[float, float],
) -> tuple[PlateCalibration, Status]:
    """Calibrate a C-arm from the balls in one image of the phantom (`detect_balls`, PLATE_BALLS).

    The plate's balls are matched from the middle outward: a cubic polynomial fitted to the matched
    balls predicts the next ones. The distortion is fitted to the plate. It gives the ideal pixels
    of the second plane's balls, and K is fitted to both planes. Status TOO_FEW_FIDUCIALS for less
    than 60 % of the plate or a quarter of the second plane, CORRESPONDENCE_FAILED for a transposed
    image (see `CalibrationPhantom`), else the status of the two fits.
    """
    per_mm = nominal_focal_length / nominal_depth
    rows, columns, _ = phantom.plate.shape
    nodes = phantom.plate[..., :2].reshape(-1, 2)
    on_plate = phantom.on_plate.reshape(-1)
    pitch_px = phantom.pitch * per_mm
    real, valid = _match_plate(nodes, on_plate, found, per_mm, pitch_px, jnp.asarray(center))
    shape = (rows, columns)
    lattice, status = fit_local(real.reshape(*shape, 2), valid.reshape(shape))
    ideal = ideal_of_real(lattice, found.centers)
    usable = found.valid & jnp.isfinite(ideal[:, 0])
    # Expected shadows of the second plane, from the nominal position of the source.
    shadow = phantom.upper[:, :2] * nominal_depth / (nominal_depth + phantom.upper[:, 2:])
    ideal = jnp.where(usable[:, None], ideal, 1e6)

    def seen_at(places: Pixels) -> tuple[Pixels, Bool[Array, " n"]]:
        expected = _plate_pixels(lattice, places / phantom.pitch, shape)
        return _nearest(expected, ideal, usable, pitch_px)

    upper, upper_seen = seen_at(shadow)
    one_sided = _one_sided(phantom)
    proper = jnp.sum(one_sided & upper_seen) > jnp.sum(one_sided & seen_at(shadow[:, ::-1])[1])
    plate = _plate_pixels(lattice, nodes / phantom.pitch, shape)
    points = jnp.concatenate([phantom.plate.reshape(-1, 3), phantom.upper])
    pixels = jnp.concatenate([plate, jnp.where(upper_seen[:, None], upper, 0.0)])
    carm, carm_status = calibrate_carm(pixels, points, jnp.concatenate([valid, upper_seen]))
    too_few = jnp.sum(valid) < MIN_SHARE * jnp.sum(on_plate)
    count_status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, too_few),
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.sum(upper_seen) < 0.25 * len(upper_seen)),
        (StatusCode.CORRESPONDENCE_FAILED, jnp.any(one_sided) & ~proper),
    )
    worst = jnp.where(count_status != 0, count_status, jnp.where(status != 0, status, carm_status))
    return PlateCalibration(lattice, carm, valid.reshape(shape), upper_seen), worst


def _one_sided(phantom: CalibrationPhantom) -> Bool[Array, " n"]:
    """Balls of the second plane whose mirror image about the diagonal x = y is not a ball."""
    places = phantom.upper[:, :2]
    gap = jnp.linalg.norm(places[:, None, ::-1] - places[None], axis=-1)
    return ~jnp.any(gap < phantom.pitch, axis=1)


def _match_plate(nodes, on_plate, found: Balls, per_mm, pitch_px, center):
    """Match the plate's nodes to detected balls, from the middle outward: pixels and mask."""
    reach_mm = jnp.max(jnp.where(on_plate, jnp.linalg.norm(nodes, axis=1), 0.0))
    design = _cubic(nodes / reach_mm)
    start = jnp.zeros((design.shape[1], 2)).at[0].set(center)
    start = start.at[1, 0].set(per_mm * reach_mm).at[2, 1].set(per_mm * reach_mm)
    ridge = jnp.diag(jnp.append(jnp.full(3, 1e-6), jnp.full(design.shape[1] - 3, 1e-2)))

    def refit(c: Float[Array, "term 2"], share: Array):
        expected = design @ c
        pixels, near = _nearest(expected, found.centers, found.valid, pitch_px)
        near &= on_plate & (jnp.linalg.norm(nodes, axis=1) <= share * reach_mm + 1e-3)
        weight = near[:, None].astype(pixels.dtype)
        normal = design.T @ (weight * design) + ridge
        return c + jnp.linalg.solve(normal, design.T @ (weight * (pixels - expected))), None

    shares = jnp.array([0.3, 0.3, 0.5, 0.7, 0.85, 1.0, 1.0])
    c, _ = jax.lax.scan(refit, start, shares)
    pixels, near = _nearest(design @ c, found.centers, found.valid, 0.5 * pitch_px)
    return pixels, near & on_plate


def _cubic(p: Pixels) -> Float[Array, "n 10"]:
    x, y = p[:, 0], p[:, 1]
    terms = [jnp.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3]
    return jnp.stack(terms, axis=1)


def _plate_pixels(
    lattice: LocalDistortion, index: Float[Array, "n 2"], shape: tuple[int, int]
) -> Pixels:
    """Ideal pixels of positions on the plate, given in pitches from its middle."""
    middle = jnp.array([shape[1] // 2, shape[0] // 2])
    return lattice.origin[None] + (index + middle[None]) @ lattice.basis


def _nearest(
    expected: Pixels,
    centers: Float[Array, "m 2"],
    valid: Bool[Array, " m"],
    pitch_px: Array | float,
) -> tuple[Pixels, Bool[Array, " n"]]:
    square = jnp.sum((expected[:, None] - centers[None]) ** 2, axis=-1)
    square = jnp.where(valid[None], square, jnp.inf)
    nearest = jnp.argmin(square, axis=1)
    smallest = jnp.take_along_axis(square, nearest[:, None], axis=1)[:, 0]
    return centers[nearest], smallest < (_REACH * pitch_px) ** 2


def ideal_pixels(calibrated: PlateCalibration, recorded: Pixels) -> Pixels:
    """Correct pixels of the recorded image (n, 2) for distortion; NaN outside the plate."""
    return ideal_of_real(calibrated.distortion, recorded)


def intrinsics_of(calibrated: PlateCalibration) -> Matrix3:
    """Return K of the pinhole camera of `ideal_pixels`."""
    return calibrated.carm.K
