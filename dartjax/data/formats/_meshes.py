"""Read and write surfaces (PLY, STL, OBJ) in world RAS+ mm."""

from pathlib import Path
from typing import cast

import jax.numpy as jnp
import numpy as np
import trimesh
from jaxtyping import Int

from dartjax._arrays import PathLike
from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.mesh import TriangleMesh

SUFFIXES = (".ply", ".stl", ".obj")
MERGE_DIGITS = 3  # decimals of mm


def load_mesh(path: PathLike) -> TriangleMesh:
    """Load the surface of a PLY, STL or OBJ file; its coordinates are taken as world mm.

    Coincident vertices are merged (STL repeats them, other formats split them by normals and
    texture) and polygons are split into triangles. Vertices up to 0.001 mm apart are merged only
    if the surface is open otherwise. DataError for a missing or damaged file, one without faces,
    an open surface, faces that point inward or in different directions, and a size that cannot be
    in millimetres.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a mesh file ends in {', '.join(SUFFIXES)}")
    try:
        mesh = cast(trimesh.Trimesh, trimesh.load(Path(path), force="mesh", process=False))
        _check_faces(np.asarray(mesh.faces), np.asarray(mesh.vertices))
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception as error:  # the parsers of three formats raise anything
        raise DataError(f"{path}: not a readable mesh ({error})") from error
    if len(faces) == 0 or faces.shape[1:] != (3,):
        raise DataError(f"{path}: the file holds no faces; a point cloud is not a surface")
    _check_size(path, vertices)
    if num_open_edges(faces):
        vertices, faces = _merged(mesh)
    _check_closed(path, vertices, faces)
    return TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))


def _check_faces(faces: np.ndarray, vertices: np.ndarray) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError("a vertex does not have three coordinates")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError("a face names a vertex that is not there")


def num_turned_edges(faces: Int[np.ndarray, "face 3"]) -> int:
    """Count the edges of a closed surface along which its faces do not run in both directions
    equally often: the faces beside them are turned differently, so that none is outward."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    signs = np.sign(edges[:, 1] - edges[:, 0])
    _, edge_of = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
    return int(np.count_nonzero(np.bincount(edge_of.ravel(), signs)))


def num_open_edges(faces: Int[np.ndarray, "face 3"]) -> int:
    """Count the edges with an odd number of faces: 0 for a closed surface, which may touch
    itself along an edge."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] % 2).sum())


def _merged(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices up to 0.001 mm apart, as rounded text gives, and drop collapsed faces."""
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=MERGE_DIGITS)
    faces = np.asarray(mesh.faces)
    collapsed = (faces == np.roll(faces, 1, axis=1)).any(1)
    return np.asarray(mesh.vertices), faces[~collapsed]


def _check_closed(path: PathLike, vertices: np.ndarray, faces: np.ndarray) -> None:
    if len(faces) == 0 or faces.shape[1:] != (3,):
        raise DataError(f"{path}: the file holds no triangle with an area")
    if count := num_open_edges(faces):
        raise DataError(
            f"{path}: the surface is not watertight, {count} edges are open: close its holes, "
            "because path lengths and overlaps need a solid"
        )
    if count := num_turned_edges(faces):
        raise DataError(
            f"{path}: the faces beside {count} edges are turned in different directions: "
            "recalculate the normals outside"
        )
    corners = (vertices - vertices.mean(0))[faces]
    if not np.linalg.det(corners).sum() > 0.0:
        raise DataError(
            f"{path}: the faces point inward: one axis of the coordinates was mirrored, else "
            "flip the faces (recalculate the normals outside)"
        )


def load_meshes(folder: PathLike) -> dict[str, TriangleMesh]:
    """Load the meshes of a folder by level, from head to foot; files are named L1.ply, T12.stl, ...

    Hidden files are passed over. DataError if the folder has no mesh named by its level, and for
    two files of one level.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).glob("*")):
        level = path.stem.upper()
        if level not in LABEL_OF_LEVEL or path.suffix.lower() not in SUFFIXES:
            continue
        if path.name.startswith(".") or not path.is_file():
            continue
        if level in files:
            raise DataError(f"{path}: a second mesh of {level}, beside {files[level].name}")
        files[level] = path
    meshes = {level: load_mesh(files[level]) for level in LABEL_OF_LEVEL if level in files}
    if not meshes:
        raise DataError(f"{folder}: no mesh named by its level, such as L1.ply or T12.stl")
    return meshes


def save_ply(path: PathLike, mesh: TriangleMesh) -> None:
    """Write a surface as binary PLY, mm, float32."""
    surface = trimesh.Trimesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), process=False)
    Path(path).write_bytes(cast(bytes, surface.export(file_type="ply")))


def _check_size(path: PathLike, vertices: np.ndarray) -> None:
    if not np.isfinite(vertices).all():
        raise DataError(f"{path}: some vertices are NaN or infinite")
    size = float(np.ptp(vertices, axis=0).max())
    if size < 1.0:
        raise DataError(
            f"{path}: the mesh is {size:.3g} across, which looks like metres: scale it by 1000, "
            "lengths are in mm"
        )
    if size > 2000.0:
        raise DataError(
            f"{path}: the mesh is {size:.0f} across, too large for a body part in mm: "
            "scale it to millimetres"
        )
