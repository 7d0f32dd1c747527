"""Public primitives give the same result with and without jit and vmap, with finite gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import trimesh
from absl.testing import parameterized

from dartjax import camera, data, mesh, planning, ssm, transforms
from dartjax.image import Volume
from dartjax.mesh import TriangleMesh
from dartjax.observations import NeedlePath
from dartjax.render import drr, local_gradient_ncc, splat

VIEW = camera.from_carm(
    transforms.carm_rotation(0.4, 0.2), jnp.zeros(3), image_size=(48, 48), pixel_spacing=4.0
)
POINTS = jnp.array([[0.0, 0.0, 0.0], [20.0, -10.0, 5.0], [-8.0, 30.0, -12.0]])


def ball():
    found = trimesh.creation.icosphere(subdivisions=2, radius=20.0)
    return TriangleMesh(
        jnp.asarray(found.vertices, jnp.float32), jnp.asarray(found.faces, jnp.int32)
    )


def block():
    values = jnp.zeros((12, 12, 12)).at[3:9, 3:9, 3:9].set(0.02)
    world_from_voxel = jnp.diag(jnp.array([4.0, 4.0, 4.0, 1.0])).at[:3, 3].set(-22.0)
    return Volume(values, world_from_voxel)


def vertebra():
    return data.load_shape_model("L1")


def primitives():
    """(name, function of one argument, the argument)."""
    surface, volume, model = ball(), block(), vertebra()
    field = planning.distance_field_from_mesh(surface)

    def path(entry):
        return NeedlePath(entry, jnp.array([0.0, 0.0, -5.0]), jnp.asarray(2.5))

    def seen(vertices):
        return splat(vertices, surface.faces, VIEW).thickness

    image = seen(surface.vertices)
    weights = jnp.ones_like(image)
    return (
        ("project", lambda points: camera.project(VIEW, points), POINTS),
        (
            "align_points",
            lambda points: transforms.align_points(POINTS, points).log(),
            POINTS + 1.0,
        ),
        ("vertex_normals", lambda v: mesh.vertex_normals(v, surface.faces), surface.vertices),
        ("splat", seen, surface.vertices),
        ("drr", lambda affine: drr(Volume(volume.values, affine), VIEW), volume.world_from_voxel),
        ("similarity", lambda x: local_gradient_ncc(x, image, weights, window=5), 0.9 * image),
        ("instance", lambda b: ssm.instance(model, b), jnp.linspace(-1.0, 1.0, 15)),
        ("log_prior", ssm.log_prior, jnp.linspace(-1.0, 1.0, 15)),
        ("clearance", lambda e: planning.clearance(path(e), field).clearance, POINTS[1]),
    )


class Primitives(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters(*primitives())
    def test_the_same_by_every_way_of_calling(self, function, argument):
        found = self.variant(function)(argument)
        chex.assert_tree_all_finite(found)
        chex.assert_trees_all_close(found, jax.jit(function)(argument), rtol=1e-4, atol=1e-4)

    @parameterized.named_parameters(*primitives())
    def test_a_batch_is_every_case_by_itself(self, function, argument):
        argument = jnp.asarray(argument)
        batch = jnp.stack([argument, 1.01 * argument, 0.98 * argument])
        together = jax.jit(jax.vmap(function))(batch)
        alone = jnp.stack([jax.jit(function)(each) for each in batch])
        chex.assert_equal_shape([together, alone])
        chex.assert_trees_all_close(together, alone, rtol=1e-3, atol=1e-3)

    @parameterized.named_parameters(*primitives())
    def test_gradients_are_finite_and_not_all_zero(self, function, argument):
        gradient = jax.jit(jax.grad(lambda x: jnp.sum(function(x) ** 2)))(jnp.asarray(argument))
        chex.assert_shape(gradient, np.shape(argument))
        chex.assert_tree_all_finite(gradient)
        assert jnp.abs(gradient).max() > 0.0
