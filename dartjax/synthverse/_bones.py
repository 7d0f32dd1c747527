"""Vertebrae on the voxel grid, and the other bones: ribs, sternum, shoulder, sacrum, pelvis."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy import interpolate

from dartjax.anatomy import label_of
from dartjax.synthverse._grid import Grid, is_empty
from dartjax.synthverse._shape import VertebraShape, frame_coordinates
from dartjax.synthverse._solids import Field, Point, capsule, ellipsoid, smooth_max, smooth_min
from dartjax.synthverse._trunk import Trunk
from dartjax.synthverse._warp import Warp, displacement

FAR = 20.0
JOINT_GAP_MM = 1.6
_RIB_DROP = (24, 46, 66, 80, 92, 102, 108, 110, 106, 94, 66, 40)  # head to front end, mm
_RIB_END = (0.80, 0.80, 0.80, 0.79, 0.78, 0.76, 0.74, 0.71, 0.67, 0.62, 0.50, 0.34)  # of pi
_RIB_RADIUS = (3.9, 3.7, 3.8, 4.0, 4.1, 4.2, 4.3, 4.3, 4.2, 4.0, 3.6, 3.1)


class Placed(NamedTuple):
    """Bones on the grid: signed distance of all vertebrae (at most FAR), their labels, and signed
    distance of the other bones."""

    vertebrae: Float[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]
    other_bones: Float[np.ndarray, "i j k"]


def place_vertebrae(
    grid: Grid,
    shapes: Mapping[str, VertebraShape],
    frames: Mapping[str, Float[np.ndarray, "4 4"]],
    warps: Mapping[str, Warp],
) -> tuple[Float[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Compute signed distance and labels; a joint gap separates vertebrae that touch."""
    nearest = np.full(grid.shape, FAR, np.float32)
    second = np.full(grid.shape, FAR, np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    for level, shape in shapes.items():
        box = grid.box(*_world_box(shape, frames[level]))
        if is_empty(box):
            continue
        value = evaluate(shape, frames[level], warps.get(level), *grid.coordinates(box))
        second[box] = np.minimum(second[box], np.maximum(nearest[box], value))
        labels[box] = np.where(value < nearest[box], label_of(level), labels[box])
        nearest[box] = np.minimum(nearest[box], value)
    # Overlapping vertebrae are separated at the middle of the overlap.
    bone = np.maximum(nearest, np.float32(0.5) * (np.float32(JOINT_GAP_MM) - second + nearest))
    labels[bone >= 0.0] = 0
    return bone, labels


def evaluate(
    shape: VertebraShape,
    frame: Float[np.ndarray, "4 4"],
    warp: Warp | None,
    x: Field,
    y: Field,
    z: Field,
) -> Field:
    """Evaluate the signed distance of one placed vertebra at the points of a world box. The warp is
    defined on axes parallel to world, about the vertebra's centre."""
    if warp is not None:
        local = [a.ravel() - np.float32(c) for a, c in zip((x, y, z), frame[:3, 3], strict=True)]
        moved = displacement(warp, *local)
        x, y, z = x + moved[0], y + moved[1], z + moved[2]
    return shape(*frame_coordinates(frame, x, y, z))


def _world_box(
    shape: VertebraShape, frame: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Compute a world box that contains the vertebra."""
    b = shape.bounds
    side = max(b.tp_tip[0], b.half_width) + 8.0
    tall = b.upper + 22.0
    low, high = (-side, b.back - 9.0, -tall - 18.0), (side, b.front + 9.0, tall)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
    world = frame[:3, :3] @ corners + frame[:3, 3:]
    return world.min(1), world.max(1)


def add_ribs(
    bone: Field,
    grid: Grid,
    shapes: Mapping[str, VertebraShape],
    frames: Mapping[str, Float[np.ndarray, "4 4"]],
    trunk: Trunk,
    rng: np.random.Generator,
) -> list[Float[np.ndarray, "_ 3"]]:
    """Add twelve pairs of ribs from the costovertebral joint around the chest, and return their
    paths. Costal cartilage belongs to the soft tissue."""
    paths = []
    for number in range(1, 13):
        level = f"T{number}"
        if level not in shapes:
            continue
        jitter = rng.normal(0.0, 2.5, 2)
        for side, extra in zip((1.0, -1.0), jitter, strict=True):
            path = rib_path(number, side, shapes[level], frames[level], trunk, float(extra))
            paths.append(path)
            radius = _RIB_RADIUS[number - 1]
            radii = np.r_[np.full(4, 0.95), np.linspace(0.85, 1.0, len(path) - 4)] * radius
            add_rods(bone, grid, path, radii, (0.78, 0.78, 1.35))
    return paths


def rib_path(
    number: int,
    side: float,
    shape: VertebraShape,
    frame: Float[np.ndarray, "4 4"],
    trunk: Trunk,
    extra: float,
) -> Float[np.ndarray, "n 3"]:
    """Compute the centre line of one rib from head to front end, a point about every 5 mm."""
    b = shape.bounds
    high = b.upper - 2.5 if 1 < number < 11 else 0.4 * b.upper
    head = np.array([side * (b.half_width + 4.5), 0.72 * b.wall, high])
    tip = np.array(b.tp_tip)
    neck = np.array([side * max(tip[0] - 6.0, b.half_width + 9.0), tip[1] + 9.0, tip[2] + 2.0])
    world = np.stack([head, neck]) @ frame[:3, :3].T + frame[:3, 3]
    end = _RIB_END[number - 1] * np.pi
    start = 0.20 * np.pi if number < 12 else 0.17 * np.pi
    theta = np.linspace(start, max(end, start + 0.12 * np.pi), 9)
    along = (theta - 0.08 * np.pi) / (0.80 * np.pi - 0.08 * np.pi)
    fall = (_RIB_DROP[number - 1] + extra) * (0.35 * along + 0.65 * along**1.15)
    if number > 10:
        fall = (_RIB_DROP[number - 1] + extra) * (theta - 0.08 * np.pi) / (end - 0.08 * np.pi)
    z = world[0, 2] - 4.0 - fall
    ring = trunk.inner_point(theta, z, 5.5)
    ring[:, 0] *= side
    if side < 0:
        ring[:, 0] += 2.0 * 0.5 * trunk.at("spine_x", z)
    knots = np.concatenate([world, ring])
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))]
    curve = interpolate.PchipInterpolator(length, knots)
    smooth = interpolate.make_smoothing_spline
    fine = np.linspace(0.0, length[-1], max(int(length[-1] / 5.0), 8))
    dense = np.linspace(0.0, length[-1], 60)
    points = curve(dense)
    return np.stack([smooth(dense, points[:, i], lam=60.0)(fine) for i in range(3)], 1)


def add_rods(
    bone: Field,
    grid: Grid,
    path: Float[np.ndarray, "n 3"],
    radii: Float[np.ndarray, " n"],
    flat: Point = (1.0, 1.0, 1.0),
) -> None:
    """Add a chain of tapered rods."""
    reach = float(np.max(radii)) * max(flat) + 4.0
    for i in range(len(path) - 1):
        low, high = np.minimum(path[i], path[i + 1]), np.maximum(path[i], path[i + 1])
        box = grid.box(low - reach, high + reach)
        if is_empty(box):
            continue
        value = capsule(
            grid.coordinates(box),
            path[i],
            path[i + 1],
            (float(radii[i]), float(radii[i + 1])),
            flat,
        )
        bone[box] = np.minimum(bone[box], value)


def add_pelvis(bone: Field, grid: Grid, frame: Float[np.ndarray, "4 4"], size: float) -> None:
    """Add the sacrum with foramina and wings, and the iliac wings. `frame` is that of S1's end
    plate; `size` is the person's scale."""
    parts = (
        (_sacrum, (-75.0, -62.0, -105.0), (75.0, 32.0, 14.0)),
        (_ilium, (30.0, -62.0, -145.0), (140.0, 75.0, 30.0)),
        (_ilium, (-140.0, -62.0, -145.0), (-30.0, 75.0, 30.0)),
    )
    for part, low, high in parts:
        corners = size * np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1)
        world = frame[:3, :3] @ corners + frame[:3, 3:]
        box = grid.box(world.min(1), world.max(1))
        if is_empty(box):
            continue
        x, y, z = frame_coordinates(frame, *grid.coordinates(box))
        scale = np.float32(size)
        value = scale * part((np.abs(x) / scale, y / scale, z / scale))
        bone[box] = np.minimum(bone[box], value)


def _sacrum(p: tuple[Field, Field, Field]) -> Field:
    body = capsule(p, (0, 0, -13), (0, -14, -42), (15.0, 11.0), (1.45, 1.0, 1.0))
    low = capsule(p, (0, -14, -42), (0, -12, -88), (10.0, 4.5), (1.5, 1.0, 1.0))
    wing = capsule(p, (18, -5, -15), (43, -17, -28), (14.0, 15.0), (1.0, 0.85, 1.0))
    flank = capsule(p, (36, -20, -32), (18, -18, -66), (13.0, 7.0), (1.0, 0.8, 1.0))
    crest = capsule(p, (0, -40, -18), (0, -34, -62), (5.5, 4.0), (0.8, 1.0, 1.0))
    back = capsule(p, (19, -31, -14), (12, -33, -60), (5.5, 3.5))
    roof = capsule(p, (19, -31, -16), (0, -38, -18), (4.6, 4.6), (1.0, 1.0, 1.6))
    value = smooth_min(smooth_min(body, low, 4.0), smooth_min(wing, flank, 4.0), 4.0)
    value = smooth_min(value, smooth_min(smooth_min(crest, back, 3.0), roof, 3.0), 3.0)
    value = smooth_max(value, p[2] - np.where(p[1] > -16, np.float32(0.6), np.float32(8.0)), 2.0)
    canal = capsule(p, (0, -25, 12), (0, -27, -64), (8.5, 3.0), (1.35, 1.0, 1.0))
    value = smooth_max(value, -canal, 1.5)
    for across, back_y, down in ((17.5, -13.0, -31.0), (15.5, -18.0, -47.0), (13.5, -18.0, -62.0)):
        hole = capsule(
            p, (across, back_y + 22, down - 2), (across - 1, back_y - 22, down), (4.4, 4.0)
        )
        value = smooth_max(value, -hole, 1.5)
    return value


def _ilium(p: tuple[Field, Field, Field]) -> Field:
    """Iliac wing with a thick crest, flaring outward and forward from the sacroiliac joint; roof of
    the hip joint and femoral head."""
    x, y, z = p
    share = np.clip((y + 45.0) / 105.0, 0.0, 1.0)
    lean = 0.28 + 0.32 * share
    sheet = x - (47.0 + 46.0 * share**0.7 + lean * (z + 55.0))
    thickness = 3.4 + 5.0 * np.exp(-(((y + 38.0) / 14.0) ** 2)).astype(np.float32)
    sheet = np.abs(sheet) / np.sqrt(1.0 + lean**2) - thickness
    crest_z = 20.0 - ((y - 4.0) / 15.0) ** 2
    sheet = smooth_max(sheet, z - crest_z, 4.0)
    notch = np.where(y < -8.0, -58.0 - 0.4 * (y + 8.0), -90.0)
    sheet = smooth_max(sheet, notch - z, 4.0)
    sheet = smooth_max(sheet, np.abs(y - 5.0) - 55.0, 4.0)
    rim = []
    for along in (-46.0, -22.0, 4.0, 30.0, 54.0):
        t, top = (along + 45.0) / 105.0, 20.0 - ((along - 4.0) / 15.0) ** 2
        t = max(t, 0.0)
        rim.append((47.0 + 46.0 * t**0.7 + (0.28 + 0.32 * t) * (top + 55.0), along, top - 3.0))
    for a, b in itertools.pairwise(rim):
        sheet = smooth_min(sheet, capsule(p, a, b, (5.4, 5.4)), 3.0)
    roof = capsule(p, (90, 24, -70), (88, 26, -104), (17.0, 25.0))
    value = smooth_min(sheet, roof, 6.0)
    head = ellipsoid(p, (92.0, 28.0, -112.0), (24.0, 24.0, 24.0))
    cup = ellipsoid(p, (92.0, 28.0, -112.0), (27.0, 27.0, 27.0))
    return np.minimum(smooth_max(value, -cup, 1.5), head)
