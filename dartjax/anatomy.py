"""Anatomy common to all spines: levels and their labels, landmarks, spacing and tilt.

VerSe labels: C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25, T13 = 28 (26 sacrum, 27 coccyx).
Source: the VerSe dataset's label list (github.com/anjany/verse). The numbers of TotalSegmentator
are from its `map_to_binary.py` (github.com/wasserth/TotalSegmentator, maps "total" and "total_v1").
"""

import difflib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from dartjax._errors import DataError

REGIONS: tuple[str, ...] = ("T1-T4", "T5-T8", "T9-T12", "L1-L5")

# In anatomical order, head to foot, so T13 (28) is between T12 and L1.
LABEL_OF_LEVEL: dict[str, int] = {
    **{f"C{i}": i for i in range(1, 8)},
    **{f"T{i}": 7 + i for i in range(1, 13)},
    "T13": 28,
    **{f"L{i}": 19 + i for i in range(1, 7)},
}
LEVEL_OF_LABEL: dict[int, str] = {label: level for level, label in LABEL_OF_LEVEL.items()}
SACRUM_LABELS: tuple[int, int] = (26, 27)

Numbering = Literal["verse", "totalsegmentator", "totalsegmentator_v1"]
NUMBERINGS: tuple[Numbering, ...] = get_args(Numbering)
# Of TotalSegmentator: the number of L5 (C1 has the highest), those of the sacrum, and the last one.
_TOTALSEGMENTATOR: dict[str, tuple[int, tuple[int, ...], int]] = {
    "totalsegmentator": (27, (25, 26), 117),  # 26 is S1
    "totalsegmentator_v1": (18, (92,), 104),
}

# Levels covered by the shape models, and the levels that a range such as "T11-L2" includes: the
# variants T13 and L6 are included only when named.
MODELLED_LEVELS: tuple[str, ...] = tuple(name for name in LABEL_OF_LEVEL if name[0] in "TL")
_ORDINARY_LEVELS = [name for name in MODELLED_LEVELS if name not in ("T13", "L6")]

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

# The ten anatomical landmarks, in the order of every landmark array.
LANDMARK_NAMES: tuple[str, ...] = (
    "superior_endplate_center",
    "inferior_endplate_center",
    "anterior_wall_center",
    "left_waist",
    "right_waist",
    "left_isthmus",
    "right_isthmus",
    "spinous_tip",
    "left_transverse_tip",
    "right_transverse_tip",
)
NUM_LANDMARKS = len(LANDMARK_NAMES)
_OTHER_SIDE = {"left": "right", "right": "left"}


def _partner(name: str) -> str:
    """Name of the landmark on the other side; a midline landmark is its own partner."""
    side, _, rest = name.partition("_")
    return f"{_OTHER_SIDE[side]}_{rest}" if side in _OTHER_SIDE else name


# For every landmark the index of its counterpart on the other side of the body.
PARTNER: tuple[int, ...] = tuple(LANDMARK_NAMES.index(_partner(name)) for name in LANDMARK_NAMES)

# Height of the disc above a level, mm. L1 to L5: central height, mean of men and women (Bach 2019,
# 240 CT); above that a round value for thoracic discs.
_DISC_ABOVE_MM = {"L1": 5.5, "L2": 6.4, "L3": 7.5, "L4": 8.2, "L5": 8.9, "L6": 8.9}
_THORACIC_DISC_MM = 4.5

# Curvature of the mean spine, supine: thoracic kyphosis T1 to T12 and lumbar lordosis L1 to S1
# (Roussouly 2005, Spine 30:346, standing 46 and 61), and the share of each per disc.
MEAN_KYPHOSIS_DEG, MEAN_LORDOSIS_DEG = 45.0, 53.0
_KYPHOSIS = np.array([2.5, 3.0, 4.0, 4.5, 5.0, 5.0, 5.0, 4.5, 4.0, 3.0, 2.5])
_LORDOSIS = np.array([4.0, 7.0, 9.0, 13.0, 15.0])
_CURVED_LEVELS = ("C7", *_ORDINARY_LEVELS)
_TILTED_AS = {"T13": "T12", "L6": "L5"}


def label_of(level: str) -> int:
    """Return the VerSe label of a level, "L1" -> 20. DataError for an unknown level name."""
    if level not in LABEL_OF_LEVEL:
        raise DataError(unknown_name("level", level, list(LABEL_OF_LEVEL)))
    return LABEL_OF_LEVEL[level]


def level_of(label: int) -> str:
    """Return the level of a VerSe label, 20 -> "L1". DataError for a label of no vertebra."""
    if label not in LEVEL_OF_LABEL:
        raise DataError(
            f"label {label} is not a vertebra in VerSe's numbering: "
            "C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25, T13 = 28"
        )
    return LEVEL_OF_LABEL[label]


