"""Vertebral levels: names, VerSe labels, the regions of the shape models, lists and ranges.

VerSe labels: C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25, T13 = 28 (26 sacrum, 27 coccyx).
Source: the VerSe dataset's label list (github.com/anjany/verse).
"""

import difflib
from collections.abc import Sequence

from dartjax.data._errors import DataError

REGIONS: tuple[str, ...] = ("T1-T4", "T5-T8", "T9-T12", "L1-L5")

# In anatomical order, head to foot, so T13 (28) stands between T12 and L1.
LABEL_OF_LEVEL: dict[str, int] = {
    **{f"C{i}": i for i in range(1, 8)},
    **{f"T{i}": 7 + i for i in range(1, 13)},
    "T13": 28,
    **{f"L{i}": 19 + i for i in range(1, 7)},
}
LEVEL_OF_LABEL: dict[int, str] = {label: level for level, label in LABEL_OF_LEVEL.items()}
SACRUM_LABELS: tuple[int, int] = (26, 27)

# The levels the shape models know, and those a range such as "T11-L2" runs through: the
# variants T13 and L6 are taken only when named.
MODELLED_LEVELS: tuple[str, ...] = tuple(name for name in LABEL_OF_LEVEL if name[0] in "TL")
_ORDINARY_LEVELS = [name for name in MODELLED_LEVELS if name not in ("T13", "L6")]


def label_of(level: str) -> int:
    """VerSe label of a level, "L1" -> 20. DataError for a name that is no level."""
    if level not in LABEL_OF_LEVEL:
        raise DataError(unknown_name("level", level, list(LABEL_OF_LEVEL)))
    return LABEL_OF_LEVEL[level]


def level_of(label: int) -> str:
    """Level of a VerSe label, 20 -> "L1". DataError for a label that is no vertebra."""
    if label not in LEVEL_OF_LABEL:
        raise DataError(
            f"label {label} is no vertebra in VerSe's numbering: "
            "C1-C7 = 1-7, T1-T12 = 8-19, L1-L6 = 20-25, T13 = 28"
        )
    return LEVEL_OF_LABEL[label]


def region_of(level: str) -> str:
    """Region of the shape model that holds a level, one of `REGIONS`; T13 goes with T9-T12
    and L6 with L1-L5. DataError for cervical levels, which have no model."""
    label = label_of(level)
    if label < LABEL_OF_LEVEL["T1"]:
        raise DataError(f"level {level} is cervical: the shape models cover T1 to L6")
    if level == "T13":
        return "T9-T12"
    return REGIONS[min((label - LABEL_OF_LEVEL["T1"]) // 4, 3)]


def parse_levels(text: str) -> tuple[str, ...]:
    """Levels of a list with ranges, "T5-T7,L1" -> ("T5", "T6", "T7", "L1"), each once, in the
    order written. "all" is T1 to L5. A range leaves out T13 and L6 unless it ends there.

    DataError names the part that is not understood and lists what is allowed.
    """
    parts = [part.strip().upper() for part in text.split(",") if part.strip()]
    if not parts:
        raise DataError('no level given: write for example "L1", "T5-T8" or "T12,L1-L3"')
    levels = [level for part in parts for level in _levels_of_part(part)]
    return tuple(dict.fromkeys(levels))


def unknown_name(what: str, name: str, allowed: Sequence[str]) -> str:
    """Message for a name that is not allowed, with the nearest one that is."""
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
        raise DataError(f"the range {part!r} runs upward: write it head to foot, {last}-{first}")
    between = order[start : stop + 1]
    return [level for level in between if level in ends or level not in ("T13", "L6")]
