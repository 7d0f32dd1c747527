"""Devices in and on a patient: electrodes with cables, catheter, pacemaker, sternal wires, pedicle
screws with rods, and bone cement. HU are those of a CT whose scale ends at 3071."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from dartjax.synthverse._grid import Grid, is_empty
from dartjax.synthverse._shape import VertebraShape, frame_coordinates
from dartjax.synthverse._sizes import LEVELS
from dartjax.synthverse._solids import Field, capsule, ellipsoid, shifted
from dartjax.synthverse._trunk import Trunk

METAL, CEMENT, PLASTIC = 3050.0, 1700.0, 900.0
_ROD_MM, _HEAD_MM = 2.8, 6.0
Frames = Mapping[str, Float[np.ndarray, "4 4"]]


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices of one patient; `screws` and `cement` are levels."""

    electrodes: int
    catheter: bool
    pacemaker: bool
    sternal_wires: bool
    screws: tuple[str, ...]
    cement: tuple[str, ...]


def draw_devices(rng: np.random.Generator, age: float, fractured: tuple[str, ...]) -> Devices:
    """Draw the devices of a patient: electrodes in two of five, pedicle screws in one of twelve;
    the others are rarer, and more frequent in old people."""
    old = float(np.clip((age - 45.0) / 40.0, 0.0, 1.0))
    number, first = int(rng.integers(2, 5)), int(rng.integers(4, len(LEVELS) - 4))
    chance = rng.random(6)
    return Devices(
        electrodes=int(rng.integers(3, 6)) if chance[0] < 0.4 else 0,
        catheter=bool(chance[1] < 0.12),
        pacemaker=bool(chance[2] < 0.08 * old),
        sternal_wires=bool(chance[3] < 0.1 * old),
        screws=LEVELS[first : first + number] if chance[4] < 1.0 / 12.0 else (),
        cement=fractured if chance[5] < 0.25 else (),
    )


def paint_devices(
    hu: Field,
    grid: Grid,
    trunk: Trunk,
    devices: Devices,
    shapes: Mapping[str, VertebraShape],
    frames: Frames,
    rng: np.random.Generator,
) -> None:
    """Paint the devices over a finished trunk, in place."""
    _cement(hu, grid, devices.cement, shapes, frames, rng)
    _screws(hu, grid, devices.screws, shapes, frames)
    for _ in range(devices.electrodes):
        _electrode(hu, grid, trunk, rng)
    upper, lower = trunk.level_z["T3"], trunk.level_z["T6"]
    vein = np.array(
        [
            [34.0, trunk.value("spine_y", upper + 60.0) + 46.0, upper + 90.0],
            [22.0, trunk.value("spine_y", upper) + 50.0, upper + 20.0],
            [20.0, trunk.value("spine_y", lower) + 52.0, lower],
        ]
    )
    if devices.catheter:
        _wire(hu, grid, vein, 1.2, PLASTIC)
    if devices.pacemaker:
        _pacemaker(hu, grid, trunk, vein)
    if devices.sternal_wires:
        for z in np.linspace(upper, trunk.level_z["T8"], 5):
            front = trunk.inner_point(np.array([np.pi]), np.array([z]), 5.0)[0]
            ring = front + np.array([[-9.0, 7.0, 0.0], [9.0, 7.0, 2.0], [9.0, -7.0, 0.0]])
            _wire(hu, grid, ring, 0.7, METAL)


def _cement(hu, grid: Grid, levels, shapes, frames: Frames, rng: np.random.Generator) -> None:
    """Fill the body with a few overlapping clouds."""
    for level in levels:
        b = shapes[level].bounds
        for side in (1.0, -1.0):
            center = np.array([side * 0.3 * b.half_width, 0.35 * b.front, 0.0])
            center += rng.normal(0.0, 1.5, 3)
            radii = rng.uniform(0.25, 0.42) * np.array([b.half_width, b.front, 0.9 * b.upper])
            box = grid.around(frames[level][:3, 3], 40.0)
            if is_empty(box):
                continue
            local = frame_coordinates(frames[level], *grid.coordinates(box))
            _lay(hu, grid, box, ellipsoid(local, center, radii), CEMENT)


