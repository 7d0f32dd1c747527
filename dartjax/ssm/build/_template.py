"""Template: one symmetric triangulation in correspondence over all levels, on the host.

It is made once (needs the `build` extra) and packaged; building shape models only loads it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import trimesh
from jaxtyping import Float, Int

from dartjax.ssm._annotate import vertebra_parts
from dartjax.ssm._model import PART_NAMES
from dartjax.ssm.build._build import Topology
from dartjax.ssm.build._correspondence import correspond
from dartjax.ssm.build._gaussian_process import vertex_areas
from dartjax.ssm.build._remesh import SymmetricMesh, half_surface, symmetric_mesh, symmetrized

_Surface = Float[np.ndarray, "_vertex 3"]
_Faces = Int[np.ndarray, "_face 3"]


class Template(NamedTuple):
    """Template: a triangulation and a symmetric surface of each level, vertebra frame, mm."""

    topology: Topology
    level_shapes: dict[str, Float[np.ndarray, "vertex 3"]]


def build_template(
    surfaces: Mapping[str, tuple[_Surface, _Faces]],
    *,
    base: str = "T12",
    num_vertices: int = 2048,
    step: Callable[[str], None] = lambda note: None,
) -> Template:
    """Build a template from one surface per level (head to foot, each in its vertebra frame, mm).

    1. The right half of the `base` level, remeshed and mirrored, is registered level by level
       toward both ends, each level starting from the previous one.
    2. The mean of all levels, scaled to equal area, is remeshed, so that triangles are even at all
       levels, not only at the base.
    3. That mesh is transferred to every level and registered again.
    Parts are decided by majority vote of the levels. ValueError for a surface that is not one
    whole vertebra with an open canal. `step` is called after each registration.
    """
    first = symmetric_mesh(half_surface(*surfaces[base]), num_vertices)
    registered = _register_chain(first, surfaces, base, step)
    second, starts = _remesh_mean(first, registered, num_vertices)
    shapes = {}
    for level, start in starts.items():
        found = correspond(start, second.faces, *surfaces[level]).vertices
        shapes[level] = symmetrized(found, second.mirror)
        step(level)
    votes = [vertebra_parts(shape, second.faces) for shape in shapes.values()]
    return Template(Topology(second.faces, second.mirror, _majority_vote(votes)), shapes)


def _register_chain(
    mesh: SymmetricMesh,
    surfaces: Mapping[str, tuple[_Surface, _Faces]],
    base: str,
    step: Callable[[str], None],
) -> dict[str, _Surface]:
    levels = list(surfaces)
    middle = levels.index(base)
    shapes: dict[str, _Surface] = {}
    for run in (levels[middle:], levels[middle - 1 :: -1] if middle else []):
        start = shapes.get(base, mesh.vertices)
        for level in run:
            found = correspond(start, mesh.faces, *surfaces[level]).vertices
            start = shapes[level] = symmetrized(found, mesh.mirror)
            step(level)
    return {level: shapes[level] for level in levels}


def _remesh_mean(
    mesh: SymmetricMesh, shapes: Mapping[str, _Surface], num_vertices: int
) -> tuple[SymmetricMesh, dict[str, _Surface]]:
    """Remesh the mean shape and transfer the mesh to every level by barycentric weights."""
    area = {level: vertex_areas(shape, mesh.faces).sum() for level, shape in shapes.items()}
    common = np.mean(list(area.values()))
    mean = np.mean([s * np.sqrt(common / area[level]) for level, s in shapes.items()], axis=0)
    right = mesh.faces[: len(mesh.faces) // 2]  # the first half of the faces, by construction
    used, renumbered = np.unique(right, return_inverse=True)
    new = symmetric_mesh((mean[used], renumbered.reshape(-1, 3)), num_vertices)
    surface = trimesh.Trimesh(mean, mesh.faces, process=False)
    closest, _, face = trimesh.proximity.closest_point(surface, new.vertices)
    weights = trimesh.triangles.points_to_barycentric(mean[mesh.faces[face]], closest)
    transferred = {
        level: np.einsum("nc,ncd->nd", weights, shape[mesh.faces[face]])
        for level, shape in shapes.items()
    }
    return new, {level: symmetrized(shape, new.mirror) for level, shape in transferred.items()}


def _majority_vote(votes: Sequence[Int[np.ndarray, " vertex"]]) -> Int[np.ndarray, " vertex"]:
    counts = [np.sum(np.stack(votes) == part, axis=0) for part in range(len(PART_NAMES))]
    return np.argmax(np.stack(counts), axis=0)
