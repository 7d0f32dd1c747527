"""Simulation of planned radiographs: body, vertebrae, technique, collimator and tools.

Arrays are padded to a few shapes, so that one compiled program serves most scans.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from dartjax import data, render, transforms
from dartjax.camera import Camera
from dartjax.image import Volume
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES
from dartjax.simulation.dataset._bodies import VertebraPoints, project_bodies, vertebra_points
from dartjax.simulation.dataset._files import Radiograph
from dartjax.simulation.dataset._plan import Shot
from dartjax.simulation.dataset._truth import ScanTruth, VertebraTruth

_VOXELS = 64  # sides of volumes are padded to multiples of it
_SOLID_VOXELS = 32  # sides of the vertebrae's grids are padded to multiples of it
_SOLIDS = 8  # the number of vertebrae is padded to multiples of it
_AIR = 0.1  # of water's attenuation: below it, voxels around the body are cropped
_NUM_SAMPLES = {"body": 350, "solid": 96}
_MIN_FIELD = 0.45  # smallest open fraction of the image's sides
# (mesh, material, smallest and largest fraction of the path up to the tip)
_TOOLS = {
    "cannula": (render.cannula, "steel", (0.0, 0.9)),
    "kirschner_wire": (render.kirschner_wire, "steel", (0.0, 1.0)),
    "pedicle_screw": (render.pedicle_screw, "titanium", (0.8, 1.0)),
}
_OFF_PATH_MM = 2.5  # standard deviation of a tool's tip from the path, per axis
_OFF_AXIS = 0.08  # standard deviation of its direction, about 5 degrees


class ScanBody(NamedTuple):
    """Scan prepared for the renderer."""

    body: render.XrayBody
    solids: render.Solids
    num_vertebrae: int
    points: VertebraPoints


def prepare_body(case: data.Case, truth: ScanTruth) -> ScanBody:
    """Prepare the attenuation and the vertebrae of a case for the renderer, on the host."""
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    levels = [vertebra.label for vertebra in truth.vertebrae]
    solids = render.vertebra_solids(case.labels, affine, levels)
    return ScanBody(
        render.xray_body(_padded_volume(case.ct)),
        _padded(solids),
        len(levels),
        vertebra_points(np.asarray(case.labels), affine, levels),
    )


def take_radiograph(body: ScanBody, truth: ScanTruth, shot: Shot) -> Radiograph:
    """Simulate one radiograph, with the thickness of every vertebra.

    A program is compiled for each material of tool and each padded shape of scan.
    """
    settings = technique("low_dose" if "low_dose" in shot.variants else "standard", shot.kvp)
    if "collimated" in shot.variants:
        settings = dataclasses.replace(settings, shutters=_shutters(shot.field_key))
    tools, tool_entries = _tools(truth, shot)
    image = _expose(body.body, shot.camera, settings, shot.noise_key, tools)
    thickness = _project(body.solids, shot.camera)
    height, width = shot.camera.image_size
    open_field = np.asarray(settings.shutters) * np.array([width, height, width, height])
    return Radiograph(
        shot=shot,
        image=np.asarray(image),
        thickness=np.asarray(thickness)[: body.num_vertebrae],
        open_field=open_field,
        bodies=project_bodies(body.points, shot.camera, open_field),
        physics=_physics_entry(settings, shot),
        tools=tool_entries,
    )


@jax.jit
def _shutters(key: PRNGKeyArray) -> Float[Array, "4"]:
    """Edges of a collimated field that contains the middle of the image."""
    margins = jax.random.uniform(key, (4,), maxval=0.5 * (1.0 - _MIN_FIELD))
    return jnp.where(jnp.arange(4) < 2, margins, 1.0 - margins)


def compiled_program(body: ScanBody, taken: Radiograph) -> tuple[Any, ...]:
    """Return the key of the compiled program that simulates a radiograph."""
    shapes = body.body.volume.values.shape, body.solids.cells.shape, taken.image.shape
    return (*shapes, *(tool["material"] for tool in taken.tools))


@functools.cache
def technique(preset: str, kvp: float) -> render.XraySettings:
    """Build spectrum, dose and detector; cached, since a spectrum takes some tenths of a second."""
    return render.xray_settings(preset, kvp=kvp, num_samples=_NUM_SAMPLES["body"])


@eqx.filter_jit
def _expose(
    body: render.XrayBody,
    camera: Camera,
    settings: render.XraySettings,
    key: PRNGKeyArray,
    tools: Sequence[render.Tool],
) -> Float[Array, "h w"]:
    return render.simulate_radiograph(body, camera, settings, key=key, tools=tools).image


@jax.jit
def _project(solids: render.Solids, camera: Camera) -> Float[Array, "vertebra h w"]:
    return render.project_solids(solids, camera, num_samples=_NUM_SAMPLES["solid"])


def _physics_entry(settings: render.XraySettings, shot: Shot) -> dict[str, Any]:
    values = {
        "photons_per_pixel": settings.photons_per_pixel,
        "scatter_to_primary": settings.scatter_to_primary,
        "blur_mm": settings.blur_mm,
        "electronic_noise": settings.electronic_noise,
    }
    return {"kvp": shot.kvp} | {name: round(float(value), 4) for name, value in values.items()}


def _tools(truth: ScanTruth, shot: Shot) -> tuple[list[render.Tool], list[dict[str, Any]]]:
    """Tool along a pedicle of the target, with a random deviation from the path."""
    if "tool" not in shot.variants:
        return [], []
    vertebra = next(v for v in truth.vertebrae if v.level == shot.target)
    choice = int(_choice(shot.tool_key))
    kind, side = list(_TOOLS)[choice // len(SIDES)], choice % len(SIDES)
    mesh, material, parts = _TOOLS[kind]
    path = np.asarray(_path_of(vertebra, side), np.float32)
    world_from_tool = _placed(shot.tool_key, path, np.asarray(parts, np.float32))
    tool = render.Tool(_padded_mesh(mesh(), material), world_from_tool, material)
    matrix = np.asarray(world_from_tool.as_matrix(), np.float64)
    description = {
        "kind": kind,
        "material": material,
        "level": vertebra.level,
        "side": SIDES[side],
        "world_from_tool": np.round(matrix, 5).tolist(),
    }
    return [tool], [description]


@jax.jit
def _choice(key: PRNGKeyArray) -> Int[Array, ""]:
    """Kind and side of the tool."""
    return jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(_TOOLS) * len(SIDES))


@jax.jit
def _placed(
    key: PRNGKeyArray, path: Float[Array, "end 3"], parts: Float[Array, "2"]
) -> transforms.SE3:
    """World from tool: the tip at a random fraction (within `parts`) of the path, with random
    errors of position and direction."""
    how_far, off_tip, off_axis = jax.random.split(jax.random.fold_in(key, 1), 3)
    entry, target = path
    part = jax.random.uniform(how_far, minval=parts[0], maxval=parts[1])
    tip = entry + part * (target - entry) + _OFF_PATH_MM * jax.random.normal(off_tip, (3,))
    axis = (target - entry) / jnp.linalg.norm(target - entry)
    return render.place_along(tip, axis + _OFF_AXIS * jax.random.normal(off_axis, (3,)))


def _padded_mesh(mesh: TriangleMesh, material: str) -> TriangleMesh:
    """Mesh padded with empty faces, so that all tools of one material have equal shapes."""
    same_material = [make() for make, made_of, _ in _TOOLS.values() if made_of == material]
    num_vertices = max(len(other.vertices) for other in same_material)
    num_faces = max(len(other.faces) for other in same_material)
    return TriangleMesh(
        jnp.pad(mesh.vertices, ((0, num_vertices - len(mesh.vertices)), (0, 0))),
        jnp.pad(mesh.faces, ((0, num_faces - len(mesh.faces)), (0, 0))),
    )


def _path_of(vertebra: VertebraTruth, side: int) -> Float[np.ndarray, "2 3"]:
    """Path of the vertebra, or an approximate one from the patient's axes."""
    if vertebra.paths_world is not None:
        return vertebra.paths_world[side]
    lateral = -1.0 if SIDES[side] == "left" else 1.0
    entry = vertebra.center_world + np.array([22.0 * lateral, -22.0, 5.0])
    return np.stack([entry, vertebra.center_world + np.array([6.0 * lateral, 22.0, 0.0])])


