"""Judging answers: what a scene shows, probabilities, refusals, candidates for a third view."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, transforms
from dartjax.pipeline import ALL_FEATURE_NAMES, SCENE_FEATURE_NAMES, Estimate, Task
from dartjax.pipeline import _assess as judgement
from dartjax.pipeline import _next_view as judgement_next_view
from dartjax.pipeline import _recover as judgement_recover
from dartjax.pipeline import _task as grading
from dartjax.registration import FEATURE_NAMES
from dartjax.registration import _spine as spine
from tests.registration import scenes

LEVELS = ("T8", "T9", "T10")
MODELS = {level: data.load_shape_model(level) for level in LEVELS}
OWN, ALL = len(FEATURE_NAMES), len(ALL_FEATURE_NAMES)


def task(level="T9", pair=0, observations=None, **changes):
    start = transforms.SE3.identity()
    seen = cast(Any, observations)
    plain = Task("someone", level, pair, MODELS[level], seen, start, None, 90.0)
    return dataclasses.replace(plain, **changes)


def answer(pose=None, status=0):
    return Estimate(pose or transforms.SE3.identity(), jnp.zeros(15), status, 0.9)


def straight_spine():
    """Three levels as far apart as their models and discs ask for, and their answers."""
    along = spine.positions_mm(MODELS)
    tasks = [task(level) for level in LEVELS]
    up = [jnp.array([0.0, 0.0, along["T9"] - along[level]]) for level in LEVELS]
    return tasks, [answer(transforms.SE3.from_translation(shift)) for shift in up]


def of_scene(tasks, estimates, own=None, losses=None):
    own = np.zeros((len(tasks), OWN)) if own is None else own
    losses = np.zeros((len(tasks), 2, 2)) if losses is None else losses
    found = judgement.scene_features(tasks, estimates, own, losses)
    return {name: found[:, i] for i, name in enumerate(SCENE_FEATURE_NAMES)}


def test_neighbours_that_agree_are_no_distance_apart():
    feature = of_scene(*straight_spine())
    np.testing.assert_allclose(feature["neighbour_distance_mm"], 0.0, atol=1e-3)
    np.testing.assert_allclose(feature["neighbour_angle_deg"], 0.0, atol=1e-3)


def test_an_answer_that_left_the_spine_stands_out():
    tasks, estimates = straight_spine()
    moved = transforms.perturb(
        estimates[1].pose, jnp.array([0.0, np.deg2rad(10.0), 0.0]), jnp.array([6.0, 0.0, 0.0])
    )
    estimates[1] = answer(moved)
    feature = of_scene(tasks, estimates)
    assert feature["neighbour_distance_mm"][1] == pytest.approx(6.0, abs=1e-3)
    assert feature["neighbour_angle_deg"][1] == pytest.approx(10.0, abs=1e-2)
    expected = np.sqrt(np.mean(feature["neighbour_distance_mm"] ** 2))
    np.testing.assert_allclose(feature["scene_neighbour_distance_mm"], expected, rtol=1e-5)


def test_refused_answers_are_no_neighbours():
    tasks, estimates = straight_spine()
    tasks[1] = dataclasses.replace(tasks[1], refused="too little was detected")
    estimates[1] = answer(transforms.SE3.from_translation(jnp.array([90.0, 0.0, 0.0])))
    feature = of_scene(tasks, estimates)
    # The height of a vertebra that is not there is interpolated.
    np.testing.assert_allclose(feature["neighbour_distance_mm"][[0, 2]], 0.0, atol=0.5)
    assert np.isnan(feature["neighbour_distance_mm"][1])


def test_scenes_are_kept_apart():
    tasks = [task(level, pair) for pair in (0, 1) for level in LEVELS]
    assert grading.scenes_of(tasks) == [[0, 1, 2], [3, 4, 5]]
    own = np.zeros((6, OWN))
    own[:, FEATURE_NAMES.index("mask_gap_mm")] = [3, 4, 5, 0, 0, 0]
    losses = np.zeros((6, 2, 2))
    losses[:3, 0] = [[0.1, 0.6], [0.2, 0.5], [0.6, 0.1]]
    losses[3:, 1, 0] = [0.1, 0.2, 0.4]
    feature = of_scene(tasks, straight_spine()[1] * 2, own, losses)
    gap = np.sqrt(50.0 / 3.0)
    np.testing.assert_allclose(feature["scene_mask_gap_mm"], [gap] * 3 + [0.0] * 3)
    mean, worst = feature["image_loss_above_scene"], feature["image_loss_worst_above_scene"]
    np.testing.assert_allclose(mean, [0.0, 0.0, 0.0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(worst, [0.1, 0.0, 0.4, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(
        feature["mask_loss_above_scene"], [0, 0, 0, -0.05, 0.0, 0.1], atol=1e-12
    )


def test_a_vertebra_larger_than_its_neighbours_stands_out():
    tasks, estimates = straight_spine()
    larger = MODELS["T9"]
    growth = larger.modes.at[0].set(0.1 * larger.mean_shape)
    tasks[1] = dataclasses.replace(tasks[1], model=dataclasses.replace(larger, modes=growth))
    estimates[1] = estimates[1]._replace(coefficients=jnp.zeros(15).at[0].set(1.0))
    feature = of_scene(tasks, estimates)
    np.testing.assert_allclose(feature["size_off_scene"], [0.0, np.log(1.1), 0.0], atol=1e-5)


def test_one_vertebra_alone_has_no_scene():
    found = judgement.scene_features([task()], [answer()], np.zeros((1, OWN)), np.zeros((1, 2, 2)))
    assert np.isnan(found).all()


def stored(**changes):
    parts = {
        "features": ALL_FEATURE_NAMES,
        "mean": np.full(ALL, 2.0),
        "scale": np.ones(ALL),
        "weights": np.ones(ALL),
        "bias": 0.0,
        "threshold": 0.4,
        "inflation": np.array([2.0, 5.0]),
        "path_inflation": np.array([3.0, 8.0]),
        "card": {},
    }
    return data.StoredFailureModel(**{**parts, **changes})


def test_what_only_a_scene_shows_counts_as_average():
    features = np.full((2, ALL), 2.0)
    features[0, OWN:] = np.nan
    chance = judgement.probabilities(features, stored())
    np.testing.assert_allclose(chance, 0.5, atol=1e-6)
    features[1, 0] = np.nan  # but the vertebra's own must be there
    assert judgement.probabilities(features, stored())[1] == 1.0


def test_other_features_are_refused():
    with pytest.raises(data.DataError, match="other features"):
        judgement.probabilities(np.zeros((1, ALL)), stored(features=("a",)))


def test_judgements_are_inflated_and_refusals_say_why():
    features = np.full((2, ALL), 2.0)
    features[0, 3] = -1.0
    measured = judgement.Assessment(
        features, np.zeros((2, 2, 2)), np.full((2, 5), 0.5), np.full((2, 2, 2, 3), 0.25)
    )
    good, bad = judgement.judge(measured, stored())
    np.testing.assert_allclose(good.vertex_std_mm, 1.0)
    np.testing.assert_allclose(good.path_std_mm, 0.75)
    np.testing.assert_allclose(bad.vertex_std_mm, 2.5)  # what is refused is less certain
    np.testing.assert_allclose(bad.path_std_mm, 2.0)
    assert good.probability == pytest.approx(1.0 / (1.0 + np.exp(3.0)))
    reasons = judgement.refusals([good, bad], 0.4)
    assert reasons == ["", "it probably failed (0.50, accepted up to 0.40)"]
    failed = bad._replace(probability=float("nan"))
    assert judgement.refusals([failed], 1.0) != [""]


def test_candidates_stand_around_the_patient():
    center = np.array([5.0, -10.0, 30.0])
    view = camera.from_carm(
        transforms.carm_rotation(0.3, 0.1), jnp.asarray(center, jnp.float32), pixel_spacing=0.5
    )
    ring = judgement_next_view.view_ring(center, view, 6)
    assert ring.sdd.shape == (6,)
    sources = jax.vmap(lambda v: v.source)(ring)
    distance = jnp.linalg.norm(sources - jnp.asarray(center, jnp.float32)[None], axis=1)
    np.testing.assert_allclose(distance, jnp.linalg.norm(view.source - center), rtol=1e-5)
    beams = np.asarray(jax.vmap(lambda v: v.beam)(ring))
    np.testing.assert_allclose(beams[:, 2], 0.0, atol=1e-6)
    lines = np.abs(beams @ beams.T) - np.eye(6)
    assert lines.max() == pytest.approx(np.cos(np.pi / 6.0), abs=1e-4)
    spacing = jax.vmap(lambda v: v.pixel_spacing)(ring)
    np.testing.assert_allclose(spacing, np.tile(np.asarray(view.pixel_spacing), (6, 1)), rtol=1e-5)


@pytest.mark.slow
def test_a_turned_answer_is_doubted_and_recovered():
    """The same evidence for the right answer and for one turned by 17 degrees: the features tell
    them apart, and trying again from the start repairs the wrong one."""
    model, seen = scenes.model(), scenes.observations(-30.0, 50.0)
    one = task(observations=seen, start=scenes.disturbed_start(), model=model)
    turned = transforms.perturb(scenes.TRUE_POSE, jnp.array([0.0, 0.3, 0.0]), jnp.zeros(3))
    right = Estimate(scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS, 0, 0.95)
    wrong = Estimate(turned, scenes.TRUE_COEFFICIENTS, 0, 0.8)
    tasks = [one, dataclasses.replace(one, pair=1)]
    measured = judgement.assess(tasks, [right, wrong], scenes.QUICK)
    column = {name: measured.features[:, i] for i, name in enumerate(ALL_FEATURE_NAMES)}
    for name in ("image_loss", "mask_loss", "landmark_residual", "landmark_fit_distance_mm"):
        assert column[name][1] > column[name][0], name
    assert np.isfinite(measured.vertex_std).all()
    assert np.isfinite(measured.path_std).all()

    weights = np.zeros(ALL)
    weights[ALL_FEATURE_NAMES.index("mask_loss")] = 1.0
    between = column["mask_loss"].mean()
    model_of_masks = stored(mean=np.full(ALL, between), weights=weights, scale=np.full(ALL, 0.01))
    again = judgement_recover.recover(
        tasks, [right, wrong], measured, scenes.QUICK, model_of_masks, num_starts=2
    )
    assert again.how == ["first fit", "restarts"]
    found = again.estimates[1]
    assert scenes.mean_vertex_error(found.pose, found.coefficients) < 1.5
    assert again.judgements[1].probability < 0.5
    ring = judgement_next_view.view_ring(
        np.asarray(scenes.TRUE_POSE.translation()), scenes.views(0.0)[0], 3
    )
    expected = judgement_next_view.next_views(tasks[:1], [right], scenes.QUICK, ring)
    assert expected.shape == (1, 3)
    assert (expected > 0.0).all()
