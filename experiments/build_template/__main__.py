"""Make the template that every shape model is built with: one symmetric triangulation of 2,048
vertices, carried to every level.

    python -m experiments.build_template --data=MESHES --out=FOLDER

MESHES holds SOURCE/LEVEL.ply (RAS+ mm). FOLDER receives template.npz; copy it to
dartjax/assets/ssm to ship it. All shape models must then be built anew. Needs the `build` extra
(pip install "dartjax[build]").
"""

import pathlib

import numpy as np
from absl import flags

from dartjax import cli, data, ssm
from dartjax.ssm import build
from dartjax.ssm.build import Template

_DATA = flags.DEFINE_string("data", None, "Folder with SOURCE/LEVEL.ply.")

# One surface per level, from subjects no number is ever reported on.
SOURCE_OF = {
    **{f"T{i}": "ctacardio" for i in range(2, 13)},
    "L1": "ctacardio",
    **{f"L{i}": "clouthier_mean" for i in range(2, 6)},
}


def main(ctx: cli.RunContext) -> None:
    """Build the template; write it and its quality."""
    if _DATA.value is None:
        raise data.DataError("--data is needed: a folder with SOURCE/LEVEL.ply")
    surfaces = {}
    for level, source in SOURCE_OF.items():
        mesh = data.load_mesh(pathlib.Path(_DATA.value) / source / f"{level}.ply")
        vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
        pose = ssm.vertebra_frame(vertices, faces)
        surfaces[level] = ((vertices - pose[:3, 3]) @ pose[:3, :3], faces)
    with cli.progress("template", 2 * len(surfaces)) as step:
        template = build.build_template(surfaces, step=step)
    data.save_template(ctx.out / "template.npz", template)
    record = ctx.record(
        dataset="source surfaces of the template",
        dataset_kind="real_ct_drr",
        subjects=sorted(set(SOURCE_OF.values())),
        n_vertebrae=len(SOURCE_OF),
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    cases = [{"level": level, **_quality(template, level)} for level in template.level_shapes]
    worst = min(case["smallest_angle_deg"] for case in cases)
    folded = sum(case["folded_pairs"] for case in cases)
    ctx.save_metrics(record, {"smallest_angle_deg": worst, "folded_pairs": folded}, cases)


def _quality(template: Template, level: str) -> dict[str, float]:
    return build.triangle_quality(template.level_shapes[level], template.topology.faces)


if __name__ == "__main__":
    cli.run(main)
