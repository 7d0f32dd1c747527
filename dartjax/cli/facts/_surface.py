"""Describe a surface (PLY, STL, OBJ): size, volume, whether it is closed."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import trimesh

from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.cli.facts._facts import FileFacts, rounded
from dartjax.data import formats

_SIZE_MM = (1.0, 2000.0)


def surface_facts(path: Path) -> FileFacts:
    """Describe a mesh file. DataError if it cannot be read or has no faces."""
    try:
        mesh = cast(trimesh.Trimesh, trimesh.load(path, force="mesh"))
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    except Exception as error:  # the parsers of three formats raise anything
        raise DataError(f"{path}: not a readable mesh, truncated or damaged ({error})") from error
    if len(faces) == 0 or faces.ndim != 2:
        raise DataError(f"{path}: the file holds no faces; a point cloud is not a surface")
    facts: dict[str, Any] = {"vertices": len(vertices), "faces": len(faces)}
    if not np.isfinite(vertices).all():
        return FileFacts(str(path), "mesh", facts, ["cannot be used: vertices are NaN or infinite"])
    closed = bool(mesh.is_watertight)
    level = path.stem.upper() if path.stem.upper() in LABEL_OF_LEVEL else None
    facts |= {
        "level_by_name": level,
        "closed": closed,
        "size_mm": rounded(np.ptp(vertices, axis=0), 1),
        "box_from_mm": rounded(vertices.min(0), 1),
        "box_to_mm": rounded(vertices.max(0), 1),
        "volume_cm3": rounded(mesh.volume / 1000.0, 2) if closed else None,
    }
    notes = [
        "coordinates are taken as world mm, RAS+; files of 3D Slicer may be LPS: then x and y have "
        "the other sign"
    ]
    return FileFacts(str(path), "mesh", facts, _warnings(path, mesh, vertices, closed), notes)


def _warnings(path: Path, mesh: trimesh.Trimesh, vertices: np.ndarray, closed: bool) -> list[str]:
    found = []
    size = float(np.ptp(vertices, axis=0).max())
    if not _SIZE_MM[0] <= size <= _SIZE_MM[1]:
        found.append(
            f"cannot be used: {size:.3g} across is not a size in mm: scale it to millimetres"
        )
    if not closed:
        found.append(
            "cannot be used: the surface is not closed: volumes and overlaps cannot be computed"
        )
    elif mesh.volume < 0.0:
        found.append("cannot be used: the faces point inward: flip them")
    return found or _refusal(path)


def _refusal(path: Path) -> list[str]:
    """Return why the reader of meshes refuses a file that looks usable, if it does."""
    try:
        formats.load_mesh(path)
    except DataError as error:
        return [f"cannot be used: {str(error).removeprefix(f'{path}: ')}"]
    return []