def _screws(hu, grid: Grid, levels, shapes, frames: Frames) -> None:
    """Place a screw in each pedicle, and a rod through the heads of each side."""
    for side in (1.0, -1.0):
        heads = []
        for level in levels:
            b = shapes[level].bounds
            across, half = b.pedicle
            radius = float(np.clip(0.8 * half, 2.0, 3.4))
            high = 0.35 * b.upper
            head = np.array([side * (across + 5.0), b.wall - 24.0, high + 1.0])
            tip = np.array([side * (across - 6.0), 0.55 * b.front, high - 1.0])
            head, tip = (frames[level][:3, :3] @ p + frames[level][:3, 3] for p in (head, tip))
            _wire(hu, grid, np.stack([head, tip]), radius, METAL)
            heads.append(head)
            _wire(hu, grid, np.stack([head, shifted(head, (0.0, -9.0, 0.0))]), _HEAD_MM, METAL)
        if len(heads) > 1:
            _wire(hu, grid, shifted(np.stack(heads), (0.0, -6.0, 0.0)), _ROD_MM, METAL)


def _electrode(hu, grid: Grid, trunk: Trunk, rng: np.random.Generator) -> None:
    """Place an electrode on the front of the chest, with a cable that runs upward over the skin."""
    x = rng.uniform(-0.75, 0.75) * trunk.value("half_width", trunk.level_z["T6"])
    z = rng.uniform(trunk.level_z["T10"], trunk.level_z["T3"])
    steps = np.arange(0.0, 260.0, 14.0)
    path = [np.array([x, 0.0, z])]
    for _ in steps:
        path.append(path[-1] + [rng.normal(0.0, 7.0), 0.0, rng.normal(13.0, 4.0)])
    skin = [_on_skin(hu, grid, point) for point in path]
    kept = [point for point in skin if point is not None]
    if len(kept) < 2 or skin[0] is None:
        return
    _wire(hu, grid, np.stack(kept), 0.7, METAL)
    box = grid.around(kept[0], 14.0)
    local = [axis - np.float32(c) for axis, c in zip(grid.coordinates(box), kept[0], strict=True)]
    _lay(hu, grid, box, ellipsoid(tuple(local), (0.0, 1.0, 0.0), (6.0, 2.2, 6.0)), METAL)  # pyright: ignore


def _on_skin(hu, grid: Grid, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"] | None:
    """Move a point along y to 2 mm in front of the skin; None outside the grid and beside the
    body."""
    i, _, k = np.rint((point - grid.origin) / grid.spacing).astype(int)
    if not (0 <= i < grid.shape[0] and 0 <= k < grid.shape[2]):
        return None
    body = np.flatnonzero((hu[i, :, k] > -500.0) & (hu[i, :, k] < 1500.0))
    if not len(body):
        return None
    return np.array([point[0], grid.origin[1] + grid.spacing * body[-1] + 2.0, point[2]])


def _pacemaker(hu, grid: Grid, trunk: Trunk, vein: Float[np.ndarray, "n 3"]) -> None:
    """Place a pacemaker in front of the left chest wall, and its lead through the vein."""
    z = trunk.level_z["T3"]
    y = float(trunk.inner_point(np.array([0.86 * np.pi]), np.array([z]), 24.0)[0, 1])
    center = np.array([-72.0, y, z])
    box = grid.around(center, 34.0)
    if not is_empty(box):
        _lay(hu, grid, box, ellipsoid(grid.coordinates(box), center, (24.0, 4.5, 26.0)), METAL)
    heart = np.array([-20.0, vein[-1, 1] + 18.0, trunk.level_z["T9"]])
    _wire(hu, grid, np.stack([center, [-30.0, y - 12.0, z + 30.0], *vein[1:], heart]), 1.1, METAL)


def _wire(hu, grid: Grid, path: Float[np.ndarray, "n 3"], radius: float, value: float) -> None:
    for a, b in itertools.pairwise(path):
        reach = radius + 2.0
        box = grid.box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        if not is_empty(box):
            _lay(hu, grid, box, capsule(grid.coordinates(box), a, b, (radius, radius)), value)


def _lay(hu, grid: Grid, box, distance: Field, value: float) -> None:
    """Paint with partial volume, where it makes the image denser."""
    share = np.clip(0.5 - distance / np.float32(grid.spacing), 0.0, 1.0)
    here = hu[box]
    np.maximum(here, here + share * (value - here), out=here)
