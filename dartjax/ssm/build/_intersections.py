"""Self-intersections of a closed surface, on the host."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

_Corners = Float[np.ndarray, "pair 3"]
_MARGIN = 1e-9  # relative to the triangle: touching is not an intersection


def self_intersections(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Int[np.ndarray, " hit"]:
    """Find the faces that an edge of another face intersects, ascending; empty if there are none.

    Faces that share an edge are not compared; `triangle_quality` counts folds between them. The
    edge-triangle test is that of Moeller and Trumbore (J Graph Tools 2(1):21, 1997).
    """
    corners = np.asarray(vertices, float)[faces]
    pairs = _overlapping_boxes(corners)
    shared = (faces[pairs[:, 0], :, None] == faces[pairs[:, 1], None, :]).sum((1, 2))
    pairs = pairs[shared < 2]
    pairs = pairs[_on_both_sides(corners, pairs) & _on_both_sides(corners, pairs[:, ::-1])]
    hit = np.zeros(len(pairs), bool)
    for one, other in ((0, 1), (1, 0)):
        triangle = corners[pairs[:, one]]
        edge = corners[pairs[:, other]]
        for i in range(3):
            hit |= _crosses(edge[:, i], edge[:, (i + 1) % 3], triangle)
    return np.unique(pairs[hit])


def _overlapping_boxes(corners: Float[np.ndarray, "face 3 3"]) -> Int[np.ndarray, "pair 2"]:
    """Find the pairs of faces whose bounding boxes overlap, each once."""
    low, high = corners.min(1), corners.max(1)
    diameter = np.linalg.norm(high - low, axis=1).max()
    pairs = KDTree((low + high) / 2.0).query_pairs(diameter, output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    return pairs[((low[first] <= high[second]) & (low[second] <= high[first])).all(1)]


def _on_both_sides(
    corners: Float[np.ndarray, "face 3 3"], pairs: Int[np.ndarray, "pair 2"]
) -> Bool[np.ndarray, " pair"]:
    """Return whether the plane of the first face has corners of the second on both sides."""
    origin = corners[:, 0]
    normal = np.cross(corners[:, 1] - origin, corners[:, 2] - origin)
    offset = corners[pairs[:, 1]] - origin[pairs[:, 0], None]
    height = np.einsum("pki,pi->pk", offset, normal[pairs[:, 0]])
    return (height.min(1) < 0.0) & (height.max(1) > 0.0)


def _crosses(
    start: _Corners, end: _Corners, triangle: Float[np.ndarray, "pair 3 3"]
) -> Bool[np.ndarray, " pair"]:
    """Return whether each segment passes through its triangle."""
    along = end - start
    side, other = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
    normal = np.cross(along, other)
    volume = np.sum(side * normal, axis=1)
    parallel = np.abs(volume) < 1e-12
    scale = 1.0 / np.where(parallel, 1.0, volume)
    offset = start - triangle[:, 0]
    u = scale * np.sum(offset * normal, axis=1)
    across = np.cross(offset, side)
    v = scale * np.sum(along * across, axis=1)
    t = scale * np.sum(other * across, axis=1)
    inside = (u > _MARGIN) & (v > _MARGIN) & (u + v < 1.0 - _MARGIN)
    return inside & (t > _MARGIN) & (t < 1.0 - _MARGIN) & ~parallel
