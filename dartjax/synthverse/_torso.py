"""A synthetic torso from a seed: five lumbar vertebrae, soft tissue, ribs and bowel gas.

It replaces a CT where none is available. It is constructed anatomy, neither a patient nor part of
a dataset: its results have `dataset_kind` "synthetic".
"""

import itertools

import numpy as np
from jaxtyping import Float, Int16, UInt8
from scipy import ndimage

from dartjax.anatomy import label_of
from dartjax.data import Case, build_case
from dartjax.synthverse._solids import Coordinates, Field, capsule, smooth_min
from dartjax.synthverse._torso_vertebra import SIZES, vertebra

SPACING_MM = 1.2
_SHAPE = (260, 188, 192)
_DISC_MM = 9.0
_TILT_DEG = {"T12": 14.0, "L1": 11.0, "L2": 6.0, "L3": 0.0, "L4": -8.0, "L5": -19.0}
_JOINT_GAP_MM = 1.2
_FAT, _MUSCLE, _ORGAN, _GAS = -95.0, 50.0, 40.0, -850.0
_TRABECULAR, _CORTICAL, _CORTEX_MM = 160.0, 750.0, 1.3
Frames = dict[str, tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]]


def synthetic_case(seed: int = 0) -> Case:
    """Make a torso of 1.2 mm voxels with complete vertebrae L1 to L5 (T12 is cut by the border).

    The seed sets size, curvature, scoliosis, side differences, gas and noise. The sacrum is
    bone without a label. Subject id "synth0000" for seed 0.
    """
    rng = np.random.default_rng(seed)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = -0.5 * SPACING_MM * (np.array(_SHAPE) - 1)
    world = _world_axes(affine)
    frames = _spine(rng)
    labels, bone = _vertebrae(rng, world, frames)
    _add_sacrum(bone, world, frames["L5"])
    _add_ribs(bone, world, frames["T12"])
    hu = _paint_bone(rng, _soft_tissue(rng, world, frames), bone)
    return build_case(
        f"synth{seed:04d}", hu, labels, affine, dataset="synthetic-torso", kind="synthetic"
    )


