"""Wires in pedicles by two-plane navigation, end to end from rendered X-rays (Li, Du, Yu 2020).

  python -m experiments.navigate
  python -m experiments.navigate --cohort=FOLDER[,FOLDER] --levels=L1-L5 --repeats=3
  python -m experiments.navigate --run=FOLDER     also the plans of a `reconstruct` run

Per vertebra: AP and lateral views, each calibrated from an image of a plate; per repeat the
robot holds the bi-planar target into both, the path is marked in the images, a tracker closes
the loop about a robot whose structure is off, and the wire is placed in the true anatomy, looked
at in both views and graded after Gertzbein and Robbins. The plan is the best corridor in the true
bone; where it leaves less than 1.5 mm around a 5 mm cylinder, no wire is placed and the table says
so. Leaves tables.md, pictures, report.html and every placement in metrics.json.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, data, simulation
from dartjax import robot as robots
from dartjax.data import PlannedPaths, read_plans, read_record
from dartjax.image import Volume
from dartjax.observations import NeedlePath
from dartjax.robot import NavigationError, carm, navigation
from dartjax.simulation import (
    FEASIBLE_MM,
    RECONSTRUCTED,
    TRUTH,
    Plan,
    Registered,
    Residual,
    Row,
    TrueVertebra,
    View,
    deviation,
    graded,
    grades_of,
    plans_of,
)
from dartjax.transforms import SE3
from experiments.navigate import report as navigate_report

_COHORT = flags.DEFINE_list("cohort", [], "Folders of CTs with masks; default: the example CT.")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects of the cohort.")
_LEVELS = flags.DEFINE_string("levels", "T11,T12,L1", "Levels, such as L1-L5 or T10,L1.")
_REPEATS = flags.DEFINE_integer("repeats", 4, "Placements per pedicle.", lower_bound=1)
_CLICK = flags.DEFINE_float("click_px", 1.0, "Standard deviation of marks, px per axis.")
_TARGETS = flags.DEFINE_integer("targets", 40, "Points located per pair of images.", lower_bound=1)
_ROBOTS = flags.DEFINE_integer("robots", 200, "Robots of the closed-loop study.", lower_bound=2)
_BOLUS = flags.DEFINE_bool("bolus", True, "Bags of saline where the beam would be bare.")
_RUN = flags.DEFINE_string("run", None, "Run folder of `reconstruct` whose plans to follow too.")

FIELD_MM = 25.0
_EXPOSURES = 3  # of one placement, before it is given up
_CHECKED = 8  # placements whose check images are kept

_place = jax.jit(simulation.place)
_locate = jax.jit(jax.vmap(navigation.locate_point, (0, None)))
_pose = jax.jit(carm.estimate_pose)
_dlt = jax.jit(carm.projection_dlt)


@dataclasses.dataclass
class Found:
    """What the run gathers."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    errors: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    residuals: list[Residual] = dataclasses.field(default_factory=list)
    checks: list[simulation.Check] = dataclasses.field(default_factory=list)
    example: Registered | None = None
    example_pixels: Sequence[np.ndarray] = ()  # of its balls as recorded, (layer, ball, 2)
    refused: int = 0
    pairs: int = 0

    def add(self, name: str, errors: np.ndarray) -> None:
        """More errors of points under a name."""
        self.errors.setdefault(name, []).append(errors)


def main(ctx: cli.RunContext) -> None:
    """Every vertebra in turn, the closed-loop study, then tables and pictures."""
    found, cases, number, levels = Found(), [], 0, 0
    plans = _planned_elsewhere()
    wanted = tuple(data.parse_levels(_LEVELS.value)) if _LEVELS.value else ()
    for case in _cases(wanted):
        cases.append(_without_voxels(case))
        known = simulation.true_vertebrae(case, wanted)
        with cli.progress(f"wires in {case.subject}", len(known)) as step:
            for truth in known:
                _vertebra(case, truth, plans, found, ctx.seed, number)
                number += 1
                step(truth.level)
        levels += len(known)
    with cli.progress("closed loop", 1) as step:
        loop = simulation.study(_ROBOTS.value, ctx.seed)
        step(f"{_ROBOTS.value} robots")
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})),
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=levels,
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=None,
        ssm_leak=_planned_by_leak(),
    )
    summary = summary_of(found) | navigate_report.loop_summary(loop)
    navigate_report.write(ctx.out, record, summary, found, loop)
    ctx.save_metrics(record, summary, found.rows)


