"""What trained networks are worth on subjects they have not seen, apart from any recipe.

  python -m experiments.evaluate_learning --cohort=COHORT --subjects=synth0002,synth0003 \\
      --similarity=FOLDER --isolation=FOLDER
  python -m experiments.evaluate_learning --demo --similarity=FOLDER
      On the real chest CT.

The similarity: how well it predicts the distance of wrong fits, which way its gradient points, and
where fits by it alone end, beside local gradient NCC and the recipe of xvr. Its heads for the way
to the truth as a start in one step. Isolation: error of the thickness inside the vertebra, and of
the mask. Leaves metrics.json, tables.md and pictures; no tables of anatomy that the shape models
have seen.
"""

import pathlib
from collections.abc import Sequence

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
    """Make the X-rays, ask the networks, write what they said."""
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
    """What the similarity predicts, where fits end, and what its start in one step is worth."""
    cases = pipeline.similarity_cases(crops, models, seed)
    with launch.progress("similarity") as step:
        return {
            "prediction": pipeline.evaluate_predictions(folder, cases, seed, step),
            "capture": pipeline.evaluate_captures(folder, cases, starts_mm, seed, step),
            "surrogate": pipeline.evaluate_one_shot_starts(folder, cases, step),
        }


def _check_settings(settings: Settings) -> None:
    """DataError unless there is one source of scans, and a network to evaluate."""
    if bool(settings.cohort) == settings.demo:
        raise data.DataError("give exactly one of --demo and --cohort=FOLDER")
    if not (settings.similarity or settings.isolation):
        raise data.DataError("give --similarity=FOLDER, --isolation=FOLDER, or both")


def _scans(settings: Settings) -> list[data.Case]:
    """The CTs, all of one kind."""
    if settings.demo:
        return [data.example_case()]
    known = {subject.id: subject for subject in data.find_subjects(str(settings.cohort))}
    if unknown := sorted(set(settings.subjects) - set(known)):
        raise data.DataError(f"{settings.cohort} has no {', '.join(unknown)}")
    scans = [data.load_case(known[name]) for name in settings.subjects or known]
    if len(kinds := {case.dataset_kind for case in scans}) > 1:
        raise data.DataError(f"the cohort mixes {', '.join(sorted(kinds))} data: run them apart")
    return scans


def _network_folders(settings: Settings, subjects: list[str]) -> dict[str, str]:
    """Where the weights of the networks are; DataError unless they are there and have seen none
    of the subjects."""
    folders = {}
    for name, given in (("similarity", settings.similarity), ("isolation", settings.isolation)):
        if folder := pipeline.weights_folder(name, given):
            pipeline.load_network(name, folder)
            pipeline.check_not_trained_on(folder, subjects, name)
            folders[name] = folder
    return folders


def _crops(scans: list[data.Case], settings: Settings, seed: int) -> Crops:
    """X-rays around some vertebrae of every scan, spread over its length."""
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
    """Whom the shape models must not have seen. The modes are those the networks were trained
    with: what they say of coefficients means nothing to others."""
    behind = [case.subject for case in scans]
    if not _is_leak(scans):
        behind = [person for case in scans for person in simulation.people_of(case)]
    return sorted({*training.NEVER_TRAINED_ON, *behind})


def _is_leak(scans: list[data.Case]) -> bool:
    return any(simulation.is_leak(case) for case in scans)


def _note(scan: data.Case) -> str:
    """What the figures say of the data behind them."""
    is_synthetic = scan.dataset_kind == "synthetic"
    return "SYNTHETIC ANATOMY - not VerSe" if is_synthetic else scan.dataset


if __name__ == "__main__":
    launch.run(main, Settings)
