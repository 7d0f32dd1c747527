"""Statistical shape model of one level: mean shape, modes and annotations.

A shape is mean_shape + sum_j coefficients_j modes_j in the vertebra frame (origin at the body
centroid, +x right, +y anterior, +z superior, mm). The modes are scaled by their standard deviation,
so the coefficients of the population are N(0, I). All packaged models share one triangulation:
the same vertex is the same anatomy at every level, so models of all levels stack under vmap.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dartjax import transforms
from dartjax._types import Coefficients, Faces, Points, Scalar, Vertices

BACKUP_LANDMARK_NAMES = (
    "body_centroid",
    "superior_endplate_center",
    "inferior_endplate_center",
    "left_waist",
    "right_waist",
)
# Parts of a vertebra; `ShapeModel.parts` holds indices into this tuple.
PART_NAMES = (
    "body",
    "pedicle",
    "lamina",
    "superior_facet",
    "inferior_facet",
    "transverse_process",
    "spinous_process",
)


class CarriedPoints(eqx.Module):
    """Points attached to a surface, each an affine combination of some of its vertices.

    The weights of a point sum to 1, so it moves with the surface. A point may lie inside the
    bone; its weights may then be negative.
    """

    vertices: Int[Array, "*point corner"]
    weights: Float[Array, "*point corner"]


class ShapeModel(eqx.Module):
    """Shape model of one level: mean shape, modes and annotations, all in the vertebra frame."""

    mean_shape: Vertices  # mm
    modes: Float[Array, "mode vertex 3"]  # mm per standard deviation
    faces: Faces
    mirror: Int[Array, " vertex"]  # index of the mirror-image vertex
    parts: Int[Array, " vertex"]  # index into PART_NAMES
    landmark_points: CarriedPoints  # (10,), in the order of observations.LANDMARK_NAMES
    backup_points: CarriedPoints  # (5,), in the order of BACKUP_LANDMARK_NAMES
    path_points: CarriedPoints  # (2, 2): (left, right) x (entry, target)
    isthmus_points: CarriedPoints  # (2, k): closed contour of the (left, right) isthmus

    @property
    def num_modes(self) -> int:
        """Number of modes."""
        return self.modes.shape[0]


def carried(points: CarriedPoints, vertices: Vertices) -> Float[Array, "*point 3"]:
    """Compute carried points on a surface in correspondence with the model, in its frame, mm."""
    return jnp.sum(points.weights[..., None] * vertices[points.vertices], axis=-2)


def instance(model: ShapeModel, coefficients: Coefficients) -> Vertices:
    """Compute mean_shape + coefficients . modes, in the vertebra frame, mm.

    `coefficients` are in standard deviations, one per mode.
    """
    return model.mean_shape + jnp.tensordot(coefficients, model.modes, axes=1)


def posed(model: ShapeModel, pose: transforms.SE3, coefficients: Coefficients) -> Vertices:
    """Compute the instance in world by `pose` = T_world_vertebra, mm."""
    return transforms.apply(pose, instance(model, coefficients))


def log_size(model: ShapeModel, coefficients: Coefficients) -> Scalar:
    """Compute the natural logarithm of an instance's size relative to the mean shape.

    Size is the rms distance of the vertices from their mean."""

    def size(vertices: Vertices) -> Scalar:
        from_middle = vertices - jnp.mean(vertices, axis=0, keepdims=True)
        return jnp.sqrt(jnp.mean(jnp.sum(from_middle**2, axis=1)))

    return jnp.log(size(instance(model, coefficients)) / size(model.mean_shape))


def landmarks(model: ShapeModel, vertices: Vertices) -> Float[Array, "10 3"]:
    """Compute the ten landmarks of a surface in correspondence with the model, in the frame of
    `vertices`, in the order of `observations.LANDMARK_NAMES`."""
    return carried(model.landmark_points, vertices)


def backup_landmarks(model: ShapeModel, vertices: Vertices) -> Float[Array, "5 3"]:
    """Compute the five backup landmarks of Spine-DART (section 5.2: centroid, superior, inferior,
    left, right) on a surface in correspondence, in the order of `BACKUP_LANDMARK_NAMES`."""
    return carried(model.backup_points, vertices)


def paths(model: ShapeModel, vertices: Vertices) -> Float[Array, "2 2 3"]:
    """Compute the transpedicular paths of a surface in correspondence with the model, in the frame
    of `vertices`: (left, right) x (entry point, target point)."""
    return carried(model.path_points, vertices)


def log_prior(coefficients: Coefficients) -> Scalar:
    """Compute log N(coefficients; 0, I) without its constant, -|coefficients|^2 / 2."""
    return -0.5 * jnp.sum(coefficients**2)


def sample(model: ShapeModel, key: PRNGKeyArray) -> Vertices:
    """Draw a random vertebra of the model's population, vertebra frame, mm."""
    return instance(model, jax.random.normal(key, (model.num_modes,)))


def project(
    model: ShapeModel, vertices: Points, *, noise: float = 0.5
) -> tuple[transforms.SE3, Coefficients]:
    """Fit pose and coefficients to a surface in correspondence with the model by least squares.

    Minimises sum_i |v_i - pose(instance_i)|^2 / noise^2 + |coefficients|^2 by ten alternations of
    rigid alignment (Umeyama, no scale) and a linear solve. `vertices` (vertex, 3) in world mm;
    `noise` in mm.
    """
    basis = model.modes.reshape(model.num_modes, -1)
    gram = basis @ basis.T / noise**2 + jnp.eye(model.num_modes)

    def step(coefficients: Coefficients, _):
        pose = _align(model, vertices, coefficients)
        local = transforms.apply(pose.inverse(), vertices) - model.mean_shape
        return jnp.linalg.solve(gram, basis @ local.reshape(-1) / noise**2), None

    start = jnp.zeros(model.num_modes, model.mean_shape.dtype)
    coefficients, _ = jax.lax.scan(step, start, None, length=10)
    return _align(model, vertices, coefficients), coefficients


def _align(model: ShapeModel, vertices: Points, coefficients: Coefficients) -> transforms.SE3:
    weights = jnp.ones(len(vertices), vertices.dtype)
    return transforms.align_points(instance(model, coefficients), vertices, weights)


def truncate(model: ShapeModel, num_modes: int) -> ShapeModel:
    """Truncate a model to its first `num_modes` modes.

    ValueError when the model has fewer.
    """
    if not 0 < num_modes <= model.num_modes:
        raise ValueError(f"num_modes is {num_modes}: give 1 to {model.num_modes} for this model")
    return eqx.tree_at(lambda m: m.modes, model, model.modes[:num_modes])
