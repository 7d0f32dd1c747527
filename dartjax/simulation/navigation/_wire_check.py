"""Check images (AP and lateral) of a placed wire, and its deviation from the plan in them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.observations import NeedlePath
from dartjax.robot import carm, navigation
from dartjax.simulation._calibration import FOCAL_LENGTH
from dartjax.simulation.navigation._scene import (
    SOURCE_TO_ISOCENTER,
    NavigationView,
    RegisteredPair,
    expose_wire,
    mark_points,
)
from dartjax.simulation.navigation._wires import WirePlan
from dartjax.transforms import SE3

WIRE_CHECK_VIEWS = ("ap", "lateral")
MM_PER_PX = SOURCE_TO_ISOCENTER / FOCAL_LENGTH  # scale at the vertebra

_detect = jax.jit(navigation.detect_wire)
_locate = jax.jit(navigation.locate_point)
_real = jax.jit(carm.real_of_ideal)
_ideal = jax.jit(carm.ideal_pixels)


class WireCheck(NamedTuple):
    """Check images of a placed wire. Pixels of the recorded images, (2, 2) and (n, 2)."""

    title: str
    images: Sequence[np.ndarray]
    planned: Sequence[np.ndarray]  # entry and target
    axis: Sequence[np.ndarray]  # of the detected wire; empty if it was not detected
    tips: Sequence[np.ndarray]


class _WireInImage(NamedTuple):
    """Wire detected in one image."""

    image: np.ndarray
    planned: np.ndarray  # (2, 2) entry and target, recorded px
    axis: np.ndarray  # (n, 2) recorded px; empty if it was not detected
    tip: np.ndarray  # (2,) recorded px
    ideal_tip: np.ndarray  # (2,) corrected px


class _Line(NamedTuple):
    point: np.ndarray
    direction: np.ndarray  # unit


def check_wire(
    title: str,
    plan: WirePlan,
    wire: NeedlePath,
    seen: RegisteredPair,
    pair: tuple[NavigationView, NavigationView],
    T_world_target: SE3,
    seed: int,
) -> tuple[dict[str, Any], WireCheck]:
    """Measure the deviation of a placed wire from its plan in two images.

    Per view the measurements are the wire's offset from the plan at the entry, perpendicular to the
    planned line in the image, and its angle to the plan; from both views, the distance of the tip
    from the target. Keys with `_off` hold the error of each measurement against ground truth.

    A rotation of the wire within the plane of both beams, in which a pedicle's path nearly lies,
    does not change its line in an image; only the tip shows it.
    """
    planned, true = _projected(plan.path, pair), _projected(wire, pair)
    row: dict[str, Any] = {}
    found = [_find_wire(view, wire, planned[i], seed + i) for i, view in enumerate(pair)]
    for i, name in enumerate(WIRE_CHECK_VIEWS):
        if len(found[i].axis):
            row |= _in_image(name, _ideal_line(found[i].axis, pair[i]), planned[i], true[i])
    if all(len(wire_seen.axis) for wire_seen in found):
        tips = np.stack([wire_seen.ideal_tip for wire_seen in found])
        row |= _tip(tips, plan.path, wire, seen, T_world_target)
    return row, WireCheck(
        title,
        [wire_seen.image for wire_seen in found],
        [wire_seen.planned for wire_seen in found],
        [wire_seen.axis for wire_seen in found],
        [wire_seen.tip if len(wire_seen.axis) else np.zeros((0, 2)) for wire_seen in found],
    )


def _find_wire(
    view: NavigationView, wire: NeedlePath, planned: np.ndarray, seed: int
) -> _WireInImage:
    """Render one view and detect the wire near its plan (2, 2), given in corrected pixels."""
    image = expose_wire(view, wire, seed)
    ends = np.asarray(_real(view.calibrated.distortion, jnp.asarray(planned)))
    found, status = _detect(jnp.asarray(image), *jnp.asarray(ends))
    axis = np.zeros((0, 2)) if int(status) else np.asarray(found.points)[np.asarray(found.valid)]
    ideal_tip = np.asarray(_ideal(view.calibrated, found.tip[None]))[0]
    return _WireInImage(image, ends, axis, np.asarray(found.tip), ideal_tip)


def _projected(path: NeedlePath, pair: tuple[NavigationView, NavigationView]) -> list[np.ndarray]:
    """Corrected pixels of a path's entry and target in both views."""
    ends = np.stack([np.asarray(path.entry_point), np.asarray(path.target_point)])
    marks = mark_points(ends, pair, np.random.default_rng(0), 0.0)
    return [np.asarray(marks[:, i]) for i in (0, 1)]


def _ideal_line(axis: np.ndarray, view: NavigationView) -> _Line:
    """Straight line through points of the recorded image, after distortion correction."""
    points = np.asarray(_ideal(view.calibrated, jnp.asarray(axis)))
    points = points[np.isfinite(points[:, 0])]
    middle = points.mean(axis=0)
    direction = np.linalg.svd(points - middle)[2][0]
    return _Line(middle, direction)


def _in_image(name: str, line: _Line, planned: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Measured offset (mm at the vertebra) and angle of a wire to its plan in one image, and their
    errors against ground truth."""
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
    pixels: np.ndarray,
    plan: NeedlePath,
    wire: NeedlePath,
    seen: RegisteredPair,
    T_world_target: SE3,
) -> dict[str, Any]:
    located, status = _locate(jnp.asarray(pixels, jnp.float32), seen.views)
    if int(status):
        return {}
    tip = np.asarray(T_world_target.apply(located.point))
    return {
        "check_tip_mm": float(np.linalg.norm(tip - np.asarray(plan.target_point))),
        "check_tip_off_mm": float(np.linalg.norm(tip - np.asarray(wire.target_point))),
    }


def wire_check_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the checks: means over placed wires, and the fraction of wires detected in both
    images."""
    placed = [r for r in rows if r["status"] == "placed"]
    whole = [r for r in placed if "check_tip_off_mm" in r]
    summary: dict[str, Any] = {
        "check_wire_found_fraction": len(whole) / len(placed) if placed else float("nan")
    }
    if not placed:
        summary["check_wire_found_fraction_reason"] = "no wire was placed"
    for key in sorted({k for r in placed for k in r if k.startswith("check_")}):
        stem, unit = key.rsplit("_", 1)
        summary[f"{stem}_mean_{unit}"] = float(np.mean([r[key] for r in placed if key in r]))
    return summary
