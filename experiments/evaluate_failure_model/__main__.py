"""Are failures foretold, do intervals hold, and what repairs a failure?

python -m experiments.evaluate_failure_model --cohort=FOLDER --pairs=6
    Reconstructs every subject (none may be one that the model was fitted on) from bad
    simulated detections, every second scene with cameras that are not where they are said to
    be; judges the answers; tries again where they are refused; adds the third view that
    promises most. Leaves metrics.json, failure.png and trials.npz.
python -m experiments.evaluate_failure_model --trials=A.npz
    The first part from the trials of an earlier run.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, data, pipeline, registration, simulation
from dartjax.observations import Observations
from dartjax.pipeline import Estimate, Task
from dartjax.registration import FitOptions
from experiments.evaluate_failure_model import report as failure_report
from experiments.evaluate_failure_model import stress
from experiments.evaluate_failure_model.stress import Judged

_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs in VerSe layout.")
_LEVELS = flags.DEFINE_string("levels", None, "Only these levels, such as T5-L2.")
_PAIRS = flags.DEFINE_integer("pairs", 6, "Pairs of views per subject.", lower_bound=1)
_DETECTOR = flags.DEFINE_enum("detector", "stress", list(simulation.DETECTORS), "Error model.")
_TRIALS = flags.DEFINE_list("trials", [], "Trials of earlier runs instead of a cohort.")
_MODEL = flags.DEFINE_string("failure_model", None, "Folder of another model than the packaged.")
_RECIPE = flags.DEFINE_enum("recipe", "classical", stress.RECIPES, "Method that answers.")
_RECOVERY = flags.DEFINE_bool("recovery", True, "Try again where answers are refused.")


def main(ctx: cli.RunContext) -> None:
    """Collect trials or read them, judge them, and say how well."""
    if bool(_TRIALS.value) == (_COHORT.value is not None):
        raise data.DataError("give exactly one of --cohort=FOLDER and --trials=FILES")
    stored = data.load_failure_model(_MODEL.value)
    repaired: list[dict[str, Any]] = []
    if _TRIALS.value:
        found = stress.joined([stress.load_trials(file) for file in _TRIALS.value])
        dataset = ", ".join(_TRIALS.value)
    else:
        cases = [data.load_case(s) for s in data.find_subjects(str(_COHORT.value))]
        dataset = cases[0].dataset
        parts = []
        for case in cases:
            measured, rows = _of_case(ctx, case, stored)
            parts.append(measured)
            repaired += rows
        found = stress.joined(parts)
    if leaked := [s for s in set(map(str, found.subject)) if _learned_from(s, stored)]:
        raise data.DataError(f"the failure model was fitted on {', '.join(leaked)}")
    if len(kinds := set(map(str, found.kind))) > 1:
        raise data.DataError(f"{' and '.join(sorted(kinds))} are mixed: report them apart")
    stress.save_trials(ctx.out / "trials.npz", found)
    chance = pipeline.probabilities(found.features, stored)
    summary = failure_report.summary_of(found, chance, stored)
    for name, chosen in (
        ("true_cameras", found.severity == 0.0),
        ("wrong_cameras", found.severity > 0.0),
    ):
        if chosen.any():
            key = f"failure_auroc_{name}"
            summary |= pipeline.failure_auroc(chance[chosen], found.failed[chosen], key)
            summary[f"n_failures_{name}"] = int(found.failed[chosen].sum())
    summary |= _repair_summary(repaired)
    record = ctx.record(
        dataset=dataset,
        dataset_kind=str(found.kind[0]),
        subjects=[str(s) for s in found.subject],
        n_vertebrae=len(set(zip(found.subject, found.level, strict=True))),
        ssm_excludes=sorted({str(s) for s in found.subject}),
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, summary, [*failure_report.cases(found, chance), *repaired])
    failure_report.write_figure(ctx.out / "failure.png", found, chance, stored, dataset)


def _learned_from(subject: str, stored: data.StoredFailureModel) -> bool:
    return data.includes_subject(stored.card, subject)


def _of_case(
    ctx: cli.RunContext, case: data.Case, stored: data.StoredFailureModel
) -> tuple[stress.Trials, list[dict[str, Any]]]:
    method = pipeline.RECIPES[_RECIPE.value]
    measured, judged = stress.collect(
        case,
        () if _LEVELS.value is None else data.parse_levels(_LEVELS.value),
        detectors=[_DETECTOR.value],
        pairs=_PAIRS.value,
        seed=ctx.seed,
        method=method,
    )
    rows: list[dict[str, Any]] = []
    if _RECOVERY.value:
        with cli.progress(f"recovery of {case.subject}") as step:
            for own in judged:
                rows += _recovered(
                    case, own, registration.FIT_OPTIONS[method], stored, ctx.seed, step
                )
    return measured, rows


def _recovered(
    case: data.Case,
    own: Judged,
    options: FitOptions,
    stored: data.StoredFailureModel,
    seed: int,
    step: stress.Step,
) -> list[dict[str, Any]]:
    """A row for every answer of a scene that is refused: its MASD before, after trying again,
    and with a third view."""
    chosen, answers, around, assessed = own
    tasks = chosen.tasks
    judged = pipeline.judge(assessed, stored)
    reasons = pipeline.refusals(judged, stored.threshold)
    refused = [
        i
        for i, reason in enumerate(reasons)
        if reason and not pipeline.refusal(tasks[i], answers[i])
    ]
    if not refused:
        return []
    again = pipeline.recover(
        tasks, answers, assessed, options, stored, around, seed=seed, step=step
    )
    wider, expected = _third_view(case, own, refused, options, seed, step)
    with_third, _ = pipeline.run_method(
        pipeline.RECIPES[_RECIPE.value], wider, num_starts=1, seed=seed, step=step
    )
    rows = []
    for i, third in zip(refused, with_third, strict=True):
        rows.append(
            {
                "subject": tasks[i].subject,
                "level": tasks[i].level,
                "pair": tasks[i].pair,
                "camera_severity": chosen.severity,
                "failure_probability": judged[i].probability,
                "masd_mm": _masd(tasks[i], answers[i]),
                "masd_recovered_mm": _masd(tasks[i], again.estimates[i]),
                "failure_probability_recovered": again.judgements[i].probability,
                "recovered_by": again.how[i],
                "masd_third_view_mm": _masd(tasks[i], third),
                "path_std_ratio_third_view": expected,
            }
        )
    return rows


def _masd(task: Task, estimate: Estimate) -> float:
    return pipeline.grade(task, estimate)["masd_mm"]


def _third_view(
    case: data.Case,
    own: Judged,
    refused: Sequence[int],
    options: FitOptions,
    seed: int,
    step: stress.Step,
) -> tuple[list[Task], float]:
    """The refused tasks with the one further X-ray that promises most for them together, taken
    and looked at by the same detector; and the expected ratio of the path points' deviation."""
    chosen, answers, around, _ = own
    tasks = [chosen.tasks[i] for i in refused]
    first = chosen.radiographs[0].camera
    middle = np.mean([np.asarray(t.start.translation()) for t in chosen.tasks], axis=0)
    ring = pipeline.view_ring(middle, first)
    near = None if around is None else [around[i] for i in refused]
    given = [answers[i] for i in refused]
    found = pipeline.next_views(tasks, given, options, ring, near, step=step)
    best = int(np.argmin(np.median(found / np.median(found, axis=1, keepdims=True), axis=0)))
    view = jax.tree.map(lambda leaf: leaf[best], ring)
    (radiograph,) = simulation.simulate(case.ct, [view], simulation.CarmSetup())
    third = pipeline.detected_tasks(
        case.subject,
        [t.truth for t in tasks if t.truth is not None],
        [radiograph],
        detector=simulation.DETECTORS[chosen.detector],
        seed=seed + 1,
        pair=tasks[0].pair,
    )
    rng = np.random.default_rng([seed, tasks[0].pair, 3])
    third = stress.with_wrong_cameras(third, middle, chosen.severity, stress.CameraError(), rng)
    both = [
        dataclasses.replace(
            chosen.tasks[i],
            observations=jax.tree.map(
                lambda a, b: jnp.concatenate([a, b]), _detected(chosen.tasks[i]), other.observations
            ),
        )
        for i, other in zip(refused, third, strict=True)
    ]
    started, _ = pipeline.initialised(both)
    return started, float(np.median(found[:, best] / np.median(found, axis=1)))


def _detected(task: Task) -> Observations:
    """With the landmarks that disagree with the start."""
    return task.observations if task.detected is None else task.detected


def _repair_summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many refused failures each way of trying again repairs, and what it spoils."""
    if not rows:
        return {}
    before = np.array([row["masd_mm"] for row in rows])
    failed = before > pipeline.FAILURE_MM
    summary: dict[str, Any] = {"n_refused": len(rows), "n_refused_failures": int(failed.sum())}
    for name in ("recovered", "third_view"):
        after = np.array([row[f"masd_{name}_mm"] for row in rows])
        fine = after <= pipeline.FAILURE_MM
        summary |= {
            f"failures_repaired_{name}": int(np.sum(failed & fine)),
            f"successes_spoiled_{name}": int(np.sum(~failed & ~fine)),
            f"masd_median_refused_{name}_mm": float(np.nanmedian(after)),
        }
    summary["masd_median_refused_mm"] = float(np.median(before))
    return summary


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    cli.run(main)
