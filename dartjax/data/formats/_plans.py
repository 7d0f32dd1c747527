"""Read the needle paths and the record of a reconstruction run."""

import pathlib
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dartjax._documents import read_json
from dartjax._errors import DataError
from dartjax.data.formats._json import array_of
from dartjax.observations import SIDES, NeedlePath

NEEDLE_RADIUS_MM = 2.5  # 5 mm cannula of Spine-DART; a path is feasible if no wall is closer

RECORD_FIELDS = ("dataset", "dataset_kind", "ssm_excludes", "ssm_leak")


class PlannedPaths(NamedTuple):
    """Needle paths of one vertebra from one pair of views, world mm, in the order of `SIDES`."""

    subject: str
    level: str
    pair: int
    paths: tuple[NeedlePath, NeedlePath]


def read_plans(run: pathlib.Path) -> list[PlannedPaths]:
    """Read paths.json of a run, in file order. DataError if it cannot be read or has no path."""
    found = _of_run(run, "paths.json", "paths")
    if not found:
        raise DataError(f"{run}: the run has no needle paths")
    return [_planned(run, name, ends) for name, ends in found.items()]


def read_record(run: pathlib.Path) -> dict[str, Any]:
    """Read the record of a run. DataError if it cannot be read or lacks a field."""
    record = _of_run(run, "metrics.json", "record")
    if missing := [key for key in RECORD_FIELDS if key not in record]:
        raise DataError(
            f"{run}/metrics.json: the record lacks {', '.join(missing)}: give the run folder "
            "of a finished reconstruction, such as `dartjax demo` writes"
        )
    return record


def needle(entry: np.ndarray, target: np.ndarray) -> NeedlePath:
    """Build a needle path of the default radius from its entry and target points."""
    return NeedlePath(
        jnp.asarray(entry, jnp.float32),
        jnp.asarray(target, jnp.float32),
        jnp.asarray(NEEDLE_RADIUS_MM, jnp.float32),
    )


def _of_run(run: pathlib.Path, file: str, key: str) -> dict[str, Any]:
    needed = "give the run folder of a finished reconstruction, such as `dartjax demo` writes"
    try:
        content = read_json(run / file)
    except DataError as error:
        raise DataError(f"{error}; {needed}") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise DataError(f"{run / file}: no object {key!r} in the file: {needed}")
    return content[key]


def _planned(run: pathlib.Path, name: str, ends: Any) -> PlannedPaths:
    parts = re.fullmatch(r"(.+)_([A-Z]\d+)_pair(\d+)", name)
    if parts is None:
        raise DataError(f"{run}/paths.json: {name!r} is not of the form SUBJECT_LEVEL_pairN")
    left, right = (_path(run, ends, side) for side in SIDES)
    return PlannedPaths(parts[1], parts[2], int(parts[3]), (left, right))


def _path(run: pathlib.Path, ends: Any, side: str) -> NeedlePath:
    try:
        points = [ends[side]["entry_point"], ends[side]["target_point"]]
    except (KeyError, TypeError):
        points = None
    entry, target = array_of(f"{run}/paths.json: {side} entry and target point", points, (2, 3))
    return needle(entry, target)
