"""Plans of wires, and the summary of placed wires."""

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.observations import NeedlePath
from dartjax.planning import DistanceField
from dartjax.simulation.navigation._wires import (
    BEST_CORRIDOR,
    WirePlan,
    wire_deviation,
    wire_grade_summary,
    wire_grades,
    wire_plans,
)


def row(status, grade="I", wire="I", plan=BEST_CORRIDOR):
    return {
        "level": "L1",
        "plan": plan,
        "status": status,
        "grade_cylinder": grade,
        "grade_wire": wire,
        "entry_error_mm": 0.4,
        "tip_error_mm": 0.5,
        "axis_error_deg": 0.2,
    }


def test_a_failed_placement_counts_and_a_missing_plan_does_not():
    rows = [row("placed"), row("placed", "II"), row("placed", "III", "II")]
    rows += [row("the marks of the entry give rays 3 mm apart"), row("no feasible plan: 0.3 mm")]
    found = wire_grade_summary(rows)
    assert found["placements"] == 4 and found["placed"] == 3
    assert found["grade_1_fraction"] == 0.25 and found["grade_1_or_2_fraction"] == 0.5
    assert found["wire_grade_1_fraction"] == 0.5
    assert found["entry_error_mean_mm"] == pytest.approx(0.4)


def test_without_a_feasible_plan_there_is_a_reason():
    found = wire_grade_summary([row("no feasible plan: 0.3 mm")])
    assert np.isnan(found["grade_1_fraction"])
    assert "feasible" in found["grade_1_fraction_reason"]
    assert "feasible" in found["entry_error_mean_mm_reason"]


def test_deviation_of_a_shifted_and_a_tilted_wire():
    plan = NeedlePath(jnp.zeros(3), jnp.array([0.0, 40.0, 0.0]), jnp.asarray(2.5))
    shift = jnp.array([0.3, 5.0, 0.4])
    moved = NeedlePath(shift, plan.target_point + shift, plan.radius)
    found = wire_deviation(moved, plan)
    assert found["entry_error_mm"] == pytest.approx(0.5, abs=1e-5)
    assert found["axis_error_deg"] == pytest.approx(0.0, abs=1e-3)
    tilted = NeedlePath(plan.entry_point, jnp.array([40.0 * np.tan(0.02), 40.0, 0.0]), plan.radius)
    assert wire_deviation(tilted, plan)["axis_error_deg"] == pytest.approx(np.rad2deg(0.02))


class Bone:
    """A cylinder of bone along y, 5.5 mm in radius, about x = 3."""

    def __init__(self):
        low = np.array([-12.0, -10.0, -12.0])
        points = low + np.indices((31, 61, 25)).reshape(3, -1).T
        across = np.hypot(points[:, 0] - 3.0, points[:, 2]) - 5.5
        affine = np.eye(4)
        affine[:3, 3] = low
        values = np.maximum(across, np.maximum(-points[:, 1], points[:, 1] - 45.0))
        self.field = DistanceField(
            jnp.asarray(values.reshape(31, 61, 25), jnp.float32), jnp.asarray(affine, jnp.float32)
        )
        ends = np.array([[3.0, 0.0, 0.0], [3.0, 40.0, 0.0]])
        self.paths = jnp.asarray(np.stack([ends, ends + np.array([4.0, 0.0, 0.0])]), jnp.float32)


def test_wires_are_graded_in_the_true_bone():
    bone = Bone()
    for x, cylinder, wire in ((3.0, "I", "I"), (7.0, "II", "I"), (9.0, "III", "II")):
        path = NeedlePath(jnp.array([x, 0.0, 0.0]), jnp.array([x, 40.0, 0.0]), jnp.asarray(1.0))
        found = wire_grades(path, bone.field)
        assert (found["grade_cylinder"], found["grade_wire"]) == (cylinder, wire)


def test_plans_are_the_best_corridors():
    bone = Bone()
    left, right = wire_plans(bone.paths, bone.field, None)
    assert isinstance(left, WirePlan) and left.feasible and right.feasible
    assert right.clearance_mm > 1.9  # starts 4 mm off the middle, moves back toward it
