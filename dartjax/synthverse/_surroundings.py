"""A synthetic body around a real CT that is cropped to a few vertebrae, for radiographs.

The spine of the body passes through the real vertebrae: the poses of the others follow from the
prior of the spine. Around its complete vertebrae the CT replaces the body, with a soft border;
vertebrae that the CT cuts are synthetic.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from dartjax import data, ssm
from dartjax._errors import DataError
from dartjax.image import Volume
from dartjax.synthverse._body import Anatomy, Body, draw_body, paint_body, trunk_around
from dartjax.synthverse._ct import Scan, scan
from dartjax.synthverse._grid import Grid
from dartjax.synthverse._shape import Bounds, VertebraShape, parametric_shape
from dartjax.synthverse._sizes import LEVELS, draw_person
from dartjax.synthverse._spine import SACRUM, draw_alignment, poses
from dartjax.synthverse._warp import random_warp
from dartjax.transforms import SE3, from_matrix

Frames = Mapping[str, Float[np.ndarray, "4 4"]]
_BORDER_MM = 6.0  # over which the crop fades toward its border
_NEAR_MM, _FAR_MM = 7.0, 20.0  # the CT is shown up to here around its vertebrae, and fades to here
_REACH_MM = 210.0  # of the body above and below the real vertebrae
_WARP = ((30.0, 0.6), (14.0, 0.3))


def body_around(case: data.Case, frames: Frames, seed: int = 0, spacing_mm: float = 1.0) -> Volume:
    """Place the CT of a case into a synthetic body, in the world frame of the case.

    `frames` are world_from_vertebra of its complete levels. The person depends on the seed and on
    the subject. DataError without a level of the prior of the spine.
    """
    rng = np.random.default_rng([seed, *case.subject.encode()])
    streams = rng.spawn(5)
    T_body_world = _body_axes(frames)
    inside = {level: T_body_world @ frame for level, frame in frames.items()}
    anatomy = _anatomy(streams[0], inside, case.subject)
    heights = [float(frame[2, 3]) for frame in inside.values()]
    ends = sorted(float(anatomy.frames[level][2, 3]) for level in ("C7", SACRUM))
    low = max(min(heights) - _REACH_MM, ends[0] - 140.0)
    high = min(max(heights) + _REACH_MM, ends[1] + 20.0)
    deeper = _deeper_back(anatomy, case, T_body_world)
    trunk = trunk_around(streams[2], anatomy, low, high, deeper)
    body = draw_body(streams[1], anatomy, trunk)
    nothing = dataclasses.replace(body.devices, screws=(), cement=())
    body = body._replace(devices=nothing)
    grid = _grid(body, low, high, spacing_mm)
    hu, labels = paint_body(grid, anatomy, body, streams[3], without=case.levels)
    quality = Scan(slices=1, noise_hu=12.0, kernel_mm=0.6)
    hu, labels, affine = scan(hu, labels, grid, quality, streams[4])
    affine = np.linalg.inv(T_body_world) @ affine
    values = _inserted(data.hu_to_attenuation(hu), labels, affine, case)
    return Volume(jnp.asarray(values), jnp.asarray(affine, jnp.float32))


def _body_axes(frames: Frames) -> Float[np.ndarray, "4 4"]:
    """Compute body_from_world: z stays up, x follows the vertebrae, the spine is near x = y = 0."""
    across = np.mean([frame[:3, 0] for frame in frames.values()], axis=0)
    across = np.array([across[0], across[1], 0.0]) / np.hypot(across[0], across[1])
    axes = np.stack([across, np.cross([0.0, 0.0, 1.0], across), [0.0, 0.0, 1.0]])
    center = np.mean([frame[:3, 3] for frame in frames.values()], axis=0)
    T_body_world = np.eye(4)
    T_body_world[:3, :3], T_body_world[:3, 3] = axes, -axes @ center
    return T_body_world


def _anatomy(rng: np.random.Generator, real: Frames, subject: str) -> Anatomy:
    """Draw a person whose spine passes through the real vertebrae."""
    own, curve, warps = rng.spawn(3)
    person = draw_person(own)
    alignment = draw_alignment(curve, person.sex, person.age)
    shapes = {level: parametric_shape(level, person.forms[level]) for level in LEVELS}
    drawn = poses(alignment, {level: shape.heights() for level, shape in shapes.items()})
    frames = _completed(real, drawn, subject)
    size = _length(frames) / _length(drawn)
    shapes = {level: _scaled(shape, size) for level, shape in shapes.items()}
    return Anatomy(
        person, alignment, shapes, frames, {level: random_warp(warps, _WARP) for level in LEVELS}
    )


def _completed(real: Frames, drawn: Frames, subject: str) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Compute the frames of all levels, C7 and the sacrum from those of the real ones. C7 and the
    sacrum continue the spine as in the drawn person."""
    prior = data.load_spine_prior(exclude=[subject])
    known = np.array([level in real for level in ssm.SPINE_LEVELS])
    if not known.any():
        raise DataError(f"{subject}: no complete level from T1 to L5 to place into a body")
    axes = np.stack([real.get(level, np.eye(4)) for level in ssm.SPINE_LEVELS])
    own = jax.vmap(lambda frame, mark: from_matrix(frame) @ mark)(
        jnp.asarray(axes, jnp.float32), prior.T_vertebra_frame
    )
    estimate = ssm.condition_spine(prior, own, jnp.asarray(known))
    expected = ssm.expected_frames(estimate, own, jnp.asarray(known)).T_world_frame
    found = jax.vmap(lambda frame, mark: frame @ mark.inverse())(expected, prior.T_vertebra_frame)
    matrices = np.asarray(jax.vmap(SE3.as_matrix)(found), np.float64)
    frames = dict(zip(ssm.SPINE_LEVELS, matrices, strict=True)) | dict(real)
    frames["C7"] = frames["T1"] @ np.linalg.inv(drawn["T1"]) @ drawn["C7"]
    frames[SACRUM] = frames["L5"] @ np.linalg.inv(drawn["L5"]) @ drawn[SACRUM]
    return {level: frames[level] for level in (*LEVELS, SACRUM)}


