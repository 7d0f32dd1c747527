"""Metrics of reconstruction and registration, on the host. Lengths in mm.

Surface metrics are weighted by the area of both surfaces, as in DeepMind's `surface-distance`,
but on triangle meshes instead of voxels. `DEFINITIONS` holds the definition of each metric, for
records and tables.
"""

import dataclasses
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from dartjax import mesh as meshes
from dartjax._errors import DataError
from dartjax.transforms import SE3, rotation_angle

DEFINITIONS: dict[str, str] = {
    "dice": "2 |A n B| / (|A| + |B|) of the solids on a 1 mm grid",
    "nsd_1mm": "area of both surfaces within 1 mm of the other / total area of both surfaces",
    "hd95_mm": "larger of the two directed area-weighted 95th percentiles of surface distance",
    "masd_mm": "mean of the two directed area-weighted mean surface distances",
    "mtre_mm": "mean distance between corresponding target points",
}

SAMPLE_AREA_MM2 = 0.5  # area per sampled distance
COVER_EDGE_MM = 1.0  # longest edge of the sub-triangles of the nearest-face search
NUM_NEAREST = 4  # nearest sub-triangles whose faces are measured exactly
MAX_EXTENT_MM = 500.0  # a larger mesh is a diverged fit, not a vertebra
DIVERGED = "is not finite or wider than 500 mm"

_Vertices = Float[np.ndarray, "vertex 3"]
_Faces = Int[np.ndarray, "face 3"]
_Points = Float[np.ndarray, "n 3"]


class Solid(NamedTuple):
    """Occupancy of a solid on an axis-aligned grid: voxel (i, j, k) has its centre at
    origin + spacing * (i, j, k), world mm."""

    occupancy: Bool[np.ndarray, "i j k"]
    origin: Float[np.ndarray, "3"]
    spacing: float


@dataclasses.dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces at points spread evenly over each: every sample represents
    the same share of its surface's area."""

    a_to_b: Float[np.ndarray, " sample_a"]  # mm
    b_to_a: Float[np.ndarray, " sample_b"]  # mm
    area_a: float  # mm^2
    area_b: float  # mm^2


def dice(a: Bool[np.ndarray, "..."], b: Bool[np.ndarray, "..."]) -> float:
    """Compute Dice, 2 |A n B| / (|A| + |B|), of occupancies on one grid; NaN if both are empty.

    DataError for two shapes, which would be broadcast."""
    _check_same_shape("occupancies", a, b)
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else float("nan")


def surface_distances(a: meshes.TriangleMesh, b: meshes.TriangleMesh) -> SurfaceDistances:
    """Compute distances from each surface to the other, one sample per 0.5 mm^2.

    The points are the same in every call. On vertebrae of 100 cm^2 this sampling changes
    MASD and NSD by less than 0.5 % and HD95 by less than 1 %. DataError for a mesh without area.
    """
    points_a, area_a = _spread_points(*_host(a))
    points_b, area_b = _spread_points(*_host(b))
    return SurfaceDistances(
        a_to_b=distance_to_surface(points_a, b),
        b_to_a=distance_to_surface(points_b, a),
        area_a=area_a,
        area_b=area_b,
    )


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """Compute the normalised surface distance (surface Dice, Nikolov et al. 2021): the share of
    the area of both surfaces that lies within `tolerance_mm` of the other surface."""
    close_a = distances.area_a * np.mean(distances.a_to_b <= tolerance_mm)
    close_b = distances.area_b * np.mean(distances.b_to_a <= tolerance_mm)
    return float((close_a + close_b) / (distances.area_a + distances.area_b))


def hd95(distances: SurfaceDistances) -> float:
    """Compute HD95: the larger of the two directed area-weighted 95th percentiles, mm."""
    return float(max(np.quantile(distances.a_to_b, 0.95), np.quantile(distances.b_to_a, 0.95)))


def masd(distances: SurfaceDistances) -> float:
    """Compute MASD: the mean of the two directed area-weighted mean distances, mm. (The pooled
    mean over both surfaces, "ASSD", differs when their areas differ.)"""
    return float(0.5 * (np.mean(distances.a_to_b) + np.mean(distances.b_to_a)))


def mtre(points_a: _Points, points_b: Float[np.ndarray, "m 3"]) -> float:
    """Compute the mean target registration error: mean distance of corresponding points, mm; NaN
    without points. DataError for different numbers of points."""
    _check_same_shape("target points", np.asarray(points_a), np.asarray(points_b))
    if not len(points_a):
        return float("nan")
    return float(np.mean(np.linalg.norm(np.asarray(points_a) - np.asarray(points_b), axis=1)))


