"""The navigation experiment: what it counts, and that its room is put together right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import robot as robots
from dartjax import transforms
from dartjax.observations import NeedlePath
from dartjax.planning import DistanceField
from dartjax.robot import carm, navigation
from dartjax.simulation import Plan
from dartjax.simulation import _navigation_robot as navigate_loop
from dartjax.simulation import _navigation_room as scenes
from dartjax.simulation import _wire_check as navigate_check
from dartjax.simulation import _wires as navigate_wires
from experiments.navigate import report as navigate_report


def row(status, grade="I", wire="I", plan=navigate_wires.TRUTH):
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


def test_a_refused_placement_counts_and_a_missing_plan_does_not():
    rows = [row("placed"), row("placed", "II"), row("placed", "III", "II")]
    rows += [row("the marks of the entry give rays 3 mm apart"), row("no feasible plan: 0.3 mm")]
    found = navigate_wires.grades_of(rows)
    assert found["placements"] == 4 and found["placed"] == 3
    assert found["grade_1_fraction"] == 0.25 and found["grade_1_or_2_fraction"] == 0.5
    assert found["wire_grade_1_fraction"] == 0.5
    assert found["entry_error_mean_mm"] == pytest.approx(0.4)


def test_without_a_feasible_plan_there_is_a_reason():
    found = navigate_wires.grades_of([row("no feasible plan: 0.3 mm")])
    assert np.isnan(found["grade_1_fraction"])
    assert "feasible" in found["grade_1_fraction_reason"]
    assert "feasible" in found["entry_error_mean_mm_reason"]


def test_deviation_of_a_shifted_and_a_tilted_wire():
    plan = NeedlePath(jnp.zeros(3), jnp.array([0.0, 40.0, 0.0]), jnp.asarray(2.5))
    shift = jnp.array([0.3, 5.0, 0.4])
    moved = NeedlePath(shift, plan.target_point + shift, plan.radius)
    found = navigate_wires.deviation(moved, plan)
    assert found["entry_error_mm"] == pytest.approx(0.5, abs=1e-5)
    assert found["axis_error_deg"] == pytest.approx(0.0, abs=1e-3)
    tilted = NeedlePath(plan.entry_point, jnp.array([40.0 * np.tan(0.02), 40.0, 0.0]), plan.radius)
    assert navigate_wires.deviation(tilted, plan)["axis_error_deg"] == pytest.approx(
        np.rad2deg(0.02)
    )


class Bone:
    """A bore of bone along y, 5.5 mm in radius, about x = 3."""

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
        found = navigate_wires.graded(path, bone.field)
        assert (found["grade_cylinder"], found["grade_wire"]) == (cylinder, wire)


def test_plans_are_the_best_corridors():
    bone = Bone()
    left, right = navigate_wires.plans_of(bone.paths, bone.field, None)
    assert isinstance(left, Plan) and left.feasible and right.feasible
    assert right.clearance_mm > 1.9  # carried 4 mm off the middle, moved back toward it


@pytest.mark.slow
def test_a_target_is_registered_from_its_shadows_and_the_wrong_part_is_not():
    """Without anatomy: render, detect, recognise, locate."""
    view = transforms.view_rotation("AP")
    K = carm.intrinsics(scenes.FOCAL_LENGTH, jnp.array(scenes.CENTER))
    flat = carm.CarmView(K, carm.flat_panel(), view, scenes.IMAGE_SIZE)
    rays = carm.image_rays(flat)
    T_world_target = scenes.held_target(np.zeros(3), np.random.default_rng(0))
    camera = transforms.SE3.from_rotation_and_translation(
        view, view.apply(jnp.array([0.0, 0.0, -scenes.SOURCE_TO_ISOCENTER]))
    ).inverse()
    for part, status in ((0, robots.StatusCode.OK), (1, robots.StatusCode.CORRESPONDENCE_FAILED)):
        # The other part, held before this view: a target mounted the wrong way round.
        swap = transforms.SE3.from_rotation(
            transforms.SO3.from_matrix(scenes.TARGET.R_biplanar_part[part].T)
        )
        balls = scenes.TARGET.points(part).reshape(-1, 3)
        metal = carm.balls_attenuation(
            rays, flat, balls, scenes.TARGET.radius, camera @ T_world_target @ swap
        )
        image = scenes._record(jnp.zeros(scenes.IMAGE_SIZE), metal, jax.random.key(0))
        found = scenes._detect(image, scenes.TARGET_BALLS)
        match, code = navigation.match_part(
            found.centers,
            found.valid,
            scenes.TARGET,
            0,
            focal_length=scenes.FOCAL_LENGTH,
            source_to_isocenter=scenes.SOURCE_TO_ISOCENTER,
            center=jnp.array(scenes.CENTER),
        )
        assert code == status
        if part == 0:
            assert int(match.seen.sum()) > 105 and float(match.rms_px) < 0.1


@pytest.mark.parametrize("grey", [255.0, 0.0])
def test_a_saturated_image_is_named_before_anything_is_sought(grey):
    with pytest.raises(robots.DetectionFailed, match="expose it again"):
        scenes.register_image(jnp.full(scenes.IMAGE_SIZE, grey), None, 0)  # pyright: ignore


def test_deviation_of_a_line_from_the_plan_in_an_image():
    planned = np.array([[300.0, 200.0], [400.0, 200.0]])
    shifted = navigate_check._Line(np.array([250.0, 203.0]), np.array([-1.0, 0.0]))
    offset, angle = navigate_check._deviation(shifted, planned)
    assert offset == pytest.approx(3.0 * navigate_check.MM_PER_PX) and angle == pytest.approx(0.0)
    turn = np.deg2rad(2.0)
    tilted = navigate_check._Line(planned[0], np.array([np.cos(turn), np.sin(turn)]))
    offset, angle = navigate_check._deviation(tilted, planned)
    assert offset == pytest.approx(0.0, abs=1e-9) and angle == pytest.approx(2.0)


@pytest.mark.slow
def test_the_loop_positions_robots_that_are_built_wrong():
    rows = navigate_report.loop_rows(navigate_loop.study(20, 0))
    many, one = rows
    assert many["settled"] == 1.0 and many["mean [mm]"] < 0.1 and many["mean [deg]"] < 0.05
    assert many["measurements, most"] <= 4
    assert one["mean [mm]"] > many["mean [mm]"]
