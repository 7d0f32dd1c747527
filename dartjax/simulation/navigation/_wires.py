"""Plans of wires through pedicles, and the grades of wires in the true bone."""

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
_room = jax.jit(planning.clearance)


class WirePlan(NamedTuple):
    """One pedicle's path in the world, and the room the true anatomy leaves about it."""

    side: str
    source: str
    path: NeedlePath
    clearance_mm: float
    feasible: bool  # of the best corridor


def wire_plans(
    paths: jax.Array, field: DistanceField, elsewhere: PlannedPaths | None
) -> list[WirePlan]:
    """Plan the wires of a vertebra: per side the best corridor in the true bone, sought from
    `paths` (2, 2, 3), and the reconstruction's path if there is one."""
    plans = []
    for i, side in enumerate(SIDES):
        entry, target = paths[i]
        carried = NeedlePath(entry, target, jnp.asarray(NEEDLE_RADIUS_MM))
        path, room = _best(carried, field)
        feasible = float(room.clearance) >= FEASIBLE_CLEARANCE_MM
        plans.append(WirePlan(side, BEST_CORRIDOR, path, float(room.clearance), feasible))
        if elsewhere:
            path = elsewhere.paths[i]
            room = _room(path, field)
            plans.append(WirePlan(side, FROM_RECONSTRUCTION, path, float(room.clearance), feasible))
    return plans


def wire_grades(wire: NeedlePath, field: DistanceField) -> dict[str, Any]:
    """Grade a wire in the true bone: breach and grade of the wire itself and of a 5 mm cylinder
    about it."""
    row: dict[str, Any] = {}
    for name, radius in (("wire", WIRE_RADIUS_MM), ("cylinder", NEEDLE_RADIUS_MM)):
        path = NeedlePath(wire.entry_point, wire.target_point, jnp.asarray(radius))
        breach = float(_room(path, field).breach_depth)
        row[f"breach_{name}_mm"] = breach
        row[f"grade_{name}"] = planning.PedicleGrade(int(planning.pedicle_grade(breach))).name
    return row


def wire_deviation(wire: NeedlePath, plan: NeedlePath) -> dict[str, Any]:
    """Measure how far a wire is from its plan: across it at the entry, at the tip, and in angle."""
    axis = np.asarray(plan.target_point - plan.entry_point, float)
    axis /= np.linalg.norm(axis)
    own = np.asarray(wire.target_point - wire.entry_point, float)
    own /= np.linalg.norm(own)
    turn = np.arctan2(np.linalg.norm(np.cross(own, axis)), own @ axis)
    off = np.asarray(wire.entry_point - plan.entry_point, float)
    return {
        "entry_error_mm": float(np.linalg.norm(np.cross(off, axis))),
        "tip_error_mm": float(np.linalg.norm(wire.target_point - plan.target_point)),
        "axis_error_deg": float(np.rad2deg(turn)),
    }


def wire_grade_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the placements tried: shares of grades, where a failed placement counts as no
    grade I, and errors of the wires placed."""
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
