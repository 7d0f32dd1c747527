"""Make the rows, summary and cases of the damping study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dartjax.simulation import HAND_MOTION_KINDS

HIGH, LOW, RHO0, TRUE_RHO0 = "fixed high", "fixed low", "rho = 0", "rho = 0, arm known"
CLASSICAL, OURS = "classical fuzzy rules", "intent and speed"

Row = dict[str, Any]
Numbers = Mapping[str, np.ndarray]  # by measure: (controller, arm, motion)


def ratio_rows(names: Sequence[str], arms: np.ndarray, numbers: Numbers) -> list[Row]:
    """Average over the motions by controller and arm, with ratios to the baselines."""
    mean = {key: value.mean(axis=2) for key, value in numbers.items()}
    rows = []
    for i, name in enumerate(names):
        for j, arm in enumerate(arms):
            row = {"controller": name, "arm [N/m]": float(arm)}
            row |= {
                "work [J]": mean["work_J"][i, j],
                "overshoot [mm]": mean["overshoot_mm"][i, j],
                "tremor [mm]": mean["tremor_mm"][i, j],
                "error at the end [mm]": mean["error_mm"][i, j],
                "largest swing [mm]": numbers["swing_mm"][i, j].max(),
                "stable": float(mean["stable"][i, j]),
            }
            for label, key, other in (
                ("work / high", "work_J", HIGH),
                ("overshoot / rho 0", "overshoot_mm", RHO0),
                ("tremor / rho 0", "tremor_mm", RHO0),
                ("overshoot / rho 0 known", "overshoot_mm", TRUE_RHO0),
                ("tremor / rho 0 known", "tremor_mm", TRUE_RHO0),
            ):
                row[label] = mean[key][i, j] / mean[key][names.index(other), j]
            rows.append(row)
    return rows


def summarise(rows: Sequence[Row]) -> Row:
    """Take the worst arm of every measure: ours without prefix, other controllers with one."""
    measures = {
        "work_ratio_to_high_damping_worst": "work / high",
        "stop_error_ratio_to_rho0_worst": "overshoot / rho 0",
        "tremor_ratio_to_rho0_worst": "tremor / rho 0",
        "stop_error_ratio_to_rho0_arm_known_worst": "overshoot / rho 0 known",
        "tremor_ratio_to_rho0_arm_known_worst": "tremor / rho 0 known",
    }
    summary: Row = {}
    for name in dict.fromkeys(row["controller"] for row in rows):
        own = [row for row in rows if row["controller"] == name]
        words = name.replace("=", "").replace(",", "").split()
        prefix = "" if name == OURS else "_".join(words) + "_"
        summary |= {f"{prefix}{k}": max(row[label] for row in own) for k, label in measures.items()}
        summary[f"{prefix}all_stable"] = all(row["stable"] == 1.0 for row in own)
    return summary


def cases(
    names: Sequence[str], arms: np.ndarray, numbers: Numbers, motions_per_kind: int
) -> list[Row]:
    """Make one case per controller, arm and motion."""
    return [
        {
            "controller": name,
            "arm_N_per_m": float(arm),
            "task": task,
            "kind": HAND_MOTION_KINDS[task // motions_per_kind],
            **{key: value[i, j, task].item() for key, value in numbers.items()},
        }
        for i, name in enumerate(names)
        for j, arm in enumerate(arms)
        for task in range(len(HAND_MOTION_KINDS) * motions_per_kind)
    ]
