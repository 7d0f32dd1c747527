"""Build the packaged shape models: one annotated template with smooth modes per level.

    python -m experiments.build_templates --data=MESHES --out=FOLDER

MESHES holds SOURCE/LEVEL.ply (RAS+ mm, watertight, one whole vertebra each). FOLDER receives
templates.npz and card.json; copy both to dartjax/assets/shape_models to ship them. Needs the
`build` extra (pip install "dartjax[build]").
"""

import pathlib
from typing import Any

import numpy as np
from absl import flags

from dartjax import ssm
from dartjax.data import _assets, _meshes
from experiments import launch

_DATA = flags.DEFINE_string("data", None, "Folder with SOURCE/LEVEL.ply.")
_NUM_MODES = flags.DEFINE_integer("num_modes", 15, "Modes stored per level.", lower_bound=1)

# T1 has no mesh of its own: T2 is the nearest level of its region.
SOURCE_OF = {
    "T1": ("ctacardio", "T2"),
    **{f"T{i}": ("ctacardio", f"T{i}") for i in range(2, 13)},
    **{f"L{i}": ("ctacardio", f"L{i}") for i in (1, 2)},
    **{f"L{i}": ("clouthier_mean", f"L{i}") for i in (3, 4, 5)},
}
SOURCES = {
    "ctacardio": {
        "what": "one adult, CT angiogram sample of 3D Slicer (CTACardio), segmented by a network",
        "from": "https://github.com/raviumadi/scoliomorph at 8b3e19bd, stl/",
        "licence": "MIT",
    },
    "clouthier_mean": {
        "what": "mean of 87 patients (Clouthier et al., J Biomech 146:111421, 2023)",
        "from": "https://github.com/aclouthier/morphable-lumbar-model at d2275b05, SSM/",
        "licence": "MIT",
    },
}
# Subjects that results are reported on: never in a template.
EXCLUDED = ("lidc0001", "tptct")


def build_levels(folder: pathlib.Path, num_modes: int) -> tuple[dict[str, ssm.ShapeModel], dict]:
    """The model and the card entry of every level."""
    built: dict[tuple[str, str], ssm.Template] = {}
    models, entries = {}, {}
    with launch.progress("templates", len(SOURCE_OF)) as step:
        for level, source in SOURCE_OF.items():
            if source not in built:
                surface = _meshes.load_mesh(folder / source[0] / f"{source[1]}.ply")
                vertices, faces = np.asarray(surface.vertices, float), np.asarray(surface.faces)
                built[source] = ssm.build_template(vertices, faces)
            models[level] = ssm.gaussian_process_model(built[source].model, num_modes)
            entries[level] = _entry(source, built[source])
            step(level)
    return models, entries


def _entry(source: tuple[str, str], template: ssm.Template) -> dict[str, Any]:
    annotation = template.annotation
    return {
        "source": source[0],
        "source_level": source[1],
        "isthmus_width_mm": annotation.isthmus_width.round(2).tolist(),
        "path_clearance_mm": annotation.clearance.round(2).tolist(),
        **{name: round(value, 3) for name, value in template.quality.items()},
    }


def main(ctx: launch.RunContext) -> None:
    """Build every level; write the asset and its quality."""
    if _DATA.value is None:
        raise flags.Error("--data is needed: a folder with SOURCE/LEVEL.ply")
    models, entries = build_levels(pathlib.Path(_DATA.value), _NUM_MODES.value)
    card = {
        "name": "templates",
        "kind": "one template per level with Gaussian-process modes",
        "subjects_included": list(SOURCES),
        "subjects_excluded": list(EXCLUDED),
        "sources": SOURCES,
        "seed": ctx.seed,
        "command": "python -m experiments.build_templates --data=MESHES",
        "num_modes": _NUM_MODES.value,
        "kernels_mm": [list(kernel) for kernel in ssm.PRIOR_KERNELS],
        "levels": entries,
    }
    _assets.save_shape_models(ctx.out, models, card)
    record = ctx.record(
        dataset="source surfaces of the templates",
        dataset_kind="real_ct_drr",
        subjects=list(SOURCES),
        n_vertebrae=len(set(SOURCE_OF.values())),
        ssm_excludes=EXCLUDED,
        nsd_tolerance_mm=None,
    )
    worst = max(entry["distance_to_source_mm"] for entry in entries.values())
    cases = [{"level": level, **entry} for level, entry in entries.items()]
    ctx.save_metrics(record, {"largest_mean_distance_to_source_mm": worst}, cases)


if __name__ == "__main__":
    launch.run(main)
