"""AP and lateral images after a wire was placed, and its deviation from the plan measured in
them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.observations import NeedlePath
from dartjax.robot import carm, navigation
from dartjax.simulation._navigation_room import (
    FOCAL_LENGTH,
    SOURCE_TO_ISOCENTER,
    Registered,
    View,
    check_image,
    marks_of,
)
from dartjax.simulation._wires import Plan, Row
from dartjax.transforms import SE3

NAMES = ("ap", "lateral")
MM_PER_PX = SOURCE_TO_ISOCENTER / FOCAL_LENGTH  # at the vertebra

_detect = jax.jit(navigation.detect_wire)
_locate = jax.jit(navigation.locate_point)
_real = jax.jit(carm.real_of_ideal)
_ideal = jax.jit(carm.ideal_pixels)


class Check(NamedTuple):
    """Both images after a wire. Pixels of the recorded images, (2, 2) and (n, 2)."""

    title: str
    images: Sequence[np.ndarray]
    planned: Sequence[np.ndarray]  # entry and target
    axis: Sequence[np.ndarray]  # of the wire as it was found; empty if it was not
    tips: Sequence[np.ndarray]


class _Line(NamedTuple):
    point: np.ndarray
    direction: np.ndarray  # unit


def check(
    title: str,
    plan: Plan,
    wire: NeedlePath,
    seen: Registered,
    pair: tuple[View, View],
    T_world_target: SE3,
    shot: int,
) -> tuple[Row, Check]:
    """Both images, and what can be measured in them: per view the wire's offset from the plan at
    the entry and its angle to the plan, and the tip's distance from the target in space. The
    `_off` numbers are how far each measurement is from the truth.

    An offset in one image is that across the plan's line there. The wire's turn within the plane
    of both beams, in which a pedicle's path nearly lies, moves no line: the tip alone shows it.
    """
    planned, true = _projected(plan.path, pair), _projected(wire, pair)
    row: Row = {}
    images, recorded, axes, tips, ideal_tips = [], [], [], [], []
    for i, (view, name) in enumerate(zip(pair, NAMES, strict=True)):
        image = check_image(view, wire, shot + i)
        ends = np.asarray(_real(view.calibrated.distortion, jnp.asarray(planned[i])))
        found, status = _detect(jnp.asarray(image), *jnp.asarray(ends))
        axis = np.zeros((0, 2))
        if not int(status):
            axis = np.asarray(found.points)[np.asarray(found.valid)]
            row |= _in_image(name, _ideal_line(axis, view), planned[i], true[i])
        images.append(image)
        recorded.append(ends)
        axes.append(axis)
        tips.append(np.asarray(found.tip) if len(axis) else np.zeros((0, 2)))
        ideal_tips.append(np.asarray(_ideal(view.calibrated, found.tip[None]))[0])
    if all(len(axis) for axis in axes):
        row |= _tip(np.stack(ideal_tips), plan.path, wire, seen, T_world_target)
    return row, Check(title, images, recorded, axes, tips)


def _projected(path: NeedlePath, pair: tuple[View, View]) -> list[np.ndarray]:
    """Corrected pixels of a path's entry and target in both views."""
    ends = np.stack([np.asarray(path.entry_point), np.asarray(path.target_point)])
    marks = marks_of(ends, pair, np.random.default_rng(0), 0.0)
    return [np.asarray(marks[:, i]) for i in (0, 1)]


def _ideal_line(axis: np.ndarray, view: View) -> _Line:
    """The straight line through points of the recorded image, once corrected."""
    points = np.asarray(_ideal(view.calibrated, jnp.asarray(axis)))
    points = points[np.isfinite(points[:, 0])]
    middle = points.mean(axis=0)
    direction = np.linalg.svd(points - middle)[2][0]
    return _Line(middle, direction)


def _in_image(name: str, line: _Line, planned: np.ndarray, true: np.ndarray) -> Row:
    """Offset (mm at the vertebra) and angle of a wire to its plan in one image, as measured, and
    how far that is from the truth."""
    real = _Line(true[0], (true[1] - true[0]) / np.linalg.norm(true[1] - true[0]))
    offset, angle = _deviation(line, planned)
    true_offset, true_angle = _deviation(real, planned)
    return {
        f"check_{name}_offset_mm": abs(offset),
        f"check_{name}_offset_off_mm": abs(offset - true_offset),
        f"check_{name}_angle_deg": abs(angle),
        f"check_{name}_angle_off_deg": abs(angle - true_angle),
    }


def _deviation(line: _Line, planned: np.ndarray) -> tuple[float, float]:
    """Signed offset at the planned entry (mm) and angle (degrees) of a line to the plan."""
    along = (planned[1] - planned[0]) / np.linalg.norm(planned[1] - planned[0])
    direction = line.direction if line.direction @ along > 0.0 else -line.direction
    across = np.array([-along[1], along[0]])
    away = planned[0] - line.point
    from_line = away - (away @ direction) * direction
    angle = np.arctan2(direction @ across, direction @ along)
    return float(-(from_line @ across) * MM_PER_PX), float(np.rad2deg(angle))


def _tip(
    pixels: np.ndarray, plan: NeedlePath, wire: NeedlePath, seen: Registered, T_world_target: SE3
) -> Row:
    located, status = _locate(jnp.asarray(pixels, jnp.float32), seen.views)
    if int(status):
        return {}
    tip = np.asarray(T_world_target.apply(located.point))
    return {
        "check_tip_mm": float(np.linalg.norm(tip - np.asarray(plan.target_point))),
        "check_tip_off_mm": float(np.linalg.norm(tip - np.asarray(wire.target_point))),
    }


def summary_of(rows: Sequence[Row]) -> Row:
    """Means over the wires that were placed, and in how many both images showed the wire."""
    placed = [r for r in rows if r["status"] == "placed"]
    whole = [r for r in placed if "check_tip_off_mm" in r]
    summary: Row = {
        "check_wire_found_fraction": len(whole) / len(placed) if placed else float("nan")
    }
    if not placed:
        summary["check_wire_found_fraction_reason"] = "no wire was placed"
    for key in sorted({k for r in placed for k in r if k.startswith("check_")}):
        stem, unit = key.rsplit("_", 1)
        summary[f"{stem}_mean_{unit}"] = float(np.mean([r[key] for r in placed if key in r]))
    return summary
