"""Fits with fracture modes: they recover a loss of height, and keep an intact bone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import ssm
from dartjax.image import Radiograph
from dartjax.registration import crop_cameras, fit, observe
from dartjax.render import SplatOptions, splat, two_compartment
from tests.registration import scenes

# One worker: every test of the file uses the same compiled programs.
pytestmark = pytest.mark.slow

NUM_MODES = 4
OPTIONS = dataclasses.replace(scenes.QUICK, nonnegative_modes=3)


@pytest.fixture(scope="module")
def model():
    return ssm.with_fracture_modes(ssm.truncate(scenes.model(), NUM_MODES), loss_sd=0.2)


@pytest.fixture(scope="module")
def fitted(model):
    run = jax.jit(lambda seen: fit(model, seen, scenes.disturbed_start(), OPTIONS))
    render = jax.jit(lambda shape, c: splat(shape, model.faces, c, SplatOptions(window=9)))

    def fitted(coefficients):
        shape = ssm.posed(model, scenes.TRUE_POSE, jnp.asarray(coefficients, jnp.float32))
        center = scenes.TRUE_POSE.apply(jnp.mean(model.mean_shape, axis=0))
        crops = crop_cameras(
            scenes.views(0.0, 80.0), center, width_mm=scenes.WIDTH_MM, num_pixels=scenes.PIXELS
        )
        channels = [render(shape, crop) for crop in crops]
        images = [two_compartment(each) for each in channels]
        seen = observe(
            [Radiograph(image, crop) for image, crop in zip(images, crops, strict=True)],
            crops,
            masks=np.stack([np.asarray(each.silhouette) for each in channels]),
            landmarks_world=ssm.landmarks(model, shape),
        )
        return run(seen)

    return fitted


def test_a_wedge_is_found(fitted):
    found = fitted([0.5, -0.5, 0.3, 0.2, 1.8, 0.0, 0.0])  # 36 % of the height in front
    losses = 0.2 * np.asarray(found.coefficients[NUM_MODES:])
    assert int(found.status) == 0
    assert losses[0] > 0.22 and losses[0] > 2.0 * losses[1:].max()


def test_an_intact_bone_keeps_its_height(fitted):
    found = fitted([0.5, -0.5, 0.3, 0.2, 0.0, 0.0, 0.0])
    losses = 0.2 * np.asarray(found.coefficients[NUM_MODES:])
    assert losses.min() >= 0.0 and losses.max() < 0.08


def test_a_tall_bone_gives_no_negative_fracture(fitted):
    found = fitted([0.0, 0.0, 0.0, 0.0, -0.8, 0.0, -0.5])
    assert float(jnp.min(found.coefficients[NUM_MODES:])) >= 0.0
