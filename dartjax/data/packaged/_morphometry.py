"""Read published lengths of vertebrae by level from `assets/morphometry.json`.

Every entry has its source. The names are those of `ssm.build.MEASURES`, so that a measured bone
can be compared with the tables. A width published for "the pedicle" is used for both sides.
Nothing is interpolated: a level or measure without a source is absent.
"""

import functools
import math
import pathlib
from typing import Any, Literal, NamedTuple

from dartjax._documents import read_json
from dartjax.anatomy import label_of
from dartjax.observations import SIDES
from dartjax.ssm.build import LEVELS_OF_REGION, Target

Sex = Literal["all", "male", "female"]

TABLES = pathlib.Path(__file__).parents[2] / "assets" / "morphometry.json"
NUM_SPREADS = 4.0
# Relative standard deviation where a source gives none: the largest published one of the same
# kind (pedicles 0.26 at L1 to L3, other lengths 0.14).
_SPREAD_OF_PEDICLES, _SPREAD_OF_OTHERS = 0.26, 0.14


class Published(NamedTuple):
    """Published length, mm, with its citation.

    For CTSpinoPelvic1K, `mean` is the median and `sd` is 1.4826 times the median absolute
    deviation.
    """

    mean: float
    sd: float | None
    source: str


def published(level: str, sex: Sex = "all") -> dict[str, Published]:
    """Return the published lengths of a level by measure, mm.

    The result is empty for levels without a source (T13, L6, C1 to C7). Heights, widths and spans
    of T11 to L5 are from CTSpinoPelvic1K (802 CT), also by sex. Body heights of T1 to T10 and
    thoracic pedicle widths are from Kaur 2016, lumbar pedicle widths from Zindrick 1987.
    `interpedicular_width` (T4, T5) is Kaur's own measure, wider than `canal_width`. DataError for
    an unknown level.
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
    """Return the published lengths of all modelled levels, as targets of a shape model build."""
    levels = [level for levels in LEVELS_OF_REGION.values() for level in levels]
    return {
        level: {name: Target(entry.mean, entry.sd) for name, entry in published(level).items()}
        for level in levels
    }


def plausible_range(level: str, measure: str) -> tuple[float, float]:
    """Return mean - 4 sd and mean + 4 sd in mm, to detect outliers.

    (0, inf) where nothing is published. A missing sd is taken as 0.26 (pedicles) or 0.14 (other
    lengths) of the mean.
    """
    entry = published(level).get(measure)
    if entry is None:
        return 0.0, math.inf
    relative = _SPREAD_OF_PEDICLES if measure.startswith("pedicle") else _SPREAD_OF_OTHERS
    spread = NUM_SPREADS * (relative * entry.mean if entry.sd is None else entry.sd)
    return max(0.0, entry.mean - spread), entry.mean + spread


@functools.cache
def _tables() -> dict[str, Any]:
    return read_json(TABLES)


def _measures_of(name: str) -> list[str]:
    return [f"{name}_{side}" for side in SIDES] if name.startswith("pedicle") else [name]
