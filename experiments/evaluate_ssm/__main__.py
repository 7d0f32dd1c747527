"""Fit the shape models to every complete vertebra of a folder and measure the residual error.

  python -m experiments.evaluate_ssm --data=FOLDER
      FOLDER has masks in VerSe or CTSpine1K layout (CTs are not needed), meshes named by level,
      or both, at any depth. Each subject is fitted by models that have not seen it.
  python -m experiments.evaluate_ssm --data=FOLDER --exclude_subjects=lidc0001
      Uses models that have not seen these subjects; still fits every vertebra of the folder.

The fit to the true surface is the oracle: the best result that a reconstruction with the model can
reach. Writes oracle.md, oracle.png, and every fit to metrics.json.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dartjax import data, metrics, planning
from dartjax.cli import launch
from dartjax.pipeline import ORACLE_METRICS, fit_shape_oracle, shape_oracle_summary
from dartjax.report import Tile
from experiments.common import ssm_data, ssm_report
from experiments.evaluate_ssm.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Fit and grade every vertebra, and write the cases and tables by level."""
    modes = ssm_data.whole_numbers(settings.modes, "modes")
    folder = ssm_data.shape_folder(settings.data)
    shapes, rejected = data.collect_shapes(
        folder,
        without_vertebrae=settings.exclude_vertebrae,
        labels=cast(data.Numbering, settings.labels),
        progress=launch.progress,
    )

    people = data.people_behind(folder, (shape.subject for shape in shapes))
    sets = {
        subject: _set_for(behind, settings.exclude_subjects, settings.ssm)
        for subject, behind in people.items()
    }
    cards = {subject: data.shape_model_card(path) for subject, path in sets.items()}
    leaks = {s for s in sets if any(data.includes_subject(cards[s], p) for p in people[s])}
    kept_out = {person for s in sets if s not in leaks for person in people[s]}

    cases, tiles = _fit_all(shapes, modes, sets, settings.fracture_modes)

    record = ctx.record(
        dataset=folder.absolute().name,
        dataset_kind=data.kind_of_shapes(folder, sets),
        subjects=list(sets),
        n_vertebrae=len(shapes),
        ssm_excludes=sorted(set(settings.exclude_subjects) | kept_out),
        nsd_tolerance_mm=1.0,
        ssm_leak=bool(leaks),
    )
    record |= {
        "metrics": {name: metrics.DEFINITIONS[name] for name in ORACLE_METRICS},
        "shape_models": {subject: card["name"] for subject, card in cards.items()},
        "rejected": ssm_data.rejected_entries(rejected),
    }
    ctx.save_metrics(record, shape_oracle_summary(cases, modes), cases)
    ssm_report.write_oracle(ctx.out, cases, modes)
    ssm_report.write_errors(ctx.out, tiles, len(modes))


def _set_for(people: Sequence[str], exclude: Sequence[str], given: str | None) -> pathlib.Path:
    """Return the folder of the models in `given`, or of a packaged set without excluded subjects.

    If possible, the packaged set also has not seen `people`.
    """
    if given:
        return data.shape_model_set(exclude, path=given)
    try:
        return data.shape_model_set([*exclude, *people])
    except data.DataError:
        return data.shape_model_set(exclude)


def _fit_all(
    shapes: Sequence[data.TrainingShape],
    modes: Sequence[int],
    sets: Mapping[str, pathlib.Path],
    fracture_modes: bool,
) -> tuple[list[dict[str, Any]], list[Tile]]:
    """Fit every vertebra with every number of modes; return a case and a tile of each fit."""
    cases, tiles = [], []
    with launch.progress("fits", len(shapes) * len(modes)) as step:
        for shape in shapes:
            field = planning.distance_field_from_mesh(shape.surface)
            for num_modes in modes:
                case, fit, faces = fit_shape_oracle(
                    shape, field, num_modes, sets[shape.subject], fracture_modes=fracture_modes
                )
                cases.append(case)
                tiles.append(ssm_report.error_tile(case, fit, faces, field))
                step(f"{shape.subject} {shape.level} {num_modes} modes: {case['dice']:.3f}")
    return cases, tiles


if __name__ == "__main__":
    launch.run(main, Settings)
