"""How well the shape models can fit: best fit to every complete vertebra of a folder.

  python -m experiments.evaluate_ssm --data=FOLDER
      FOLDER: masks in VerSe or CTSpine1K layout (CTs are not needed), meshes named by level, or
      both, at any depth. Each subject is fitted by models that have not seen it.
  python -m experiments.evaluate_ssm --data=FOLDER --exclude_subjects=lidc0001
      The models without these subjects; every vertebra of the folder is still fitted.

The fit is the oracle: the best any reconstruction with that model can reach.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float, Int

from dartjax import cli, data, metrics, planning, ssm
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES, NeedlePath
from experiments.common import ssm_data, ssm_report

_MODES = flags.DEFINE_list("modes", ["15", "40"], "Numbers of modes to fit with.")
_SSM = flags.DEFINE_string("ssm", None, "Folder of other shape models than the packaged ones.")

# Cylinders whose way through the pedicles is graded, mm: Spine-DART's, and an 11 gauge needle.
DIAMETERS_MM = (5.0, 3.2)
METRICS = ("dice", "nsd_1mm", "hd95_mm", "masd_mm")


def main(ctx: cli.RunContext) -> None:
    """Fit and grade every vertebra; write the cases and tables by level."""
    modes = [_number_of_modes(text) for text in _MODES.value]
    shapes, rejected = ssm_data.collect_shapes()
    people = ssm_data.people_behind(shape.subject for shape in shapes)
    sets = {subject: _set_for(behind) for subject, behind in people.items()}
    cards = {s: data.shape_model_card(folder) for s, folder in sets.items()}
    leaks = {s for s in sets if any(data.includes_subject(cards[s], p) for p in people[s])}
    kept_out = {person for s in sets if s not in leaks for person in people[s]}
    cases, tiles = [], []
    with cli.progress("fits", len(shapes) * len(modes)) as step:
        for shape in shapes:
            field = planning.distance_field_from_mesh(shape.surface)
            for num_modes in modes:
                case, fit, faces = fit_case(shape, field, num_modes, sets[shape.subject])
                cases.append(case)
                tiles.append(ssm_report.error_tile(case, fit, faces, field))
                step(f"{shape.subject} {shape.level} {num_modes} modes: {case['dice']:.3f}")
    record = ctx.record(
        dataset=ssm_data.folder_name(),
        dataset_kind=ssm_data.kind(sets),
        subjects=list(sets),
        n_vertebrae=len(shapes),
        ssm_excludes=sorted(set(ssm_data.EXCLUDE.value) | kept_out),
        nsd_tolerance_mm=1.0,
        ssm_leak=bool(leaks),
    )
    record |= {
        "metrics": {name: metrics.DEFINITIONS[name] for name in METRICS},
        "shape_models": {subject: card["name"] for subject, card in cards.items()},
        "rejected": ssm_data.rejected_entries(rejected),
    }
    ctx.save_metrics(record, summary_of(cases, modes), cases)
    ssm_report.write_oracle(ctx.out, cases, modes)
    ssm_report.write_errors(ctx.out, tiles, len(modes))


def fit_case(
    shape: data.TrainingShape,
    field: planning.DistanceField,
    num_modes: int,
    folder: pathlib.Path,
) -> tuple[dict[str, Any], ssm.Registration, Int[np.ndarray, "face 3"]]:
    """Best fit of one vertebra: its grades, and how the paths it carries lie in the true bone,
    whose distance field is `field`; the fit itself and its triangles."""
    model = data.load_shape_model(shape.level, path=folder, num_modes=num_modes)
    vertices, faces = np.asarray(shape.surface.vertices, float), np.asarray(shape.surface.faces)
    fit = ssm.register_surface(model, vertices, faces)
    grades = metrics.reconstruction_metrics(TriangleMesh(fit.vertices, model.faces), shape.surface)
    size = float(np.sqrt(np.mean(np.square(np.asarray(fit.coefficients)))))
    case = {"subject": shape.subject, "level": shape.level, "modes": num_modes}
    case |= grades | {"coefficient_rms": size} | path_grades(fit.paths, field)
    return case, fit, np.asarray(model.faces)


def path_grades(paths: Float[Array, "2 2 3"], field: planning.DistanceField) -> dict[str, float]:
    """Room of a cylinder about each carried path to the wall of the true bone, negative where
    it breaks through, and of the best straight path nearby; by side and diameter, mm."""
    grades = {}
    for diameter in DIAMETERS_MM:
        for side, (entry, target) in zip(SIDES, paths, strict=True):
            path = NeedlePath(entry, target, jnp.asarray(diameter / 2.0))
            carried = _clearance(path, field).clearance
            best = _best_corridor(path, field)[1].clearance
            grades[f"clearance_{side}_{diameter:g}_mm"] = float(carried)
            grades[f"best_clearance_{side}_{diameter:g}_mm"] = float(best)
    return grades


_clearance, _best_corridor = jax.jit(planning.clearance), jax.jit(planning.best_corridor)


def summary_of(cases: Sequence[dict[str, Any]], modes: Sequence[int]) -> dict[str, float]:
    """Median, mean and worst of the grades for each number of modes."""
    summary = {}
    for num_modes in modes:
        own = [case for case in cases if case["modes"] == num_modes]
        dice, masd = ([case[name] for case in own] for name in ("dice", "masd_mm"))
        summary |= {
            f"dice_median_{num_modes}": float(np.median(dice)),
            f"dice_mean_{num_modes}": float(np.mean(dice)),
            f"dice_min_{num_modes}": float(np.min(dice)),
            f"masd_mean_{num_modes}_mm": float(np.mean(masd)),
            f"hd95_mean_{num_modes}_mm": float(np.mean([case["hd95_mm"] for case in own])),
            f"nsd_1mm_mean_{num_modes}": float(np.mean([case["nsd_1mm"] for case in own])),
        }
        for diameter in DIAMETERS_MM:
            for kind in ("clearance", "best_clearance"):
                room = [case[f"{kind}_{side}_{diameter:g}_mm"] for case in own for side in SIDES]
                name = "carried" if kind == "clearance" else "feasible"
                share = float(np.mean(np.array(room) >= 0.0))
                summary[f"paths_{name}_share_{diameter:g}_mm_{num_modes}"] = share
    return summary


def _set_for(people: Sequence[str]) -> pathlib.Path:
    """The models without the excluded subjects and, if there are such, without these people."""
    if _SSM.value:
        return data.shape_model_set(ssm_data.EXCLUDE.value, path=_SSM.value)
    try:
        return data.shape_model_set([*ssm_data.EXCLUDE.value, *people])
    except data.DataError:
        return data.shape_model_set(ssm_data.EXCLUDE.value)


def _number_of_modes(text: str) -> int:
    if not text.strip().isdigit() or int(text) < 1:
        raise data.DataError(f"--modes={text}: give whole numbers from 1, such as --modes=15,40")
    return int(text)


if __name__ == "__main__":
    cli.run(main)
