"""Refinement of the cameras: wrong poses are corrected, correct ones are unchanged."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, ssm, transforms
from dartjax.observations import PARTNER, Observations
from dartjax.registration import (
    CAMERA_STATUS,
    CameraPrior,
    carm_motion,
    moved_cameras,
    refine_cameras,
    stack,
    with_moved_cameras,
)
from tests.registration import scenes

DEFAULT = jax.tree.map(jnp.asarray, CameraPrior())
EXACT = jax.tree.map(jnp.asarray, CameraPrior(shape_mm=0.1, mask_mm=0.5, size=0.001))
HELD = jax.tree.map(jnp.asarray, CameraPrior(rotation_deg=0.01, translation_mm=0.01))
NUM_VERTEBRAE, PIXELS = 4, 32
CENTERS = np.array([[3.0 * i, -2.0 * i, 26.0 * i] for i in range(NUM_VERTEBRAE)])
PIVOT = jnp.asarray(CENTERS.mean(0), jnp.float32)
TURN, SHIFT = jnp.deg2rad(jnp.array([1.5, -2.0, 1.0])), jnp.array([4.0, -5.0, 6.0])


@pytest.fixture(scope="module")
def models():
    return stack([scenes.model()] * NUM_VERTEBRAE)


@pytest.fixture(scope="module")
def poses():
    turns = [transforms.SO3.exp(jnp.array([0.1 * i, 0.05, -0.04 * i])) for i in range(4)]
    return stack(
        [
            transforms.SE3.from_rotation_and_translation(r, jnp.asarray(c, jnp.float32))
            for r, c in zip(turns, CENTERS, strict=True)
        ]
    )


@pytest.fixture(scope="module")
def coefficients():
    rng = np.random.default_rng(3)
    return jnp.asarray(0.7 * rng.normal(size=(NUM_VERTEBRAE, 15)), jnp.float32)


@pytest.fixture(scope="module")
def seen(models, poses, coefficients):
    """Noise-free observations in crops of two views."""
    views = [
        camera.from_carm(transforms.carm_rotation(np.deg2rad(a), 0.1), PIVOT) for a in (0.0, 80.0)
    ]
    cases = []
    for i in range(NUM_VERTEBRAE):
        model, pose, b = jax.tree.map(lambda x, i=i: x[i], (models, poses, coefficients))
        vertices = ssm.posed(model, pose, b)
        crops = [
            camera.region_around(v, pose.translation(), width_mm=110.0, num_pixels=PIXELS)
            for v in views
        ]
        points = ssm.landmarks(model, vertices)
        middles = [camera.project(c, jnp.mean(vertices, axis=0)[None])[0] for c in crops]
        cases.append(
            Observations(
                cameras=stack(crops),
                images=jnp.zeros((2, PIXELS, PIXELS)),
                exposed=jnp.ones((2, PIXELS, PIXELS)),
                masks=jnp.stack([blob(c, m) for c, m in zip(crops, middles, strict=True)]),
                landmarks=jnp.stack([camera.project(c, points) for c in crops]),
                landmark_sigma=jnp.full((2, 10), 3.0),
                view_valid=jnp.ones(2, bool),
            )
        )
    return stack(cases)


def blob(crop, center):
    apart = camera.pixel_centers(crop) - center[None, None]
    return jnp.exp(-jnp.sum(apart**2, axis=-1) / 18.0)


@pytest.fixture(scope="module")
def run(models):
    compiled = jax.jit(refine_cameras)

    def refined(seen, poses, b, prior=DEFAULT):
        # With explicit types, for one compilation.
        return compiled(
            *jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (models, seen, poses, b, prior))
        )

    return refined


def motions_of(turn=TURN, shift=SHIFT):
    """Make motions of two cameras; the first is the identity."""
    return stack([transforms.SE3.identity(), carm_motion(PIVOT, turn, shift)])


def changed(batch, **leaves):
    """Replace leaves in a batch of observations (whose types are those of one case)."""
    return eqx.tree_at(
        lambda o: [getattr(o, name) for name in leaves],
        batch,
        [jnp.asarray(x, getattr(batch, name).dtype) for name, x in leaves.items()],
    )


def sure(observations):
    return changed(observations, landmark_sigma=jnp.full((NUM_VERTEBRAE, 2, 10), 0.5))


def displaced(observations, motions):
    return jax.vmap(lambda o: with_moved_cameras(o, motions))(observations)


def started(poses):
    rng = np.random.default_rng(5)
    turn, shift = (jnp.asarray(s * rng.normal(size=(4, 3)), jnp.float32) for s in (0.05, 3.0))
    return jax.vmap(transforms.perturb)(poses, turn, shift)


def left_over(motions, true_motions):
    """Compute the remaining error of the second C-arm: angle in deg, shift at the middle in mm."""
    first, second = (jax.tree.map(lambda x: x[1], m) for m in (motions, true_motions))
    both = first @ second
    turn = jnp.degrees(transforms.rotation_angle(both.rotation()))
    return float(turn), float(jnp.linalg.norm(both.apply(PIVOT) - PIVOT))


def mean_error_mm(poses, true_poses):
    return float(jnp.mean(jnp.linalg.norm(poses.translation() - true_poses.translation(), axis=1)))


@pytest.mark.slow
def test_moving_a_camera_equals_moving_the_world(seen):
    views = jax.tree.map(lambda x: x[0], seen.cameras)
    motions = motions_of()
    points = jnp.asarray(CENTERS, jnp.float32)
    moved = jax.tree.map(lambda x: x[1], moved_cameras(views, motions))
    motion = jax.tree.map(lambda x: x[1], motions)
    first = camera.project(jax.tree.map(lambda x: x[1], views), points)
    second = camera.project(moved, transforms.apply(motion, points))
    np.testing.assert_allclose(first, second, atol=2e-3)
    np.testing.assert_array_equal(moved.focal_length, views.focal_length[1])


@pytest.mark.slow
def test_wrong_cameras_are_corrected_without_noise(run, seen, poses, coefficients):
    motions = motions_of()
    found = run(sure(displaced(seen, motions)), started(poses), coefficients, EXACT)
    turn, shift = left_over(found.motions, motions)
    assert int(found.status) == 0
    assert turn < 0.15 and shift < 0.5
    assert mean_error_mm(found.poses, poses) < 0.5
    assert float(found.residual_mm) < 0.2


@pytest.mark.slow
def test_correct_cameras_are_unchanged(run, seen, poses, coefficients):
    found = run(seen, started(poses), coefficients)
    turn, shift = left_over(found.motions, motions_of(jnp.zeros(3), jnp.zeros(3)))
    assert turn < 0.01 and shift < 0.05
    assert "cameras unchanged" in CAMERA_STATUS[int(found.status)]
    assert mean_error_mm(found.poses, poses) < 0.3
    identity = jax.tree.map(lambda x: x[0], found.motions)
    np.testing.assert_allclose(identity.as_matrix(), np.eye(4), atol=1e-6)


@pytest.mark.slow
def test_cameras_that_always_move_follow_the_noise(run, seen, poses, coefficients):
    pixels = np.array(seen.landmarks) + np.random.default_rng(2).normal(size=seen.landmarks.shape)
    noisy, always = (
        changed(seen, landmarks=pixels),
        jax.tree.map(jnp.asarray, CameraPrior(evidence=0.0)),
    )
    kept, moved = (run(noisy, poses, coefficients, prior) for prior in (DEFAULT, always))
    right = motions_of(jnp.zeros(3), jnp.zeros(3))
    assert left_over(kept.motions, right)[0] < 0.01 < left_over(moved.motions, right)[0]
    assert float(moved.residual_mm) < float(kept.residual_mm) + 0.1


@pytest.mark.slow
def test_refinement_improves_with_noise_misses_and_swaps(run, seen, poses):
    rng = np.random.default_rng(11)
    motions, mean_shape = motions_of(), jnp.zeros((NUM_VERTEBRAE, 15))
    wrong = left_over(stack([transforms.SE3.identity()] * 2), motions)
    left, refined, held = [], [], []
    for _ in range(6):
        pixels = np.array(seen.landmarks) + rng.normal(size=seen.landmarks.shape)  # 3.4 mm a pixel
        pixels[0, 1] = pixels[0, 1][list(PARTNER)]
        pixels[1, 0, 0] += 6.0
        sigma = np.where(rng.random(seen.landmark_sigma.shape) < 0.37, np.inf, 3.4)
        noisy = displaced(changed(seen, landmarks=pixels, landmark_sigma=sigma), motions)
        found = run(noisy, started(poses), mean_shape)
        left.append(left_over(found.motions, motions))
        refined.append(mean_error_mm(found.poses, poses))
        held.append(mean_error_mm(run(noisy, started(poses), mean_shape, HELD).poses, poses))
    turn, shift = np.mean(left, axis=0)
    assert shift < 0.8 * wrong[1] and turn < 1.1 * wrong[0]  # turns are hardly seen by 4 vertebrae
    assert np.mean(refined) < 0.85 * np.mean(held)


@pytest.mark.slow
def test_a_tight_prior_holds_the_cameras(run, seen, poses, coefficients):
    found = run(displaced(seen, motions_of()), poses, coefficients, HELD)
    moved = jax.tree.map(lambda x: x[1], found.motions)
    assert float(jnp.degrees(transforms.rotation_angle(moved.rotation()))) < 0.2
    assert float(jnp.linalg.norm(moved.apply(PIVOT) - PIVOT)) < 0.2


@pytest.mark.parametrize("case", ["one view", "no landmarks", "nan"])
def test_insufficient_evidence_leaves_the_cameras_unchanged(run, seen, poses, coefficients, case):
    bad = displaced(seen, motions_of())
    if case == "one view":
        bad = changed(bad, view_valid=jnp.ones((4, 2), bool).at[:, 1].set(False))
    elif case == "no landmarks":
        bad = changed(bad, landmark_sigma=jnp.full((4, 2, 10), jnp.inf))
    else:
        poses = jax.tree.map(lambda x: x.at[0].set(jnp.nan), poses)
    found = run(bad, poses, coefficients)
    assert "unchanged" in CAMERA_STATUS[int(found.status)]
    if case != "nan":
        np.testing.assert_allclose(found.motions.as_matrix(), np.eye(4)[None].repeat(2, 0))


def test_landmarks_that_are_not_numbers_count_as_missed(run, seen, poses, coefficients):
    motions = motions_of()
    bad = changed(seen, landmarks=seen.landmarks.at[0, 1].set(jnp.nan))
    found = run(sure(displaced(bad, motions)), started(poses), coefficients, EXACT)
    turn, shift = left_over(found.motions, motions)
    assert int(found.status) == 0 and turn < 0.3 and shift < 1.5