def _world_axes(affine: Float[np.ndarray, "4 4"]) -> Coordinates:
    """Compute world coordinates along each axis, shaped to broadcast over the grid."""
    x, y, z = (
        (np.arange(n) * SPACING_MM + affine[i, 3]).astype(np.float32) for i, n in enumerate(_SHAPE)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _spine(rng: np.random.Generator) -> Frames:
    """Draw rotation and centre of each vertebra: a lordotic curve with mild scoliosis."""
    lordosis, bend = rng.uniform(0.8, 1.2), rng.uniform(-3.0, 3.0)
    frames: Frames = {}
    center = np.array([0.0, -25.0, 0.5 * SPACING_MM * _SHAPE[2] - 4.0])
    previous = np.array([0.0, 0.0, 1.0])
    gap = 0.0
    for step, (level, size) in enumerate(SIZES.items()):
        tilt, lateral, turn = lordosis * _TILT_DEG[level], bend * np.cos(step), bend * np.sin(step)
        rotation = _rotation(tilt, lateral, turn)
        up = rotation[:, 2]
        center = center - gap * previous - (0.5 * size.height * up if step else 0.0)
        frames[level] = (rotation, center)
        gap, previous = 0.5 * size.height + _DISC_MM, up
    return frames


def _rotation(tilt: float, lateral: float, turn: float) -> Float[np.ndarray, "3 3"]:
    """Compute R_z(turn) R_y(lateral) R_x(tilt), degrees."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([tilt, lateral, turn])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _vertebrae(
    rng: np.random.Generator, world: Coordinates, frames: Frames
) -> tuple[UInt8[np.ndarray, "i j k"], Field]:
    """Make labels and the implicit function of all vertebrae, with joint gaps between them."""
    nearest = np.full(_SHAPE, 20.0, np.float32)
    second = np.full(_SHAPE, 20.0, np.float32)
    labels = np.zeros(_SHAPE, np.uint8)
    growth = rng.uniform(0.95, 1.05)
    for level, (rotation, center) in frames.items():
        right, left = rng.uniform(0.95, 1.05, 2)
        size = SIZES[level].scaled(growth, right=right, left=left)
        box = _box(world, center, (58.0, 80.0, 48.0), (58.0, 32.0, 48.0))
        value = vertebra(size, *_local(world, box, rotation, center))
        second[box] = np.minimum(second[box], np.maximum(nearest[box], value))
        labels[box] = np.where(value < nearest[box], label_of(level), labels[box])
        nearest[box] = np.minimum(nearest[box], value)
    bone = np.maximum(nearest, _JOINT_GAP_MM - second)
    labels[bone >= 0.0] = 0
    return labels, bone


def _box(
    world: Coordinates,
    center: Float[np.ndarray, "3"],
    below: tuple[float, ...],
    above: tuple[float, ...],
) -> tuple[slice, slice, slice]:
    """Compute the grid slices from `center - below` to `center + above`, clipped to the grid."""
    ends = zip(center - np.array(below), center + np.array(above), strict=True)
    x, y, z = (
        slice(*np.searchsorted(axis.ravel(), end).tolist())
        for axis, end in zip(world, ends, strict=True)
    )
    return x, y, z


def _local(
    world: Coordinates,
    box: tuple[slice, slice, slice],
    rotation: Float[np.ndarray, "3 3"],
    center: Float[np.ndarray, "3"],
) -> Coordinates:
    """Compute coordinates of a grid box in a vertebra's frame, with a slight warp."""
    x, y, z = (
        axis[tuple(side if n == i else slice(None) for n, side in enumerate(box))] - c
        for i, (axis, c) in enumerate(zip(world, center.astype(np.float32), strict=True))
    )
    r = rotation.astype(np.float32)
    u, v, w = (x * r[0, i] + y * r[1, i] + z * r[2, i] for i in range(3))
    return u + 0.6 * np.sin(w / 7.0), v + 0.6 * np.sin(u / 9.0), w + 0.6 * np.sin(v / 8.0)


def _add_sacrum(
    bone: Field,
    world: Coordinates,
    l5: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]],
) -> None:
    """Add the sacrum below L5: three rods for the body and the two wings."""
    _, center = l5
    top = center + np.array([0.0, -14.0, -30.0])
    box = _box(world, top, (70.0, 60.0, 40.0), (70.0, 30.0, 14.0))
    x, y, z = _local(world, box, np.eye(3), top)
    value = capsule((x, y, z), (0.0, 2.0, -4.0), (0.0, -22.0, -36.0), (13.0, 11.0))
    wings = capsule((np.abs(x), y, z), (10.0, 0.0, -6.0), (50.0, -12.0, -16.0), (11.0, 13.0))
    bone[box] = np.minimum(bone[box], smooth_min(value, wings, 6.0))


def _add_ribs(
    bone: Field,
    world: Coordinates,
    t12: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]],
) -> None:
    """Add the last two pairs of ribs as chains of rods along descending arcs."""
    _, center = t12
    for start, stop, drop in ((0.0, 1.1, 40.0), (0.55, 2.0, 70.0)):
        angles = np.linspace(start + 0.35, stop + 0.35, 9)
        arc = np.stack([122.0 * np.sin(angles), -78.0 * np.cos(angles)], axis=1)
        height = center[2] - drop * np.linspace(0.0, 1.0, 9) ** 1.3
        points = [(float(a), float(b), float(h)) for (a, b), h in zip(arc, height, strict=True)]
        for (x0, y0, z0), (x1, y1, z1) in itertools.pairwise(points):
            for side in (1.0, -1.0):
                _add_rod(bone, world, (side * x0, y0, z0), (side * x1, y1, z1))


