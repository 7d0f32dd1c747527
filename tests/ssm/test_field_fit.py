"""Fits to distance fields: recovery of a known shape, compared with the fit to its surface."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, planning, ssm, transforms
from dartjax.image import Volume
from dartjax.mesh import TriangleMesh
from dartjax.ssm._field_fit import _distance
from dartjax.ssm._surface_fit import sample_surface
from tests.gradients import assert_gradient

TRUTH = jnp.array([[1.0, -0.8, 0.5, -1.2, 0.6], [-0.4, 1.1, 0.2, 0.7, -1.5]])
POSE = transforms.SE3.exp(jnp.array([4.0, -60.0, 250.0, 0.15, -0.05, 0.08]))
START = transforms.perturb(POSE, jnp.array([0.12, -0.1, 0.08]), jnp.array([4.0, -3.0, 5.0]))


@pytest.fixture(scope="module")
def model():
    return ssm.truncate(data.load_shape_model("T11"), 5)


@pytest.fixture(scope="module")
def fields(model):
    """Two targets on grids of the same shape."""
    found = [
        planning.distance_field_from_mesh(TriangleMesh(ssm.posed(model, POSE, b), model.faces))
        for b in TRUTH
    ]
    shape = np.min([field.values.shape for field in found], axis=0)
    i, j, k = (slice(0, int(n)) for n in shape)
    return [Volume(field.values[i, j, k], field.world_from_voxel) for field in found]


def test_known_instances_are_recovered_in_one_batch(model, fields):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *fields)
    poses, found, history = jax.vmap(lambda f: ssm.fit_distance_field(model, f, START))(stacked)
    np.testing.assert_allclose(found, TRUTH, atol=0.15)
    assert (history[:, -1] < 0.1).all() and (history[:, 0] > 1.0).all()
    for i, b in enumerate(TRUTH):
        pose = jax.tree.map(lambda leaf, i=i: leaf[i], poses)
        turned = transforms.rotation_angle(pose.rotation().inverse() @ POSE.rotation())
        assert float(turned) < np.radians(0.5)
        expected = ssm.posed(model, POSE, b)
        np.testing.assert_allclose(ssm.posed(model, pose, found[i]), expected, atol=0.6)


def test_it_agrees_with_the_fit_to_the_surface(model, fields):
    pose, found, _ = ssm.fit_distance_field(model, fields[0], START)
    target = np.asarray(ssm.posed(model, POSE, TRUTH[0]), float)
    points, normals = sample_surface(target, np.asarray(model.faces), 3000, seed=0)
    other_pose, other, _ = ssm.fit_surface(
        model, jnp.asarray(points, jnp.float32), jnp.asarray(normals, jnp.float32), START
    )
    apart = ssm.posed(model, pose, found) - ssm.posed(model, other_pose, other)
    assert float(jnp.mean(jnp.linalg.norm(apart, axis=1))) < 0.2


def test_the_look_up_is_that_of_an_oblique_plane(x64):
    """The distance to a plane is linear, so interpolation is exact inside the grid."""
    turn = transforms.SO3.exp(jnp.array([0.4, -0.3, 0.9])).as_matrix()
    affine = jnp.eye(4).at[:3, :3].set(turn * jnp.array([[0.8, 1.1, 2.0]]))
    affine = affine.at[:3, 3].set(jnp.array([3.0, -20.0, 7.0]))
    index = jnp.asarray(np.indices((9, 8, 7)).reshape(3, -1).T, float)
    world = index @ affine[:3, :3].T + affine[None, :3, 3]
    normal = jnp.array([0.6, 0.0, 0.8])
    field = Volume((world @ normal - 1.0).reshape(9, 8, 7), affine)
    inside = jnp.array([3.2, 4.7, 1.9]) @ affine[:3, :3].T + affine[:3, 3]
    look_up = jax.jit(jax.value_and_grad(lambda p: _distance(field, p)))
    value, slope = look_up(inside)
    assert float(value) == pytest.approx(float(inside @ normal) - 1.0, abs=1e-9)
    np.testing.assert_allclose(slope, normal, atol=1e-9)
    # Past a face of the grid it grows by the distance to the grid.
    edge = jnp.array([8.0, 4.7, 1.9]) @ affine[:3, :3].T + affine[:3, 3]
    outside = edge + 5.0 * affine[:3, 0] / jnp.linalg.norm(affine[:3, 0])
    grown = float(look_up(outside)[0] - look_up(edge)[0])
    assert grown == pytest.approx(5.0, abs=1e-9)
    assert_gradient(lambda p: _distance(field, p), outside)
