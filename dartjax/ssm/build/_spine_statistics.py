"""Estimation of the prior of the whole spine from annotated scans, on the host.

Every scan shows a part of the spine, so that most values of most scans are missing. They are
described by a factor analysis with missing values: x = mean + loadings z + noise, z ~ N(0, I) with
few factors, fitted by expectation maximisation (Little, Rubin 2019, chapter 11).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dartjax.ssm._spine_prior import (
    KEYPOINTS,
    NUM_SIZES,
    NUM_STEPS,
    SPINE_LEVELS,
    num_spine_values,
    spine_frames,
    spine_values,
)
from dartjax.transforms import SE3

_NUM_ITERATIONS = 60
_OUTLIER_SPREADS = 5.0  # robust standard deviations beyond which a value counts as misplaced
_LOADING_RIDGE = 4.0  # scans: loadings of values seen in few scans are near 0
_PRONE_RIDGE = 20.0  # scans: prone and supine differ only where data show it
_MIN_NOISE = 0.05  # of a value's standard deviation
_MIN_PEOPLE = 3.0  # below, a value is taken from the nearest level that has more
_TILT_DEGREE = 5  # of the tilt of the mean spine along its levels
_EXTRAPOLATED = 2.0  # factor of the noise of such a value

Keypoints = Mapping[str, Float[np.ndarray, "3"]]  # by KEYPOINTS, RAS mm


class SpineScan(NamedTuple):
    """Annotated vertebrae of one scan."""

    person: str
    position: str  # prone, supine, or "" if unknown
    levels: Mapping[str, Keypoints]


class SpineStatistics(NamedTuple):
    """Parameters of the prior, values in the order of `SpinePrior`."""

    mean: Float[np.ndarray, " value"]  # supine
    prone_shift: Float[np.ndarray, " value"]  # of the mean
    loadings: Float[np.ndarray, "value factor"]
    noise: Float[np.ndarray, " value"]  # standard deviations
    num_people: Float[np.ndarray, " value"]  # behind every value


def frames_in_vertebrae(
    mean: Float[np.ndarray, " value"], own: Float[np.ndarray, "level 4 4"]
) -> Float[np.ndarray, "level 4 4"]:
    """Compute T_vertebra_frame of all levels from `own`, the frames of the mean shapes
    (`frame_in_vertebra`).

    The pedicles' centres of the mean shapes are not exactly where the scans are marked: a frame can
    be off by 3 degrees about x. The frames are turned about x so that the vertebrae of the mean
    spine tilt smoothly from level to level (polynomial of degree 5), as marked frames and real
    spines do.
    """
    frames = np.asarray(jax.vmap(SE3.as_matrix)(spine_frames(jnp.asarray(mean, jnp.float32))))
    bones = frames @ np.linalg.inv(own)
    tilt = np.unwrap(np.arctan2(-bones[:, 2, 1], bones[:, 2, 2]))
    along = np.linspace(-1.0, 1.0, len(tilt))
    off = np.polyval(np.polyfit(along, tilt, _TILT_DEGREE), along) - tilt
    turns = np.tile(np.eye(4), (len(own), 1, 1))
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(off)
    turns[:, 2, 1], turns[:, 1, 2] = np.sin(off), -np.sin(off)
    return turns @ own


def spine_points_of(scan: SpineScan) -> Float[np.ndarray, "level 3 3"]:
    """Return the points `KEYPOINTS` of all levels of a scan, NaN where one is missing."""
    points = np.full((len(SPINE_LEVELS), len(KEYPOINTS), 3), np.nan, np.float32)
    for i, level in enumerate(SPINE_LEVELS):
        own = scan.levels.get(level, {})
        if set(KEYPOINTS) <= set(own):
            points[i] = [own[name] for name in KEYPOINTS]
    return points


def spine_values_of(scan: SpineScan) -> Float[np.ndarray, " value"]:
    """Return the values of a scan in the order of `SpinePrior`, NaN where missing."""
    return np.asarray(_values(spine_points_of(scan)), float)


_values = jax.jit(spine_values)


def estimate_spine(scans: Sequence[SpineScan], num_factors: int) -> SpineStatistics:
    """Fit the prior. The scans of a person count together as one scan of that person.

    The covariance is symmetric: every spine is also used as its mirror image. A value that fewer
    than three people have is that of the nearest level, without factors and with twice the standard
    deviation. ValueError if no level has enough.
    """
    values = np.stack([spine_values_of(scan) for scan in scans])
    values = np.concatenate([values, values * spine_mirror_signs()[None]])
    persons = [scan.person for scan in scans]
    weight = np.array([1.0 / persons.count(person) for person in persons])
    weight = np.tile(0.5 * weight, 2)
    share = {"prone": 1.0, "supine": 0.0}
    prone = np.tile([share.get(scan.position, 0.5) for scan in scans], 2)
    enough = weight @ np.isfinite(values) >= _MIN_PEOPLE
    values[:, enough] = _without_outliers(values[:, enough])
    seen = np.isfinite(values)
    source = _nearest_with_enough(enough)
    own = values[:, enough]
    center, scale = np.nanmean(own, axis=0), np.nanstd(own, axis=0)
    fitted = _factor_analysis((own - center) / scale, seen[:, enough], weight, prone, num_factors)
    loadings, mean, shift, noise = fitted
    mean, shift = center + scale * mean, scale * shift
    loadings, noise = scale[:, None] * loadings, scale * noise
    total = np.sqrt(np.sum(loadings**2, axis=1) + noise**2)
    return SpineStatistics(
        mean=mean[source],
        prone_shift=np.where(enough, shift[source], 0.0),
        loadings=np.where(enough[:, None], loadings[source], 0.0),
        noise=np.where(enough, noise[source], _EXTRAPOLATED * total[source]),
        num_people=weight @ seen,
    )


def spine_mirror_signs() -> Float[np.ndarray, " value"]:
    """Return the sign of every value in the mirror image of a spine: x of a translation, and y and
    z of a rotation vector change theirs."""
    step = np.array([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    steps = np.tile(step, NUM_STEPS)
    return np.r_[steps, np.ones(num_spine_values() - len(steps))]


def _nearest_with_enough(enough: Bool[np.ndarray, " value"]) -> Int[np.ndarray, " value"]:
    """Return for every value the place, among those with enough people, of the same value at the
    nearest level."""
    sources = np.full(len(enough), -1)
    number = np.cumsum(enough) - 1
    first = 6 * NUM_STEPS
    kinds = [np.arange(k, first, 6) for k in range(6)]
    kinds += [np.arange(first + k, len(enough), NUM_SIZES) for k in range(NUM_SIZES)]
    for places in kinds:
        usable = places[enough[places]]
        if not len(usable):
            raise ValueError(f"no level of the spine is marked in {_MIN_PEOPLE:.0f} people")
        nearest = np.abs(places[:, None] - usable[None]).argmin(axis=1)
        sources[places] = number[usable[nearest]]
    return sources


def _without_outliers(values: Float[np.ndarray, "scan value"]) -> Float[np.ndarray, "scan value"]:
    middle = np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    far = np.abs(values - middle) > _OUTLIER_SPREADS * np.maximum(spread, 1e-6)
    return np.where(far, np.nan, values)


def _factor_analysis(
    x: Float[np.ndarray, "scan value"],
    seen: Bool[np.ndarray, "scan value"],
    weight: Float[np.ndarray, " scan"],
    prone: Float[np.ndarray, " scan"],
    num_factors: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return loadings, mean, shift of prone scans, and noise of standardised values."""
    q, n = num_factors, x.shape[1]
    x = np.where(seen, x, 0.0)
    coefficients = np.zeros((n, q + 2))  # of the factors, of 1 and of prone
    coefficients[:, :q] = _first_loadings(x, seen, q)
    noise = np.full(n, 0.7)
    ridge = np.diag(np.r_[np.full(q, _LOADING_RIDGE), 1e-6, _PRONE_RIDGE])
    fixed = np.stack([np.ones(len(x)), prone], axis=1)
    for _ in range(_NUM_ITERATIONS):
        residual = np.where(seen, x - fixed @ coefficients[:, q:].T, 0.0)
        scaled = coefficients[:, :q] / noise[:, None]
        pairs = np.einsum("vq,vr->vqr", scaled, scaled).reshape(n, -1)
        precision = np.eye(q) + (seen.astype(float) @ pairs).reshape(-1, q, q)
        covariance = np.linalg.inv(precision)
        z = np.einsum("sqr,sr->sq", covariance, (residual / noise) @ scaled)
        regressors = np.concatenate([z, fixed], axis=1)
        second = np.einsum("sa,sb->sab", regressors, regressors)
        second[:, :q, :q] += covariance
        weighted = weight[:, None] * seen
        products = second.reshape(len(x), -1)
        normal = (weighted.T @ products).reshape(n, q + 2, q + 2) + ridge
        right = (weighted * x).T @ regressors
        coefficients = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
        pairs = np.einsum("va,vb->vab", coefficients, coefficients).reshape(n, -1)
        expected = products @ pairs.T
        squares = x**2 - 2.0 * x * (regressors @ coefficients.T) + expected
        noise = np.sqrt(np.sum(weighted * squares, axis=0) / np.sum(weighted, axis=0))
        noise = np.maximum(noise, _MIN_NOISE)
    return coefficients[:, :q], coefficients[:, q], coefficients[:, q + 1], noise


def _first_loadings(
    x: Float[np.ndarray, "scan value"], seen: Bool[np.ndarray, "scan value"], num_factors: int
) -> Float[np.ndarray, "value factor"]:
    """Return principal axes of the pairwise correlations."""
    together = seen.T.astype(float) @ seen
    correlation = (x.T @ x) / np.maximum(together, 1.0)
    correlation *= together / (together + 20.0)
    values, axes = np.linalg.eigh(correlation)
    chosen = np.argsort(values)[::-1][:num_factors]
    return axes[:, chosen] * np.sqrt(np.maximum(values[chosen], 0.1))[None]
