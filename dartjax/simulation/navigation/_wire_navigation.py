"""Simulated placement of wires in pedicles by two-plane navigation, from X-rays to grades."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import data
from dartjax.data import PlannedPaths
from dartjax.observations import NeedlePath
from dartjax.robot import NavigationError, StatusCode, navigation
from dartjax.simulation._ground_truth import TrueVertebra
from dartjax.simulation.navigation._point_location import locate_by_cameras, point_errors
from dartjax.simulation.navigation._robot import place_wire, robot_base_for
from dartjax.simulation.navigation._scene import (
    WIRE_RADIUS_MM,
    DistortionResidual,
    NavigationView,
    RegisteredPair,
    distortion_residual,
    expose_and_register,
    held_target,
    mark_points,
    navigation_views,
    recorded_target_balls,
)
from dartjax.simulation.navigation._wire_check import WireCheck, check_wire, wire_check_summary
from dartjax.simulation.navigation._wires import (
    BEST_CORRIDOR,
    FEASIBLE_CLEARANCE_MM,
    FROM_RECONSTRUCTION,
    WirePlan,
    wire_deviation,
    wire_grade_summary,
    wire_grades,
    wire_plans,
)
from dartjax.transforms import SE3

_EXPOSURES = 3  # attempts to register a pair of images
_CHECKS_KEPT = 8  # placements with stored check images

_place = jax.jit(place_wire)


class RegistrationExample(NamedTuple):
    """Registered pair of images, with recorded pixels of its balls per view (layer, ball, 2)."""

    pair: RegisteredPair
    pixels: Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class WireNavigation:
    """Results of navigated wires in one or several vertebrae."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # one per placement
    point_errors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    residuals: list[DistortionResidual] = dataclasses.field(default_factory=list)  # one per view
    checks: list[WireCheck] = dataclasses.field(default_factory=list)  # the first few
    example: RegistrationExample | None = None
    num_pairs: int = 0  # exposed pairs of images
    num_rejected: int = 0  # pairs that could not be registered

    def merged(self, other: "WireNavigation") -> "WireNavigation":
        """Merge two results, this one first."""
        names = self.point_errors | other.point_errors
        both = [self.point_errors, other.point_errors]
        return WireNavigation(
            rows=self.rows + other.rows,
            point_errors={
                name: np.concatenate([errors[name] for errors in both if name in errors])
                for name in names
            },
            residuals=self.residuals + other.residuals,
            checks=(self.checks + other.checks)[:_CHECKS_KEPT],
            example=self.example or other.example,
            num_pairs=self.num_pairs + other.num_pairs,
            num_rejected=self.num_rejected + other.num_rejected,
        )


class _Scene(NamedTuple):
    """One vertebra in front of the C-arm."""

    truth: TrueVertebra
    plans: list[WirePlan]
    center: np.ndarray
    pair: tuple[NavigationView, NavigationView]
    click_px: float


def navigate_wires(
    case: data.Case,
    truth: TrueVertebra,
    planned: PlannedPaths | None,
    *,
    seed: int,
    number: int,
    repeats: int,
    num_points: int,
    click_px: float,
    bolus: bool = True,
) -> WireNavigation:
    """Simulate wire placements in both pedicles of a vertebra, `repeats` times.

    Wires follow the best corridors and, if given, the `planned` paths of a reconstruction. The
    random numbers depend on `seed` and on the `number` of the vertebra in the run. Marks have a
    noise of `click_px` per axis; `num_points` points are located in every pair of images; `bolus`
    places bags of saline where the beam would not pass the patient.
    """
    rng = np.random.default_rng([seed, number, 2])
    plans = wire_plans(truth.paths, truth.field, planned)
    center = np.mean([np.asarray(p.path.entry_point + p.path.target_point) / 2 for p in plans], 0)
    pair = navigation_views(case, center, seed, number, bolus=bolus)
    scene = _Scene(truth, plans, center, pair, click_px)
    found = WireNavigation(
        rows=[_infeasible(p) for p in plans if p.source == BEST_CORRIDOR and not p.feasible],
        residuals=[distortion_residual(view, rng) for view in pair],
    )
    for repeat in range(repeats):
        found = found.merged(_navigate_once(scene, repeat, num_points, rng))
    name = {"subject": case.subject, "level": truth.level}
    return dataclasses.replace(found, rows=[name | row for row in found.rows])


def _infeasible(plan: WirePlan) -> dict[str, Any]:
    return {
        "side": plan.side,
        "plan": plan.source,
        "plan_clearance_mm": plan.clearance_mm,
        "status": f"no feasible plan: the best corridor leaves {plan.clearance_mm:.1f} mm "
        f"around a 5 mm cylinder, less than {FEASIBLE_CLEARANCE_MM:g} mm",
    }


def _navigate_once(
    scene: _Scene, repeat: int, num_points: int, rng: np.random.Generator
) -> WireNavigation:
    """Register one pair of images, and place a wire along every feasible or given plan."""
    tried = [p for p in scene.plans if p.feasible or p.source == FROM_RECONSTRUCTION]
    seen, T_world_target, num_pairs = _expose(scene, rng)
    if seen is None:
        reason = f"no pair of images could be registered in {_EXPOSURES} exposures"
        rows = [
            {"side": p.side, "plan": p.source, "repeat": repeat, "status": reason} for p in tried
        ]
        return WireNavigation(rows, num_pairs=num_pairs, num_rejected=num_pairs)
    errors = point_errors(seen, scene.pair, T_world_target, num_points, scene.click_px, rng)
    rows, checks = [], []
    for plan in tried:
        row, check = _place_and_check(plan, scene, seen, T_world_target, rng)
        rows.append({"repeat": repeat, **row})
        checks += [check] if check else []
    return WireNavigation(
        rows=rows,
        point_errors=errors,
        checks=checks,
        example=RegistrationExample(seen, recorded_target_balls(seen, scene.pair)),
        num_pairs=num_pairs,
        num_rejected=num_pairs - 1,
    )