def _cases(wanted: Sequence[str]) -> Iterator[data.Case]:
    """One at a time; subjects that have none of the wanted levels are named and left out."""
    if not _COHORT.value:
        with cli.progress("example chest CT"):
            yield data.example_case()
        return
    subjects = [subject for folder in _COHORT.value for subject in data.find_subjects(folder)]
    chosen = [s for s in subjects if not _SUBJECTS.value or s.id in _SUBJECTS.value]
    if not chosen:
        raise data.DataError(f"the cohort has none of {', '.join(_SUBJECTS.value)}")
    if len(kinds := {s.dataset_kind for s in chosen}) > 1:
        raise data.DataError(f"the cohort mixes {' and '.join(sorted(kinds))} data: run them apart")
    some = False
    for subject in chosen:
        case = data.load_case(subject)
        if wanted and not set(wanted) & set(case.levels):
            print(f"{case.subject} has no complete {', '.join(wanted)}", file=sys.stderr)
            continue
        some = True
        yield case
    if not some:
        raise data.DataError(f"no subject has a complete {', '.join(wanted)}")


def _without_voxels(case: data.Case) -> data.Case:
    """Who it was, for the record: a cohort's CTs do not all fit in memory."""
    empty = Volume(jnp.zeros((1, 1, 1)), case.ct.world_from_voxel)
    return dataclasses.replace(case, ct=empty, labels=np.zeros((1, 1, 1), np.uint8))


def _planned_elsewhere() -> dict[tuple[str, str], PlannedPaths]:
    """Plans of a `reconstruct` run by subject and level, from the first pair of views that show
    the vertebra."""
    if _RUN.value is None:
        return {}
    plans = read_plans(pathlib.Path(_RUN.value))
    first: dict[tuple[str, str], PlannedPaths] = {}
    for own in sorted(plans, key=lambda each: each.pair):
        first.setdefault((own.subject, own.level), own)
    return first


def _planned_by_leak() -> bool:
    """Whether the run whose plans are followed used shape models that had seen its subjects. The
    best corridors owe nothing to a model: it only says where in the true bone to begin."""
    return bool(_RUN.value and read_record(pathlib.Path(_RUN.value))["ssm_leak"])


def _vertebra(
    case: data.Case,
    truth: TrueVertebra,
    elsewhere: Mapping[tuple[str, str], PlannedPaths],
    found: Found,
    seed: int,
    number: int,
) -> None:
    """All placements in one vertebra."""
    given = elsewhere.get((case.subject, truth.level))
    plans = plans_of(truth.paths, truth.field, given)
    name = {"subject": case.subject, "level": truth.level}
    for plan in plans:
        if plan.source == TRUTH and not plan.feasible:
            found.rows.append(_infeasible(name, plan))
    rng = np.random.default_rng([seed, number, 2])
    center = np.mean([np.asarray(p.path.entry_point + p.path.target_point) / 2 for p in plans], 0)
    pair = simulation.views_of(case, center, seed, number, bolus=_BOLUS.value)
    found.residuals += [simulation.distortion_residual(view, rng) for view in pair]
    for repeat in range(_REPEATS.value):
        tried = [p for p in plans if p.feasible or p.source == RECONSTRUCTED]
        seen, T_world_target = _exposed(pair, center, rng, found)
        if seen is None:
            reason = f"no pair of images could be registered in {_EXPOSURES} exposures"
            place = [{"side": p.side, "plan": p.source, "repeat": repeat} for p in tried]
            found.rows += [{**name, **each, "status": reason} for each in place]
            continue
        measure_points(seen, pair, T_world_target, rng, found)
        if found.example is None:
            found.example, found.example_pixels = seen, simulation.recorded_balls(seen, pair)
        for plan in tried:
            row, wire = _placement(plan, truth, seen, pair, T_world_target, rng)
            if wire is not None:
                title = f"{truth.level} {plan.side}, grade {row['grade_cylinder']}"
                shot = int(rng.integers(2**30))
                own, check = simulation.check(title, plan, wire, seen, pair, T_world_target, shot)
                row |= own
                if len(found.checks) < _CHECKED:
                    found.checks.append(check)
            found.rows.append({**name, "repeat": repeat, **row})


