"""Taking the radiographs of a plan: body, vertebrae, technique, collimator and tools.

Arrays are padded to few shapes, so that one compiled program serves most scans.
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
from dartjax.simulation.dataset._files import Radiograph
from dartjax.simulation.dataset._plan import Shot
from dartjax.simulation.dataset._truth import ScanTruth, VertebraTruth

_VOXELS = 64  # a volume's sides are padded to multiples of it
_SOLID_VOXELS = 32  # those of the vertebrae's grids
_SOLIDS = 8  # their number
_AIR = 0.1  # of water's attenuation: what is below all round the body is cut off
_NUM_SAMPLES = {"body": 350, "solid": 96}
_MIN_FIELD = 0.45  # share of the image's sides that the collimator leaves open
# (mesh, material, least and largest part of the path that the tip has gone)
_TOOLS = {
    "cannula": (render.cannula, "steel", (0.0, 0.9)),
    "kirschner_wire": (render.kirschner_wire, "steel", (0.0, 1.0)),
    "pedicle_screw": (render.pedicle_screw, "titanium", (0.8, 1.0)),
}
_OFF_PATH_MM = 2.5  # standard deviation of a tool's tip about the path, along each axis
_OFF_AXIS = 0.08  # of its direction, about 5 degrees


class ScanBody(NamedTuple):
    """A scan ready for the renderer."""

    body: render.XrayBody
    solids: render.Solids
    num_vertebrae: int


def prepare_body(case: data.Case, truth: ScanTruth) -> ScanBody:
    """Prepare attenuation and vertebrae of a case for the renderer, on the host."""
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    solids = render.vertebra_solids(case.labels, affine, [v.label for v in truth.vertebrae])
    return ScanBody(
        render.xray_body(_padded_volume(case.ct)), _padded(solids), len(truth.vertebrae)
    )


def take_radiograph(body: ScanBody, truth: ScanTruth, shot: Shot) -> Radiograph:
    """Take one radiograph, with the thickness of every vertebra.

    The first of each kind of tool, and of each padded shape of scan, compiles a program.
    """
    settings = technique("low_dose" if "low_dose" in shot.variants else "standard", shot.kvp)
    if "collimated" in shot.variants:
        settings = dataclasses.replace(settings, shutters=_shutters(shot.field_key))
    tools, described = _tools(truth, shot)
    image = _expose(body.body, shot.camera, settings, shot.noise_key, tools)
    thickness = _project(body.solids, shot.camera)
    height, width = shot.camera.image_size
    return Radiograph(
        shot=shot,
        image=np.asarray(image),
        thickness=np.asarray(thickness)[: body.num_vertebrae],
        open_field=np.asarray(settings.shutters) * np.array([width, height, width, height]),
        physics=_described(settings, shot),
        tools=described,
    )


@jax.jit
def _shutters(key: PRNGKeyArray) -> Float[Array, "4"]:
    """Edges of a smaller field that keeps the middle of the image."""
    margins = jax.random.uniform(key, (4,), maxval=0.5 * (1.0 - _MIN_FIELD))
    return jnp.where(jnp.arange(4) < 2, margins, 1.0 - margins)


def compiled_program(body: ScanBody, taken: Radiograph) -> tuple[Any, ...]:
    """What tells the compiled programs apart that take radiographs."""
    shapes = body.body.volume.values.shape, body.solids.cells.shape, taken.image.shape
    return (*shapes, *(tool["material"] for tool in taken.tools))


@functools.cache
def technique(preset: str, kvp: float) -> render.XraySettings:
    """Spectrum, dose and detector; kept, since a spectrum takes some tenths of a second."""
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


def _described(settings: render.XraySettings, shot: Shot) -> dict[str, Any]:
    values = {
        "photons_per_pixel": settings.photons_per_pixel,
        "scatter_to_primary": settings.scatter_to_primary,
        "blur_mm": settings.blur_mm,
        "electronic_noise": settings.electronic_noise,
    }
    return {"kvp": shot.kvp} | {name: round(float(value), 4) for name, value in values.items()}


def _tools(truth: ScanTruth, shot: Shot) -> tuple[list[render.Tool], list[dict[str, Any]]]:
    """A tool on its way along a pedicle of the target, a little off the path."""
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
    """World from tool: the tip `parts` of the way along the path, off it and off its axis."""
    how_far, off_tip, off_axis = jax.random.split(jax.random.fold_in(key, 1), 3)
    entry, target = path
    part = jax.random.uniform(how_far, minval=parts[0], maxval=parts[1])
    tip = entry + part * (target - entry) + _OFF_PATH_MM * jax.random.normal(off_tip, (3,))
    axis = (target - entry) / jnp.linalg.norm(target - entry)
    return render.place_along(tip, axis + _OFF_AXIS * jax.random.normal(off_axis, (3,)))


def _padded_mesh(mesh: TriangleMesh, material: str) -> TriangleMesh:
    """The mesh with empty faces, so that all tools of one material have as many."""
    alike = [make() for make, made_of, _ in _TOOLS.values() if made_of == material]
    num_vertices = max(len(each.vertices) for each in alike)
    num_faces = max(len(each.faces) for each in alike)
    return TriangleMesh(
        jnp.pad(mesh.vertices, ((0, num_vertices - len(mesh.vertices)), (0, 0))),
        jnp.pad(mesh.faces, ((0, num_faces - len(mesh.faces)), (0, 0))),
    )


def _path_of(vertebra: VertebraTruth, side: int) -> Float[np.ndarray, "2 3"]:
    """A path of the vertebra, or where one would roughly be, by the patient's axes."""
    if vertebra.paths_world is not None:
        return vertebra.paths_world[side]
    lateral = -1.0 if SIDES[side] == "left" else 1.0
    entry = vertebra.center_world + np.array([22.0 * lateral, -22.0, 5.0])
    return np.stack([entry, vertebra.center_world + np.array([6.0 * lateral, 22.0, 0.0])])


def _padded_volume(ct: Volume) -> Volume:
    """The body without the air around it, its last axis along the patient's (the renderer is
    fastest so), padded with nothing to a common shape."""
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
    padding = [(0, _up_to(side, _VOXELS) - side) for side in values.shape]
    values = np.pad(values, padding)
    return Volume(jnp.asarray(values, jnp.float32), jnp.asarray(affine, jnp.float32))


def _padded(solids: render.Solids) -> render.Solids:
    """More structures, empty ones, and larger grids: the thickness stays as it is."""
    count, *grid = solids.cells.shape
    more = _up_to(count, _SOLIDS) - count
    sides = [(0, _up_to(side, _SOLID_VOXELS) - side) for side in grid]
    empty = jnp.broadcast_to(solids.voxel_from_world[:1], (more, 4, 4))
    return render.Solids(
        cells=jnp.pad(solids.cells, [(0, more), *sides]),
        voxel_from_world=jnp.concatenate([solids.voxel_from_world, empty]),
        size=jnp.pad(solids.size, [(0, more), (0, 0)]),
        labels=jnp.pad(solids.labels, (0, more)),
    )


def _up_to(size: int, step: int) -> int:
    return math.ceil(size / step) * step


def _shift(first: Sequence[int]) -> Float[np.ndarray, "4 4"]:
    matrix = np.eye(4)
    matrix[:3, 3] = first
    return matrix
