"""Start poses of a column of vertebrae from the centres of their bodies.

The centres are on a smooth curve; a vertebra is turned against the tangent as its level is in the
mean spine of the population, and faces forward in the patient's axes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import ssm
from dartjax.transforms import SE3, SO3

_LIKE = {"C7": "T1", "T13": "T12"}


def curve_poses(
    levels: Sequence[str], centers: Float[np.ndarray, "n 3"], prior: ssm.SpinePrior
) -> list[SE3]:
    """Compute T_world_vertebra of vertebrae from head to foot, by their centres (world mm)."""
    right = np.array([1.0, 0.0, 0.0])
    usual = _usual_turns(prior)
    poses = []
    for level, center, along in zip(levels, centers, _tangents(centers), strict=True):
        rotation = _facing(along, right) @ usual[_LIKE.get(level, level)]
        poses.append(
            SE3.from_rotation_and_translation(
                SO3.from_matrix(jnp.asarray(rotation, jnp.float32)),
                jnp.asarray(center, jnp.float32),
            )
        )
    return poses


def _usual_turns(prior: ssm.SpinePrior) -> dict[str, Float[np.ndarray, "3 3"]]:
    """Rotation of every level in the axes of the tangent, in the mean spine."""
    frames = ssm.spine_frames(prior.mean)
    matrices = jax.vmap(lambda a, b: (a @ b.inverse()).as_matrix())(frames, prior.T_vertebra_frame)
    placed = np.asarray(matrices, float)
    tangents = _tangents(placed[:, :3, 3])
    return {
        level: _facing(along, matrix[:3, 0]).T @ matrix[:3, :3]
        for level, along, matrix in zip(ssm.SPINE_LEVELS, tangents, placed, strict=True)
    }


def _tangents(centers: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit tangents toward the head of a polyline given from head to foot: central differences,
    extrapolated at the ends. A single centre has the patient's axis."""
    count = len(centers)
    if count < 2:
        return np.array([[0.0, 0.0, 1.0]] * count)
    up = np.empty((count, 3))
    up[1:-1] = centers[:-2] - centers[2:]
    first, last = centers[0] - centers[1], centers[-2] - centers[-1]
    if count > 2:  # a curve bends as much at its ends as beside them
        first, last = 2.0 * first - 0.5 * up[1], 2.0 * last - 0.5 * up[-2]
    up[0], up[-1] = first, last
    return up / np.linalg.norm(up, axis=1, keepdims=True)


def _facing(up: Float[np.ndarray, "3"], right: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Axes with z along `up` and x as near as possible to `right`."""
    across = right - (right @ up) * up
    across = across / np.linalg.norm(across)
    return np.stack([across, np.cross(up, across), up], axis=1)
