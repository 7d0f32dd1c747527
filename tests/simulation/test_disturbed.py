"""The standard disturbance has the stated size."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.simulation import Disturbance, disturbed_mask, disturbed_pose
from tests.registration import scenes


def test_pose_errors_have_the_stated_size():
    rng = np.random.default_rng(0)
    pose = scenes.TRUE_POSE
    moved = [disturbed_pose(pose, rng, Disturbance()) for _ in range(200)]
    shifts = np.array([m.translation() - pose.translation() for m in moved])
    turns = [transforms.rotation_angle(m.rotation() @ pose.rotation().inverse()) for m in moved]
    assert shifts.std() == pytest.approx(5.0, rel=0.1)
    np.testing.assert_allclose(np.rad2deg(turns), 7.0, atol=0.01)


def test_mask_has_the_stated_dice():
    y, x = np.mgrid[:128, :128]
    mask = (x - 64) ** 2 / 900 + (y - 60) ** 2 / 1600 < 1
    disturbed = disturbed_mask(mask, np.random.default_rng(1), 0.90, 7.0)
    overlap = 2 * (disturbed & mask).sum() / (disturbed.sum() + mask.sum())
    assert overlap == pytest.approx(0.90, abs=0.005)


def test_empty_mask_stays_empty():
    empty = np.zeros((32, 32), bool)
    assert not disturbed_mask(empty, np.random.default_rng(0), 0.9, 3.0).any()


def test_observed_landmarks_lie_where_the_crop_shows_them():
    seen = scenes.observations(-30.0, 50.0)
    crop = camera.Camera(
        camera_from_world=transforms.SE3(seen.cameras.camera_from_world.wxyz_xyz[0]),
        focal_length=seen.cameras.focal_length[0],
        principal_point=seen.cameras.principal_point[0],
        sdd=seen.cameras.sdd[0],
        image_size=seen.cameras.image_size,
    )
    start_origin = camera.project(crop, scenes.TRUE_POSE.translation()[None])[0]
    body = jnp.mean(seen.landmarks[0, 3:5], axis=0)  # left and right waist
    assert float(jnp.linalg.norm(body - start_origin)) < 6.0


def test_missing_observations_are_marked_unknown():
    seen = scenes.observations(-30.0, 50.0, landmarks=False, masks=False)
    assert bool(jnp.isinf(seen.landmark_sigma).all())
    assert float(jnp.abs(seen.masks).max()) == 0.0
