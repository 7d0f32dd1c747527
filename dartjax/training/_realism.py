"""How like crops of real CTs are the crops of synthetic ones: statistics, and a classifier."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize

from dartjax.anatomy import REGIONS, region_of
from dartjax.training._crops import LEVELS, Crops

BANDS_MM = ((3.5, 7.0), (7.0, 14.0), (14.0, 28.0), (28.0, 55.0))  # wavelengths
STATISTICS = ("mean", "spread", "entropy", *(f"gradient {a:g}-{b:g} mm" for a, b in BANDS_MM))
_TILE = 16  # pixels
_BIN = 0.05  # of a histogram, line integral
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
_RIDGE = 1.0


class CropStatistics(NamedTuple):
    """Statistics of crops, one row per crop. All refer to line integrals."""

    mean: Float[np.ndarray, " n"]
    spread: Float[np.ndarray, " n"]  # standard deviation over the pixels
    entropy: Float[np.ndarray, " n"]  # bits, mean over tiles of 16 pixels, bins of 0.05
    gradient: Float[np.ndarray, "n band"]  # log10 of the power of the gradient per mm^2, by band


def crop_statistics(images: Float[np.ndarray, "n h w"], pixel_mm: float) -> CropStatistics:
    """Compute mean, spread, local entropy and gradient spectrum of square crops of at least 55 mm.

    The gradient spectrum is the mean of (2 pi f)^2 |F|^2 of the windowed image over the octaves
    `BANDS_MM`."""
    images = np.asarray(images, np.float64)
    mean = images.mean((-2, -1))
    return CropStatistics(
        mean=mean,
        spread=images.std((-2, -1)),
        entropy=_entropy(images),
        gradient=_spectrum(images - mean[..., None, None], pixel_mm),
    )


def _entropy(images: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, " n"]:
    n, h, w = images.shape
    tiles = images.reshape(n, h // _TILE, _TILE, w // _TILE, _TILE)
    tiles = np.moveaxis(tiles, -2, -3).reshape(n, -1, _TILE * _TILE)
    bins = np.sort(np.floor(tiles / _BIN), axis=-1)
    # The entropy of a tile is log n - sum(c log c) / n over the counts c of its values; the sum
    # over the n pixels of the log of the count of their value is the same.
    first = np.concatenate([np.ones_like(bins[..., :1], bool), np.diff(bins) > 0], axis=-1)
    value = np.cumsum(first, axis=-1) - 1
    offset = np.arange(value[..., 0].size).reshape(value.shape[:-1])[..., None] * _TILE**2
    counts = np.bincount((value + offset).ravel(), minlength=value.size).reshape(value.shape)
    logs = np.where(counts > 0, counts * np.log2(np.maximum(counts, 1)), 0.0).sum(-1) / _TILE**2
    return (np.log2(_TILE**2) - logs).mean(-1)


def _spectrum(images: Float[np.ndarray, "n h w"], pixel_mm: float) -> Float[np.ndarray, "n band"]:
    size = images.shape[-1]
    window = np.hanning(size)[:, None] * np.hanning(size)[None]
    power = np.abs(np.fft.fft2(images * window / np.sqrt((window**2).mean()))) ** 2 / size**2
    f = np.fft.fftfreq(size, pixel_mm)
    frequency = np.hypot(f[:, None], f[None])
    gradient = (2.0 * np.pi * frequency) ** 2 * power
    bands = [(frequency >= 1.0 / long) & (frequency < 1.0 / short) for short, long in BANDS_MM]
    return np.log10(np.stack([gradient[..., band].mean(-1) for band in bands], -1) + 1e-12)


def regions_of(crops: Crops) -> np.ndarray:
    """Return the region of the spine of every vertebra, see `anatomy.region_of`."""
    return np.array([region_of(LEVELS[i]) for i in crops.level])


def crop_features(
    images: Float[np.ndarray, "n h w"], pixel_mm: float
) -> Float[np.ndarray, "n feature"]:
    """Compute features for a classifier: the statistics, quantiles, and the statistics of the
    standardised crop."""
    rows = []
    spread = images.std((-2, -1), keepdims=True)
    standard = (images - images.mean((-2, -1), keepdims=True)) / np.maximum(spread, 1e-6)
    for each in (images, standard):
        found = crop_statistics(each, pixel_mm)
        rows += [found.mean, found.spread, found.entropy, *np.moveaxis(found.gradient, -1, 0)]
        rows += list(np.quantile(each, _QUANTILES, axis=(-2, -1)))
    return np.stack(rows, axis=1)


class MeasuredCrops(NamedTuple):
    """Statistics and features of the crops of a group, one row per image."""

    subject: np.ndarray
    region: np.ndarray
    values: Float[np.ndarray, "n statistic"]  # columns `STATISTICS`
    features: Float[np.ndarray, "n feature"]


def measure_crops(crops: Crops, pixel_mm: float) -> MeasuredCrops:
    """Measure all crops."""
    images = np.asarray(crops.images, np.float32)
    views = images.shape[1]
    images = images.reshape(-1, *images.shape[2:])
    found = crop_statistics(images, pixel_mm)
    columns = [found.mean, found.spread, found.entropy, *found.gradient.T]
    return MeasuredCrops(
        np.repeat(crops.subject, views),
        np.repeat(regions_of(crops), views),
        np.stack(columns, axis=1),
        crop_features(images, pixel_mm),
    )


def compare_crops(
    real: MeasuredCrops, synthetic: MeasuredCrops, cohort: str
) -> list[dict[str, Any]]:
    """Compare each statistic by region: the median of the real crops lies inside the central 90 %
    of the synthetic ones, or not."""
    rows = []
    for region in REGIONS:
        mine, others = (
            real.values[real.region == region],
            synthetic.values[synthetic.region == region],
        )
        if not len(mine) or not len(others):
            continue
        for i, name in enumerate(STATISTICS):
            low, middle, high = np.quantile(others[:, i], [0.05, 0.5, 0.95])
            median = float(np.median(mine[:, i]))
            rows.append(
                {
                    "cohort": cohort,
                    "region": region,
                    "statistic": name,
                    "real": median,
                    "synthetic_05": float(low),
                    "synthetic": float(middle),
                    "synthetic_95": float(high),
                    "inside": bool(low <= median <= high),
                    "real_crops_inside": float(np.mean((mine[:, i] >= low) & (mine[:, i] <= high))),
                }
            )
    return rows


def labelled_features(
    real: MeasuredCrops, synthetic: MeasuredCrops
) -> tuple[Float[np.ndarray, "n feature"], Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Combine two groups: features, whether real, number of the subject."""
    names = np.concatenate([real.subject, synthetic.subject])
    is_real = np.arange(len(names)) < len(real.subject)
    _, subject = np.unique(names, return_inverse=True)
    return np.concatenate([real.features, synthetic.features]), is_real, subject


