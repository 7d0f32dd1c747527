"""The fit of one vertebra: recovery, status codes, batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import ssm, transforms
from dartjax.registration import (
    STATUS_MEANING,
    FitParameters,
    ObjectiveWeights,
    Surroundings,
    fit,
    fit_from_starts,
    fit_landmarks,
    levenberg_marquardt,
    map_cases,
    moved_pose,
    objective,
    stack,
)
from dartjax.registration._objective import evidence_at_scale
from dartjax.render import SplatOptions, ncc, splat, two_compartment
from tests.registration import scenes

quick_fit = jax.jit(lambda seen, start: fit(scenes.model(), seen, start, scenes.QUICK))


def start_error():
    return scenes.mean_vertex_error(scenes.disturbed_start(), jnp.zeros(15))


def test_fit_recovers_pose_and_shape():
    result = quick_fit(scenes.observations(-30.0, 50.0), scenes.disturbed_start())
    error = scenes.mean_vertex_error(result.pose, result.coefficients)
    assert start_error() > 4.0
    assert error < 0.8
    assert STATUS_MEANING[int(result.status)] == "converged"
    assert float(result.history[-1]) < float(result.history[0])


def test_fit_with_images_alone_improves_on_the_start():
    seen = scenes.observations(-30.0, 50.0, landmarks=False, masks=False)
    result = quick_fit(seen, scenes.disturbed_start())
    assert scenes.mean_vertex_error(result.pose, result.coefficients) < 0.5 * start_error()


def test_an_invalid_view_has_no_effect():
    seen = scenes.observations(-30.0, 50.0)
    only = dataclasses.replace(seen, view_valid=jnp.array([True, False]))
    garbage = dataclasses.replace(only, images=only.images.at[1].set(7.0))
    first = quick_fit(only, scenes.disturbed_start())
    second = quick_fit(garbage, scenes.disturbed_start())
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-5)


def test_pixels_beyond_the_detector_have_no_effect():
    seen = scenes.observations(-30.0, 50.0)
    narrow = dataclasses.replace(seen, exposed=seen.exposed.at[:, :, 40:].set(0.0))
    garbage = dataclasses.replace(
        narrow, images=narrow.images.at[:, :, 40:].set(7.0), masks=narrow.masks.at[:, :, 40:].set(1)
    )
    first, second = (quick_fit(each, scenes.disturbed_start()) for each in (narrow, garbage))
    np.testing.assert_allclose(first.coefficients, second.coefficients, atol=1e-4)
    assert scenes.mean_vertex_error(first.pose, first.coefficients) < 1.5


def test_nearly_parallel_views_are_flagged():
    result = quick_fit(scenes.observations(10.0, 18.0), scenes.disturbed_start())
    assert "parallel" in STATUS_MEANING[int(result.status)]


def test_opposed_views_are_flagged():
    result = quick_fit(scenes.observations(0.0, 172.0), scenes.disturbed_start())
    assert "parallel" in STATUS_MEANING[int(result.status)]


def test_wrong_masks_are_flagged():
    seen = scenes.observations(-30.0, 50.0)
    shifted = dataclasses.replace(seen, masks=jnp.roll(seen.masks, 20, axis=2))
    result = quick_fit(shifted, scenes.disturbed_start())
    assert "masks" in STATUS_MEANING[int(result.status)]


def test_pixels_that_are_not_finite_give_a_status_not_an_error():
    seen = scenes.observations(-30.0, 50.0)
    broken = dataclasses.replace(seen, images=seen.images.at[0, 30, 30].set(jnp.nan))
    result = quick_fit(broken, scenes.disturbed_start())
    assert "not finite" in STATUS_MEANING[int(result.status)]


def test_landmark_fit_reaches_noise_free_landmarks():
    parameters = jax.jit(
        lambda seen, start: fit_landmarks(scenes.model(), seen, start, num_steps=20)
    )(scenes.observations(-30.0, 50.0), scenes.disturbed_start())
    pose = moved_pose(scenes.disturbed_start(), parameters)
    shift = jnp.linalg.norm(pose.translation() - scenes.TRUE_POSE.translation())
    turn = transforms.rotation_angle(pose.rotation().inverse() @ scenes.TRUE_POSE.rotation())
    assert float(shift) < 1.5
    assert float(jnp.rad2deg(turn)) < 2.5


def test_landmarks_of_one_view_keep_the_depth():
    seen, start = scenes.observations(-30.0, 50.0), scenes.disturbed_start()
    rng = np.random.default_rng(1)
    fitted = jax.jit(lambda s, p: fit_landmarks(scenes.model(), s, p))
    for _ in range(5):
        error = 2.5 * scenes.PIXELS / scenes.WIDTH_MM * rng.normal(size=seen.landmarks.shape)
        sigma = jnp.full_like(seen.landmark_sigma, jnp.inf).at[1, 4:8].set(3.0)
        blurred = dataclasses.replace(
            seen, landmarks=seen.landmarks + jnp.asarray(error, jnp.float32), landmark_sigma=sigma
        )
        parameters = fitted(blurred, start)
        shift = parameters.translation * FitParameters.TRANSLATION_UNIT
        assert float(jnp.linalg.norm(shift)) < 15.0


def test_landmark_fit_without_landmarks_returns_the_start():
    seen = scenes.observations(-30.0, 50.0, landmarks=False)
    parameters = jax.jit(lambda s, p: fit_landmarks(scenes.model(), s, p))(
        seen, scenes.disturbed_start()
    )
    assert all(float(jnp.abs(leaf).max()) < 1e-6 for leaf in jax.tree.leaves(parameters))


def test_levenberg_marquardt_on_rosenbrock(x64):
    def residual(x):
        return jnp.array([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])

    found = levenberg_marquardt(residual, jnp.array([-1.2, 1.0]), num_steps=60).x
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-8)


@pytest.mark.slow
def test_objective_gradient_against_finite_differences(x64):
    def widen(tree):
        return jax.tree.map(
            lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
            tree,
        )

    seen, start = widen(scenes.observations(-30.0, 50.0)), widen(scenes.disturbed_start())
    model = widen(scenes.model())
    evidence = evidence_at_scale(seen, 32, 1.0)
    similarity = scenes.QUICK.similarity[0]

    def loss(flat):
        parameters = FitParameters(flat[:3], flat[3:6], flat[6:])
        options = SplatOptions(window=32, antialias=1.3)
        return objective(
            parameters, model, start, evidence, similarity, ObjectiveWeights(), options
        )

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    x = 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=21))
    gradient = value_and_grad(x)[1]
    for i in (0, 2, 3, 5, 6, 12, 20):
        delta = jnp.zeros(21).at[i].set(1e-5)
        slope = (value_and_grad(x + delta)[0] - value_and_grad(x - delta)[0]) / 2e-5
        assert float(gradient[i]) == pytest.approx(float(slope), rel=1e-4, abs=1e-8)


@pytest.mark.slow
def test_best_of_several_starts_is_not_worse():
    seen, start = scenes.observations(-30.0, 50.0), scenes.disturbed_start()
    one = quick_fit(seen, start)
    several = jax.jit(
        lambda s, p, key: fit_from_starts(scenes.model(), s, p, scenes.QUICK, num_starts=3, key=key)
    )(seen, start, jax.random.key(0))
    assert float(several.loss) <= float(one.loss) + 1e-4


@pytest.mark.slow
def test_map_cases_equals_single_fits_and_fills_the_last_chunk():
    seen = [scenes.observations(a, b) for a, b in ((-30.0, 50.0), (0.0, 90.0), (20.0, 70.0))]
    starts = [scenes.disturbed_start()] * 3
    chunks = []
    batch = map_cases(
        lambda s, p: fit(scenes.model(), s, p, scenes.QUICK),
        stack(seen),
        stack(starts),
        chunk=2,
        on_chunk=lambda done, total: chunks.append((done, total)),
    )
    assert chunks[0] == (0, 3)
    assert chunks[-1] == (3, 3)
    for i in range(3):
        single = quick_fit(seen[i], starts[i])
        np.testing.assert_allclose(batch.coefficients[i], single.coefficients, atol=2e-3)


def _neighbour(offset):
    """Make a copy of the true vertebra, shifted in world: a neighbour that overlaps it."""
    shape = ssm.posed(scenes.model(), scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    return shape + jnp.asarray(offset, jnp.float32)[None]


@pytest.mark.slow
def test_rendering_the_neighbours_corrects_the_fit():
    """An overlapping neighbour displaces the optimum of NCC; rendering it corrects this."""
    clean = scenes.observations(-30.0, 50.0, landmarks=False, masks=False)
    neighbour = _neighbour([6.0, 4.0, 14.0])
    model = scenes.model()
    shadow = jax.vmap(
        lambda c: two_compartment(splat(neighbour, model.faces, c, SplatOptions(window=9)))
    )(clean.cameras)
    seen = dataclasses.replace(clean, images=clean.images + shadow)
    run = jax.jit(
        lambda present: fit(
            model,
            seen,
            scenes.disturbed_start(),
            dataclasses.replace(scenes.QUICK, similarity=(ncc,)),
            Surroundings(neighbour[None], present[None]),
        )
    )
    without, within = (run(jnp.asarray(present)) for present in (False, True))
    errors = [scenes.mean_vertex_error(r.pose, r.coefficients) for r in (without, within)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.5 * start_error()


@pytest.mark.slow
def test_an_absent_neighbour_has_no_effect():
    seen = scenes.observations(-30.0, 50.0)
    nowhere = Surroundings(
        jnp.full((1, *scenes.model().mean_shape.shape), jnp.nan), jnp.array([False])
    )
    model = scenes.model()
    alone = quick_fit(seen, scenes.disturbed_start())
    beside = jax.jit(lambda a: fit(model, seen, scenes.disturbed_start(), scenes.QUICK, a))(nowhere)
    np.testing.assert_allclose(alone.coefficients, beside.coefficients, atol=2e-3)
