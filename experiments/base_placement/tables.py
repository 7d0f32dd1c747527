"""Make the rows and cases of `base_placement`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dartjax.observations import SIDES
from dartjax.robot import StatusCode
from dartjax.simulation import DisplacedReach, PathReach, PlannedPatient

FIRST, CART, TABLE, EVERY_LEVEL = "as first placed", "cart", "cart and table", "cart, every level"
PREFIXES = {FIRST: "first", CART: "cart", TABLE: "table", EVERY_LEVEL: "every_level"}

Row = dict[str, Any]


def placement_row(name: str, reach: PathReach) -> Row:
    """Make one row of the table of placements; a margin of 1 is half the range of a joint."""
    reached = reach.reached
    margin, clearance = np.asarray(reach.approach.margin), np.asarray(reach.approach.clearance)
    return {
        "placement": name,
        "reached_share": float(reached.mean()),
        "both_pedicles_share": float(reached.reshape(-1, 2).all(axis=1).mean()),
        "within_limits_share": float((reach.status == StatusCode.OK).mean()),
        "clear_of_patient_share": float((clearance > 0.0).mean()),
        "margin_min": float(margin.min()),
        "margin_mean": float(margin.mean()),
        "clearance_min_mm": float(clearance.min()),
    }


def placement_summary(rows: list[Row]) -> Row:
    """Merge the rows of all placements, with a prefix for each placement."""
    return {
        f"{PREFIXES[row['placement']]}_{key}": value
        for row in rows
        for key, value in row.items()
        if key != "placement"
    }


def displaced_summary(displaced: DisplacedReach) -> Row:
    """Summarise the share of paths that stay reachable, and the planning rate."""
    return {
        "displaced_still_reached_share": displaced.still_reached_share,
        "displaced_paths": displaced.num_paths,
        "displaced_seconds": displaced.seconds,
        "approaches_per_second": displaced.num_paths / displaced.seconds,
    }


def path_cases(
    patient: PlannedPatient, reaches: Mapping[str, PathReach], durations: np.ndarray
) -> list[Row]:
    """Make one case per path; `durations` are those of the trajectories of the cart, s."""
    rows = []
    for i, name in enumerate(patient.names):
        level, side = name.split()
        assert side in SIDES
        row: Row = {"level": level, "side": side}
        for place, reach in reaches.items():
            key = place.replace(", ", "_").replace(" ", "_")
            row |= {
                f"{key}_status": StatusCode(int(reach.status[i])).name.lower(),
                f"{key}_reached": bool(reach.reached[i]),
                f"{key}_margin": float(reach.approach.margin[i]),
                f"{key}_clearance_mm": float(reach.approach.clearance[i]),
            }
        row["feed_mm"] = float(reaches[CART].approach.feed_at_target[i])
        is_reached = reaches[CART].reached[i]
        row["trajectory_seconds"] = float(durations[i]) if is_reached else float("nan")
        row["trajectory_seconds_reason"] = "" if is_reached else "the path is not reached"
        rows.append(row)
    return rows
