"""Encode surfaces and needle paths as compact JSON for the 3D viewer of a report.

Vertices are quantised to 16 bits over each mesh's box (under 2 micrometres for a vertebra).
Vertices and faces are written in base64. The viewer computes the normals.
"""

import base64
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int

from dartjax.report._figures import AFTER

HostPoint = Float[np.ndarray, "3"] | Float[Array, "3"]
HostVertices = Float[np.ndarray, "vertex 3"] | Float[Array, "vertex 3"]
HostFaces = Int[np.ndarray, "face 3"] | Int[Array, "face 3"]


@dataclasses.dataclass(frozen=True)
class ViewerMesh:
    """Surface in world RAS+ mm.

    `layer` groups the meshes of all levels ("reconstruction", "ground truth"). The viewer has one
    switch and one opacity per layer, taken from its first mesh.
    """

    level: str
    layer: str
    vertices: HostVertices
    faces: HostFaces
    colour: str = AFTER  # "#rrggbb"
    opacity: float = 1.0
    visible: bool = True


@dataclasses.dataclass(frozen=True)
class ViewerPath:
    """Straight needle path, drawn as a cylinder; points in world RAS+ mm, radius in mm."""

    level: str
    entry_point: HostPoint
    target_point: HostPoint
    radius: float
    colour: str = "#f43f5e"
    layer: str = "needle paths"
    visible: bool = True


def decimate(
    vertices: HostVertices, faces: HostFaces, max_faces: int
) -> tuple[Float[np.ndarray, "vertex_out 3"], Int[np.ndarray, "face_out 3"]]:
    """Simplify a surface to at most `max_faces` faces, for display only.

    Vertices in one cell of a cubic grid are replaced by their mean (Rossignac and Borrel 1993); the
    cell is the smallest that meets the limit. Topology may change: do not measure on the result.
    """
    points, triangles = np.asarray(vertices, np.float64), np.asarray(faces)
    if len(triangles) <= max_faces:
        return points, triangles
    extent = float(np.ptp(points, axis=0).max())
    fine, coarse = extent / 2048.0, extent
    best = _cluster(points, triangles, coarse)
    for _ in range(12):
        cell = np.sqrt(fine * coarse)
        trial = _cluster(points, triangles, cell)
        if len(trial[1]) <= max_faces:
            best, coarse = trial, cell
        else:
            fine = cell
    return best


def scene_json(meshes: Sequence[ViewerMesh], paths: Sequence[ViewerPath]) -> str:
    """Encode a scene as JSON that is safe inside a <script> element."""
    scene = {"meshes": [_mesh(m) for m in meshes], "paths": [_path(p) for p in paths]}
    # "</script>" inside a string would end the element.
    return json.dumps(scene, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")


def _cluster(points: np.ndarray, triangles: np.ndarray, cell: float):
    index = np.floor((points - points.min(0)) / cell).astype(np.int64)
    index = np.ravel_multi_index(tuple(index.T), tuple(index.max(0) + 1))
    _, cluster, counts = np.unique(index, return_inverse=True, return_counts=True)
    sums = [np.bincount(cluster, points[:, axis], len(counts)) for axis in range(3)]
    merged = cluster[triangles]
    # Drop triangles that lost a corner, and duplicates.
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (c != a)]
    low, middle, high = np.sort(merged, axis=1).T
    _, first = np.unique((low * len(counts) + middle) * len(counts) + high, return_index=True)
    return np.stack(sums, axis=1) / counts[:, None], merged[np.sort(first)]


def _mesh(mesh: ViewerMesh) -> dict[str, Any]:
    vertices = _finite(mesh.vertices, f"{mesh.layer} of {mesh.level}")
    faces = np.asarray(mesh.faces)
    low = vertices.min(0)
    step = np.maximum(np.ptp(vertices, axis=0), 1e-6) / 65535.0
    wide = len(vertices) > 65536
    return {
        "level": mesh.level,
        "layer": mesh.layer,
        "colour": mesh.colour,
        "opacity": mesh.opacity,
        "visible": mesh.visible,
        "origin": low.tolist(),
        "step": step.tolist(),
        "vertices": _base64(np.rint((vertices - low) / step).astype("<u2")),
        "wide": wide,
        "faces": _base64(faces.astype("<u4" if wide else "<u2")),
    }


def _path(path: ViewerPath) -> dict[str, Any]:
    name = f"{path.layer} of {path.level}"
    return {
        "level": path.level,
        "layer": path.layer,
        "colour": path.colour,
        "opacity": 1.0,
        "visible": path.visible,
        "entry": _finite(path.entry_point, name).tolist(),
        "target": _finite(path.target_point, name).tolist(),
        "radius": float(path.radius),
    }


def _finite(values: HostPoint | HostVertices, name: str) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: coordinates are missing or not finite; remove it from the scene")
    return array


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