def _add_rod(
    bone: Field,
    world: Coordinates,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
) -> None:
    ends = np.array([start, end])
    middle, reach = ends.mean(0), tuple(0.5 * np.ptp(ends, axis=0) + 12.0)
    box = _box(world, middle, reach, reach)
    x, y, z = _local(world, box, np.eye(3), np.zeros(3))
    bone[box] = np.minimum(bone[box], capsule((x, y, z), start, end, (4.0, 4.0)))


def _soft_tissue(rng: np.random.Generator, world: Coordinates, frames: Frames) -> Field:
    """Make the HU of soft tissue, air and gas."""
    x, y, _ = world
    hu = np.full(_SHAPE, -1000.0, np.float32)
    hu[np.broadcast_to((x / 150.0) ** 2 + (y / 106.0) ** 2 < 1.0, _SHAPE)] = _FAT
    hu[np.broadcast_to((x / 134.0) ** 2 + (y / 92.0) ** 2 < 1.0, _SHAPE)] = _MUSCLE
    cavity = (x / 112.0) ** 2 + ((y - 22.0) / 62.0) ** 2 < 1.0
    hu[np.broadcast_to(cavity, _SHAPE)] = -30.0
    for _, center in frames.values():  # discs and ligaments
        _fill(hu, world, tuple(center), (25.0, 21.0, 26.0), 80.0)
    for side in (1.0, -1.0):  # psoas, then kidney
        _fill(hu, world, (side * 38.0, -22.0, -20.0), (18.0, 20.0, 150.0), _MUSCLE)
        _fill(hu, world, (side * 62.0, -12.0, 45.0 - 8.0 * side), (26.0, 22.0, 52.0), 35.0)
    _fill(hu, world, (75.0, 25.0, 85.0), (60.0, 50.0, 60.0), 60.0)  # liver, on the right
    front = frames["L3"][1][1] + 27.0
    _fill(hu, world, (-9.0, front, 0.0), (9.0, 9.0, 900.0), _ORGAN)  # aorta, left of the middle
    _fill(hu, world, (14.0, front, 0.0), (11.0, 8.0, 900.0), _ORGAN)
    for _ in range(14):
        place = rng.uniform((-95.0, 25.0, -100.0), (95.0, 68.0, 80.0))
        _fill(hu, world, tuple(place), tuple(rng.uniform(5.0, 15.0, 3)), _GAS)
    return hu


def _fill(
    hu: Field,
    world: Coordinates,
    center: tuple[float, ...],
    radii: tuple[float, ...],
    value: float,
) -> None:
    """Set an ellipsoid inside the body to one value."""
    middle, reach = np.array(center), np.array(radii)
    box = _box(world, middle, radii, radii)
    x, y, z = _local(world, box, np.eye(3), middle)
    inside = (x / reach[0]) ** 2 + (y / reach[1]) ** 2 + (z / reach[2]) ** 2 < 1.0
    hu[box] = np.where(inside & (hu[box] > -500.0), value, hu[box])


def _paint_bone(rng: np.random.Generator, hu: Field, bone: Field) -> Int16[np.ndarray, "i j k"]:
    """Paint cortex and trabecular bone over soft tissue, with partial volume and noise."""
    texture = ndimage.gaussian_filter(rng.standard_normal(_SHAPE, np.float32), 1.5)
    trabecular = _TRABECULAR + 400.0 * texture
    depth = np.clip((-bone - 0.5 * _CORTEX_MM) / _CORTEX_MM, 0.0, 1.0)
    mineral = _CORTICAL + depth * (trabecular - _CORTICAL)
    share = np.clip(0.5 - bone / SPACING_MM, 0.0, 1.0)
    blurred = ndimage.gaussian_filter(hu, 0.6)
    noisy = blurred + share * (mineral - blurred)
    noisy += 12.0 * rng.standard_normal(_SHAPE, np.float32)
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