def _length(frames: Frames) -> float:
    """Compute the length of the spine along the centres of T1 to L5, mm."""
    centers = np.array([frames[level][:3, 3] for level in LEVELS[1:]])
    return float(np.linalg.norm(np.diff(centers, axis=0), axis=1).sum())


def _scaled(shape: VertebraShape, size: float) -> VertebraShape:
    """Scale a vertebra."""
    bounds = shape.bounds
    scaled = Bounds(
        *(tuple(size * v for v in b) if isinstance(b, tuple) else size * b for b in bounds)  # pyright: ignore
    )
    factor = np.float32(size)
    return dataclasses.replace(
        shape,
        distance=lambda x, y, z: factor * shape.distance(x / factor, y / factor, z / factor),
        bounds=scaled,
    )


def _grid(body: Body, low: float, high: float, spacing: float) -> Grid:
    """Make the grid of the body between two heights, at most 460 mm wide."""
    trunk = body.trunk
    inside = (trunk.z > low) & (trunk.z < high)
    half = min(float((np.abs(trunk.spine_x) + trunk.outer_half_width)[inside].max()) + 8.0, 230.0)
    front = float((trunk.spine_y + trunk.outer_front)[inside].max()) + body.patient.breast_mm + 8.0
    back = float((trunk.spine_y - trunk.outer_back)[inside].min()) - 16.0
    nx, ny, nz = (int(np.ceil(side / spacing)) for side in (2 * half, front - back, high - low))
    return Grid((-0.5 * spacing * (nx - 1), back, low), (nx, ny, nz), spacing)