def verse_label_table(numbering: Numbering) -> UInt8[np.ndarray, " number"]:
    """Return the VerSe label of every number of another numbering; 0 for other structures.

    TotalSegmentator numbers L5 to C1 upward: 27 to 50 in version 2, 18 to 41 in version 1.
    DataError for an unknown numbering.
    """
    if numbering == "verse":
        return np.arange(max(LEVEL_OF_LABEL) + 1, dtype=np.uint8)
    if numbering not in NUMBERINGS:
        raise DataError(unknown_name("numbering of vertebrae", str(numbering), NUMBERINGS))
    first, sacrum, last = _TOTALSEGMENTATOR[numbering]
    table = np.zeros(last + 1, np.uint8)
    upward = [n for n in reversed(LABEL_OF_LEVEL) if n not in ("L6", "T13")]
    table[first : first + len(upward)] = [LABEL_OF_LEVEL[level] for level in upward]
    table[list(sacrum)] = SACRUM_LABELS[0]
    return table


def region_of(level: str) -> str:
    """Return the region whose shape model covers a level, one of `REGIONS`. T13 belongs to
    T9-T12 and L6 to L1-L5. DataError for cervical levels, which have no model."""
    label = label_of(level)
    if label < LABEL_OF_LEVEL["T1"]:
        raise DataError(f"level {level} is cervical: the shape models cover T1 to L6")
    if level == "T13":
        return "T9-T12"
    return REGIONS[min((label - LABEL_OF_LEVEL["T1"]) // 4, 3)]


def disc_above_mm(level: str) -> float:
    """Return the mean height of the disc above a level, mm."""
    return _DISC_ABOVE_MM.get(level, _THORACIC_DISC_MM)


def tilts_deg(
    kyphosis_deg: float, lordosis_deg: float, pelvic_tilt_deg: float = 0.0
) -> Float[np.ndarray, "19"]:
    """Compute the forward tilt of C7 to L5 and S1 in a spine of the given curvature.

    Positive tilt leans the head end forward. Each curve is distributed over its discs with fixed
    shares."""
    thorax = kyphosis_deg * np.cumsum(np.r_[0.0, _KYPHOSIS]) / _KYPHOSIS.sum()
    lumbar = lordosis_deg * np.cumsum(np.r_[0.0, _LORDOSIS]) / _LORDOSIS.sum()
    # T12 and L1 lean backward equally; this value makes the plumb line vertical.
    junction = -14.0 - 0.2 * (kyphosis_deg - MEAN_KYPHOSIS_DEG) + pelvic_tilt_deg
    t1_to_t12 = junction + kyphosis_deg - thorax
    l1_to_s1 = junction - 1.0 + lumbar
    return np.r_[t1_to_t12[0] - 2.0, t1_to_t12, l1_to_s1]


def usual_tilt_deg(level: str) -> float:
    """Return the forward tilt of a level (C7 to L6, T13) in the mean spine, + = head forward."""
    tilts = tilts_deg(MEAN_KYPHOSIS_DEG, MEAN_LORDOSIS_DEG)
    return float(tilts[_CURVED_LEVELS.index(_TILTED_AS.get(level, level))])


def parse_levels(text: str) -> tuple[str, ...]:
    """Parse a list of levels and ranges, "T5-T7,L1" -> ("T5", "T6", "T7", "L1").

    Each level appears once, in the order written. "all" is T1 to L5. A range excludes T13 and L6
    unless it starts or ends there. DataError names the part that is not understood and lists the
    allowed names.
    """
    parts = [part.strip().upper() for part in text.split(",") if part.strip()]
    if not parts:
        raise DataError('no level given: write for example "L1", "T5-T8" or "T12,L1-L3"')
    levels = [level for part in parts for level in _levels_of_part(part)]
    return tuple(dict.fromkeys(levels))


def unknown_name(what: str, name: str, allowed: Sequence[str]) -> str:
    """Format the message for an unknown name, with the most similar allowed name."""
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {what} {name!r}{hint}: allowed are {', '.join(allowed)}"


def _levels_of_part(part: str) -> list[str]:
    if part == "ALL":
        return list(_ORDINARY_LEVELS)
    first, _, last = (piece.strip() for piece in part.partition("-"))
    ends = [first, last or first]
    order = list(LABEL_OF_LEVEL)
    start, stop = (order.index(LEVEL_OF_LABEL[label_of(end)]) for end in ends)
    if stop < start:
        raise DataError(f"the range {part!r} runs from foot to head: write {last}-{first}")
    between = order[start : stop + 1]
    return [level for level in between if level in ends or level not in ("T13", "L6")]