def _expose(scene: _Scene, rng: np.random.Generator) -> tuple[RegisteredPair | None, SE3, int]:
    """Registered images, T_world_target, and the number of exposed pairs. After a failed
    registration the target is repositioned."""
    T_world_target = held_target(scene.center, rng)
    for attempt in range(_EXPOSURES):
        try:
            seen = expose_and_register(scene.pair, T_world_target, int(rng.integers(2**30)))
            return seen, T_world_target, attempt + 1
        except NavigationError:
            T_world_target = held_target(scene.center, rng)
    return None, T_world_target, _EXPOSURES


def _place_and_check(
    plan: WirePlan,
    scene: _Scene,
    seen: RegisteredPair,
    T_world_target: SE3,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], WireCheck | None]:
    """Place one wire, grade it and check it in images."""
    row, wire = _placement(plan, scene, seen, T_world_target, rng)
    if wire is None:
        return row, None
    title = f"{scene.truth.level} {plan.side}, grade {row['grade_cylinder']}"
    shot = int(rng.integers(2**30))
    measured, check = check_wire(title, plan, wire, seen, scene.pair, T_world_target, shot)
    return row | measured, check


def _placement(
    plan: WirePlan,
    scene: _Scene,
    seen: RegisteredPair,
    T_world_target: SE3,
    rng: np.random.Generator,
) -> tuple[dict[str, Any], NeedlePath | None]:
    """Place one wire from its marks and grade it; no wire if the placement failed."""
    row: dict[str, Any] = {
        "side": plan.side,
        "plan": plan.source,
        "plan_clearance_mm": plan.clearance_mm,
    }
    try:
        located, gap = _locate_plan(plan, scene, seen, rng)
    except NavigationError as error:
        return row | {"status": str(error)}, None
    key = jax.random.key(int(rng.integers(2**31)))
    placed = _place(located, T_world_target, robot_base_for(plan.path), key=key)
    if int(placed.status):
        code = StatusCode(int(placed.status)).name.lower().replace("_", " ")
        return row | {"status": f"not positioned: {code}"}, None
    wire = NeedlePath(placed.entry_point, placed.target_point, jnp.asarray(WIRE_RADIUS_MM))
    return row | wire_grades(wire, scene.truth.field) | wire_deviation(wire, plan.path) | {
        "gap_mm": gap,
        "open_loop_mm": float(placed.open_error[0]),
        "measurements": int(placed.measurements),
        "status": "placed",
    }, wire


def _locate_plan(
    plan: WirePlan, scene: _Scene, seen: RegisteredPair, rng: np.random.Generator
) -> tuple[NeedlePath, float]:
    """Plan in the frame of the target, and the gap between its rays (mm).

    The best corridor is marked by hand in both images. A reconstruction was planned in the
    calibrated cameras, whose poses follow from the target's balls.
    """
    ends = np.stack([np.asarray(plan.path.entry_point), np.asarray(plan.path.target_point)])
    if plan.source == BEST_CORRIDOR:
        marks = mark_points(ends, scene.pair, rng, scene.click_px)
        path, points = navigation.locate_path(marks[0], marks[1], seen.views)
        return path, float(np.max(points.gap))
    marks = mark_points(ends, scene.pair, rng, 0.0)
    entry, target = jnp.asarray(locate_by_cameras(seen, scene.pair, marks))
    return NeedlePath(entry, target, plan.path.radius), 0.0


def wire_navigation_summary(found: WireNavigation) -> dict[str, Any]:
    """Summarise all points and placements; grades include only feasible plans."""
    summary = _point_summary(found.point_errors) | _distortion_summary(found.residuals)
    summary |= {
        "image_pairs": found.num_pairs,
        "image_pairs_refused": found.num_rejected,
        "infeasible_plans": sum(r["status"].startswith("no feasible") for r in found.rows),
    }
    summary |= wire_grade_summary([r for r in found.rows if r["plan"] == BEST_CORRIDOR])
    summary |= wire_check_summary(found.rows)
    if other := [r for r in found.rows if r["plan"] == FROM_RECONSTRUCTION]:
        grades = wire_grade_summary(other)
        summary |= {f"reconstructed_{key}": value for key, value in grades.items()}
    return summary


def _point_summary(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    exact = errors.get("exact", np.array([np.nan]))
    return {
        "target_error_mean_mm": float(np.mean(exact)),
        "target_error_p95_mm": float(np.percentile(exact, 95)),
        "target_error_max_mm": float(np.max(exact)),
        "target_points": len(exact),
        **{
            f"target_error_{name}_mean_mm": float(np.mean(errors.get(name, [np.nan])))
            for name in ("clicked", "dlt", "cameras", "predicted")
        },
        "ray_gap_mean_mm": float(np.mean(errors.get("gap", [np.nan]))),
    }


def _distortion_summary(residuals: Sequence[DistortionResidual]) -> dict[str, Any]:
    local = np.concatenate([r.local for r in residuals])
    polynomial = np.concatenate([r.polynomial for r in residuals])
    uncorrected = np.concatenate([r.uncorrected for r in residuals])
    return {
        "distortion_residual_mean_mm": float(np.mean(local)),
        "distortion_residual_max_mm": float(np.max(local)),
        "distortion_polynomial_mean_mm": float(np.mean(polynomial)),
        "distortion_polynomial_max_mm": float(np.max(polynomial)),
        "distortion_uncorrected_mean_mm": float(np.mean(uncorrected)),
    }