def _deeper_back(
    anatomy: Anatomy, case: data.Case, T_body_world: Float[np.ndarray, "4 4"]
) -> float:
    """Compute how far the real spinous processes reach behind those of the person, mm."""
    body_from_voxel = T_body_world @ np.asarray(case.ct.world_from_voxel, np.float64)
    excess = [0.0]
    for level in set(case.levels) & set(LEVELS):
        voxels = np.argwhere(case.labels == case.label_of(level))
        back = (voxels @ body_from_voxel[1, :3] + body_from_voxel[1, 3]).min()
        excess.append(anatomy.frames[level][1, 3] + anatomy.shapes[level].bounds.back - back)
    return float(max(excess))


def _inserted(
    values: Float[np.ndarray, "i j k"],
    labels: UInt8[np.ndarray, "i j k"],
    affine: Float[np.ndarray, "4 4"],
    case: data.Case,
) -> Float[np.ndarray, "i j k"]:
    """Insert the CT of a case around its complete vertebrae into a body with world_from_voxel
    `affine`; `labels` are those of the synthetic vertebrae."""
    real, own = np.asarray(case.ct.values), np.asarray(case.ct.world_from_voxel, np.float64)
    spacing = np.linalg.norm(own[:3, :3], axis=0)
    bone = np.isin(case.labels, [case.label_of(level) for level in case.levels])
    away = np.asarray(ndimage.distance_transform_edt(~bone, spacing), np.float32)
    box, turn, offset = _overlap(np.linalg.inv(own) @ affine, real.shape, values.shape)
    present, away, inserted = (
        ndimage.affine_transform(
            part,
            turn,
            offset,  # pyright: ignore[reportArgumentType]
            values[box].shape,
            np.float32,
            order=1,
            cval=c,
        )
        for part, c in ((_depth(real, spacing) / _BORDER_MM, 0.0), (away, 1e3), (real, 0.0))
    )
    step = np.linalg.norm(affine[:3, :3], axis=0)
    others = np.asarray(ndimage.distance_transform_edt(labels[box] == 0, step), np.float32)
    near = (_FAR_MM - away) / (_FAR_MM - _NEAR_MM)
    own_side = np.where(away < 0.5, 1.0, 0.5 + (others - away) / 4.0)
    share = np.prod([_smooth(part) for part in (present, near, own_side)], axis=0)
    values[box] += share * (inserted - values[box])
    return values


def _overlap(
    real_from_voxel: Float[np.ndarray, "4 4"], real: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Compute the box of a grid that contains another grid, and the map of its voxels to those of
    the other grid (matrix, offset)."""
    corners = np.array(np.meshgrid(*((-0.5, n - 0.5) for n in real))).reshape(3, -1)
    voxel_from_real = np.linalg.inv(real_from_voxel)
    place = voxel_from_real[:3, :3] @ corners + voxel_from_real[:3, 3:]
    low = np.clip(np.floor(place.min(1)).astype(int), 0, shape)
    high = np.clip(np.ceil(place.max(1)).astype(int) + 1, 0, shape)
    turn = real_from_voxel[:3, :3]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return box, turn, turn @ low + real_from_voxel[:3, 3]


def _depth(
    real: Float[np.ndarray, "i j k"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "i j k"]:
    """Compute the distance to the border of a crop, mm. Air that reaches the border is no data."""
    parts = np.empty(np.add(real.shape, 2), np.int32)
    ndimage.label(np.pad(real <= 0.0, 1, constant_values=True), output=parts)
    depth = ndimage.distance_transform_edt(parts != parts[0, 0, 0], spacing)
    return np.asarray(depth, np.float32)[1:-1, 1:-1, 1:-1]


def _smooth(share: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    """Apply a smooth step from 0 to 1."""
    share = np.clip(share, np.float32(0.0), np.float32(1.0))
    return share * share * (3.0 - 2.0 * share)
