"""Failure trials with simulated features and errors."""

import numpy as np

from dartjax import pipeline
from dartjax.pipeline import FailureTrials


def trials(num_cases=400, num_subjects=4, seed=0):
    """Make trials in which a few features predict the failure, and errors are twice as large as the
    stated deviations (three times for the paths)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_cases, len(pipeline.ALL_FEATURE_NAMES)))
    image, landmarks = (
        pipeline.ALL_FEATURE_NAMES.index(name) for name in ("image_loss", "landmark_residual")
    )
    logit = 2.0 * features[:, image] - 1.5 * features[:, landmarks] - 1.0
    failed = rng.uniform(size=num_cases) < 1.0 / (1.0 + np.exp(-logit))
    features[::7, -9:] = np.nan  # vertebrae without neighbours
    std = rng.uniform(0.5, 2.0, (num_cases, 50))
    path_std = rng.uniform(0.5, 2.0, (num_cases, 2, 2, 3))
    return FailureTrials(
        kind=np.full(num_cases, "synthetic"),
        subject=np.array([f"synth{i % num_subjects:04d}" for i in range(num_cases)]),
        level=np.full(num_cases, "T9"),
        pair=np.zeros(num_cases, int),
        detector=np.full(num_cases, "stress"),
        severity=np.zeros(num_cases),
        masd_mm=np.where(failed, 3.0, 1.0),
        features=features,
        vertex_std=std,
        vertex_error=2.0 * std * rng.normal(size=std.shape),
        path_std=path_std,
        path_error=3.0 * path_std * rng.normal(size=path_std.shape),
    )