def pose_error(T_a: SE3, T_b: SE3) -> tuple[float, float]:
    """Compute (translation_mm, rotation_deg) between two poses of one object in one frame: the
    distance between their origins and the angle of R_a^-1 R_b."""
    translation = np.linalg.norm(np.asarray(T_a.translation() - T_b.translation()))
    angle = rotation_angle(T_a.rotation().inverse() @ T_b.rotation())
    return float(translation), float(np.degrees(angle))


def reconstruction_metrics(
    mesh: meshes.TriangleMesh,
    truth_mesh: meshes.TriangleMesh,
    truth_solid: Solid | None = None,
) -> dict[str, float]:
    """Compute Dice, NSD at 1 mm, HD95 and MASD of a reconstructed vertebra (see `DEFINITIONS`).

    Both meshes are closed, world mm. The reference of Dice is `truth_solid`, by default the
    ground-truth mesh voxelised at 1 mm; the parts outside its grid count as well. A mesh that is
    no solid (no faces, not finite, wider than 500 mm, or faces that point inward) gives NaN for
    every metric, and a warning with the reason unless it diverged. DataError for such a
    ground-truth mesh.
    """
    vertices, faces = _host(mesh)
    if reason := _no_solid(*_host(truth_mesh)):
        raise DataError(f"the ground-truth mesh {reason}")
    if reason := _no_solid(vertices, faces):
        if reason != DIVERGED:
            warnings.warn(f"the reconstructed mesh {reason}: no metrics", stacklevel=2)
        return dict.fromkeys(("dice", "nsd_1mm", "hd95_mm", "masd_mm"), float("nan"))
    truth = solid_of(truth_mesh) if truth_solid is None else truth_solid
    truth = _padded_to(truth, vertices)
    occupancy = meshes.voxelize(vertices, faces, truth.origin, truth.occupancy.shape, truth.spacing)
    distances = surface_distances(mesh, truth_mesh)
    return {
        "dice": dice(occupancy, truth.occupancy),
        "nsd_1mm": nsd(distances, 1.0),
        "hd95_mm": hd95(distances),
        "masd_mm": masd(distances),
    }


def solid_of(mesh: meshes.TriangleMesh, spacing: float = 1.0, margin_mm: float = 2.0) -> Solid:
    """Voxelise a closed mesh on a grid around it, aligned to multiples of the spacing.

    DataError for a mesh that is empty, inside out, not finite or wider than 500 mm."""
    vertices, faces = _host(mesh)
    if reason := _no_solid(vertices, faces):
        raise DataError(f"the mesh {reason}: it bounds no solid")
    first = np.floor((vertices.min(0) - margin_mm) / spacing)
    last = np.ceil((vertices.max(0) + margin_mm) / spacing)
    ni, nj, nk = (last - first + 1).astype(int).tolist()
    origin = first * spacing
    return Solid(meshes.voxelize(vertices, faces, origin, (ni, nj, nk), spacing), origin, spacing)


def distance_to_surface(points: _Points, mesh: meshes.TriangleMesh) -> Float[np.ndarray, " n"]:
    """Compute the unsigned distance of points (world mm) to a triangle mesh, mm.

    Faces are cut into sub-triangles with edges of at most 1 mm; distances to the faces of the four
    nearest sub-triangles are exact. The result is never below the true distance and at most
    0.67 mm above it; on a vertebra the largest error is about 0.02 mm, the mean 1e-5 mm.
    DataError for a mesh without faces, and for points or vertices that are not finite.
    """
    vertices, faces = _host(mesh)
    if not len(faces):
        raise DataError("the mesh is empty: no distance to it is defined")
    if not (np.isfinite(vertices).all() and np.isfinite(points).all()):
        raise DataError("points or vertices are not finite: no distance between them is defined")
    centers, face_of = _subdivide(vertices, faces)
    tree = KDTree(centers, balanced_tree=False, compact_nodes=False)
    nearest = tree.query(points, k=min(NUM_NEAREST, len(centers)), workers=-1)[1]
    candidates = face_of[nearest.reshape(len(points), -1)]
    best = np.full(len(points), np.inf)
    for column, face in enumerate(candidates.T):
        new = np.flatnonzero((candidates[:, :column] != face[:, None]).all(1))
        squared = _squared_distance_to_triangles(points[new], vertices[faces[face[new]]])
        best[new] = np.minimum(best[new], squared)
    return np.sqrt(best)


def _host(mesh: meshes.TriangleMesh) -> tuple[_Vertices, _Faces]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)


