"""Read the needle paths and the record of a reconstruction run."""

import json
import pathlib
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dartjax._errors import DataError
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
    try:
        return dict(json.loads((run / file).read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{run / file} cannot be read ({error}): give the run folder of a finished "
            "reconstruction, such as `dartjax demo` writes"
        ) from error


def _planned(run: pathlib.Path, name: str, ends: Any) -> PlannedPaths:
    parts = re.fullmatch(r"(.+)_([A-Z]\d+)_pair(\d+)", name)
    if parts is None:
        raise DataError(f"{run}/paths.json: {name!r} is not of the form SUBJECT_LEVEL_pairN")
    left, right = (_path(run, ends, side) for side in SIDES)
    return PlannedPaths(parts[1], parts[2], int(parts[3]), (left, right))


def _path(run: pathlib.Path, ends: Any, side: str) -> NeedlePath:
    try:
        entry, target = (np.array(ends[side][k], float) for k in ("entry_point", "target_point"))
    except (KeyError, TypeError, ValueError):
        entry = target = np.zeros(0)
    if not entry.shape == target.shape == (3,) or not np.isfinite(entry + target).all():
        raise DataError(f"{run}/paths.json: a path is not two points of three numbers")
    return needle(entry, target)
