"""Triangle meshes: the type, its differential geometry (jittable) and host-side solids.

Faces are counter-clockwise seen from outside, so normals point outward. Lengths in mm.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dartjax import transforms
from dartjax._numerics import normalize
from dartjax._types import Faces, Point, Scalar, Vertices


class TriangleMesh(eqx.Module):
    """A triangulated surface: vertices in mm and faces as vertex indices."""

    vertices: Vertices
    faces: Faces


def transform(T_a_b: transforms.SE3, mesh: TriangleMesh) -> TriangleMesh:
    """Transform a mesh rigidly from frame b into frame a."""
    return TriangleMesh(transforms.apply(T_a_b, mesh.vertices), mesh.faces)


def area_vectors(vertices: Vertices, faces: Faces) -> Float[Array, "face 3"]:
    """Compute outward normal times area of each face, mm^2: (v1 - v0) x (v2 - v0) / 2."""
    v0, v1, v2 = (vertices[faces[:, i]] for i in range(3))
    return 0.5 * jnp.cross(v1 - v0, v2 - v0)


def vertex_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Compute outward unit normals at the vertices, with faces weighted by their area."""
    by_corner = jnp.repeat(area_vectors(vertices, faces), 3, axis=0)
    return normalize(jnp.zeros_like(vertices).at[faces.reshape(-1)].add(by_corner))


def volume(vertices: Vertices, faces: Faces) -> Scalar:
    """Compute the enclosed volume, mm^3, by the divergence theorem; negative for inward faces."""
    # Relative to the middle: far from the origin, single precision loses the difference.
    vertices = vertices - jnp.mean(vertices, axis=0, keepdims=True)
    centers = jnp.mean(vertices[faces], axis=1)
    return jnp.sum(area_vectors(vertices, faces) * centers) / 3.0


def orientation(vertices: Vertices, faces: Faces) -> Scalar:
    """Return 1 for a closed surface whose faces point outward, -1 for one that is inside out."""
    return jnp.where(volume(vertices, faces) < 0.0, -1.0, 1.0)


def solid_centroid(vertices: Vertices, faces: Faces) -> Point:
    """Compute the centroid of the enclosed solid (not of the surface), mm."""
    middle = jnp.mean(vertices, axis=0)
    v0, v1, v2 = (vertices[faces[:, i]] - middle[None] for i in range(3))
    signed = jnp.sum(v0 * jnp.cross(v1, v2), axis=1) / 6.0
    moment = jnp.sum(signed[:, None] * (v0 + v1 + v2), axis=0)
    return middle + moment / (4.0 * jnp.sum(signed))


def euler_characteristic(faces: Int[np.ndarray, "face 3"]) -> int:
    """Compute V - E + F on the host: 2 for a ball, 0 for a vertebra with its canal (genus 1)."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return len(np.unique(faces)) - len(np.unique(edges, axis=0)) + len(faces)


def voxelize(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    origin: Float[np.ndarray, "3"],
    shape: tuple[int, int, int],
    spacing: float = 1.0,
) -> Bool[np.ndarray, "i j k"]:
    """Voxelise a closed mesh on an axis-aligned grid, on the host.

    Voxel (i, j, k) has its centre at origin + spacing * (i, j, k). A voxel is inside when a
    line along z crosses the surface with positive winding before it: exact for watertight
    meshes, and nested or overlapping parts count once. An open mesh leaves streaks.
    """
    local = (vertices - origin) / spacing
    # An irrational shift keeps grid lines off vertices and edges, where parity is undefined.
    local = local + np.array([1.2347e-5, 2.7183e-5, 0.0])
    triangles = local[faces]
    lower = np.ceil(triangles[:, :, :2].min(1)).astype(int).clip(0, None)
    upper = np.floor(triangles[:, :, :2].max(1)).astype(int).clip(None, np.array(shape[:2]) - 1)
    counts = (upper - lower + 1).clip(0, None)
    face_of, column = _columns_of(lower, counts)
    p0, p1, p2 = (triangles[face_of, i] for i in range(3))
    weights = _barycentric_2d(column, p0[:, :2], p1[:, :2], p2[:, :2])
    hit = (weights >= 0).all(1)
    face_of, column, weights = face_of[hit], column[hit], weights[hit]
    height = np.einsum("ni,ni->n", weights, triangles[face_of][:, :, 2])
    edge1, edge2 = (triangles[:, i, :2] - triangles[:, 0, :2] for i in (1, 2))
    facing = np.sign(edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0])[face_of]
    winding = np.zeros((shape[0], shape[1], shape[2] + 1), np.int16)
    first = np.clip(np.ceil(height), 0, shape[2]).astype(int)
    np.add.at(winding, (column[:, 0], column[:, 1], first), -facing.astype(np.int16))
    return np.cumsum(winding, axis=2)[:, :, :-1] > 0


def _columns_of(
    lower: Int[np.ndarray, "face 2"], counts: Int[np.ndarray, "face 2"]
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, "pair 2"]]:
    """List all (face, grid column) pairs within the bounding boxes of the faces."""
    per_face = counts.prod(1)
    face_of = np.repeat(np.arange(len(lower)), per_face)
    rank = np.arange(len(face_of)) - np.repeat(np.cumsum(per_face) - per_face, per_face)
    rows = np.maximum(counts[face_of, 1], 1)
    return face_of, lower[face_of] + np.stack([rank // rows, rank % rows], axis=1)


def _barycentric_2d(
    point: Float[np.ndarray, "n 2"] | Int[np.ndarray, "n 2"],
    a: Float[np.ndarray, "n 2"],
    b: Float[np.ndarray, "n 2"],
    c: Float[np.ndarray, "n 2"],
) -> Float[np.ndarray, "n 3"]:
    """Compute barycentric coordinates of points in 2D triangles; -1 for degenerate triangles."""
    u, v, w = b - a, c - a, point - a
    determinant = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    safe = np.where(determinant == 0, 1.0, determinant)
    beta = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / safe
    gamma = (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / safe
    inside = np.stack([1.0 - beta - gamma, beta, gamma], axis=1)
    return np.where((determinant == 0)[:, None], -1.0, inside)
