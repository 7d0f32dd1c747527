"""Published lengths of vertebrae by level: `assets/morphometry.json`, each entry with its source.

The names are those of `ssm.build.MEASURES`, so that a measured bone and the tables compare; a width
published for "the pedicle" stands for either side. Nothing is interpolated: a level or measure
that no source gives is absent.
"""

import functools
import json
import math
import pathlib
from typing import Any, Literal, NamedTuple

from dartjax.anatomy import label_of
from dartjax.observations import SIDES
from dartjax.ssm.build import LEVELS_OF_REGION, Target

Sex = Literal["all", "male", "female"]

TABLES = pathlib.Path(__file__).parents[2] / "assets" / "morphometry.json"
NUM_SPREADS = 4.0
# Spread over mean where a source gives none: the largest of the same kind with one (pedicles
# 0.26 at L1 to L3, other lengths 0.14).
_SPREAD_OF_PEDICLES, _SPREAD_OF_OTHERS = 0.26, 0.14


class Published(NamedTuple):
    """One table entry, mm. `source` is the citation; CTSpinoPelvic1K gives median and 1.4826
    times the median absolute deviation for mean and sd."""

    mean: float
    sd: float | None
    source: str


def published(level: str, sex: Sex = "all") -> dict[str, Published]:
    """What is published of a level by measure, mm; empty where nothing is (T13, L6, C1 to C7).

    Heights, widths and spans of T11 to L5 by CTSpinoPelvic1K (802 CT), also by sex; body heights
    T1 to T10 and thoracic pedicle widths by Kaur 2016; lumbar pedicle widths by Zindrick 1987.
    `interpedicular_width` (T4, T5) is Kaur's own measure, wider than `canal_width`.
    DataError for a name that is no level.
    """
    label_of(level)
    tables = _tables()
    entries = {}
    for name, entry in tables["tables"][sex].get(level, {}).items():
        citation = tables["sources"][entry["source"]]["citation"]
        for measure in _measures_of(name):
            entries[measure] = Published(entry["mean"], entry["sd"], citation)
    return entries


def published_targets() -> dict[str, dict[str, Target]]:
    """The published lengths of every level that shape models cover, as targets of a build."""
    levels = [level for levels in LEVELS_OF_REGION.values() for level in levels]
    return {
        level: {name: Target(entry.mean, entry.sd) for name, entry in published(level).items()}
        for level in levels
    }


def plausible_range(level: str, measure: str) -> tuple[float, float]:
    """Mean -+ 4 sd in mm, to screen for gross errors; (0, inf) where nothing is published.

    Where the source gives no sd it is 0.26 (pedicles) or 0.14 (others) of the mean.
    """
    entry = published(level).get(measure)
    if entry is None:
        return 0.0, math.inf
    relative = _SPREAD_OF_PEDICLES if measure.startswith("pedicle") else _SPREAD_OF_OTHERS
    spread = NUM_SPREADS * (relative * entry.mean if entry.sd is None else entry.sd)
    return max(0.0, entry.mean - spread), entry.mean + spread


@functools.cache
def _tables() -> dict[str, Any]:
    return json.loads(TABLES.read_text())


def _measures_of(name: str) -> list[str]:
    return [f"{name}_{side}" for side in SIDES] if name.startswith("pedicle") else [name]
