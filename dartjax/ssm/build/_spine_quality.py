"""Quality of the prior of the spine on people who are not behind it, on the host.

- Regions: one vertebra is observed; how often distance, rotation and pedicle distance of the next
  one below lie inside the region that should hold 90 %.
- Likelihood: mean log density of all steps of a scan, per value.
- Extrapolation: five neighbours are observed, the vertebra above or below them is predicted.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.spatial.transform import Rotation

from dartjax.ssm._spine_prior import (
    NUM_SIZES,
    NUM_STEPS,
    SPINE_LEVELS,
    SpinePrior,
    condition_spine,
    expected_frames,
    pedicle_frame,
    spine_log_likelihood,
)
from dartjax.ssm.build._spine_statistics import SpineScan, spine_points_of, spine_values_of
from dartjax.transforms import SE3, SO3

NUM_OBSERVED = 5
_REGION = 0.9
_MOST_WINDOWS = 800

Row = dict[str, Any]


def spine_regions(prior: SpinePrior, scans: Sequence[SpineScan]) -> list[Row]:
    """Tabulate by step how often the next vertebra lies inside its 90 % region."""
    loadings, noise = np.asarray(prior.loadings, float), np.asarray(prior.noise, float)
    mean, covariance = np.asarray(prior.mean, float), loadings @ loadings.T + np.diag(noise**2)
    values = np.stack([spine_values_of(scan) for scan in scans])
    sigmas = stats.norm.ppf(0.5 + 0.5 * _REGION)
    inside = []
    for i in range(NUM_STEPS):
        step = np.arange(6 * i, 6 * i + 6)
        first = 6 * NUM_STEPS + NUM_SIZES * i
        given, lower = np.array([first, first + 1]), first + NUM_SIZES
        wanted = np.r_[step, lower]
        own = values[np.isfinite(values[:, np.r_[wanted, given]]).all(1)]
        gain = np.linalg.solve(covariance[np.ix_(given, given)], covariance[np.ix_(given, wanted)])
        expected = mean[wanted] + (own[:, given] - mean[given]) @ gain
        spread = covariance[np.ix_(wanted, wanted)] - covariance[np.ix_(wanted, given)] @ gain
        gap = own[:, wanted] - expected
        along = expected[:, :3] / np.linalg.norm(expected[:, :3], axis=1, keepdims=True)
        distance = np.linalg.norm(own[:, step[:3]], axis=1) - np.linalg.norm(
            expected[:, :3], axis=1
        )
        sd = np.sqrt(np.einsum("na,ab,nb->n", along, spread[:3, :3], along))
        turn = np.einsum("na,ab,nb->n", gap[:, 3:6], np.linalg.inv(spread[3:6, 3:6]), gap[:, 3:6])
        inside.append(
            (
                np.abs(distance) <= sigmas * sd,
                turn <= stats.chi2.ppf(_REGION, 3),
                np.abs(gap[:, 6]) <= sigmas * np.sqrt(spread[6, 6]),
            )
        )
    names = [f"{a} to {b}" for a, b in itertools.pairwise(SPINE_LEVELS)]
    rows = [_region_row(*item) for item in zip(names, inside, strict=True) if len(item[1][0])]
    pooled = [np.concatenate([item[k] for item in inside]) for k in range(3)]
    return [*rows, _region_row("all", pooled)]


def _region_row(name: str, inside: Sequence[Bool[np.ndarray, " n"]]) -> Row:
    shares = {
        key: float(np.mean(own)) if len(own) else float("nan")
        for key, own in zip(("distance", "angle", "pedicles"), inside, strict=True)
    }
    return {"step": name, "scans": len(inside[0])} | shares


def spine_likelihood(prior: SpinePrior, scans: Sequence[SpineScan]) -> float:
    """Compute the mean log density of the steps of the scans, per value (mm, rad)."""
    values = np.stack([spine_values_of(scan) for scan in scans])
    seen = np.isfinite(values)
    seen[:, 6 * NUM_STEPS :] = False
    density = jax.jit(jax.vmap(spine_log_likelihood, (None, 0, 0)))
    total = density(prior, jnp.asarray(values, jnp.float32), jnp.asarray(seen))
    return float(np.sum(total) / seen.sum())


def spine_extrapolation(priors: Mapping[str, SpinePrior], scans: Sequence[SpineScan]) -> list[Row]:
    """Tabulate the error of a vertebra predicted from five neighbours, by prior."""
    windows = [window for scan in scans for window in _windows(scan)]
    windows = windows[:: -(-len(windows) // _MOST_WINDOWS)]
    known = np.stack([own for _, own, _ in windows])
    frames = np.stack([frames for frames, _, _ in windows])
    hidden = np.array([place for _, _, place in windows])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def predicted(prior, matrices, known):
        observed = SE3.from_rotation_and_translation(
            SO3.from_matrix(matrices[:, :3, :3]), matrices[:, :3, 3]
        )
        estimate = condition_spine(prior, observed, known)
        return expected_frames(estimate, observed, known).T_world_frame.as_matrix()

    safe = jnp.asarray(np.where(np.isfinite(frames), frames, np.eye(4)), jnp.float32)
    places = np.arange(len(windows))
    rows = []
    for name, prior in priors.items():
        found = np.asarray(predicted(prior, safe, jnp.asarray(known)), float)
        rows.append(_extrapolation_row(name, found[places, hidden], frames[places, hidden]))
    return rows


_frames = jax.jit(jax.vmap(lambda points: pedicle_frame(points).as_matrix()))


def _windows(scan: SpineScan) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """List (frames, observed, hidden level): five levels in a row, and the one above or below."""
    frames = np.asarray(_frames(spine_points_of(scan)), float)
    complete = np.all(np.isfinite(frames), axis=(1, 2))
    windows = []
    for first in range(len(SPINE_LEVELS) - NUM_OBSERVED):
        span = np.arange(first, first + NUM_OBSERVED + 1)
        if not complete[span].all():
            continue
        for hidden in (span[0], span[-1]):
            known = np.isin(np.arange(len(SPINE_LEVELS)), span)
            known[hidden] = False
            windows.append((frames, known, int(hidden)))
    return windows


def _extrapolation_row(
    name: str, found: Float[np.ndarray, "n 4 4"], truth: Float[np.ndarray, "n 4 4"]
) -> Row:
    apart = np.linalg.norm(found[:, :3, 3] - truth[:, :3, 3], axis=1)
    turn = Rotation.from_matrix(found[:, :3, :3]).inv() * Rotation.from_matrix(truth[:, :3, :3])
    angle = np.degrees(turn.magnitude())
    return {
        "prediction": name,
        "vertebrae": len(apart),
        "median_mm": float(np.median(apart)),
        "p90_mm": float(np.percentile(apart, 90)),
        "median_deg": float(np.median(angle)),
        "p90_deg": float(np.percentile(angle, 90)),
    }
