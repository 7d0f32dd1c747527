"""The shape model: instances, annotations, prior, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import ssm, transforms
from dartjax.data.packaged import _shape_models as data
from tests.gradients import assert_gradient


@pytest.fixture(scope="module")
def model():
    return data.load_shape_model("T8")


def test_instance_adds_modes(model):
    coefficients = jnp.zeros(15).at[3].set(2.0)
    expected = model.mean_shape + 2.0 * model.modes[3]
    np.testing.assert_allclose(ssm.instance(model, coefficients), expected, atol=1e-4)
    np.testing.assert_allclose(ssm.instance(model, jnp.zeros(15)), model.mean_shape, atol=1e-5)


def test_posed_annotations_move_with_the_pose(model):
    pose = transforms.SE3.exp(jnp.array([10.0, -40.0, 300.0, 0.2, -0.1, 0.3]))
    coefficients = jnp.linspace(-1.0, 1.0, 15)
    local, world = ssm.instance(model, coefficients), ssm.posed(model, pose, coefficients)
    moved = transforms.apply(pose, ssm.landmarks(model, local))
    np.testing.assert_allclose(ssm.landmarks(model, world), moved, atol=1e-3)
    moved = transforms.apply(pose, ssm.paths(model, local).reshape(4, 3)).reshape(2, 2, 3)
    np.testing.assert_allclose(ssm.paths(model, world), moved, atol=1e-3)


def test_all_levels_stack_in_one_vmap():
    models = [data.load_shape_model(level) for level in ("T1", "T12", "L5")]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    shapes = jax.vmap(ssm.instance)(stacked, jnp.ones((3, 15)))
    np.testing.assert_allclose(shapes[2], ssm.instance(models[2], jnp.ones(15)), atol=1e-4)


def test_log_prior_is_that_of_the_standard_normal():
    b = jnp.array([0.3, -1.2, 2.0])
    expected = jax.scipy.stats.norm.logpdf(b).sum() + 1.5 * np.log(2 * np.pi)
    assert float(ssm.log_prior(b)) == pytest.approx(float(expected), abs=1e-5)


def test_truncate(model):
    assert ssm.truncate(model, 4).modes.shape == (4, 2048, 3)
    with pytest.raises(ValueError, match="num_modes is 16"):
        ssm.truncate(model, 16)


def test_gradient_of_landmarks(x64, model):
    wide = jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, model)

    def energy(parameters):
        pose = transforms.SE3.exp(parameters[:6])
        return jnp.sum(ssm.landmarks(wide, ssm.posed(wide, pose, parameters[6:])) ** 2)

    assert_gradient(energy, np.linspace(-0.5, 0.5, 21))


def test_backup_landmarks_share_points_with_the_ten(model):
    from dartjax.observations import LANDMARK_NAMES

    ten = dict(zip(LANDMARK_NAMES, ssm.landmarks(model, model.mean_shape), strict=True))
    five = ssm.backup_landmarks(model, model.mean_shape)
    for name, point in zip(ssm.BACKUP_LANDMARK_NAMES, five, strict=True):
        np.testing.assert_allclose(point, ten.get(name, jnp.zeros(3)), atol=1e-3)


def test_mirror_swaps_left_and_right(model):
    """The mean equals its mirror image; a mode's mirror image is a shape of its own."""
    swapped = np.asarray(model.mean_shape)[model.mirror] * np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(swapped, model.mean_shape, atol=1e-3)
    np.testing.assert_array_equal(model.parts[model.mirror], model.parts)


def test_projection_recovers_pose_and_coefficients(model):
    b = jnp.linspace(-1.5, 1.5, 15)
    pose = transforms.SE3.exp(jnp.array([10.0, -40.0, 200.0, 0.2, -0.1, 0.05]))
    found_pose, found = jax.jit(ssm.project)(model, ssm.posed(model, pose, b))
    np.testing.assert_allclose(found, b, atol=0.03)
    np.testing.assert_allclose(found_pose.as_matrix(), pose.as_matrix(), atol=0.1)


def test_samples_have_the_spread_of_the_modes(model):
    shapes = jax.vmap(ssm.sample, (None, 0))(model, jax.random.split(jax.random.key(1), 400))
    drawn = jnp.mean(jnp.sum((shapes - model.mean_shape[None]) ** 2, axis=2))
    assert float(drawn) == pytest.approx(float(jnp.mean(jnp.sum(model.modes**2, (0, 2)))), rel=0.1)


def test_log_size_is_that_of_a_scaled_mean(model):
    assert float(ssm.log_size(model, jnp.zeros(model.num_modes))) == pytest.approx(0.0, abs=1e-6)
    larger = dataclasses.replace(model, modes=0.2 * model.mean_shape[None])
    found = ssm.log_size(larger, jnp.ones(1))
    assert float(found) == pytest.approx(np.log(1.2), abs=1e-5)