def _exposed(
    pair: tuple[View, View], center: np.ndarray, rng: np.random.Generator, found: Found
) -> tuple[Registered | None, SE3]:
    """Images that could be registered. After a refusal the target is held anew, as its message
    asks."""
    T_world_target = simulation.held_target(center, rng)
    for _ in range(_EXPOSURES):
        found.pairs += 1
        try:
            seen = simulation.register_pair(pair, T_world_target, int(rng.integers(2**30)))
            return seen, T_world_target
        except NavigationError:
            found.refused += 1
            T_world_target = simulation.held_target(center, rng)
    return None, T_world_target


def _infeasible(name: Row, plan: Plan) -> Row:
    return {
        **name,
        "side": plan.side,
        "plan": plan.source,
        "plan_clearance_mm": plan.clearance_mm,
        "status": f"no feasible plan: the best corridor leaves {plan.clearance_mm:.1f} mm "
        f"around a 5 mm cylinder, less than {FEASIBLE_MM:g} mm",
    }


def measure_points(
    seen: Registered,
    pair: tuple[View, View],
    T_world_target: SE3,
    rng: np.random.Generator,
    found: Found,
) -> None:
    """Errors of points within 25 mm of the middle, by every way to locate them."""
    points = rng.uniform(-FIELD_MM, FIELD_MM, (_TARGETS.value, 3))
    in_world = np.asarray(T_world_target.apply(jnp.asarray(points, jnp.float32)))
    for name, click in (("exact", 0.0), ("clicked", _CLICK.value)):
        marks = simulation.marks_of(in_world, pair, rng, click)
        located, status = _locate(marks, seen.views)
        good = np.asarray(status) == 0
        found.add(name, np.linalg.norm(np.asarray(located.point) - points, axis=1)[good])
        if name == "exact":
            found.add("gap", np.asarray(located.gap)[good])
            sigma = np.sqrt(np.trace(np.asarray(located.covariance), axis1=1, axis2=2))
            found.add("predicted", sigma[good])
            found.add("cameras", np.linalg.norm(_by_cameras(seen, pair, marks) - points, axis=1))
            found.add("dlt", np.linalg.norm(_by_dlt(seen, marks) - points, axis=1))


