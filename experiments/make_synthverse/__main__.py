"""Make SynthVerSe: a cohort of synthetic subjects in VerSe's layout, CT and labels.

  python -m experiments.make_synthverse --num_subjects=2 --cohort_out=FOLDER
      Parametric vertebrae: no file is needed.
  python -m experiments.make_synthverse --family=both --meshes=MESHES --cohort_out=FOLDER
      MESHES holds SUBJECT/LEVEL.ply (RAS+ mm). Odd subjects are warped from these, even ones
      are parametric.

The cohort is filled subject by subject. Killed at any moment it holds whole subjects only; the
same command goes on with it. The run folder (--out) gets a sheet of pictures and the table of
subjects. Every subject depends on --seed and its number alone.
"""

import pathlib
import time
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
from absl import flags
from jaxtyping import Float

from dartjax import cli, data, synthverse

_FAMILY = flags.DEFINE_enum(
    "family", "parametric", ["parametric", "warped", "both"], "How vertebrae are made."
)
_NUM = flags.DEFINE_integer("num_subjects", 2, "How many subjects.", lower_bound=1)
_FIRST = flags.DEFINE_integer("first", 0, "Number of the first one.", lower_bound=0)
_MESHES = flags.DEFINE_string("meshes", None, "Folder of SUBJECT/LEVEL.ply, for warped subjects.")
_SPACING = flags.DEFINE_float("spacing_mm", 1.0, "Voxel size, 0.5 to 4 mm.")
_VIEW = flags.DEFINE_enum(
    "field_of_view", "mixed", ["mixed", "whole", "thorax", "lumbar"], "What the CT shows."
)
_THICK = flags.DEFINE_bool("thick_slices", True, "Slices 2 or 3 voxels thick in one of four.")
_ORIENT = flags.DEFINE_bool("orientations", True, "Grids in PIR, LPS and oblique, not only RAS.")
_COHORT = flags.DEFINE_string("cohort_out", None, "Folder of the cohort. Default: OUT/cohort.")


def main(ctx: cli.RunContext) -> None:
    """Fill the cohort, then write the sheet and the table."""
    options = synthverse.Options(
        spacing_mm=_SPACING.value,
        view=cast(Any, _VIEW.value),
        meshes=pathlib.Path(_MESHES.value) if _MESHES.value else None,
        thick_slices=_THICK.value,
        orientations=_ORIENT.value,
    )
    folder = pathlib.Path(_COHORT.value).absolute() if _COHORT.value else ctx.out / "cohort"
    facts = {
        "Seed": ctx.seed,
        "Commit": ctx.config["commit"],
        "Family": _FAMILY.value,
        "SpacingMm": options.spacing_mm,
        "FieldOfView": options.view,
        "ThickSlices": options.thick_slices,
        "Orientations": options.orientations,
        "MeshesOf": sorted(synthverse.find_parents(options.meshes)) if options.meshes else [],
    }
    numbers = range(_FIRST.value, _FIRST.value + _NUM.value)
    synthverse.open_cohort(folder, facts)
    seconds = {}
    with cli.progress("subjects", len(numbers)) as step:
        for number in numbers:
            seconds[number] = _make(folder, ctx.seed, number, options)
            name = synthverse.subject_id(number)
            step(f"{name}: {f'{seconds[number]:.0f} s' if seconds[number] else 'already there'}")
    synthverse.save_participants(folder)
    known = synthverse.subject_facts(folder)
    cases = [_case(n, known[synthverse.subject_id(n)], seconds[n]) for n in numbers]
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=[case["subject"] for case in cases],
        n_vertebrae=sum(case["vertebrae"] for case in cases),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    made = [s for s in seconds.values() if s]
    summary = {
        "num_subjects": len(cases),
        "num_made": len(made),
        "seconds_per_subject": float(np.mean(made)) if made else float("nan"),
    }
    ctx.save_metrics(record, summary, cases)
    _sheet(ctx.out / "sheet.png", folder, [case["subject"] for case in cases[:6]])


def _make(folder: pathlib.Path, seed: int, number: int, options: synthverse.Options) -> float:
    """Make and write one subject unless it is there; seconds spent, 0 if none."""
    if synthverse.has_subject(folder, number):
        return 0.0
    started = time.perf_counter()
    family = synthverse.FAMILIES[number % 2] if _FAMILY.value == "both" else _FAMILY.value
    subject = synthverse.make_subject(seed, number, cast(Any, family), options)
    synthverse.save_subject(folder, subject)
    synthverse.save_participants(folder)
    return time.perf_counter() - started


def _case(number: int, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "subject": synthverse.subject_id(number),
        "family": facts["family"],
        "parents": synthverse.real_parents(facts),
        "sex": facts["sex"],
        "age_years": facts["age_years"],
        "field_of_view": facts["field_of_view"],
        "cobb_deg": facts["alignment"]["cobb_deg"],
        "fractures": len(facts["fractures"]),
        "vertebrae": len(facts["vertebrae"]),
        "seconds": seconds or None,
    }


def _sheet(path: pathlib.Path, folder: pathlib.Path, names: list[str]) -> None:
    """Parallel projections from the front and from the side, and a slice, of a few subjects."""
    subjects = {s.id: s for s in data.find_subjects(folder)}
    figure, axes = plt.subplots(len(names), 4, figsize=(15, 5 * len(names)), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        hu, spacing = _upright(data.load_ct(subjects[name].ct_path))
        for axis, (title, image, steps) in zip(row, _pictures(hu, spacing), strict=True):
            extent = (0.0, image.shape[1] * steps[1], 0.0, image.shape[0] * steps[0])
            limits = (0.0, 0.035) if title.endswith("slice") else (None, None)
            axis.imshow(image, cmap="gray", extent=extent, vmin=limits[0], vmax=limits[1])
            axis.set_title(f"{name} {title}", fontsize=8)
            axis.set_axis_off()
    figure.suptitle("SYNTHETIC ANATOMY - not VerSe", fontsize=10)
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.0 - 0.4 / figure.get_figheight()))
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _upright(volume: Any) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "3"]]:
    """Attenuation with axes nearest to right, anterior, superior, and its spacing."""
    affine = np.asarray(volume.world_from_voxel, float)
    values = np.asarray(volume.values)
    order = np.argmax(np.abs(affine[:3, :3]), axis=1)
    values = np.transpose(values, order)
    for axis in range(3):
        if affine[axis, order[axis]] < 0:
            values = np.flip(values, axis)
    return values, np.linalg.norm(affine[:3, :3], axis=0)[order]


def _pictures(mu: Float[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> list[Any]:
    """(title, image with the head up, spacing of rows and columns)."""
    x, y, z = spacing
    middle = mu.shape[0] // 2
    return [
        ("front", mu.sum(1)[::-1, ::-1].T, (z, x)),
        ("side", mu.sum(0)[::-1, ::-1].T, (z, y)),
        ("sagittal slice", mu[middle][::-1, ::-1].T, (z, y)),
        ("axial slice", mu[::-1, ::-1, mu.shape[2] // 2].T, (y, x)),
    ]


if __name__ == "__main__":
    cli.run(main)