def _padded_volume(ct: Volume) -> Volume:
    """Body cropped to remove air, with its last axis along the patient's (which is fastest to
    render), padded with zeros to a common shape."""
    values, affine = np.asarray(ct.values), np.asarray(ct.world_from_voxel, np.float64)
    along = np.argmax(np.abs(affine[:3, :3]), axis=0)  # world axis of each voxel axis
    if sorted(along) == [0, 1, 2]:
        order = np.argsort(along)
        values, affine = values.transpose(order), affine[:, [*order, 3]]
    dense = values > _AIR * data.hu_to_attenuation(np.zeros(1))[0]
    spans = [np.flatnonzero(dense.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    if len(spans[0]):
        first = [max(int(span[0]) - 1, 0) for span in spans]
        values = values[tuple(slice(f, int(s[-1]) + 2) for f, s in zip(first, spans, strict=True))]
        affine = affine @ _shift(first)
    padding = [(0, _round_up(side, _VOXELS) - side) for side in values.shape]
    values = np.pad(values, padding)
    return Volume(jnp.asarray(values, jnp.float32), jnp.asarray(affine, jnp.float32))


def _padded(solids: render.Solids) -> render.Solids:
    """Vertebrae padded with empty structures and larger grids; the thickness does not change."""
    count, *grid = solids.cells.shape
    more = _round_up(count, _SOLIDS) - count
    sides = [(0, _round_up(side, _SOLID_VOXELS) - side) for side in grid]
    empty = jnp.broadcast_to(solids.voxel_from_world[:1], (more, 4, 4))
    return render.Solids(
        cells=jnp.pad(solids.cells, [(0, more), *sides]),
        voxel_from_world=jnp.concatenate([solids.voxel_from_world, empty]),
        size=jnp.pad(solids.size, [(0, more), (0, 0)]),
        labels=jnp.pad(solids.labels, (0, more)),
    )


def _round_up(size: int, step: int) -> int:
    return math.ceil(size / step) * step


def _shift(first: Sequence[int]) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    matrix[:3, 3] = first
    return matrix
