"""Build the template of all shape models: one symmetric mesh of 2,048 vertices, for every level.

    python -m experiments.build_template --data=MESHES --out=FOLDER

MESHES has the surfaces as SOURCE/LEVEL.ply (RAS+ mm). Writes template.npz to FOLDER; copy it to
dartjax/assets/ssm to package it, and build all shape models again. Needs the `build` extra
(pip install "dartjax[build]").
"""

import pathlib

import numpy as np
from jaxtyping import Float, Int

from dartjax import data, ssm
from dartjax.cli import launch
from dartjax.ssm import build
from experiments.build_template.settings import Settings

# One surface per level, from subjects that no result is reported on.
SOURCE_OF = {
    **{f"T{i}": "ctacardio" for i in range(2, 13)},
    "L1": "ctacardio",
    **{f"L{i}": "clouthier_mean" for i in range(2, 6)},
}


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Build the template and write it with its quality."""
    if settings.data is None:
        raise data.DataError("--data is required: give a folder with SOURCE/LEVEL.ply")
    folder = pathlib.Path(settings.data)
    surfaces = {
        level: _surface(folder / source / f"{level}.ply") for level, source in SOURCE_OF.items()
    }
    with launch.progress("template", 2 * len(surfaces)) as step:
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


def _surface(
    path: pathlib.Path,
) -> tuple[Float[np.ndarray, "vertex 3"], Int[np.ndarray, "face 3"]]:
    """Load a mesh: vertices in their vertebra frame, mm, and faces."""
    mesh = data.load_mesh(path)
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    return ssm.to_vertebra_frame(vertices, faces), faces


def _quality(template: build.Template, level: str) -> dict[str, float]:
    return build.triangle_quality(template.level_shapes[level], template.topology.faces)


if __name__ == "__main__":
    launch.run(main, Settings)
