"""Fit the failure model: probability that a reconstruction fails (MASD above 2 mm), and intervals.

  python -m experiments.fit_failure_model --cohort=FOLDER --subjects=synth0018,synth0019
      Reconstructs these subjects of a SynthVerSe folder from good and poor simulated detections,
      with wrong cameras in half of the scenes. Fits the model with cross-validation by subject.
      Writes the trials (trials.npz), model.npz and card.json.
  python -m experiments.fit_failure_model --trials=A.npz,B.npz --asset=dartjax/assets/failure
      Fits the model to the trials of earlier runs. --asset is a second folder to write it to.

Only synthetic subjects are allowed, because the model must not have seen subjects with reported
results.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from dartjax import data, pipeline, simulation
from dartjax.cli import launch
from dartjax.pipeline import CameraMisplacement, FailureTrials
from experiments.common import failure_report
from experiments.fit_failure_model.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Collect trials or read them, fit the model, and write it."""
    if bool(settings.trials) == (settings.cohort is not None):
        raise data.DataError("give exactly one of --cohort=FOLDER and --trials=FILES")
    trials = pipeline.join_failure_trials(
        [pipeline.load_failure_trials(file) for file in settings.trials]
        or _collect(_synthetic_cases(str(settings.cohort), settings.subjects), settings, ctx.seed)
    )
    pipeline.save_failure_trials(ctx.out / "trials.npz", trials)
    _check_enough(trials)

    ridge, probability = pipeline.cross_validate_failure_model(
        trials.features, trials.failed, trials.subject
    )
    stored = pipeline.fit_calibrated_failure_model(
        trials, probability, ridge=ridge, max_risk=settings.max_risk
    )
    summary = failure_report.summary_of(trials, probability, stored)
    provenance = {
        "seed": ctx.seed,
        "commit": ctx.config["commit"],
        "command": " ".join(
            ["python -m experiments.fit_failure_model", *ctx.config["command"][1:]]
        ),
    }
    card = _card(trials, probability, settings, ridge, provenance, summary)
    stored = stored._replace(card=card)
    data.save_failure_model(ctx.out / "model", stored)
    if settings.asset:
        data.save_failure_model(settings.asset, stored)
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[str(s) for s in trials.subject],
        n_vertebrae=len(set(zip(trials.subject, trials.level, strict=True))),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, summary, failure_report.cases(trials, probability))
    title = "SynthVerSe, cross-validated"
    failure_report.write_figure(ctx.out / "failure.png", trials, probability, stored, title)


def _synthetic_cases(cohort: str, wanted: tuple[str, ...]) -> Iterator[data.Case]:
    """Load the wanted subjects of a cohort (default: all), one at a time.

    DataError for a subject that is not synthetic.
    """
    subjects = data.find_subjects(cohort)
    if wanted:
        subjects = [s for s in subjects if data.same_subject(s.id, wanted)]
    if not subjects:
        raise data.DataError(f"{cohort} has none of {', '.join(wanted)}")
    for case in map(data.load_case, subjects):
        if case.dataset_kind != "synthetic":
            raise data.DataError(
                f"{case.subject} is {case.dataset_kind}: only synthetic subjects may be used"
            )
        yield case


def _collect(cases: Iterable[data.Case], settings: Settings, seed: int) -> list[FailureTrials]:
    """Collect trials of every case from good and poor detections."""
    levels = () if settings.levels is None else data.parse_levels(settings.levels)
    return [
        pipeline.collect_failure_trials(
            case,
            levels,
            detectors=list(simulation.DETECTORS),
            pairs=settings.pairs,
            seed=seed,
            method=pipeline.RECIPES[settings.recipe],
            progress=launch.progress,
        )[0]
        for case in cases
    ]


def _check_enough(trials: FailureTrials) -> None:
    """Raise DataError unless there are failures, successes and two subjects."""
    failed, num_subjects = trials.failed, len(np.unique(trials.subject))
    if failed.all() or not failed.any() or num_subjects < 2:
        raise data.DataError(
            f"{int(failed.sum())} failures among {len(failed)} answers of "
            f"{num_subjects} subjects: failures, successes and two subjects are needed"
        )


def _card(
    trials: FailureTrials,
    probability: Float[np.ndarray, " case"],
    settings: Settings,
    ridge: float,
    provenance: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the card of the model: subjects, settings, and quality on held-out subjects."""
    return {
        "name": "failure",
        "kind": "logistic regression: probability that the MASD of a reconstruction exceeds 2 mm",
        "dataset": "SynthVerSe",
        "subjects_included": sorted({str(s) for s in trials.subject}),
        "method": pipeline.RECIPES[settings.recipe],
        **provenance,
        "ridge": ridge,
        "max_risk": settings.max_risk,
        "camera_error": dataclasses.asdict(CameraMisplacement()),
        "validation": "leave-one-subject-out cross-validation",
        "quality": summary,
        "reliability": failure_report.reliability(probability, trials.failed),
    }


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings)
