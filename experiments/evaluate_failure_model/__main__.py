"""Evaluate the failure model: failure prediction, calibration of intervals, repair of failures.

python -m experiments.evaluate_failure_model --cohort=FOLDER --pairs=6
    Reconstructs every subject from poor simulated detections, with wrong cameras in every second
    scene, and assesses the quality of the answers. Where the model abstains, it fits again, and it
    adds the most informative third view. The model must not have been fitted on these subjects.
    Writes metrics.json, failure.png and trials.npz.
python -m experiments.evaluate_failure_model --trials=A.npz
    Evaluates failure prediction and intervals on the trials of an earlier run.
"""

import os
from typing import cast

import jax

from dartjax import data, pipeline
from dartjax.cli import launch
from dartjax.pipeline import FailureTrials, Repair
from experiments.common import failure_report
from experiments.evaluate_failure_model import report
from experiments.evaluate_failure_model.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Collect trials or read them, assess them, and report the quality of the assessment."""
    if bool(settings.trials) == (settings.cohort is not None):
        raise data.DataError("give exactly one of --cohort=FOLDER and --trials=FILES")
    stored = data.load_failure_model(settings.failure_model)
    repairs: list[Repair] = []
    if settings.trials:
        parts = [pipeline.load_failure_trials(file) for file in settings.trials]
        dataset = ", ".join(settings.trials)
    else:
        labels = cast(data.Numbering, settings.labels)
        subjects = data.find_subjects(str(settings.cohort), labels=labels)
        cases = [data.load_case(subject) for subject in subjects]
        parts, repairs = _collect(cases, settings, stored, ctx.seed)
        dataset = cases[0].dataset
    trials = pipeline.join_failure_trials(parts)
    _check_unseen_and_of_one_kind(trials, stored)
    pipeline.save_failure_trials(ctx.out / "trials.npz", trials)

    probability = pipeline.failure_probabilities(trials.features, stored)
    summary = failure_report.summary_of(trials, probability, stored)
    summary |= report.camera_summary(trials, probability)
    summary |= report.repair_summary(repairs)
    record = ctx.record(
        dataset=dataset,
        dataset_kind=str(trials.kind[0]),
        subjects=[str(s) for s in trials.subject],
        n_vertebrae=len(set(zip(trials.subject, trials.level, strict=True))),
        ssm_excludes=sorted({str(s) for s in trials.subject}),
        nsd_tolerance_mm=None,
    )
    rows = failure_report.cases(trials, probability)
    ctx.save_metrics(record, summary, [*rows, *(repair._asdict() for repair in repairs)])
    failure_report.write_figure(ctx.out / "failure.png", trials, probability, stored, dataset)


def _collect(
    cases: list[data.Case], settings: Settings, stored: data.StoredFailureModel, seed: int
) -> tuple[list[FailureTrials], list[Repair]]:
    """Collect the trials of every case and, for abstentions, the results of repair."""
    method = pipeline.RECIPES[settings.recipe]
    parts: list[FailureTrials] = []
    repairs: list[Repair] = []
    for case in cases:
        trials, scenes = pipeline.collect_failure_trials(
            case,
            () if settings.levels is None else data.parse_levels(settings.levels),
            detectors=[settings.detector],
            pairs=settings.pairs,
            seed=seed,
            method=method,
            progress=launch.progress,
        )
        parts.append(trials)
        if settings.recovery:
            repairs += pipeline.try_repairs(case, scenes, method, stored, seed, launch.progress)
    return parts, repairs


def _check_unseen_and_of_one_kind(trials: FailureTrials, stored: data.StoredFailureModel) -> None:
    """Raise DataError if the model was fitted on a subject, or the kinds of data are mixed."""
    subjects, kinds = set(map(str, trials.subject)), set(map(str, trials.kind))
    if leaked := [s for s in subjects if data.includes_subject(stored.card, s)]:
        raise data.DataError(f"the failure model was fitted on {', '.join(leaked)}")
    if len(kinds) > 1:
        raise data.DataError(f"{' and '.join(sorted(kinds))} are mixed: evaluate them separately")


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings)