def _no_solid(vertices: _Vertices, faces: _Faces) -> str:
    """Return why a mesh bounds no solid, or "" if it does."""
    if not len(vertices) or not len(faces):
        return "is empty"
    if not (np.isfinite(vertices).all() and np.ptp(vertices, axis=0).max() < MAX_EXTENT_MM):
        return DIVERGED
    corners = (vertices - vertices.mean(0))[faces]
    if _dot(corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() <= 0.0:
        return "is inside out or flat: its faces must point outward"
    return ""


def _check_same_shape(what: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise DataError(f"{what} of different shapes, {a.shape} and {b.shape}, are not comparable")


def _face_areas(corners: Float[np.ndarray, "face 3 3"]) -> Float[np.ndarray, " face"]:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return 0.5 * np.sqrt(_dot(normals, normals))


def _spread_points(vertices: _Vertices, faces: _Faces) -> tuple[_Points, float]:
    """Sample points at equal steps of area along the list of faces; also the total area. Inside
    the faces they follow the R2 sequence (Roberts 2018), folded into the triangle."""
    corners = vertices[faces]
    cumulative = np.cumsum(_face_areas(corners))
    total = float(cumulative[-1]) if len(faces) else 0.0
    if not total > 0.0:
        raise DataError("a mesh without area has no surface distances")
    count = int(np.ceil(total / SAMPLE_AREA_MM2))
    index = np.arange(count)
    face = np.searchsorted(cumulative, (index + 0.5) * total / count)
    u, v = (index * 0.7548776662466927) % 1.0, (index * 0.5698402909980532) % 1.0
    fold = u + v > 1.0
    u, v = np.where(fold, 1.0 - u, u), np.where(fold, 1.0 - v, v)
    return np.einsum("nc,ncd->nd", np.stack([1.0 - u - v, u, v], 1), corners[face]), total


def _subdivide(vertices: _Vertices, faces: _Faces) -> tuple[_Points, Int[np.ndarray, " n"]]:
    """Cut every face into sub-triangles with edges <= 1 mm: their centroids and face indices."""
    corners = vertices[faces]
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    splits = np.maximum(np.ceil(longest / COVER_EDGE_MM).astype(int), 1)
    centers, face_of = [], []
    for n in np.unique(splits).tolist():
        chosen = np.flatnonzero(splits == n)
        parts = np.einsum("sc,fcd->fsd", _subtriangle_centroids(n), corners[chosen])
        centers.append(parts.reshape(-1, 3))
        face_of.append(np.repeat(chosen, n * n))
    return np.concatenate(centers), np.concatenate(face_of)


def _subtriangle_centroids(n: int) -> Float[np.ndarray, "sub 3"]:
    """Barycentric centroids of a triangle cut into n^2 equal ones."""
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    upright = np.stack([i, j], -1)[i + j < n] + 1 / 3
    inverted = np.stack([i, j], -1)[i + j < n - 1] + 2 / 3
    b = np.concatenate([upright, inverted]) / n
    return np.column_stack([1.0 - b.sum(1), b])


def _squared_distance_to_triangles(
    points: _Points, corners: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, " n"]:
    """Compute the squared distance of point i to triangle i: to its plane where the foot of the
    perpendicular is inside, else to the nearest edge."""
    a, b, c = (corners[:, i] for i in range(3))
    normal = np.cross(b - a, c - a)
    inside = np.ones(len(points), bool)
    nearest_edge = np.full(len(points), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, offset = end - start, points - start
        inside &= _dot(np.cross(normal, edge), offset) >= 0.0
        length = _dot(edge, edge)
        along = np.clip(_dot(offset, edge) / np.where(length > 0, length, 1.0), 0.0, 1.0)
        to_edge = offset - along[:, None] * edge
        nearest_edge = np.minimum(nearest_edge, _dot(to_edge, to_edge))
    size = _dot(normal, normal)
    to_plane = _dot(normal, points - a) ** 2 / np.where(size > 0, size, 1.0)
    return np.where(inside & (size > 0), to_plane, nearest_edge)


def _dot(a: _Points, b: _Points) -> Float[np.ndarray, " n"]:
    return np.einsum("ni,ni->n", a, b)


def _padded_to(solid: Solid, vertices: _Vertices) -> Solid:
    """Pad the grid of a solid so that it also covers the vertices."""
    index = (vertices - solid.origin) / solid.spacing
    before = np.maximum(0, np.ceil(-index.min(0))).astype(int)
    after = np.ceil(index.max(0)).astype(int) - np.array(solid.occupancy.shape) + 1
    widths = list(zip(before.tolist(), np.maximum(after, 0).tolist(), strict=True))
    occupancy = np.pad(solid.occupancy, widths)
    return Solid(occupancy, solid.origin - before * solid.spacing, solid.spacing)
