"""A statistical shape model of one vertebra: mean shape, modes, and what is annotated on it.

A shape is mean_shape + sum_j coefficients_j modes_j in the vertebra frame (origin at the body
centroid, +x right, +y anterior, +z superior, mm). The modes carry their own standard deviation,
so the coefficients of the population are N(0, I).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax import transforms
from dartjax._types import Coefficients, Faces, Scalar, Vertices


class ShapeModel(eqx.Module):
    """Mean shape, modes and annotations of one level, all in the vertebra frame.

    A landmark or path point is an affine combination of eight vertices (weights sum to 1), so it
    moves with the surface; it may lie inside the bone, and weights may be negative there.
    """

    mean_shape: Vertices  # mm
    modes: Float[Array, "mode vertex 3"]  # mm per standard deviation
    faces: Faces
    landmark_vertices: Int[Array, "10 8"]
    landmark_weights: Float[Array, "10 8"]
    path_vertices: Int[Array, "2 2 8"]  # (left, right) x (entry, target)
    path_weights: Float[Array, "2 2 8"]

    @property
    def num_modes(self) -> int:
        """Number of modes kept."""
        return self.modes.shape[0]


def instance(model: ShapeModel, coefficients: Coefficients) -> Vertices:
    """mean_shape + coefficients . modes, in the vertebra frame, mm.

    `coefficients` are in standard deviations and must be as many as the modes.
    """
    return model.mean_shape + jnp.tensordot(coefficients, model.modes, axes=1)


def posed(model: ShapeModel, pose: transforms.SE3, coefficients: Coefficients) -> Vertices:
    """The instance moved into the world by `pose` = T_world_vertebra, mm."""
    return transforms.apply(pose, instance(model, coefficients))


def landmarks(model: ShapeModel, vertices: Vertices) -> Float[Array, "10 3"]:
    """The ten landmarks on a surface in correspondence with the model, in the frame of
    `vertices`, in the order of `observations.LANDMARK_NAMES`."""
    corners = vertices[model.landmark_vertices]
    return jnp.sum(model.landmark_weights[..., None] * corners, axis=-2)


def paths(model: ShapeModel, vertices: Vertices) -> Float[Array, "2 2 3"]:
    """Transpedicular paths on a surface in correspondence with the model, in the frame of
    `vertices`: (left, right) x (entry point, target point)."""
    corners = vertices[model.path_vertices]
    return jnp.sum(model.path_weights[..., None] * corners, axis=-2)


def log_prior(coefficients: Coefficients) -> Scalar:
    """log N(coefficients; 0, I) without its constant -m log(2 pi) / 2: -|coefficients|^2 / 2."""
    return -0.5 * jnp.sum(coefficients**2)


def truncate(model: ShapeModel, num_modes: int) -> ShapeModel:
    """The model with its first `num_modes` modes.

    Raises ValueError when the model has fewer.
    """
    if not 0 < num_modes <= model.num_modes:
        raise ValueError(f"num_modes is {num_modes}, but this model has 1 to {model.num_modes}")
    return eqx.tree_at(lambda m: m.modes, model, model.modes[:num_modes])
