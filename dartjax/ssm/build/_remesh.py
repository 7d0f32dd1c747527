"""Mirror-symmetric remeshing with an exact number of vertices, on the host.

Remeshing needs `pymeshlab` (the `build` extra); only making a new template uses it.

One half of a vertebra, cut at the mirror plane, is a tube with two open ends (the body's and
the arch's outline). With F faces, V vertices and B of them in the plane, Euler's formula gives
2 V - B = F; so a half of exactly n faces makes a whole of exactly n vertices and 2 n faces.
"""

import importlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from skimage import measure

from dartjax import mesh
from dartjax.ssm._voxels import label_parts, solid_of

_Surface = tuple[Float[np.ndarray, "_point 3"], Int[np.ndarray, "_triangle 3"]]


class SymmetricMesh(NamedTuple):
    """A closed surface equal to its mirror image in x = 0."""

    vertices: Float[np.ndarray, "vertex 3"]  # mm
    faces: Int[np.ndarray, "face 3"]
    mirror: Int[np.ndarray, " vertex"]  # index of the vertex with the opposite x


def half_surface(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    *,
    spacing: float = 0.4,
    smoothing: float = 0.8,
) -> _Surface:
    """Extract the right half (x >= 0) of a closed surface in its vertebra frame, open at x = 0.

    The occupancy of the half and its mirror image is blurred (Gaussian of `smoothing` mm). The
    surface is extracted where the blurred occupancy is 0.5, so that the two halves join smoothly.
    ValueError when the whole is not of genus 1 (one open canal).
    """
    solid = solid_of(vertices, faces, spacing)
    right = solid.occupancy[solid.axis(0) > 0]
    whole = np.concatenate([right[::-1], right])
    labels, _ = label_parts(whole)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled = np.pad(np.asarray(ndimage.binary_fill_holes(largest)), 3).astype(np.float32)
    blurred = ndimage.gaussian_filter(filled, smoothing / spacing)
    # The plane x = 0 is between two voxels: shift the samples by half a voxel.
    middle = len(blurred) // 2
    samples = 0.5 * (blurred[middle - 1 : -1] + blurred[middle:])
    points, triangles, _, _ = measure.marching_cubes(samples, 0.5, gradient_direction="ascent")
    triangles = triangles.astype(np.int64)
    if mesh.euler_characteristic(triangles) != 0:
        raise ValueError(
            f"half of the surface has Euler characteristic {mesh.euler_characteristic(triangles)}, "
            "not 0: a vertebra is one closed piece with one open canal; close its holes first"
        )
    origin = np.array([0.0, *(solid.origin[1:] - 3.0 * spacing)])
    return origin + spacing * points.astype(float), triangles


def symmetric_mesh(half: _Surface, num_vertices: int = 2048) -> SymmetricMesh:
    """Remesh a half to a near-uniform symmetric mesh with exactly `num_vertices` vertices.

    Isotropic explicit remeshing (Botsch and Kobbelt 2004) of the open right half; edge collapse
    removes the last few faces; the half is then joined with its mirror image. RuntimeError when
    the exact count is not reached.
    """
    vertices, faces = half
    area = 0.5 * np.linalg.norm(_doubled_areas(vertices, faces), axis=1).sum()
    # Edge length of equilateral triangles; one finer remeshing first makes the search fast.
    length = np.sqrt(area / num_vertices * 4.0 / np.sqrt(3.0))
    medium = _remesh_isotropic(half, 0.5 * length)
    for _ in range(12):
        candidate = _remesh_isotropic(medium, length)
        excess = len(candidate[1]) / num_vertices
        if 1.0 <= excess < 1.03:
            return _join_halves(_reduce_to(candidate, num_vertices))
        length *= np.sqrt(excess) * 0.995
    raise RuntimeError(f"no edge length gave about {num_vertices} vertices")


def symmetrized(
    points: Float[np.ndarray, "vertex 3"], mirror: Int[np.ndarray, " vertex"]
) -> Float[np.ndarray, "vertex 3"]:
    """Average a surface and its mirror image in x = 0, vertex by vertex."""
    return 0.5 * (points + points[mirror] * np.array([-1.0, 1.0, 1.0]))


