"""Merged results of navigated wires in several vertebrae."""

import numpy as np
import pytest

from dartjax.simulation import WireNavigation, wire_navigation_summary
from dartjax.simulation.navigation._scene import DistortionResidual


def vertebra(level, errors, num_rejected):
    status = "no feasible plan: 0.3 mm"
    return WireNavigation(
        rows=[{"level": level, "plan": "best corridor", "status": status}],
        point_errors={"exact": np.array(errors)},
        residuals=[DistortionResidual(*(np.array([x]) for x in (0.1, 0.2, 0.3)))],
        num_pairs=2,
        num_rejected=num_rejected,
    )


def test_vertebrae_are_merged_in_order():
    found = WireNavigation().merged(vertebra("T12", [1.0], 0)).merged(vertebra("L1", [2.0, 6.0], 1))
    assert [row["level"] for row in found.rows] == ["T12", "L1"]
    assert found.point_errors["exact"].tolist() == [1.0, 2.0, 6.0]
    summary = wire_navigation_summary(found)
    assert summary["target_error_mean_mm"] == 3.0 and summary["target_points"] == 3
    assert summary["distortion_polynomial_max_mm"] == pytest.approx(0.2)
    assert (summary["image_pairs"], summary["image_pairs_refused"]) == (4, 1)
    assert summary["infeasible_plans"] == 2 and summary["placements"] == 0
