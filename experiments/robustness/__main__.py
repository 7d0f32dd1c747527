"""How reconstructions get worse: curves against cameras, views, landmarks and masks.

  python -m experiments.robustness --cohort=FOLDER --levels=T3,T6,T9,T12,L1 --repeats=2
      Every curve on these levels of every subject in VerSe layout.
  python -m experiments.robustness --cohort=FOLDER --curves=cameras
      Wrong geometry of the second view (0-3 deg, 0-10 mm), with the cameras as given and
      refined together with all vertebrae of the scene.

One thing is made worse at a time, with the same views, errors and random numbers otherwise.
Landmarks and masks come from a detector's error model and starts from them
(docs/reconstruction.md), then every vertebra is fitted by itself. Cameras are refined with all
complete levels, whatever --levels says. Leaves tables.md, robustness.png and every case in
metrics.json.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from dartjax import cli, data, pipeline, registration, simulation, transforms
from experiments.robustness import report as robustness_report
from experiments.robustness.curves import AXES, CURVES, Bench, CameraOutcome, Scene, only, started

_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with masks in VerSe layout.")
_CURVES = flags.DEFINE_list("curves", list(CURVES), f"Which of {', '.join(CURVES)}.")
_LEVELS = flags.DEFINE_string("levels", "T3,T6,T9,T12,L1", "Only these levels, such as T5-T8,L1.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Draws of views and errors per subject.", 1)

_EVIDENCE = flags.DEFINE_float(
    "evidence",
    12.6,
    "How strongly landmarks must contradict the cameras for a refinement to move them; 0 moves "
    "them always.",
    lower_bound=0.0,
)


def main(ctx: cli.RunContext) -> None:
    """Make the scenes, start and fit them, then grade and draw."""
    if unknown := set(_CURVES.value) - set(CURVES):
        raise data.DataError(
            f"--curves: there is no {', '.join(sorted(unknown))}; choose of {', '.join(CURVES)}"
        )
    if _COHORT.value is None:
        raise data.DataError("give --cohort=FOLDER, a folder in VerSe layout")
    curves = [curve for name in _CURVES.value for curve in CURVES[name]]
    cases = [data.load_case(subject) for subject in data.find_subjects(_COHORT.value)]
    if len({case.dataset_kind for case in cases}) > 1:
        raise data.DataError("the cohort mixes real and synthetic data: run them apart")
    scenes = [own for case in cases for own in _scenes(case, curves, ctx.seed)]
    with cli.progress("starts") as step:
        scenes, outcomes = started(scenes, _EVIDENCE.value, step)
    if _levels():
        scenes = only(scenes, _levels())
    rows = _graded(scenes, outcomes, ctx.seed)
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})),
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=len({(row["subject"], row["level"]) for row in rows}),
        ssm_excludes=simulation.excluded(cases),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(map(simulation.is_leak, cases)),
    )
    robustness_report.write_tables(ctx.out / "tables.md", record, rows, curves)
    robustness_report.draw(ctx.out / "robustness.png", rows, curves, _title(record, _REPEATS.value))
    ctx.save_metrics(record, _summary(rows, curves), rows)


def _scenes(case: data.Case, curves: Sequence[str], seed: int) -> list[Scene]:
    with cli.progress(f"true shapes of {case.subject}") as step:
        # Cameras are refined with every vertebra there is.
        wanted = () if set(curves) & set(CURVES["cameras"]) else _levels()
        known = simulation.true_vertebrae(case, wanted, step)
    levels = _levels() or [truth.level for truth in known]
    made = []
    with cli.progress(f"scenes of {case.subject}") as step:
        for repeat in range(_REPEATS.value):
            bench = Bench(case, known, levels, seed, repeat)
            for curve in curves:
                for own in bench.scenes(curve):
                    made.append(own)
                    step(f"{curve} {own.value:g}")
    return made


def _levels() -> Sequence[str]:
    return data.parse_levels(_LEVELS.value) if _LEVELS.value else ()


def _graded(
    scenes: Sequence[Scene], outcomes: Sequence[CameraOutcome], seed: int
) -> list[dict[str, Any]]:
    """A row per vertebra and scene."""
    rows: list[dict[str, Any]] = []
    views_of = [len(own.tasks[0].observations.view_valid) for own in scenes]
    for num_views in sorted(set(views_of)):
        chosen = [i for i, number in enumerate(views_of) if number == num_views]
        tasks = [task for i in chosen for task in scenes[i].tasks]
        with cli.progress(f"fits in {num_views} views") as step:
            estimates, _ = pipeline.run_method(
                registration.ALONE, tasks, num_starts=1, seed=seed, step=step
            )
        answers = iter(estimates)
        with cli.progress("grades", len(chosen)) as step:
            for i in chosen:
                own = [(task, next(answers)) for task in scenes[i].tasks]
                found = [_row(scenes[i], outcomes[i], *pair) for pair in own]
                if scenes[i].curve in CURVES["cameras"]:
                    found = [a | b for a, b in zip(found, _aligned(own), strict=True)]
                rows += found
                step()
    return rows


def _row(
    own: Scene, outcome: CameraOutcome, task: pipeline.Task, estimate: pipeline.Estimate
) -> dict[str, Any]:
    return {
        "subject": task.subject,
        "level": task.level,
        "curve": own.curve,
        "value": own.value,
        "arm": own.arm,
        "repeat": own.repeat,
        "rung": task.rung,
        "status": pipeline.status_text(task, estimate),
        "flagged": bool(task.refused) or estimate.status != 0,
        "angle_deg": task.angle_deg,
        **pipeline.grade(task, estimate),
        "camera_angle_left_deg": outcome.angle_left_deg,
        "camera_shift_left_mm": outcome.shift_left_mm,
        "camera_status": outcome.status,
    }


def _aligned(answers: Sequence[tuple[pipeline.Task, pipeline.Estimate]]) -> list[dict[str, Any]]:
    """Grades after one rigid motion of the whole scene onto the truth: what is left when it does
    not matter where the scene is, which the first view alone cannot tell."""
    given = [(task, found) for task, found in answers if not pipeline.refusal(task, found)]
    motion = transforms.SE3.identity()
    if given:
        corners = jnp.concatenate([30.0 * jnp.eye(3), -30.0 * jnp.eye(3)])
        fitted = jnp.concatenate([transforms.apply(f.pose, corners) for _, f in given])
        true = [transforms.apply(t.truth.pose, corners) for t, _ in given if t.truth is not None]
        motion = transforms.align_points(fitted, jnp.concatenate(true))
    rows = []
    for task, found in answers:
        graded = pipeline.grade(task, found._replace(pose=motion @ found.pose))
        rows.append({f"scene_aligned_{key}": graded[key] for key in ("dice", "masd_mm")})
    return rows


def _summary(rows: Sequence[dict[str, Any]], curves: Sequence[str]) -> dict[str, Any]:
    """Median Dice at both ends of every curve."""
    summary: dict[str, Any] = {"failures": sum(map(robustness_report.failed, rows))}
    for curve in curves:
        table = robustness_report.rows_of(rows, curve)
        for row in (table[0], table[-1]):
            name = f"{curve}_{row[AXES[curve]]:g}"
            summary[f"{name}_dice_median"] = row["Dice"]
    return summary


def _title(record: dict[str, Any], repeats: int) -> str:
    kind = "SYNTHETIC ANATOMY - not VerSe: " if record["dataset_kind"] == "synthetic" else ""
    return (
        f"{kind}{record['dataset']}, {record['n_vertebrae']} vertebrae, subjects: "
        f"{record['n_subjects']}, draws: {repeats}\n"
        "median and quartiles; in between: failures (MASD > 2 mm or no answer) of n"
    )


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    cli.run(main)
