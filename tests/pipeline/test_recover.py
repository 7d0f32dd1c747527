"""Recovery of unreliable estimates."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import transforms
from dartjax.pipeline import (
    ALL_FEATURE_NAMES,
    Estimate,
    candidate_views,
    measure_quality,
    next_views,
    recover,
)
from tests.pipeline.answers import ALL, stored, task
from tests.registration import scenes


@pytest.mark.slow
def test_a_turned_estimate_is_detected_and_recovered():
    """The features separate the correct estimate from one turned by 17 degrees with the same
    observations, and a new fit from the start corrects the wrong one."""
    model, seen = scenes.model(), scenes.observations(-30.0, 50.0)
    one = task(observations=seen, start=scenes.disturbed_start(), model=model)
    turned = transforms.perturb(scenes.TRUE_POSE, jnp.array([0.0, 0.3, 0.0]), jnp.zeros(3))
    right = Estimate(scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS, 0, 0.95)
    wrong = Estimate(turned, scenes.TRUE_COEFFICIENTS, 0, 0.8)
    tasks = [one, dataclasses.replace(one, pair=1)]
    measured = measure_quality(tasks, [right, wrong], scenes.QUICK)
    column = {name: measured.features[:, i] for i, name in enumerate(ALL_FEATURE_NAMES)}
    for name in ("image_loss", "mask_loss", "landmark_residual", "landmark_fit_distance_mm"):
        assert column[name][1] > column[name][0], name
    assert np.isfinite(measured.vertex_std).all()
    assert np.isfinite(measured.path_std).all()

    weights = np.zeros(ALL)
    weights[ALL_FEATURE_NAMES.index("mask_loss")] = 1.0
    between = column["mask_loss"].mean()
    model_of_masks = stored(mean=np.full(ALL, between), weights=weights, scale=np.full(ALL, 0.01))
    again = recover(tasks, [right, wrong], measured, scenes.QUICK, model_of_masks, num_starts=2)
    assert again.how == ["first fit", "restarts"]
    found = again.estimates[1]
    assert scenes.mean_vertex_error(found.pose, found.coefficients) < 1.5
    assert again.assessments[1].probability < 0.5
    ring = candidate_views(np.asarray(scenes.TRUE_POSE.translation()), scenes.views(0.0)[0], 3)
    expected = next_views(tasks[:1], [right], scenes.QUICK, ring)
    assert expected.shape == (1, 3)
    assert (expected > 0.0).all()