def _balls_of(seen: Registered, part: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    match = seen.matches[part]
    points = simulation.TARGET.points(part).reshape(-1, 3)
    return match.pixels.reshape(-1, 2), points, match.seen.reshape(-1)


def _by_dlt(seen: Registered, marks: jax.Array) -> np.ndarray:
    """The same points by projection matrices of 11 parameters instead of two planes."""
    sources, directions = [], []
    for part in (0, 1):
        pixels, points, valid = _balls_of(seen, part)
        P = np.asarray(_dlt(points, pixels, valid), float)
        rays = np.linalg.solve(P[:, :3], np.c_[np.asarray(marks[:, part]), np.ones(len(marks))].T).T
        directions.append(rays / np.linalg.norm(rays, axis=1, keepdims=True))
        sources.append(np.broadcast_to(-np.linalg.solve(P[:, :3], P[:, 3]), rays.shape))
    return _triangulated(sources, directions)


def _by_cameras(seen: Registered, pair: tuple[View, View], marks: jax.Array) -> np.ndarray:
    """The same points by the calibrated cameras, which a planner sees them with: K from the
    plate, the pose from the target's balls."""
    sources, directions = [], []
    for part, view in enumerate(pair):
        pixels, points, valid = _balls_of(seen, part)
        K = view.calibrated.carm.K
        T_target_camera = _pose(pixels, points, valid, K)[0].T_camera_object.inverse()
        slopes = np.asarray(carm.to_slopes(K, marks[:, part]))
        rays = (
            np.c_[slopes, np.ones(len(slopes))]
            @ np.asarray(T_target_camera.rotation().as_matrix()).T
        )
        directions.append(rays / np.linalg.norm(rays, axis=1, keepdims=True))
        sources.append(np.broadcast_to(np.asarray(T_target_camera.translation()), rays.shape))
    return _triangulated(sources, directions)


def _triangulated(sources: Sequence[np.ndarray], directions: Sequence[np.ndarray]) -> np.ndarray:
    both = np.stack(sources, axis=1), np.stack(directions, axis=1)
    X, _ = jax.vmap(navigation.triangulate_rays)(*(jnp.asarray(each, jnp.float32) for each in both))
    return np.asarray(X)


def _placement(
    plan: Plan,
    truth: TrueVertebra,
    seen: Registered,
    pair: tuple[View, View],
    T_world_target: SE3,
    rng: np.random.Generator,
) -> tuple[Row, NeedlePath | None]:
    """One wire from its marks to its grade."""
    row: Row = {"side": plan.side, "plan": plan.source, "plan_clearance_mm": plan.clearance_mm}
    try:
        located, gap = _path_of(plan, seen, pair, rng)
    except NavigationError as error:
        return row | {"status": str(error)}, None
    key = jax.random.key(int(rng.integers(2**31)))
    placed = _place(located, T_world_target, simulation.base_of(plan.path), key=key)
    if int(placed.status):
        code = robots.StatusCode(int(placed.status)).name.lower().replace("_", " ")
        return row | {"status": f"not positioned: {code}"}, None
    wire = NeedlePath(
        placed.entry_point, placed.target_point, jnp.asarray(simulation.WIRE_RADIUS_MM)
    )
    return row | graded(wire, truth.field) | deviation(wire, plan.path) | {
        "gap_mm": gap,
        "open_loop_mm": float(placed.open_error[0]),
        "measurements": int(placed.measurements),
        "status": "placed",
    }, wire


def _path_of(
    plan: Plan, seen: Registered, pair: tuple[View, View], rng: np.random.Generator
) -> tuple[NeedlePath, float]:
    """A plan in the frame of the target, and the gap between its rays (mm). A hand marks the best
    corridor in both images; a reconstruction was planned in the calibrated cameras, whose poses
    the target's balls tell."""
    ends = np.stack([np.asarray(plan.path.entry_point), np.asarray(plan.path.target_point)])
    if plan.source == TRUTH:
        marks = simulation.marks_of(ends, pair, rng, _CLICK.value)
        path, points = navigation.locate_path(marks[0], marks[1], seen.views)
        return path, float(np.max(points.gap))
    marks = simulation.marks_of(ends, pair, rng, 0.0)
    entry, target = jnp.asarray(_by_cameras(seen, pair, marks))
    return NeedlePath(entry, target, plan.path.radius), 0.0


def summary_of(found: Found) -> Row:
    """Numbers over all points and placements; grades of feasible plans alone."""
    errors = {name: np.concatenate(each) for name, each in found.errors.items()}
    exact = errors.get("exact", np.array([np.nan]))
    local = np.concatenate([r.local for r in found.residuals])
    polynomial = np.concatenate([r.polynomial for r in found.residuals])
    raw = np.concatenate([r.uncorrected for r in found.residuals])
    summary: Row = {
        "target_error_mean_mm": float(np.mean(exact)),
        "target_error_p95_mm": float(np.percentile(exact, 95)),
        "target_error_max_mm": float(np.max(exact)),
        "target_points": len(exact),
        **{
            f"target_error_{name}_mean_mm": float(np.mean(errors.get(name, [np.nan])))
            for name in ("clicked", "dlt", "cameras", "predicted")
        },
        "ray_gap_mean_mm": float(np.mean(errors.get("gap", [np.nan]))),
        "distortion_residual_mean_mm": float(np.mean(local)),
        "distortion_residual_max_mm": float(np.max(local)),
        "distortion_polynomial_mean_mm": float(np.mean(polynomial)),
        "distortion_polynomial_max_mm": float(np.max(polynomial)),
        "distortion_uncorrected_mean_mm": float(np.mean(raw)),
        "image_pairs": found.pairs,
        "image_pairs_refused": found.refused,
        "infeasible_plans": sum(r["status"].startswith("no feasible") for r in found.rows),
    }
    summary |= grades_of([r for r in found.rows if r["plan"] == TRUTH])
    summary |= simulation.summary_of(found.rows)
    if other := [r for r in found.rows if r["plan"] == RECONSTRUCTED]:
        summary |= {f"reconstructed_{key}": value for key, value in grades_of(other).items()}
    return summary


if __name__ == "__main__":
    cli.run(main)
