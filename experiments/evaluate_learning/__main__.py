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
from typing import Any

import jax
import numpy as np
from absl import flags

from dartjax import cli, data, pipeline, report, simulation, training
from dartjax.training import Crops
from experiments.evaluate_learning import isolation_report
from experiments.evaluate_learning import metrics as learning_metrics
from experiments.evaluate_learning import report as learning_report

_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with masks in VerSe layout.")
_DEMO = flags.DEFINE_bool("demo", False, "The example chest CT (fetched once, cached).")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these of the cohort.")
_CROPS = flags.DEFINE_string("crops", None, "Folder of X-rays made earlier. Default: the cache.")
_VERTEBRAE = flags.DEFINE_integer("vertebrae", 6, "At most so many of every subject.", 1)
_STARTS = flags.DEFINE_list("starts_mm", ["0", "3", "6"], "How far off fits begin.")
_SIMILARITY = flags.DEFINE_string(
    "similarity", None, "Weights of experiments.train_similarity, or `packaged`."
)
_ISOLATION = flags.DEFINE_string(
    "isolation", None, "Weights of experiments.train_isolation, or `packaged`."
)

Row = dict[str, Any]
Table = tuple[str, list[Row]]


def main(ctx: cli.RunContext) -> None:
    """Make the X-rays, ask the networks, write what they said."""
    scans = _scans()
    _check([case.subject for case in scans])
    crops = _crops(scans, ctx.seed)
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
    models = training.stacked_models(unseen)
    crops = training.fitted_by(crops, models)
    summary: Row = {}
    tables: list[Table] = []
    rows: list[Row] = []
    if folder := _folder("similarity"):
        cases = learning_metrics.cases_of(crops, models, ctx.seed)
        is_synthetic = scans[0].dataset_kind == "synthetic"
        note = "SYNTHETIC ANATOMY - not VerSe" if is_synthetic else scans[0].dataset
        _similarity(ctx, folder, cases, summary, tables, rows, note)
    if folder := _folder("isolation"):
        net, params = pipeline.isolation(folder)
        found = training.answers(net, models, params, crops)
        own = learning_report.isolation_rows(crops, found)
        summary["isolation"] = learning_report.isolation_table(own)
        tables.append(("Isolation", summary["isolation"]))
        rows += [row | {"part": "isolation"} for row in own]
        isolation_report.draw(ctx.out / "isolation.png", training.examples(crops, found))
    ctx.save_metrics(record, summary, rows)
    if not record["ssm_leak"]:
        text = [f"## {title}\n\n{report.markdown_table(record, own)}" for title, own in tables]
        (ctx.out / "tables.md").write_text("\n".join(text), encoding="utf-8")


def _similarity(
    ctx: cli.RunContext,
    folder: str,
    cases: list[learning_metrics.Case],
    summary: Row,
    tables: list[Table],
    rows: list[Row],
    note: str,
) -> None:
    starts = [float(text) for text in _STARTS.value]
    with cli.progress("similarity") as step:
        predicted = learning_metrics.predictions(folder, cases, ctx.seed, step)
        captured = learning_metrics.captures(folder, cases, starts, ctx.seed, step)
        shots = learning_metrics.surrogates(folder, cases, step)
    summary["similarity"] = learning_report.prediction_summary(predicted)
    summary["captures"] = learning_report.capture_table(captured)
    summary["surrogate"] = learning_report.surrogate_table(shots)
    tables.append(("Similarity", [summary["similarity"]]))
    tables.append(("Fits by one similarity alone", summary["captures"]))
    tables.append(("Start in one step", summary["surrogate"]))
    for part, own in (("prediction", predicted), ("capture", captured), ("surrogate", shots)):
        rows += [row | {"part": part} for row in own]
    learning_report.draw_similarity(ctx.out / "similarity.png", predicted, captured, note)
    learning_report.draw_surrogate(ctx.out / "surrogate.png", shots, note)


def _scans() -> list[data.Case]:
    if bool(_COHORT.value) == _DEMO.value:
        raise data.DataError("give exactly one of --demo and --cohort=FOLDER")
    if not (_SIMILARITY.value or _ISOLATION.value):
        raise data.DataError("give --similarity=FOLDER, --isolation=FOLDER, or both")
    if _DEMO.value:
        return [data.example_case()]
    known = {subject.id: subject for subject in data.find_subjects(str(_COHORT.value))}
    if unknown := sorted(set(_SUBJECTS.value) - set(known)):
        raise data.DataError(f"{_COHORT.value} has no {', '.join(unknown)}")
    scans = [data.load_case(known[name]) for name in _SUBJECTS.value or known]
    if len(kinds := {case.dataset_kind for case in scans}) > 1:
        raise data.DataError(f"the cohort mixes {', '.join(sorted(kinds))} data: run them apart")
    return scans


def _check(subjects: list[str]) -> None:
    """That the networks are there, and have seen nobody."""
    for name in ("similarity", "isolation"):
        if folder := _folder(name):
            getattr(networks, name)(folder)
            pipeline.check_unseen(folder, subjects, name)


def _folder(name: str) -> str | None:
    """Where the weights of a network are, if it was asked for."""
    given = {"similarity": _SIMILARITY, "isolation": _ISOLATION}[name].value
    return pipeline.folder_of(name, given)


def _crops(scans: list[data.Case], seed: int) -> Crops:
    folder = pathlib.Path(_CROPS.value) if _CROPS.value else data.cache_folder() / "crops"
    parts = []
    with cli.progress("X-rays", len(scans)) as step:
        for case in scans:
            own = training.load([training.prepare(folder, case, seed)])
            places = np.linspace(0, len(own.level) - 1, min(_VERTEBRAE.value, len(own.level)))
            parts.append(jax.tree.map(lambda leaf, p=places: leaf[p.round().astype(int)], own))
            step(case.subject)
    return Crops(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _unseen(scans: list[data.Case]) -> list[str]:
    """Whom the shape models must not have seen. The modes are those the networks were trained
    with: what they say of coefficients means nothing to others."""
    behind = [case.subject for case in scans]
    if not _is_leak(scans):
        behind = [person for case in scans for person in simulation.people_of(case)]
    return sorted({*training.NEVER_SEEN, *behind})


def _is_leak(scans: list[data.Case]) -> bool:
    return any(simulation.is_leak(case) for case in scans)


if __name__ == "__main__":
    cli.run(main)