class RealismScore(NamedTuple):
    """Result of a classifier of real against synthetic crops, on subjects it was not fitted to."""

    accuracy: float  # mean of the accuracies on real and on synthetic crops
    chance_low: float  # 95 % of classifiers that guess lie between these
    chance_high: float
    n_real: int
    n_synthetic: int


def tell_apart(
    features: Float[np.ndarray, "n feature"],
    is_real: Bool[np.ndarray, " n"],
    subject: Int[np.ndarray, " n"],
    seed: int = 0,
) -> RealismScore:
    """Fit a ridge-regularised logistic regression to tell real from synthetic crops.

    Every real subject is held out once, together with as many of the synthetic subjects as there
    are folds. Both classes have the same weight. The interval of chance comes from 200 random
    assignments of the predictions to whole subjects' labels, because crops of one subject are
    alike.
    """
    rng = np.random.default_rng(seed)
    real, synthetic = np.unique(subject[is_real]), np.unique(subject[~is_real])
    folds = np.concatenate([np.arange(len(real)), np.arange(len(synthetic)) % len(real)])
    order = np.concatenate([rng.permutation(real), rng.permutation(synthetic)])
    fold = np.zeros(len(subject), int)
    for each, place in zip(order, folds, strict=True):
        fold[subject == each] = place
    says_real = np.zeros(len(subject), bool)
    for held_out in range(len(real)):
        test = fold == held_out
        says_real[test] = _logistic(features[~test], is_real[~test], features[test])
    accuracy = _balanced(says_real, is_real)
    names, index = np.unique(subject, return_inverse=True)
    label = np.array([is_real[subject == name][0] for name in names])
    chance = [_balanced(says_real, rng.permutation(label)[index]) for _ in range(200)]
    low, high = np.quantile(chance, [0.025, 0.975])
    counts = int(is_real.sum()), int((~is_real).sum())
    return RealismScore(accuracy, float(low), float(high), *counts)


def _logistic(
    train: Float[np.ndarray, "n feature"],
    is_real: Bool[np.ndarray, " n"],
    test: Float[np.ndarray, "m feature"],
) -> Bool[np.ndarray, " m"]:
    center, scale = train.mean(0), train.std(0) + 1e-9
    x, sign = (train - center) / scale, np.where(is_real, 1.0, -1.0)
    weight = np.where(is_real, 0.5 / is_real.mean(), 0.5 / (1.0 - is_real.mean()))

    def cost(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -weight * sign / (1.0 + np.exp(np.clip(margin, -50, 50)))
        value = (weight * np.logaddexp(0.0, -margin)).sum() + 0.5 * _RIDGE * (w[:-1] ** 2).sum()
        gradient = np.append(x.T @ slope + _RIDGE * w[:-1], slope.sum())
        return float(value), gradient

    found = optimize.minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return (test - center) / scale @ found[:-1] + found[-1] > 0.0


def _balanced(says_real: Bool[np.ndarray, " n"], is_real: Bool[np.ndarray, " n"]) -> float:
    return float(0.5 * (says_real[is_real].mean() + (~says_real[~is_real]).mean()))
