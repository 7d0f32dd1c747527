"""Plans of wires through pedicles, and grades of wires in the true bone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import planning
from dartjax.data import NEEDLE_RADIUS_MM, PlannedPaths
from dartjax.observations import SIDES, NeedlePath
from dartjax.planning import DistanceField
from dartjax.simulation.navigation._scene import WIRE_RADIUS_MM

FEASIBLE_CLEARANCE_MM = 1.5  # around a cylinder of 5 mm
BEST_CORRIDOR, FROM_RECONSTRUCTION = "best corridor", "reconstruction"  # sources of a plan

_best = jax.jit(planning.best_corridor)
_clearance = jax.jit(planning.clearance)


class WirePlan(NamedTuple):
    """Planned path through one pedicle (world frame), with its clearance in the true anatomy."""

    side: str
    source: str
    path: NeedlePath
    clearance_mm: float
    feasible: bool  # whether the best corridor is wide enough


def wire_plans(
    paths: jax.Array, field: DistanceField, reconstructed: PlannedPaths | None
) -> list[WirePlan]:
    """Plan the wires of a vertebra.

    Per side, optimise the best corridor in the true bone from `paths` (2, 2, 3), and add the path
    of the reconstruction if there is one.
    """
    plans = []
    for i, side in enumerate(SIDES):
        entry, target = paths[i]
        initial = NeedlePath(entry, target, jnp.asarray(NEEDLE_RADIUS_MM))
        path, result = _best(initial, field)
        feasible = float(result.clearance) >= FEASIBLE_CLEARANCE_MM
        plans.append(WirePlan(side, BEST_CORRIDOR, path, float(result.clearance), feasible))
        if reconstructed:
            path = reconstructed.paths[i]
            clearance = float(_clearance(path, field).clearance)
            plans.append(WirePlan(side, FROM_RECONSTRUCTION, path, clearance, feasible))
    return plans


def wire_grades(wire: NeedlePath, field: DistanceField) -> dict[str, Any]:
    """Grade a wire in the true bone: breach and grade of the wire and of a 5 mm cylinder."""
    row: dict[str, Any] = {}
    for name, radius in (("wire", WIRE_RADIUS_MM), ("cylinder", NEEDLE_RADIUS_MM)):
        path = NeedlePath(wire.entry_point, wire.target_point, jnp.asarray(radius))
        breach = float(_clearance(path, field).breach_depth)
        row[f"breach_{name}_mm"] = breach
        row[f"grade_{name}"] = planning.PedicleGrade(int(planning.pedicle_grade(breach))).name
    return row


def wire_deviation(wire: NeedlePath, plan: NeedlePath) -> dict[str, Any]:
    """Measure the deviation of a wire from its plan: at the entry, at the tip, and in angle."""
    axis = np.asarray(plan.target_point - plan.entry_point, float)
    axis /= np.linalg.norm(axis)
    direction = np.asarray(wire.target_point - wire.entry_point, float)
    direction /= np.linalg.norm(direction)
    angle = np.arctan2(np.linalg.norm(np.cross(direction, axis)), direction @ axis)
    offset = np.asarray(wire.entry_point - plan.entry_point, float)
    return {
        "entry_error_mm": float(np.linalg.norm(np.cross(offset, axis))),
        "tip_error_mm": float(np.linalg.norm(wire.target_point - plan.target_point)),
        "axis_error_deg": float(np.rad2deg(angle)),
    }


def wire_grade_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise attempted placements: fractions of grades, and errors of the placed wires.

    A failed placement counts as neither grade I nor II.
    """
    tried = [r for r in rows if not r["status"].startswith("no feasible")]
    placed = [r for r in tried if r["status"] == "placed"]
    reason = "no pedicle had a feasible plan" if not tried else "no wire was placed"
    summary: dict[str, Any] = {"placements": len(tried), "placed": len(placed)}
    for prefix, key in (("", "grade_cylinder"), ("wire_", "grade_wire")):
        summary |= _grade_shares(prefix, [row[key] for row in placed], len(tried), reason)
    for key in ("entry_error_mm", "tip_error_mm", "axis_error_deg"):
        summary |= _mean_and_max(key, [row[key] for row in placed], reason)
    return summary


def _grade_shares(
    prefix: str, grades: Sequence[str], num_tried: int, reason: str
) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    for label, good in (("grade_1", ("I",)), ("grade_1_or_2", ("I", "II"))):
        key = f"{prefix}{label}_fraction"
        shares[key] = sum(grade in good for grade in grades) / num_tried if num_tried else np.nan
        if not num_tried:
            shares[f"{key}_reason"] = reason
    return shares


def _mean_and_max(key: str, values: Sequence[float], reason: str) -> dict[str, Any]:
    stem, unit = key.rsplit("_", 1)
    mean, largest = f"{stem}_mean_{unit}", f"{stem}_max_{unit}"
    if not values:
        return {
            mean: np.nan,
            largest: np.nan,
            f"{mean}_reason": reason,
            f"{largest}_reason": reason,
        }
    return {mean: float(np.mean(values)), largest: float(np.max(values))}
