"""Select the scans of the papers' test set "VerSe-small": 140 scans with 1,407 vertebrae.

The list of scans was never published. The papers' rule: scans of VerSe'19 with at least one
complete vertebra from T1 to L5 or L6, without cervical vertebrae and those that touch the image
border. "Complete" means `complete_levels` here. Only a selection of exactly that size is named
VerSe-small.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int16, UInt8
from scipy import ndimage

from dartjax._documents import parse_json, read_text
from dartjax._errors import DataError
from dartjax.anatomy import LEVEL_OF_LABEL
from dartjax.data.cohorts._manifest import Manifest
from dartjax.data.cohorts._subject import Subject
from dartjax.data.cohorts._verse import is_verse, is_verse19
from dartjax.data.formats import PathLike, list_of_texts

NUM_SCANS, NUM_VERTEBRAE = 140, 1407
FOREIGN_HU = 2000  # denser than cortical bone: screws, and most bone cement
FOREIGN_SHARE = 0.005  # of a vertebra's voxels


def verse_small(
    subjects: Sequence[Subject],
    levels: Mapping[str, tuple[str, ...]],
    ids: Sequence[str] | None = None,
) -> Manifest:
    """Select the scans of a cohort by the papers' rule, or by a list of ids.

    `levels` are the complete levels by subject id. The manifest is named "VerSe-small" only for
    140 real CTs of VerSe with 1,407 vertebrae; otherwise its name states the rule and the counts.
    DataError if no scan is selected, and for ids that are not in the cohort or have no complete
    vertebra.
    """
    kept = _by_rule(subjects, levels) if ids is None else _by_list(subjects, levels, ids)
    counted = {subject.id: tuple(levels[subject.id]) for subject in kept}
    num_vertebrae = sum(map(len, counted.values()))
    rule = "VerSe'19-rule" if ids is None else "VerSe id list"
    name = f"{rule} ({len(kept)} scans, {num_vertebrae} vertebrae)"
    if is_verse_small(kept, num_vertebrae):
        name = "VerSe-small"
    return Manifest(name, tuple(kept), counted)


def is_verse_small(subjects: Sequence[Subject], num_vertebrae: int) -> bool:
    """Return whether a selection is VerSe-small: real CTs of VerSe in the papers' exact numbers."""
    real = all(s.dataset_kind == "real_ct_drr" and is_verse(s.id) for s in subjects)
    return real and (len(subjects), num_vertebrae) == (NUM_SCANS, NUM_VERTEBRAE)


def read_ids(path: PathLike) -> list[str]:
    """Read subject ids from a text file (one per line, "#" starts a comment) or a JSON list.

    "sub-" is removed. DataError for a file that cannot be read or has no id.
    """
    where = f"{path}: not a readable list of ids"
    try:
        text = read_text(path)
    except DataError as error:
        raise DataError(f"{where} ({error})") from error
    entries: Sequence[str] = text.splitlines()
    if text.lstrip().startswith("["):
        entries = list_of_texts(where, parse_json(where, text))
    lines = [entry.split("#")[0].strip().removeprefix("sub-") for entry in entries]
    ids = list(dict.fromkeys(line for line in lines if line))
    if not ids:
        raise DataError(f"{path}: the file has no id: give one per line")
    return ids


def foreign_material(
    hu: Int16[np.ndarray, "i j k"], labels: UInt8[np.ndarray, "i j k"]
) -> tuple[str, ...]:
    """Find levels with metal or cement: more than 0.5 % of their voxels are above 2000 HU."""
    boxes = ndimage.find_objects(labels)
    found = []
    for label, level in LEVEL_OF_LABEL.items():
        box = boxes[label - 1] if label <= len(boxes) else None
        if box is not None:
            inside = labels[box] == label
            if (hu[box][inside] > FOREIGN_HU).mean() > FOREIGN_SHARE:
                found.append(level)
    return tuple(found)


def _by_rule(subjects: Sequence[Subject], levels: Mapping[str, tuple[str, ...]]) -> list[Subject]:
    verse19 = [s for s in subjects if is_verse19(s.id) and s.dataset_kind == "real_ct_drr"]
    if not verse19:
        raise DataError(
            f"none of {len(subjects)} scans is a real CT of VerSe'19 (ids verse000 to verse449): "
            "the rule applies to that data set only"
        )
    kept = [subject for subject in verse19 if levels[subject.id]]
    if not kept:
        raise DataError(f"none of {len(verse19)} scans holds a complete vertebra from T1 to L6")
    return kept


def _by_list(
    subjects: Sequence[Subject], levels: Mapping[str, tuple[str, ...]], ids: Sequence[str]
) -> list[Subject]:
    known = {subject.id: subject for subject in subjects}
    missing = [name for name in ids if name not in known]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} listed ids are not in the cohort: "
            f"{', '.join(missing[:5])}"
        )
    empty = [name for name in ids if not levels[name]]
    if empty:
        raise DataError(f"listed ids without a complete vertebra: {', '.join(empty[:5])}")
    return sorted((known[name] for name in ids), key=lambda subject: subject.id)
