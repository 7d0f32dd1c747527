"""Deformations of single parts of a vertebra: translation, rotation, growth.

People differ in the length and direction of a spinous process, the width of a pedicle, the shape
of the canal. The first modes of a stationary Gaussian process bend the whole bone; these fields add
variation of its parts. Each field is an affine motion about the centre of a part that decreases
smoothly to zero in the neighbouring parts.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import spatial

from dartjax.ssm._model import PART_NAMES
from dartjax.ssm.build._gaussian_process import MIRROR, vertex_areas

_FADE_MM = 5.0
_MIDDLE = ("body", "lamina", "spinous_process")  # midline parts; all others are paired


def part_factor(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    mirror: Int[np.ndarray, " vertex"],
    parts: Int[np.ndarray, " vertex"],
    *,
    shift_mm: float = 1.5,
    turn_rad: float = 0.08,
    growth: float = 0.08,
    symmetric_fraction: float = 0.88,
) -> Float[np.ndarray, "vertex 3 column"]:
    """Compute columns F such that F F^T is the covariance of part motions, on the host.

    The motions are independent translations (3), rotations (3) and growths along the axes (3) of
    every part, with these standard deviations. Left and right move symmetrically with
    `symmetric_fraction` of the variance and antisymmetrically with the rest. The surface must
    equal its mirror image (`mirror` as in `ShapeModel`); mm.
    """
    columns = []
    for weight, paired in _part_weights(vertices, faces, parts):
        for field in _affine_fields(vertices, faces, weight, shift_mm, turn_rad, growth):
            reflected = field[mirror] * MIRROR
            # The field of a midline part contains both sides, so it counts half.
            size = 1.0 if paired else 0.5
            columns.append(size * np.sqrt(symmetric_fraction) * (field + reflected))
            columns.append(size * np.sqrt(1.0 - symmetric_fraction) * (field - reflected))
    return np.stack(columns, axis=2)


def _part_weights(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    parts: Int[np.ndarray, " vertex"],
) -> list[tuple[Float[np.ndarray, " vertex"], bool]]:
    """Compute smooth weights of the parts, and whether a part is paired (then the weight of the
    right one). The weights of all parts on both sides sum to 1."""
    squared = spatial.distance.cdist(vertices, vertices, "sqeuclidean")
    blur = np.exp(-0.5 * squared / _FADE_MM**2) * vertex_areas(vertices, faces)
    # Vertices of a paired part in the mirror plane count half to either side.
    right = 0.5 * (1.0 + np.sign(vertices[:, 0]))
    blurred = []
    for number, name in enumerate(PART_NAMES):
        inside = (parts == number).astype(float)
        blurred.append((blur @ (inside if name in _MIDDLE else inside * right), name))
    total = blur.sum(1)
    return [(weight / total, name not in _MIDDLE) for weight, name in blurred]


def _affine_fields(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    weight: Float[np.ndarray, " vertex"],
    shift_mm: float,
    turn_rad: float,
    growth: float,
) -> list[Float[np.ndarray, "vertex 3"]]:
    center = np.average(vertices, axis=0, weights=weight * vertex_areas(vertices, faces))
    offset = vertices - center
    axes = np.eye(3)
    motions = [shift_mm * np.broadcast_to(axis, offset.shape) for axis in axes]
    motions += [turn_rad * np.cross(axis, offset) for axis in axes]
    motions += [growth * offset * axis for axis in axes]
    return [weight[:, None] * motion for motion in motions]
