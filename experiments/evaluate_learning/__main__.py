"""Evaluate trained networks on unseen subjects, independent of any reconstruction recipe.

  python -m experiments.evaluate_learning --cohort=COHORT --subjects=synth0002,synth0003 \\
      --similarity=FOLDER --isolation=FOLDER
  python -m experiments.evaluate_learning --demo --similarity=FOLDER
      Uses the example chest CT instead of a cohort.

For the similarity network it measures the predicted distance of wrong fits, the direction of its
gradient, and the error of fits with this similarity only, compared with local gradient NCC and the
similarity of xvr. It also measures the initial estimate that the network predicts in one step. For
the isolation network it measures the error of the thickness inside the vertebra, and of the mask.
Writes metrics.json, tables.md and figures. There are no tables if the shape models have seen a
subject.
"""

import pathlib
from collections.abc import Sequence
from typing import cast

import jax
import numpy as np

from dartjax import data, pipeline, simulation, ssm, training
from dartjax.cli import launch
from dartjax.training import Crops
from experiments.common import learning_figures
from experiments.evaluate_learning import report
from experiments.evaluate_learning.report import Row
from experiments.evaluate_learning.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Simulate the X-rays, evaluate the networks, and write the results."""
    _check_settings(settings)
    scans = _scans(settings)
    folders = _network_folders(settings, [case.subject for case in scans])
    crops = _crops(scans, settings, ctx.seed)
    unseen = _unseen(scans)
    record = ctx.record(
        dataset=scans[0].dataset,
        dataset_kind=scans[0].dataset_kind,
        subjects=[case.subject for case in scans],
        n_vertebrae=len(crops.level),
        ssm_excludes=unseen,
        nsd_tolerance_mm=None,
        ssm_leak=_is_leak(scans),
    )
    models = training.stacked_shape_models(unseen)
    crops = training.with_best_fits(crops, models)

    rows: dict[str, Sequence[Row]] = {}
    if folder := folders.get("similarity"):
        starts_mm = [float(text) for text in settings.starts_mm]
        rows |= _similarity_rows(folder, crops, models, starts_mm, ctx.seed)
        note = _note(scans[0])
        similarity = ctx.out / "similarity.png"
        report.draw_similarity(similarity, rows["prediction"], rows["capture"], note)
        report.draw_surrogate(ctx.out / "surrogate.png", rows["surrogate"], note)
    if folder := folders.get("isolation"):
        net, params = pipeline.isolation_network(folder)
        answers = training.isolation_answers(net, models, params, crops)
        rows["isolation"] = report.isolation_rows(crops, answers)
        examples = training.isolation_examples(crops, answers)
        learning_figures.draw_isolation(ctx.out / "isolation.png", examples)

    summary = report.summary_of(rows)
    ctx.save_metrics(record, summary, report.cases_of(rows))
    if not record["ssm_leak"]:
        text = report.tables_text(record, summary)
        (ctx.out / "tables.md").write_text(text, encoding="utf-8")


def _similarity_rows(
    folder: str, crops: Crops, models: ssm.ShapeModel, starts_mm: list[float], seed: int
) -> dict[str, Sequence[Row]]:
    """Evaluate the similarity: its predictions, its fits, and its estimate in one step."""
    cases = pipeline.similarity_cases(crops, models, seed)
    with launch.progress("similarity") as step:
        return {
            "prediction": pipeline.evaluate_predictions(folder, cases, seed, step),
            "capture": pipeline.evaluate_captures(folder, cases, starts_mm, seed, step),
            "surrogate": pipeline.evaluate_one_shot_starts(folder, cases, step),
        }


def _check_settings(settings: Settings) -> None:
    """Raise DataError unless there is one source of scans and a network to evaluate."""
    if bool(settings.cohort) == settings.demo:
        raise data.DataError("give exactly one of --demo and --cohort=FOLDER")
    if not (settings.similarity or settings.isolation):
        raise data.DataError("give --similarity=FOLDER, --isolation=FOLDER, or both")


def _scans(settings: Settings) -> list[data.Case]:
    """Load the CTs. DataError if real and synthetic data are mixed."""
    if settings.demo:
        return [data.example_case()]
    labels = cast(data.Numbering, settings.labels)
    known = {s.id: s for s in data.find_subjects(str(settings.cohort), labels=labels)}
    if unknown := sorted(set(settings.subjects) - set(known)):
        raise data.DataError(f"{settings.cohort} has no {', '.join(unknown)}")
    scans = [data.load_case(known[name]) for name in settings.subjects or known]
    if len(kinds := {case.dataset_kind for case in scans}) > 1:
        raise data.DataError(
            f"the cohort mixes {', '.join(sorted(kinds))} data: run them separately"
        )
    return scans


def _network_folders(settings: Settings, subjects: list[str]) -> dict[str, str]:
    """Return the folders of the networks' weights.

    DataError if a network cannot be loaded or was trained on a subject.
    """
    folders = {}
    for name, given in (("similarity", settings.similarity), ("isolation", settings.isolation)):
        if folder := pipeline.weights_folder(name, given):
            pipeline.load_network(name, folder)
            pipeline.check_not_trained_on(folder, subjects, name)
            folders[name] = folder
    return folders


def _crops(scans: list[data.Case], settings: Settings, seed: int) -> Crops:
    """Simulate X-rays of some vertebrae of every scan, spread over its length."""
    folder = pathlib.Path(settings.crops) if settings.crops else data.cache_folder() / "crops"
    parts = []
    with launch.progress("X-rays", len(scans)) as step:
        for case in scans:
            own = training.load_crops([training.prepare_crops(folder, case, seed)])
            num = min(settings.vertebrae, len(own.level))
            places = np.linspace(0, len(own.level) - 1, num).round().astype(int)
            parts.append(jax.tree.map(lambda leaf, p=places: leaf[p], own))
            step(case.subject)
    return Crops(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _unseen(scans: list[data.Case]) -> list[str]:
    """Return the people that the shape models must not have seen.

    The modes must be those the networks were trained with, because the networks predict their
    coefficients.
    """
    behind = [case.subject for case in scans]
    if not _is_leak(scans):
        behind = [person for case in scans for person in simulation.people_of(case)]
    return sorted({*training.NEVER_TRAINED_ON, *behind})


def _is_leak(scans: list[data.Case]) -> bool:
    return any(simulation.is_leak(case) for case in scans)


def _note(scan: data.Case) -> str:
    """Return the note about the data in the figures."""
    is_synthetic = scan.dataset_kind == "synthetic"
    return "SYNTHETIC ANATOMY - not VerSe" if is_synthetic else scan.dataset


if __name__ == "__main__":
    launch.run(main, Settings)
