"""Read and write surfaces (PLY, STL, OBJ) in world RAS+ mm."""

from pathlib import Path
from typing import cast

import jax.numpy as jnp
import numpy as np
import trimesh

from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.data.formats._nifti import PathLike
from dartjax.mesh import TriangleMesh

SUFFIXES = (".ply", ".stl", ".obj")


def load_mesh(path: PathLike) -> TriangleMesh:
    """Load the surface of a PLY, STL or OBJ file; its coordinates are taken as world mm.

    Coincident vertices are merged (STL repeats them) and polygons are split into triangles.
    DataError for a missing or damaged file, one without faces, and a size that cannot be in
    millimetres.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    if Path(path).suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: a mesh file ends in {', '.join(SUFFIXES)}")
    try:
        mesh = cast(trimesh.Trimesh, trimesh.load(Path(path), force="mesh"))
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception as error:  # the parsers of three formats raise anything
        raise DataError(f"{path}: not a readable mesh ({error})") from error
    if len(faces) == 0 or faces.ndim != 2:
        raise DataError(f"{path}: the file holds no faces; a point cloud is not a surface")
    _check_size(path, vertices)
    return TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))


def load_meshes(folder: PathLike) -> dict[str, TriangleMesh]:
    """Load the meshes of a folder by level, from head to foot; files are named L1.ply, T12.stl, ...

    DataError if the folder has no mesh named by its level.
    """
    files = {path.stem.upper(): path for path in sorted(Path(folder).glob("*")) if path.is_file()}
    meshes = {
        level: load_mesh(files[level])
        for level in LABEL_OF_LEVEL
        if level in files and files[level].suffix.lower() in SUFFIXES
    }
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
