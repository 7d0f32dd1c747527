"""A clean, near-uniform surface with an exact number of vertices, on the host.

Needs `pymeshlab` (the `build` extra): only the building of templates does, not their use.
"""

import importlib
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, spatial
from skimage import measure

from dartjax import mesh
from dartjax.ssm._voxels import label_parts, solid_of

_Surface = tuple[Float[np.ndarray, "_point 3"], Int[np.ndarray, "_triangle 3"]]


def clean_surface(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    *,
    spacing: float = 0.4,
    smoothing: float = 0.4,
) -> _Surface:
    """The outer surface of the largest solid part, without cavities, by marching cubes.

    The filled mesh (voxels of `spacing` mm) is blurred by a Gaussian of `smoothing` mm and cut
    at one half. Raises ValueError when the result is not of genus 1 (one open canal).
    """
    solid = solid_of(vertices, faces, spacing)
    labels, _ = label_parts(solid.occupancy)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled = np.pad(np.asarray(ndimage.binary_fill_holes(largest)), 3)
    blurred = ndimage.gaussian_filter(filled.astype(np.float32), smoothing / spacing)
    points, triangles, _, _ = measure.marching_cubes(blurred, 0.5, gradient_direction="ascent")
    triangles = triangles.astype(np.int64)
    if mesh.euler_characteristic(triangles) != 0:
        raise ValueError(
            f"the surface has Euler characteristic {mesh.euler_characteristic(triangles)}, not 0: "
            "a vertebra is one closed piece with one open canal; close its holes first"
        )
    return solid.origin + spacing * (points.astype(float) - 3.0), triangles


def uniform_remesh(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    num_vertices: int = 2048,
) -> _Surface:
    """A near-uniform triangulation with exactly `num_vertices` vertices (even genus-1 count).

    Isotropic explicit remeshing with the edge length found by iteration, the last few vertices
    removed by edge collapse. Raises RuntimeError when the exact count is not reached.
    """
    num_faces = 2 * num_vertices
    area = 0.5 * np.linalg.norm(_doubled_areas(vertices, faces), axis=1).sum()
    # Equilateral triangles would have this edge; one coarser step makes the search fast.
    edge = np.sqrt(area / num_faces * 4.0 / np.sqrt(3.0))
    medium = _isotropic((vertices, faces), 0.5 * edge)
    length = edge
    for _ in range(12):
        candidate = _isotropic(medium, length)
        excess = len(candidate[1]) / num_faces
        if 1.0 <= excess < 1.02:
            return _relaxed(_collapse_to(candidate, num_faces), vertices, faces)
        length *= np.sqrt(excess) * 0.995
    raise RuntimeError(f"no edge length gave about {num_vertices} vertices")


def triangle_angles(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "face 3"]:
    """The three angles of every triangle, degrees."""
    corners = vertices[faces]
    ahead = np.roll(corners, -1, axis=1) - corners
    behind = np.roll(corners, 1, axis=1) - corners
    cosine = np.sum(ahead * behind, axis=2)
    cosine = cosine / (np.linalg.norm(ahead, axis=2) * np.linalg.norm(behind, axis=2))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def folded_pairs(
    points: Float[np.ndarray, "vertex 3"], triangles: Int[np.ndarray, "face 3"]
) -> Int[np.ndarray, "pair 2"]:
    """Pairs of neighbouring triangles whose normals differ by over 120 degrees."""
    normals = _doubled_areas(points, triangles)
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    # In a closed surface every edge has two triangles, next to each other once sorted.
    pairs = (np.lexsort(edges.T) // 3).reshape(-1, 2)
    return pairs[np.sum(normals[pairs[:, 0]] * normals[pairs[:, 1]], axis=1) < -0.5]


def _unfolded(
    points: Float[np.ndarray, "vertex 3"], triangles: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "vertex 3"]:
    """Move the corners of folded and sliver triangles toward their neighbours until none is."""
    start, end = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    degree = np.bincount(start, minlength=len(points))[:, None]
    for _ in range(50):
        sliver = triangle_angles(points, triangles).min(1) < 15.0
        sliver[folded_pairs(points, triangles).ravel()] = True
        if not sliver.any():
            break
        around = np.zeros_like(points)
        np.add.at(around, start, points[end])
        corners = np.unique(triangles[sliver])
        points = points.copy()
        points[corners] = 0.5 * (points + around / degree)[corners]
    return points


def _doubled_areas(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "face 3"]:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def _relaxed(
    surface: _Surface,
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
) -> _Surface:
    """Even out the triangles (edge flips, tangential smoothing), put the vertices on the fine
    surface (where that folds triangles, near it), and push all along their normals until the
    volumes agree.

    A polyhedron with its vertices on a round surface is too small; the shift is < 0.1 mm.
    """
    points, triangles = _isotropic(surface, 1.0, iterations=5, keep_count=True)
    points = _unfolded(vertices[spatial.KDTree(vertices).query(points)[1]], triangles)
    target = _volume(vertices, faces)
    for _ in range(3):
        doubled = _doubled_areas(points, triangles)
        normals = np.zeros_like(points)
        for corner in range(3):
            np.add.at(normals, triangles[:, corner], doubled)
        area = 0.5 * np.linalg.norm(doubled, axis=1).sum()
        normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        points = points + (target - _volume(points, triangles)) / area * normals
    return points, triangles


def _volume(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> float:
    return float(np.sum(_doubled_areas(vertices, faces) * vertices[faces].mean(1)) / 6.0)


def _isotropic(
    surface: _Surface, length: float, *, iterations: int = 12, keep_count: bool = False
) -> _Surface:
    """Isotropic explicit remeshing toward one edge length (Botsch and Kobbelt 2004); with
    `keep_count` only its edge flips and tangential smoothing."""
    meshes = _mesh_set(surface)
    meshes.meshing_isotropic_explicit_remeshing(
        iterations=iterations,
        targetlen=_meshlab().PureValue(length),
        checksurfdist=False,
        splitflag=not keep_count,
        collapseflag=not keep_count,
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


def _collapse_to(surface: _Surface, num_faces: int) -> _Surface:
    meshes = _mesh_set(surface)
    meshes.meshing_decimation_quadric_edge_collapse(
        targetfacenum=num_faces, preservenormal=True, preservetopology=True, qualitythr=0.7
    )
    result = _arrays(meshes)
    if len(result[1]) != num_faces or mesh.euler_characteristic(result[1]) != 0:
        raise RuntimeError(f"edge collapse stopped at {len(result[1])} faces, not {num_faces}")
    return result
