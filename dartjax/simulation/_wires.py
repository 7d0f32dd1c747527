"""Plans of wires through pedicles, and the grades of wires in the true bone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import planning
from dartjax.data import NEEDLE_RADIUS_MM, PlannedPaths
from dartjax.observations import SIDES, NeedlePath
from dartjax.planning import DistanceField
from dartjax.simulation._navigation_room import WIRE_RADIUS_MM

FEASIBLE_MM = 1.5
TRUTH, RECONSTRUCTED = "best corridor", "reconstruction"
Row = dict[str, Any]

_best = jax.jit(planning.best_corridor)
_room = jax.jit(planning.clearance)


class Plan(NamedTuple):
    """One pedicle's path in the world, and the room the true anatomy leaves about it."""

    side: str
    source: str
    path: NeedlePath
    clearance_mm: float
    feasible: bool  # of the best corridor


def plans_of(paths: jax.Array, field: DistanceField, elsewhere: PlannedPaths | None) -> list[Plan]:
    """Best corridor of each side in the true bone, sought from `paths` (2, 2, 3), and the
    reconstruction's path if there is one."""
    plans = []
    for i, side in enumerate(SIDES):
        entry, target = paths[i]
        carried = NeedlePath(entry, target, jnp.asarray(NEEDLE_RADIUS_MM))
        path, room = _best(carried, field)
        feasible = float(room.clearance) >= FEASIBLE_MM
        plans.append(Plan(side, TRUTH, path, float(room.clearance), feasible))
        if elsewhere:
            path = elsewhere.paths[i]
            room = _room(path, field)
            plans.append(Plan(side, RECONSTRUCTED, path, float(room.clearance), feasible))
    return plans


def graded(wire: NeedlePath, field: DistanceField) -> Row:
    """Breach and grade of the wire itself and of a 5 mm cylinder about it."""
    row: Row = {}
    for name, radius in (("wire", WIRE_RADIUS_MM), ("cylinder", NEEDLE_RADIUS_MM)):
        path = NeedlePath(wire.entry_point, wire.target_point, jnp.asarray(radius))
        breach = float(_room(path, field).breach_depth)
        row[f"breach_{name}_mm"] = breach
        row[f"grade_{name}"] = planning.PedicleGrade(int(planning.pedicle_grade(breach))).name
    return row


def deviation(wire: NeedlePath, plan: NeedlePath) -> Row:
    """How far the wire is from its plan: across it at the entry, at the tip, and in angle."""
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


def grades_of(rows: Sequence[Row]) -> Row:
    """Shares of grades over the placements tried; one that was refused counts as no grade I."""
    tried = [r for r in rows if not r["status"].startswith("no feasible")]
    placed = [r for r in tried if r["status"] == "placed"]
    reason = "no pedicle had a feasible plan" if not tried else "no wire was placed"
    summary: Row = {"placements": len(tried), "placed": len(placed)}
    for name, key in (("", "grade_cylinder"), ("wire_", "grade_wire")):
        for label, good in (("grade_1", ("I",)), ("grade_1_or_2", ("I", "II"))):
            share = sum(r[key] in good for r in placed) / len(tried) if tried else np.nan
            summary[f"{name}{label}_fraction"] = share
            if not tried:
                summary[f"{name}{label}_fraction_reason"] = reason
    for key in ("entry_error_mm", "tip_error_mm", "axis_error_deg"):
        stem, unit = key.rsplit("_", 1)
        values = [r[key] for r in placed]
        summary[f"{stem}_mean_{unit}"] = float(np.mean(values)) if values else np.nan
        summary[f"{stem}_max_{unit}"] = float(np.max(values)) if values else np.nan
        if not values:
            summary |= {f"{stem}_{k}_{unit}_reason": reason for k in ("mean", "max")}
    return summary
