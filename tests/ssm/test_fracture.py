"""Fracture modes: heights lost, nothing else moved, nothing folded, gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, mesh, ssm
from dartjax.ssm import build
from dartjax.ssm._frame import posterior_wall
from dartjax.ssm._voxels import solid_of
from dartjax.ssm.build._remesh import folded_pairs
from tests.gradients import assert_gradient

WEDGE, BICONCAVE, CRUSH = np.eye(3)


def _slow(level):
    return pytest.param(level, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[*map(_slow, ("T5", "T12")), "L3"])
def model(request):
    return ssm.truncate(data.load_shape_model(request.param), 5)


fractured = jax.jit(ssm.fractured)


def broken(model, losses):
    shape = fractured(model, model.mean_shape, jnp.asarray(losses, jnp.float32))
    return np.asarray(shape, float)


def heights(model, vertices):
    found = build.measure(vertices, np.asarray(model.faces))
    return np.array([found["body_height"].value, found["body_height_post"].value])


def front_column(model, vertices, front):
    """z extent of the bone just behind the anterior wall, within 5 mm of the midline."""
    solid = solid_of(vertices, np.asarray(model.faces))
    near = np.abs(solid.axis(0)) < 5.0
    row = int(np.argmin(np.abs(solid.axis(1) - (front - 0.5))))
    filled = np.flatnonzero(solid.occupancy[near, row].any(0))
    return (filled[-1] - filled[0] + 1) * solid.spacing


def center_height(model, vertices):
    points = ssm.landmarks(model, jnp.asarray(vertices, jnp.float32))
    return float(points[0, 2] - points[1, 2])


def back_column(model, vertices):
    """z extent of the body on the midline, 2 mm before its back wall."""
    solid = solid_of(vertices, np.asarray(model.faces))
    near = np.abs(solid.axis(0)) < 1.5
    wall = posterior_wall(solid_of(np.asarray(model.mean_shape, float), np.asarray(model.faces)))
    row = int(np.argmin(np.abs(solid.axis(1) - (wall + 2.0))))
    filled = np.flatnonzero(solid.occupancy[near, row].any(0))
    return (filled[-1] - filled[0] + 1) * solid.spacing


def test_crush_takes_front_and_back(model):
    """On the midline: the columns under the pedicles keep their height."""
    intact, crushed = broken(model, 0 * CRUSH), broken(model, 0.4 * CRUSH)
    assert 1.0 - heights(model, crushed)[0] / heights(model, intact)[0] == pytest.approx(
        0.4, abs=0.04
    )
    lost = 1.0 - back_column(model, crushed) / back_column(model, intact)
    assert lost == pytest.approx(0.4, abs=0.04)


def test_wedge_takes_the_front_and_keeps_the_back(model):
    intact, wedged = broken(model, 0 * WEDGE), broken(model, 0.4 * WEDGE)
    front = float(ssm.landmarks(model, model.mean_shape)[2, 1])
    lost = 1.0 - front_column(model, wedged, front) / front_column(model, intact, front)
    assert lost == pytest.approx(0.4, abs=0.04)
    anterior, posterior = 1.0 - heights(model, wedged) / heights(model, intact)
    assert abs(posterior) < 0.04
    # The measured column is the tallest of the front half, so one near its back.
    assert 0.15 < anterior < 0.4


def test_biconcave_takes_the_middle_and_keeps_the_rim(model):
    intact, hollow = broken(model, 0 * BICONCAVE), broken(model, 0.4 * BICONCAVE)
    lost = 1.0 - center_height(model, hollow) / center_height(model, intact)
    assert lost == pytest.approx(0.4, abs=0.02)
    np.testing.assert_allclose(heights(model, hollow), heights(model, intact), rtol=0.04)


@pytest.mark.parametrize("losses", [0.5 * WEDGE, 0.5 * BICONCAVE, 0.4 * CRUSH, (0.2, 0.2, 0.1)])
def test_only_the_body_moves_and_nothing_folds(model, losses):
    shape, faces = broken(model, losses), np.asarray(model.faces)
    body = np.asarray(model.parts) == 0
    moved = shape != np.asarray(model.mean_shape, float)
    assert not moved[~body].any()
    assert moved[body, 2].any() and not moved[body, :2].any()
    assert len(folded_pairs(shape, faces)) == 0
    volume = float(mesh.volume(jnp.asarray(shape), jnp.asarray(faces)))
    assert 0.5 < volume / float(mesh.volume(model.mean_shape, model.faces)) < 1.0


def test_displacements_are_losses_times_fields(model):
    fields = jax.jit(ssm.fracture_fields)(model.mean_shape, model)
    assert len(fields) == len(ssm.FRACTURE_NAMES)
    for field, one in zip(fields, np.eye(3), strict=True):
        moved = broken(model, 0.3 * one) - np.asarray(model.mean_shape, float)
        np.testing.assert_allclose(moved, 0.3 * np.asarray(field), atol=1e-5)


def test_it_batches_over_losses(model):
    losses = jnp.array([[0.1, 0.0, 0.2], [0.3, 0.1, 0.0]])
    both = jax.vmap(lambda x: ssm.fractured(model, model.mean_shape, x))(losses)
    np.testing.assert_allclose(both[1], broken(model, losses[1]), atol=1e-4)


def test_gradient(x64, model):
    wide = jax.tree.map(lambda a: a.astype(float) if eqx.is_inexact_array(a) else a, model)
    weights = jnp.asarray(np.random.default_rng(0).standard_normal(wide.mean_shape.shape))

    def energy(parameters):
        losses = ssm.losses_from(parameters[:3])
        shape = ssm.fractured(wide, ssm.instance(wide, parameters[3:]), losses)
        return jnp.sum(weights * shape) - ssm.fracture_log_prior(losses)

    assert_gradient(energy, jnp.array([-1.0, -2.0, 0.5, 0.3, -0.4, 0.2, 0.8, -0.1]), rtol=1e-5)


def test_losses_are_positive_and_bounded():
    raw = jnp.array([[-6.0, -20.0, -6.0], [0.0, 2.0, -1.0], [50.0, 50.0, 50.0]])
    losses = np.asarray(jax.vmap(ssm.losses_from)(raw))
    assert (losses > 0).all() and (losses.sum(1) < 0.8).all()
    np.testing.assert_allclose(losses[0, 0], np.exp(-6.0), rtol=0.02)
    np.testing.assert_allclose(losses[2], 0.8 / 3, rtol=0.02)


def test_log_prior_is_exponential():
    a, b = jnp.array([0.1, 0.0, 0.3]), jnp.array([0.0, 0.05, 0.0])
    logpdf = jax.scipy.stats.expon.logpdf
    expected = logpdf(a, scale=0.2).sum() - logpdf(b, scale=0.2).sum()
    found = ssm.fracture_log_prior(a, 0.2) - ssm.fracture_log_prior(b, 0.2)
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


def test_fracture_modes_are_the_fields_of_the_mean_shape(model):
    extended = ssm.with_fracture_modes(model, loss_sd=0.2)
    assert extended.num_modes == model.num_modes + 3
    coefficients = jnp.concatenate([jnp.zeros(model.num_modes), jnp.array([1.0, 0.0, 0.5])])
    np.testing.assert_allclose(
        ssm.instance(extended, coefficients), broken(model, [0.2, 0.0, 0.1]), atol=1e-4
    )
