"""Joint fit of a scene: rendered neighbours, prior along the spine, shape coupling."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, ssm, transforms
from dartjax.image import Radiograph
from dartjax.registration import (
    ExpectedPose,
    FitOptions,
    ObjectiveWeights,
    Scale,
    crop_cameras,
    fit,
    fit_together,
    observe,
    stack,
)
from dartjax.registration import _spine as spine
from dartjax.registration._joint import _neighbour_shape
from dartjax.registration._objective import expected_pose_residual
from dartjax.render import SplatOptions, local_gradient_ncc, splat, two_compartment

LEVELS = ("T8", "T9", "T10")
OPTIONS = FitOptions(
    similarity=(functools.partial(local_gradient_ncc, window=3),) * 2,
    scales=(Scale(64, 1.2, 15, 0.08), Scale(64, 1.2, 15, 0.05)),
)
together = jax.jit(lambda *scene: fit_together(*scene, OPTIONS))
alone = jax.jit(jax.vmap(lambda model, seen, start: fit(model, seen, start, OPTIONS)))


@pytest.fixture(scope="module")
def scene():
    return drawn_scene(4)


def drawn_scene(seed):
    """Three vertebrae in one image a view, without masks, and their true surfaces."""
    models = {level: data.load_shape_model(level) for level in LEVELS}
    prior = data.load_spine_prior()
    order = spine.order_of(LEVELS, prior)
    rng = np.random.default_rng(seed)
    frames = ssm.spine_frames(prior.mean)
    bones = jax.vmap(lambda a, b: a @ b.inverse())(frames, prior.T_vertebra_frame)
    poses = [jax.tree.map(lambda leaf, at=at: leaf[at], bones) for at in order.place]
    poses = [poses[1].inverse() @ pose for pose in poses]
    shapes = [
        ssm.posed(model, pose, jnp.asarray(0.6 * rng.normal(size=15), jnp.float32))
        for model, pose in zip(models.values(), poses, strict=True)
    ]
    views = [
        camera.from_carm(transforms.carm_rotation(a, 0.3), poses[1].translation())
        for a in (-0.5, 0.9)
    ]
    render = jax.jit(lambda v, f, c: two_compartment(splat(v, f, c, SplatOptions(window=9))))
    seen, starts = [], []
    for model, pose, shape in zip(models.values(), poses, shapes, strict=True):
        crops = crop_cameras(views, pose.translation(), width_mm=110.0, num_pixels=64)
        images = [sum(render(s, model.faces, crop) for s in shapes) for crop in crops]
        shots = [Radiograph(image, crop) for image, crop in zip(images, crops, strict=True)]
        error = jnp.asarray(3.0 * rng.normal(size=(10, 3)), jnp.float32)
        seen.append(observe(shots, crops, landmarks_world=ssm.landmarks(model, shape) + error))
        turn, shift = 0.08 * rng.normal(size=3), 3.0 * rng.normal(size=3)
        starts.append(
            transforms.perturb(
                pose, jnp.asarray(turn, jnp.float32), jnp.asarray(shift, jnp.float32)
            )
        )
    return (stack(list(models.values())), stack(seen), stack(starts), order), jnp.stack(shapes)


def errors(models, result, truth):
    fitted = jax.vmap(ssm.posed)(models, result.pose, result.coefficients)
    return np.asarray(jnp.mean(jnp.linalg.norm(fitted - truth, axis=-1), axis=-1))


@pytest.mark.slow
def test_neighbours_improve_the_fit():
    """Every vertebra over four draws: in one draw the landmarks of a vertebra may be good."""
    joint, single = [], []
    for seed in range(4, 8):
        arguments, truth = drawn_scene(seed)
        joint.append(errors(arguments[0], together(*arguments), truth))
        single.append(errors(arguments[0], alone(*arguments[:3]), truth))
    joint, single = np.mean(joint, axis=0), np.mean(single, axis=0)
    assert joint.mean() < 0.97 * single.mean() and (joint < 1.05 * single).all(), (joint, single)


@pytest.mark.slow
def test_absent_vertebrae_have_no_effect(scene):
    (models, seen, starts, order), _ = scene
    there = jnp.array([True, True, False])
    without = eqx.tree_at(lambda o: o.present, order, there)
    moved = transforms.SE3(starts.wxyz_xyz.at[2, 4:].add(30.0))
    garbage = eqx.tree_at(lambda o: o.images, seen, seen.images.at[2].set(jnp.nan))
    first, second = (together(models, o, s, without) for o, s in ((seen, starts), (garbage, moved)))
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(leaf[:2], other[:2], atol=1e-6)


@pytest.mark.slow
def test_without_neighbours_it_equals_separate_fits(scene):
    (models, seen, starts, order), _ = scene
    few = (Scale(64, 1.2, 3, 0.08),)
    options = dataclasses.replace(
        OPTIONS,
        similarity=OPTIONS.similarity[:1],
        scales=few,
        weights=ObjectiveWeights(neighbours=0.0),
        neighbours_rendered=False,
        shape_coupling=0.0,
    )
    shapes = jnp.linspace(-0.5, 0.5, 45).reshape(3, 15)
    joint = jax.jit(lambda *given: fit_together(*given[:4], options, given[4]))(
        models, seen, starts, order, shapes
    )
    each = jax.jit(jax.vmap(lambda m, o, s, c: fit(m, o, s, options, coefficients=c)))(
        models, seen, starts, shapes
    )
    np.testing.assert_allclose(joint.coefficients, each.coefficients, atol=1e-5)
    np.testing.assert_allclose(joint.pose.wxyz_xyz, each.pose.wxyz_xyz, atol=1e-4)
    away = np.abs(np.asarray(joint.coefficients - shapes))
    assert 0.0 < away.max() < 0.3  # three steps from the initial shape


def test_shape_coupling_works_across_regions():
    levels = ("T7", "T8", "T9")
    models = stack([ssm.truncate(data.load_shape_model(level), 5) for level in levels])
    order = spine.order_of(levels, data.load_spine_prior())
    order = dataclasses.replace(order, present=jnp.array([True, True, False]))
    rng = np.random.default_rng(0)
    shapes = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32).at[2].set(jnp.nan)
    deviations = jnp.einsum("vm,vmpc->vpc", shapes, models.modes)
    expect = jax.jit(
        lambda i, there: _neighbour_shape(
            i, models.modes[i], deviations, eqx.tree_at(lambda o: o.present, order, there)
        )
    )
    # T7 and T8 have the same modes; absent vertebrae do not count.
    np.testing.assert_allclose(expect(0, order.present), shapes[1], atol=1e-3)
    # T9 has others: least squares of the mean of both.
    own = np.asarray(models.modes[2]).reshape(5, -1)
    mean = np.asarray(deviations[:2]).mean(0).reshape(-1)
    solved = np.linalg.lstsq(own.T, mean, rcond=None)[0]
    np.testing.assert_allclose(expect(2, order.present), solved, atol=1e-3)
    assert not np.asarray(expect(0, jnp.array([True, False, False]))).any()


def test_the_residual_of_an_expected_pose_is_in_standard_deviations():
    at = transforms.SE3.from_rotation_and_translation(
        transforms.SO3.exp(jnp.array([0.2, 0.1, -0.3])), jnp.array([5.0, 6.0, 7.0])
    )
    off = transforms.SE3.from_rotation_and_translation(
        transforms.SO3.exp(jnp.array([0.06, 0.0, 0.0])), jnp.array([0.0, 3.0, 0.0])
    )
    sigma = jnp.array([0.06, 0.05, 0.04, 1.0, 1.5, 2.0])
    expected = ExpectedPose(at, jnp.asarray(True), sigma)
    residual = expected_pose_residual(at @ off, expected)
    np.testing.assert_allclose(residual, [1, 0, 0, 0, 2, 0], atol=1e-4)
    unknown = ExpectedPose(at, jnp.asarray(False), jnp.zeros(6))
    assert not expected_pose_residual(at @ off, unknown).any()
    for each in (expected, unknown):
        slope = jax.grad(
            lambda x, e=each: jnp.sum(
                expected_pose_residual(transforms.perturb(at, x[:3], x[3:]), e) ** 2
            )
        )(jnp.zeros(6))
        assert np.isfinite(slope).all()
