"""The bi-planar target: geometry and recognition of its balls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.robot import BadParameter, StatusCode
from dartjax.robot.carm import apply_homography, intrinsics, project_points
from dartjax.robot.navigation import biplanar_target, match_part
from dartjax.transforms import SE3, SO3

F, ISO = 2480.0, 700.0
CENTER = jnp.array([384.0, 288.0])
K = intrinsics(F, CENTER)


@pytest.fixture(scope="module")
def target():
    return biplanar_target()


def pixels_of(target, part, tilt_deg=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    """Ideal pixels (2, 60, 2) of a part by a camera ISO in front of a displaced target."""
    points = np.asarray(target.points(part), np.float64).reshape(-1, 3)
    axes = np.asarray(target.R_biplanar_part[part])
    turn = SO3.from_rpy_radians(*np.deg2rad(tilt_deg)) @ SO3.from_matrix(jnp.asarray(axes.T))
    pose = SE3.from_rotation_and_translation(turn, jnp.asarray(shift) + jnp.array([0.0, 0.0, ISO]))
    return np.asarray(project_points(K, pose, jnp.asarray(points, jnp.float32))).reshape(2, -1, 2)


@jax.jit
def match_ap(found, valid):
    return match_part(
        found, valid, biplanar_target(), 0, focal_length=F, source_to_isocenter=ISO, center=CENTER
    )


def detected_balls(pixels, rng, noise=0.1, missing=0.0, foreign=0):
    """Balls in random order with noise, some missing, padded to 256."""
    flat = pixels.reshape(-1, 2)
    kept = flat[rng.random(len(flat)) >= missing]
    found = kept + noise * rng.standard_normal(kept.shape)
    found = np.concatenate([found, rng.uniform([60, 20], [700, 560], (foreign, 2))])
    found = rng.permutation(found)
    padded = np.zeros((256, 2), np.float32)
    padded[: len(found)] = found
    return jnp.asarray(padded), jnp.arange(256) < len(found)


def test_the_target_is_that_of_the_paper(target):
    assert target.uv.shape == (2, 2, 60, 2)
    assert float(jnp.min(jnp.abs(target.uv[..., 0]))) - float(target.radius) >= 32.0  # w1 / 2
    assert float(jnp.min(target.distance)) > 0.5 * 165.0  # w2 / 2
    steps = np.asarray(target.uv) / 6.0
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    for part in (0, 1):
        assert len(np.unique(np.asarray(target.points(part)).reshape(-1, 3), axis=0)) == 120


def test_shadows_of_the_layers_are_separate(target):
    for part in (0, 1):
        near, far = pixels_of(target, part)
        gaps = np.linalg.norm(near[:, None] - far[None], axis=-1)
        diameter = 2.0 * float(target.radius) * F / (ISO + 110.0)
        assert gaps.min() > 1.5 * diameter


def test_directions_in_the_image(target):
    """A ball at +u lies right in its image, one at +v lies below; the lateral beam is +x."""
    for part in (0, 1):
        image, uv = pixels_of(target, part), np.asarray(target.uv[part])
        assert np.all(np.sign(image[..., 0] - 384.0) == np.sign(uv[..., 0]))
        off_middle = uv[..., 1] != 0.0
        assert np.all((np.sign(image[..., 1] - 288.0) == np.sign(uv[..., 1]))[off_middle])
    assert float(jnp.min(target.points(1)[..., 0])) == pytest.approx(110.0)
    assert float(jnp.min(target.points(0)[..., 2])) == pytest.approx(110.0)


@pytest.mark.parametrize("seed", range(8))
def test_balls_are_recognised(target, seed):
    rng = np.random.default_rng(seed)
    tilt, shift = rng.uniform(-3.0, 3.0, 3), rng.uniform(-4.0, 4.0, 3)
    truth = pixels_of(target, 0, tilt, shift)
    match, status = match_ap(*detected_balls(truth, rng, missing=0.05, foreign=8))
    assert status == StatusCode.OK
    seen = np.asarray(match.seen)
    assert seen.sum() > 100
    off = np.linalg.norm(np.asarray(match.pixels) - truth, axis=-1)[seen]
    assert off.max() < 1.0 and np.sqrt(np.mean(off**2)) < 0.2


@pytest.mark.parametrize(
    ("part", "missing", "foreign", "status"),
    [
        (0, 1.0, 0, StatusCode.TOO_FEW_FIDUCIALS),  # no target
        (0, 1.0, 30, StatusCode.CORRESPONDENCE_FAILED),  # balls, but no target
        (0, 0.5, 0, StatusCode.CORRESPONDENCE_FAILED),  # half of it
        (1, 0.0, 0, StatusCode.CORRESPONDENCE_FAILED),  # the other view's part
        (0, 0.0, 60, StatusCode.CORRESPONDENCE_FAILED),  # many foreign balls
    ],
)
def test_other_images_are_rejected(target, part, missing, foreign, status):
    rng = np.random.default_rng(3)
    found = detected_balls(pixels_of(target, part), rng, missing=missing, foreign=foreign)
    code = int(match_ap(*found)[1])
    refused = {StatusCode.TOO_FEW_FIDUCIALS, StatusCode.CORRESPONDENCE_FAILED}
    assert code == status or (foreign == 30 and code in refused)


def test_two_targets_are_rejected(target):
    rng = np.random.default_rng(5)
    both = np.concatenate([pixels_of(target, 0), pixels_of(target, 0, shift=(9.0, 5.0, 0.0))])
    assert int(match_ap(*detected_balls(both, rng))[1]) == StatusCode.CORRESPONDENCE_FAILED


def test_the_match_lies_on_homographies(target):
    """Each layer's image is a homography of its plane: the residual is the noise."""
    truth = pixels_of(target, 0, (2.0, -2.0, 3.0), (2.0, 1.0, 3.0))
    match, _ = match_ap(*detected_balls(truth, np.random.default_rng(1), noise=0.0))
    assert float(match.rms_px) < 1e-2
    assert np.isfinite(np.asarray(apply_homography(jnp.eye(3), match.pixels[0]))).all()


@pytest.mark.parametrize(
    "bad", [{"ball_diameter": 6.0}, {"distances": (170.0, 110.0)}, {"distances": (80.0, 170.0)}]
)
def test_bad_targets(bad):
    with pytest.raises(BadParameter):
        biplanar_target(**bad)
