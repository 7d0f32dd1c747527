"""Sternum, shoulder girdle and arms: bones, and the soft tissue of the arms.

Arms are raised beside the head, as in most CTs, or lie along the trunk.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float

from dartjax.synthverse._bones import add_rods
from dartjax.synthverse._grid import Grid, is_empty
from dartjax.synthverse._solids import Field, capsule, shifted
from dartjax.synthverse._trunk import Trunk

Arms = Literal["up", "down"]
_HUMERUS_MM, _FOREARM_MM = 300.0, 245.0
_ARM_RADIUS_MM = 40.0  # without fat
# Direction from the shoulder to the elbow, and on to the wrist: outward, forward, up.
_DIRECTIONS = {
    "up": ((0.30, 0.20, 0.93), (-0.60, 0.25, 0.76)),
    "down": ((0.14, -0.02, -0.99), (-0.05, 0.12, -0.99)),
}


def add_shoulders(bone: Field, grid: Grid, trunk: Trunk, arms: Arms) -> None:
    """Add sternum, clavicles, scapulae, humeri, and forearms as one rod each."""
    top, bottom = trunk.level_z["T3"] + 8.0, trunk.level_z["T9"] - 6.0
    z = np.linspace(top, bottom, 14)
    middle = trunk.inner_point(np.full(14, np.pi), z, 5.0)
    for width in (-9.0, 0.0, 9.0):
        shift = np.linspace(1.6, 0.6, 14) * width
        add_rods(
            bone, grid, middle + np.c_[shift, 0 * z, 0 * z], np.linspace(6.0, 4.6, 14), (1.5, 1, 1)
        )
    for side in (1.0, -1.0):
        start = middle[0] + [side * 20.0, 4.0, 4.0]
        shoulder, elbow, wrist = arm_joints(trunk, side, arms)
        end = shifted(shoulder, (-side * 14.0, 6.0, 26.0))
        t = np.linspace(0.0, 1.0, 12)[:, None]
        path = start + (end - start) * t
        path[:, 1] += 9.0 * np.sin(2.0 * np.pi * t[:, 0])
        add_rods(bone, grid, path, np.full(12, 5.8))
        _add_scapula(bone, grid, trunk, side, shoulder)
        along = shoulder + (elbow - shoulder) * np.array([[0.0], [0.1], [0.2], [0.9], [1.0]])
        add_rods(bone, grid, along, np.array([23.0, 19.0, 12.5, 11.0, 19.0]))
        add_rods(bone, grid, np.stack([elbow, wrist]), np.array([13.0, 9.0]), (1.7, 1.0, 1.0))


def _add_scapula(
    bone: Field, grid: Grid, trunk: Trunk, side: float, shoulder: Float[np.ndarray, "3"]
) -> None:
    """Add a scapula: a thin triangular sheet on the ribs, its spine, and the neck to the joint."""
    top, bottom = trunk.level_z["T2"], trunk.level_z["T7"] - 6.0
    for step, z in enumerate(np.linspace(top, bottom, 22)):
        share = step / 21.0
        theta = np.pi * np.linspace(0.22 + 0.05 * share, 0.46 - 0.16 * share**1.5, 9)
        path = trunk.inner_point(theta, np.full(9, z), 20.0)
        path[:, 0] *= side
        edge = np.full(9, 2.0)
        edge[[0, -1]] = 3.4, 4.6
        add_rods(bone, grid, path, edge, (1.0, 1.0, 2.0))
    theta = np.pi * np.linspace(0.23, 0.44, 9)
    path = trunk.inner_point(theta, np.linspace(top - 22.0, top + 10.0, 9), 29.0)
    path[:, 0] *= side
    add_rods(bone, grid, path, np.full(9, 4.2))
    socket = shifted(shoulder, (-side * 24.0, -4.0, -4.0))
    add_rods(bone, grid, np.stack([path[-1], socket]), np.array([5.0, 9.0]), (1.0, 1.0, 1.6))


def arm_joints(trunk: Trunk, side: float, arms: Arms) -> Float[np.ndarray, "3 3"]:
    """Compute shoulder, elbow and wrist of one side, mm; side 1 is right."""
    up = arms == "up"
    z = trunk.level_z["T1"] + 22.0 if up else trunk.level_z["T2"]
    out = trunk.value("half_width", trunk.level_z["T3"]) + (48.0 if up else 68.0)
    out += 0.4 * trunk.fat_mm
    joints = [np.array([side * out, trunk.value("spine_y", trunk.level_z["T2"]) + 6.0, z])]
    for direction, length in zip(_DIRECTIONS[arms], (_HUMERUS_MM, _FOREARM_MM), strict=True):
        step = length * np.array(direction) / np.linalg.norm(direction)
        joints.append(joints[-1] + step * [side, 1.0, 1.0])
    return np.stack(joints)


def arm_reach(trunk: Trunk, arms: Arms) -> float:
    """Compute the largest |x| of the arms, mm."""
    return float(arm_joints(trunk, 1.0, arms)[:, 0].max()) + _arm_radius(trunk)


def _arm_radius(trunk: Trunk) -> float:
    return _ARM_RADIUS_MM + 0.45 * trunk.fat_mm


def paint_arms(
    hu: Field, grid: Grid, trunk: Trunk, arms: Arms, tissues: Mapping[str, float]
) -> None:
    """Paint skin, fat and muscle of both arms where there is air, in place. `tissues` are the HU of
    air, skin, fat and muscle."""
    radius = _arm_radius(trunk)
    thin = {"skin": 0.0, "fat": 2.0, "muscle": 2.0 + 0.35 * trunk.fat_mm}
    for side in (1.0, -1.0):
        shoulder, elbow, wrist = arm_joints(trunk, side, arms)
        root = shifted(shoulder, (-side * 45.0, 0.0, -40.0))
        parts = (
            (root, shoulder, (radius + 16.0, radius + 12.0)),
            (shoulder, elbow, (radius + 12.0, radius)),
            (elbow, wrist, (radius, 0.72 * radius)),
        )
        for a, b, radii in parts:
            reach = max(radii) + 3.0
            box = grid.box(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
            if is_empty(box):
                continue
            value = capsule(grid.coordinates(box), a, b, radii)
            here, outside = hu[box], hu[box] == tissues["air"]
            for name, depth in thin.items():
                share = np.clip(0.5 - (value + depth) / np.float32(grid.spacing), 0.0, 1.0)
                here += np.where(outside, share, 0.0) * (tissues[name] - here)
