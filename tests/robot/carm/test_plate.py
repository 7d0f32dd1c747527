"""Calibration from the balls of the phantom: the image must not be mirrored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import StatusCode, carm
from dartjax.transforms import SE3, SO3

PHANTOM, SIDE = carm.calibration_phantom(), 576.0  # px of a square image
calibrate = jax.jit(
    lambda found: carm.calibrate_from_balls(
        found,
        PHANTOM,
        nominal_focal_length=2480.0,
        nominal_depth=985.0,
        center=(0.5 * SIDE, 0.5 * SIDE),
    )
)


def balls(pixels, capacity=640):
    centers = np.full((capacity, 2), np.nan, np.float32)
    centers[: len(pixels)] = pixels
    valid = jnp.arange(capacity) < len(pixels)
    return carm.Balls(jnp.asarray(centers), jnp.full(capacity, 3.8), jnp.ones(capacity), valid)


@pytest.fixture(scope="module")
def pixels():
    K = carm.intrinsics(2476.0, jnp.array([290.0, 286.0]))
    turn = SO3.exp(jnp.array([0.004, -0.003, 0.01]))
    T = SE3.from_rotation_and_translation(turn, jnp.array([1.0, -2.0, 985.0]))
    on_plate = np.flatnonzero(np.asarray(PHANTOM.on_plate).ravel())
    points = jnp.concatenate([PHANTOM.plate.reshape(-1, 3)[on_plate], PHANTOM.upper])
    return np.asarray(carm.project_points(K, T, points))


def test_a_proper_image_is_accepted(pixels):
    found, status = calibrate(balls(pixels))
    assert int(status) == StatusCode.OK
    assert float(found.carm.K[0, 0]) == pytest.approx(2476.0, abs=0.5)
    assert int(found.upper.sum()) == len(PHANTOM.upper)
    half = np.random.default_rng(0).random(len(pixels)) < 0.75  # some balls are not detected
    assert int(calibrate(balls(pixels[half]))[1]) == StatusCode.OK


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p[:, ::-1], StatusCode.CORRESPONDENCE_FAILED),
        (lambda p: np.array([SIDE, SIDE]) - p[:, ::-1], StatusCode.TOO_FEW_FIDUCIALS),
        (lambda p: p * [-1, 1] + [SIDE, 0], StatusCode.TOO_FEW_FIDUCIALS),
        (lambda p: p * [1, -1] + [0, SIDE], StatusCode.TOO_FEW_FIDUCIALS),
    ],
    ids=["transposed", "other diagonal", "u", "v"],
)
def test_a_mirrored_image_is_refused(pixels, change, code):
    assert int(calibrate(balls(change(pixels)))[1]) == code
