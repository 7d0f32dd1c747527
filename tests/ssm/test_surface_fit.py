"""Fits to known surfaces: closest points, Jacobian, recovery of pose and coefficients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import KDTree

from dartjax import ssm, transforms
from dartjax.data.packaged import _shape_models as data
from dartjax.ssm import _surface_fit, build
from tests import shapes


@pytest.fixture(scope="module")
def model():
    return ssm.truncate(data.load_shape_model("L2"), 5)


def test_closest_is_that_of_a_tree():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((700, 6)), rng.standard_normal((900, 6))
    forward, backward = _surface_fit.closest(jnp.float32(ours), jnp.float32(theirs))
    np.testing.assert_array_equal(forward, KDTree(theirs).query(ours)[1])
    np.testing.assert_array_equal(backward, KDTree(ours).query(theirs)[1])


def test_jacobian_is_the_derivative_of_posed(x64, model):
    wide = jax.tree.map(lambda a: a.astype(float) if a.dtype == jnp.float32 else a, model)
    pose = transforms.SE3.exp(jnp.array([5.0, -20.0, 100.0, 0.3, -0.2, 0.1]))
    b = jnp.array([0.5, -1.0, 0.2, 1.5, -0.3])

    def moved(step):
        shifted = transforms.perturb(pose, step[:3], step[3:6])
        return ssm.posed(wide, shifted, b + step[6:])[::50]

    analytic = _surface_fit._jacobian(ssm.instance(wide, b), wide.modes, pose)[::50]
    h = 1e-5
    for i, axis in enumerate(np.eye(11)):
        difference = (moved(h * jnp.asarray(axis)) - moved(-h * jnp.asarray(axis))) / (2 * h)
        np.testing.assert_allclose(analytic[:, :, i], difference, atol=1e-6)


@pytest.mark.slow
def test_a_known_instance_is_recovered(model):
    truth = jnp.array([1.0, -0.8, 0.5, -1.2, 0.6])
    pose = transforms.SE3.exp(jnp.array([4.0, -60.0, 250.0, 0.15, -0.05, 0.08]))
    vertices = np.asarray(ssm.posed(model, pose, truth), float)
    found = ssm.register_surface(model, vertices, np.asarray(model.faces))
    np.testing.assert_allclose(found.coefficients, truth, atol=0.15)
    np.testing.assert_allclose(found.vertices, vertices, atol=0.5)
    turned = transforms.rotation_angle(found.pose.rotation().inverse() @ pose.rotation())
    assert float(turned) < np.radians(0.5)
    shift = found.pose.translation() - pose.translation()
    assert float(jnp.linalg.norm(shift)) < 0.3
    assert found.mean_residual < 0.1
    np.testing.assert_allclose(
        found.landmarks, ssm.landmarks(model, jnp.float32(vertices)), atol=0.5
    )


@pytest.mark.slow
def test_dense_registration_carries_landmarks_to_another_shape():
    """The surface is outside the span of the 15 modes; the landmarks follow it nonetheless."""
    base = data.load_shape_model("T9")
    vertices = np.asarray(base.mean_shape, float)
    bent = vertices * np.array([1.08, 0.95, 1.05])
    bent[:, 2] += 0.004 * (vertices[:, 1] + 10.0) ** 2 * (vertices[:, 1] < -10.0)
    bent = bent + 0.8 * np.sin(vertices[:, [1, 2, 0]] / 6.0)
    world = bent + np.array([10.0, -70.0, 30.0])
    found = build.dense_landmarks(base, world, np.asarray(base.faces))
    assert found.mean_residual < 0.1
    expected = np.asarray(ssm.landmarks(base, jnp.float32(world)))
    error = np.linalg.norm(np.asarray(found.landmarks) - expected, axis=1)
    assert np.mean(error) < 1.0 and error.max() < 2.5
    distance = KDTree(world).query(np.asarray(found.vertices))[0]
    assert np.quantile(distance, 0.95) < 2.0


def test_surface_samples_are_uniform_and_on_the_surface():
    vertices, faces = shapes.sphere(4000, 10.0)
    points, normals = ssm.sample_surface(vertices, faces, 20_000, seed=0)
    radius = np.linalg.norm(points, axis=1)
    assert radius.min() > 9.95 and radius.max() <= 10.0 + 1e-9
    assert (np.sum(points * normals, axis=1) / radius).min() > 0.99
    # By area a zone of a sphere holds a share equal to its height over the diameter.
    for low, high in ((-10, -5), (-5, 3), (3, 10)):
        share = np.mean((points[:, 2] >= low) & (points[:, 2] < high))
        assert share == pytest.approx((high - low) / 20.0, abs=0.01)
