"""Fit the model that says how likely a reconstruction failed (MASD above 2 mm), with intervals.

  python -m experiments.fit_failure_model --cohort=FOLDER --subjects=synth0018,synth0019
      Reconstructs these subjects of a SynthVerSe folder from simulated detections, good and bad
      ones, half of the scenes with cameras that are not where they are said to be; fits the
      model, cross-validated by subject; leaves the trials (trials.npz), model.npz and card.json.
  python -m experiments.fit_failure_model --trials=A.npz,B.npz --asset=dartjax/assets/failure
      The same from the trials of earlier runs, without reconstructing anything; --asset names the
      folder the model is also written to.

Synthetic subjects only: a model must not have seen whom a number is reported on.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Bool, Float

from dartjax import cli, data, pipeline, simulation
from dartjax.registration import (
    abstention_threshold,
    calibrated_inflation,
    fit_failure_model,
)
from experiments.evaluate_failure_model import report as failure_report
from experiments.evaluate_failure_model import stress
from experiments.evaluate_failure_model.stress import Trials

_COHORT = flags.DEFINE_string("cohort", None, "Folder of synthetic CTs in VerSe layout.")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects of the cohort.")
_LEVELS = flags.DEFINE_string("levels", None, "Only these levels, such as T5-L2.")
_PAIRS = flags.DEFINE_integer("pairs", 2, "Pairs of views per subject.", lower_bound=1)
_TRIALS = flags.DEFINE_list("trials", [], "Trials of earlier runs instead of a cohort.")
_ASSET = flags.DEFINE_string("asset", None, "Folder to write the model to as well.")
_RECIPE = flags.DEFINE_enum("recipe", "classical", stress.RECIPES, "Method that answers.")
_MAX_RISK = flags.DEFINE_float(
    "max_risk", 0.1, "Highest share of failures among the answers given, here.", 0.0, 1.0
)
RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
Probabilities = Float[np.ndarray, " case"]


def main(ctx: cli.RunContext) -> None:
    """Collect trials or read them, fit, and write what was found."""
    if bool(_TRIALS.value) == (_COHORT.value is not None):
        raise data.DataError("give exactly one of --cohort=FOLDER and --trials=FILES")
    found = _read() if _TRIALS.value else _collect(ctx)
    stress.save_trials(ctx.out / "trials.npz", found)
    failed = found.failed
    if failed.all() or not failed.any() or len(np.unique(found.subject)) < 2:
        raise data.DataError(
            f"{int(failed.sum())} failures among {len(failed)} answers of "
            f"{len(np.unique(found.subject))} subjects: both kinds and two subjects are needed"
        )
    ridge, chance = cross_validated(found.features, failed, found.subject)
    stored = fitted(found, chance, ridge=ridge, max_risk=_MAX_RISK.value)
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[str(s) for s in found.subject],
        n_vertebrae=len(set(zip(found.subject, found.level, strict=True))),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    summary = failure_report.summary_of(found, chance, stored)
    stored = stored._replace(card=_card(ctx, found, chance, summary, ridge))
    data.save_failure_model(ctx.out / "model", stored)
    if _ASSET.value:
        data.save_failure_model(_ASSET.value, stored)
    ctx.save_metrics(record, summary, failure_report.cases(found, chance))
    failure_report.write_figure(
        ctx.out / "failure.png", found, chance, stored, "SynthVerSe, cross-validated"
    )


def _read() -> Trials:
    return stress.joined([stress.load_trials(file) for file in _TRIALS.value])


def _collect(ctx: cli.RunContext) -> Trials:
    levels = () if _LEVELS.value is None else data.parse_levels(_LEVELS.value)
    subjects = data.find_subjects(str(_COHORT.value))
    if _SUBJECTS.value:
        subjects = [s for s in subjects if data.same_subject(s.id, _SUBJECTS.value)]
    if not subjects:
        raise data.DataError(f"{_COHORT.value} has none of {', '.join(_SUBJECTS.value)}")
    parts = []
    for subject in subjects:
        case = data.load_case(subject)
        if case.dataset_kind != "synthetic":
            raise data.DataError(
                f"{case.subject} is {case.dataset_kind}: the model is fitted on synthetic subjects"
            )
        parts.append(
            stress.collect(
                case,
                levels,
                detectors=list(simulation.DETECTORS),
                pairs=_PAIRS.value,
                seed=ctx.seed,
                method=pipeline.RECIPES[_RECIPE.value],
            )[0]
        )
    return stress.joined(parts)


def cross_validated(
    features: Float[np.ndarray, "case feature"],
    failed: Bool[np.ndarray, " case"],
    subject: np.ndarray,
) -> tuple[float, Probabilities]:
    """The ridge with the best likelihood on subjects left out, and the probabilities it gave."""
    best, best_loss = (RIDGES[0], np.full(len(failed), np.nan)), np.inf
    for ridge in RIDGES:
        chance = np.full(len(failed), np.nan)
        for name in np.unique(subject):
            own = subject == name
            # Rows that are not finite are left out: every subject in turn in one shape.
            stored = _logistic(np.where(own[:, None], np.nan, features), failed, ridge)
            chance[own] = pipeline.probabilities(features[own], stored)
        held = np.clip(chance, 1e-4, 1.0 - 1e-4)
        loss = -float(np.mean(np.where(failed, np.log(held), np.log1p(-held))))
        if loss < best_loss:
            best, best_loss = (ridge, chance), loss
    return best


_fit = jax.jit(fit_failure_model)


def _logistic(
    features: Float[np.ndarray, "case feature"], failed: Bool[np.ndarray, " case"], ridge: float
) -> data.StoredFailureModel:
    """The regression alone, on the rows with a finite number; its threshold and inflations are
    still to be found."""
    rows = pipeline.filled(features, np.nanmean(features, axis=0))
    model = _fit(jnp.asarray(rows, jnp.float32), jnp.asarray(failed), ridge=ridge)
    mean, scale, weights = map(np.asarray, (model.mean, model.scale, model.weights))
    names = pipeline.ALL_FEATURE_NAMES
    return data.StoredFailureModel(
        names, mean, scale, weights, float(model.bias), 1.0, np.ones(2), np.ones(2), {}
    )


def fitted(
    found: Trials, chance: Probabilities, *, ridge: float, max_risk: float
) -> data.StoredFailureModel:
    """The model of all subjects; threshold and inflations from the cross-validated
    probabilities `chance`, so that they hold for subjects it has not seen. The intervals are
    calibrated apart for the answers that the threshold lets pass and for those it does not."""
    threshold = max(
        abstention_threshold(chance, found.failed.astype(float), max_risk=max_risk), 0.0
    )
    kinds = [chance <= threshold, chance > threshold]
    # With none of a kind, all of them stand in.
    kinds = [kind if kind.any() else np.ones_like(kind) for kind in kinds]
    return _logistic(found.features, found.failed, ridge)._replace(
        threshold=threshold,
        inflation=_factors(found.vertex_error, found.vertex_std, kinds),
        path_inflation=_factors(found.path_error, found.path_std, kinds),
    )


def _factors(
    errors: Float[np.ndarray, "case *rest"],
    deviations: Float[np.ndarray, "case *rest"],
    kinds: Sequence[Bool[np.ndarray, " case"]],
) -> Float[np.ndarray, " kind"]:
    return np.array([calibrated_inflation(errors[kind], deviations[kind]) for kind in kinds])


def _card(
    ctx: cli.RunContext,
    found: Trials,
    chance: Probabilities,
    summary: dict[str, Any],
    ridge: float,
) -> dict[str, Any]:
    return {
        "name": "failure",
        "kind": "logistic regression: probability that the MASD of a reconstruction exceeds 2 mm",
        "dataset": "SynthVerSe",
        "subjects_included": sorted({str(s) for s in found.subject}),
        "method": pipeline.RECIPES[_RECIPE.value],
        "seed": ctx.seed,
        "commit": ctx.config["commit"],
        "command": "python -m experiments.fit_failure_model " + " ".join(ctx.config["command"][1:]),
        "ridge": ridge,
        "max_risk": _MAX_RISK.value,
        "camera_error": dataclasses.asdict(stress.CameraError()),
        "validation": "every subject left out in turn",
        "quality": summary,
        "reliability": failure_report.reliability(chance, found.failed),
    }


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    cli.run(main)
