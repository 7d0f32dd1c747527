"""Annotation of a mean shape by geometric rules to give a shape model, on the host."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax.observations import LANDMARK_NAMES
from dartjax.ssm._annotate import annotate, attach
from dartjax.ssm._model import BACKUP_LANDMARK_NAMES, CarriedPoints, ShapeModel
from dartjax.ssm.build._build import Topology


def annotated_model(
    mean_shape: Float[np.ndarray, "vertex 3"],
    modes: Float[np.ndarray, "mode vertex 3"],
    topology: Topology,
) -> ShapeModel:
    """Make a shape model of a mean shape with modes: `annotate` finds landmarks, paths and isthmus
    contours, which are attached to the vertices.

    ValueError when the mean is not a vertebra in its vertebra frame.
    """
    annotation = annotate(mean_shape, topology.faces)
    # The body centroid is the origin of the vertebra frame.
    landmarks = dict(zip(LANDMARK_NAMES, annotation.landmarks, strict=True))
    backup = np.stack([landmarks.get(name, np.zeros(3)) for name in BACKUP_LANDMARK_NAMES])

    def attached(points: Float[np.ndarray, "*point 3"]) -> CarriedPoints:
        pairs = [attach(mean_shape, topology.faces, point) for point in points.reshape(-1, 3)]
        vertices, weights = (np.stack(part) for part in zip(*pairs, strict=True))
        shape = (*points.shape[:-1], vertices.shape[-1])
        return CarriedPoints(
            jnp.asarray(vertices.reshape(shape), jnp.int32),
            jnp.asarray(weights.reshape(shape), jnp.float32),
        )

    return ShapeModel(
        mean_shape=jnp.asarray(mean_shape, jnp.float32),
        modes=jnp.asarray(modes, jnp.float32),
        faces=jnp.asarray(topology.faces, jnp.int32),
        mirror=jnp.asarray(topology.mirror, jnp.int32),
        parts=jnp.asarray(topology.parts, jnp.int32),
        landmark_points=attached(annotation.landmarks),
        backup_points=attached(backup),
        path_points=attached(annotation.paths),
        isthmus_points=attached(annotation.isthmus_contours),
    )
