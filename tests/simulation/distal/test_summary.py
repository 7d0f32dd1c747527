"""Summary of operations of distal locking."""

import numpy as np

from dartjax.simulation import operation_statistics, operations_of


def operation(outcome, angle_deg, view="generic"):
    return {
        "mounting": "bone",
        "view": view,
        "estimator": "through-hole",
        "outcome": outcome,
        "angle_deg": angle_deg,
        "error_mm": 2.0 * angle_deg,
        "rod_passes": outcome == "drilled",
        "images": 2,
    }


def test_errors_are_of_drilled_holes_and_fractions_of_all_operations():
    rows = [operation("drilled", 0.1), operation("drilled", 0.3), operation("no nail", np.nan)]
    rows.append(operation("drilled", 9.0, view="fronto_parallel"))
    found = operation_statistics(operations_of(rows, "bone", "generic", "through-hole"))
    assert found["operations"] == 3 and found["drilled"] == 2
    assert np.isclose(found["angle_mean_deg"], 0.2) and np.isclose(found["error_mean_mm"], 0.4)
    assert np.isclose(found["rod_passes_fraction"], 2 / 3)


def test_without_operations_errors_are_not_known():
    found = operation_statistics([])
    assert found["drilled"] == 0 and np.isnan(found["angle_p95_deg"])