def triangle_angles(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "face 3"]:
    """Compute the three angles of every triangle, degrees."""
    corners = vertices[faces]
    ahead = np.roll(corners, -1, axis=1) - corners
    behind = np.roll(corners, 1, axis=1) - corners
    cosine = np.sum(ahead * behind, axis=2)
    cosine = cosine / (np.linalg.norm(ahead, axis=2) * np.linalg.norm(behind, axis=2))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def folded_pairs(
    points: Float[np.ndarray, "vertex 3"],
    triangles: Int[np.ndarray, "face 3"],
    turn_deg: float = 120.0,
) -> Int[np.ndarray, "pair 2"]:
    """Find pairs of neighbouring triangles whose normals differ by over `turn_deg`."""
    normals = _doubled_areas(points, triangles)
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    # In a closed surface every edge has two triangles, which are adjacent after sorting.
    pairs = (np.lexsort(edges.T) // 3).reshape(-1, 2)
    cosine = np.sum(normals[pairs[:, 0]] * normals[pairs[:, 1]], axis=1)
    return pairs[cosine < np.cos(np.radians(turn_deg))]


def unfolded(
    points: Float[np.ndarray, "vertex 3"],
    triangles: Int[np.ndarray, "face 3"],
    *,
    least_angle_deg: float = 15.0,
    turn_deg: float = 120.0,
    max_rounds: int = 50,
) -> Float[np.ndarray, "vertex 3"]:
    """Smooth folded and sliver triangles until no angle is under `least_angle_deg` and no two
    neighbouring normals differ by over `turn_deg`."""
    for _ in range(max_rounds):
        sliver = triangle_angles(points, triangles).min(1) < least_angle_deg
        sliver[folded_pairs(points, triangles, turn_deg).ravel()] = True
        if not sliver.any():
            break
        points = smoothed_at(points, triangles, np.flatnonzero(sliver))
    return points


def smoothed_at(
    points: Float[np.ndarray, "vertex 3"],
    triangles: Int[np.ndarray, "face 3"],
    chosen: Int[np.ndarray, " chosen"],
) -> Float[np.ndarray, "vertex 3"]:
    """Move the corners of chosen triangles half-way to the mean of their neighbours."""
    start, end = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    degree = np.bincount(start, minlength=len(points))[:, None]
    around = np.zeros_like(points)
    np.add.at(around, start, points[end])
    corners = np.unique(triangles[chosen])
    points = points.copy()
    points[corners] = 0.5 * (points + around / degree)[corners]
    return points


def _doubled_areas(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "face 3"]:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _reduce_to(surface: _Surface, num_faces: int) -> _Surface:
    """Reduce a surface to a face count by edge collapse.

    A collapse removes two faces, at the border one; if one face too many is removed, a border
    edge is split.
    """
    meshes = _mesh_set(surface)
    meshes.meshing_decimation_quadric_edge_collapse(
        targetfacenum=num_faces,
        preservenormal=True,
        preservetopology=True,
        preserveboundary=True,
        boundaryweight=10.0,
        qualitythr=0.7,
    )
    points, triangles = _arrays(meshes)
    if len(triangles) == num_faces - 1:
        points, triangles = _split_border_edge(points, triangles)
    if len(triangles) != num_faces or mesh.euler_characteristic(triangles) != 0:
        raise RuntimeError(f"edge collapse stopped at {len(triangles)} faces, not {num_faces}")
    return points, triangles


def _border_edges(triangles: Int[np.ndarray, "face 3"]) -> Int[np.ndarray, "edge 2"]:
    """List the directed edges that have no triangle on the other side."""
    directed = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    keys = {(int(a), int(b)) for a, b in directed}
    return np.array([(a, b) for a, b in directed if (int(b), int(a)) not in keys])


def _split_border_edge(
    points: Float[np.ndarray, "vertex 3"], triangles: Int[np.ndarray, "face 3"]
) -> _Surface:
    """Split the longest border edge and its triangle in two."""
    border = _border_edges(triangles)
    lengths = np.linalg.norm(points[border[:, 0]] - points[border[:, 1]], axis=1)
    a, b = border[int(np.argmax(lengths))]
    face = int(np.flatnonzero((triangles == a).any(1) & (triangles == b).any(1))[0])
    new = len(points)
    first, second = triangles[face].copy(), triangles[face].copy()
    first[first == b], second[second == a] = new, new
    kept = np.delete(triangles, face, axis=0)
    middle = 0.5 * (points[a] + points[b])
    return np.vstack([points, middle]), np.vstack([kept, first, second])


def _join_halves(half: _Surface) -> SymmetricMesh:
    """Join a half and its mirror image at the border vertices."""
    points, triangles = half
    border = np.unique(_border_edges(triangles))
    points[border, 0] = 0.0
    inner = np.setdiff1d(np.arange(len(points)), border)
    mirror_index = np.arange(len(points))
    mirror_index[inner] = len(points) + np.arange(len(inner))
    whole = np.vstack([points, points[inner] * np.array([-1.0, 1.0, 1.0])])
    mirror = np.concatenate([mirror_index, inner])
    return SymmetricMesh(whole, np.vstack([triangles, mirror_index[triangles][:, ::-1]]), mirror)


def _remesh_isotropic(surface: _Surface, length: float) -> _Surface:
    meshes = _mesh_set(surface)
    meshes.meshing_isotropic_explicit_remeshing(
        iterations=12, targetlen=_meshlab().PureValue(length), checksurfdist=False
    )
    return _arrays(meshes)


def _meshlab() -> Any:
    try:
        return importlib.import_module("pymeshlab")
    except ImportError as error:
        raise ImportError('templates need pymeshlab: pip install "dartjax[build]"') from error


def _mesh_set(surface: _Surface) -> Any:
    meshes = _meshlab().MeshSet()
    meshes.add_mesh(_meshlab().Mesh(surface[0], surface[1].astype(np.int32)))
    return meshes


def _arrays(meshes: Any) -> _Surface:
    current = meshes.current_mesh()
    current.compact()
    return current.vertex_matrix().copy(), current.face_matrix().astype(np.int64)


def triangle_quality(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> dict[str, float]:
    """Measure triangulation quality: smallest angle (deg), mean and longest edge (mm), and number
    of folded pairs of neighbouring triangles (should be 0)."""
    edges = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, axis=1)], axis=2)
    return {
        "smallest_angle_deg": float(triangle_angles(vertices, faces).min()),
        "mean_edge_mm": float(edges.mean()),
        "longest_edge_mm": float(edges.max()),
        "folded_pairs": float(len(folded_pairs(vertices, faces))),
    }
