"""Bad input is flagged by an abstention or a status."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import ssm
from dartjax.observations import NUM_LANDMARKS
from dartjax.pipeline import MAX_LOG_SIZE, insufficient_evidence
from dartjax.registration import agreeing_landmarks, fit, initialise
from tests.registration import scenes

# One worker: every test of the file uses the same compiled programs.
pytestmark = pytest.mark.slow

NOISE_PX = 2.4 * scenes.PIXELS / scenes.WIDTH_MM
_initialise = jax.jit(lambda seen: initialise(scenes.model(), seen))
_fit = jax.jit(lambda seen, start: fit(scenes.model(), seen, start, scenes.QUICK))


def good(*primary_deg):
    """Two views of a vertebra with masks and noisy landmarks."""
    seen = scenes.observations(*primary_deg)
    error = NOISE_PX * np.random.default_rng(0).normal(size=seen.landmarks.shape)
    return dataclasses.replace(seen, landmarks=seen.landmarks + jnp.asarray(error, jnp.float32))


def is_flagged(seen):
    """Run initialisation and fit; return whether the result is flagged."""
    found = _initialise(seen)
    answer = _fit(agreeing_landmarks(seen, found), found.pose)
    size = abs(float(ssm.log_size(scenes.model(), answer.coefficients)))
    insufficient = insufficient_evidence(seen, int(found.tier), helped=False)
    return bool(insufficient) or int(answer.status) != 0 or size > MAX_LOG_SIZE


def without_masks(seen, views=slice(None)):
    return dataclasses.replace(seen, masks=seen.masks.at[views].set(0.0))


def with_landmarks(seen, *kept):
    known = np.isin(np.arange(NUM_LANDMARKS), kept)[None]
    sigma = jnp.where(known, seen.landmark_sigma, jnp.inf)
    return dataclasses.replace(seen, landmark_sigma=sigma)


def swapped(seen):
    """Swap the cameras of the two images."""
    cameras = jax.tree.map(lambda leaf: leaf[::-1], seen.cameras)
    return dataclasses.replace(seen, cameras=cameras)


def wrong_spacing(seen, factor):
    def one(view):
        return dataclasses.replace(view, focal_length=view.focal_length * factor)

    return dataclasses.replace(seen, cameras=jax.vmap(one)(seen.cameras))


@pytest.mark.parametrize("angles", [(-30.0, 50.0), (10.0, 100.0)])
def test_good_input_is_not_flagged(angles):
    assert not is_flagged(good(*angles))


@pytest.mark.parametrize("pixels", [np.s_[:], np.s_[10, 10]], ids=["all", "one"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite(pixels, value):
    seen = good(-30.0, 50.0)
    view = seen.images[1].at[pixels].set(value)
    assert is_flagged(dataclasses.replace(seen, images=seen.images.at[1].set(view)))


def test_no_mask_in_any_view():
    assert is_flagged(without_masks(good(-30.0, 50.0)))


def test_no_mask_and_one_landmark_or_none():
    assert is_flagged(without_masks(with_landmarks(good(-30.0, 50.0), 3)))
    assert is_flagged(without_masks(with_landmarks(good(-30.0, 50.0))))


def test_cameras_swapped_between_oblique_views():
    assert is_flagged(swapped(good(-30.0, 50.0)))


def test_cameras_swapped_between_views_at_a_right_angle():
    """The fit succeeds, turned by 76 degrees from the patient's axes and a quarter too small."""
    assert is_flagged(swapped(good(10.0, 100.0)))


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_pixel_spacing_off_by_a_fifth(factor):
    """Too large or too small in every view: the vertebra is only of another size."""
    assert is_flagged(wrong_spacing(good(0.0, 40.0), factor))


def test_one_landmark_with_masks():
    """Two masks give the position; the orientation is not determined."""
    assert is_flagged(with_landmarks(good(-30.0, 50.0), 3))
