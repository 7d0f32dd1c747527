"""Load the cases of `navigate` and the plans of an earlier run."""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import jax.numpy as jnp
import numpy as np

from dartjax import data
from dartjax.cli import launch
from dartjax.data import PlannedPaths
from dartjax.image import Volume
from experiments.navigate.settings import Settings


def load_cases(settings: Settings, levels: Sequence[str]) -> Iterator[data.Case]:
    """Load one case at a time; skip subjects without any of the levels, with a message."""
    if not settings.cohort:
        with launch.progress("example chest CT"):
            case = data.example_case()
        yield case
        return
    any_found = False
    for subject in _chosen(settings):
        case = data.load_case(subject)
        if levels and not set(levels) & set(case.levels):
            print(f"{case.subject} has no complete {', '.join(levels)}", file=sys.stderr)
            continue
        any_found = True
        yield case
    if not any_found:
        raise data.DataError(f"no subject has a complete {', '.join(levels)}")


def _chosen(settings: Settings) -> list[data.Subject]:
    labels, subjects = cast(data.Numbering, settings.labels), settings.subjects
    found = [s for folder in settings.cohort for s in data.find_subjects(folder, labels=labels)]
    chosen = [subject for subject in found if not subjects or subject.id in subjects]
    if not chosen:
        raise data.DataError(f"the cohort has none of {', '.join(subjects)}")
    if len(kinds := {subject.dataset_kind for subject in chosen}) > 1:
        raise data.DataError(
            f"the cohort mixes {' and '.join(sorted(kinds))} data: run them separately"
        )
    return chosen


def without_voxels(case: data.Case) -> data.Case:
    """Drop the voxels of a case, because the CTs of a cohort do not all fit in memory."""
    empty = Volume(jnp.zeros((1, 1, 1)), case.ct.world_from_voxel)
    return dataclasses.replace(case, ct=empty, labels=np.zeros((1, 1, 1), np.uint8))


def planned_paths(run: str | None) -> dict[tuple[str, str], PlannedPaths]:
    """Read the plans of a `reconstruct` run by subject and level.

    The plan is from the first pair of views that show the vertebra.
    """
    if run is None:
        return {}
    first: dict[tuple[str, str], PlannedPaths] = {}
    for own in sorted(data.read_plans(pathlib.Path(run)), key=lambda each: each.pair):
        first.setdefault((own.subject, own.level), own)
    return first


def planned_by_leak(run: str | None) -> bool:
    """Return whether the plans are from shape models that had seen the subjects.

    The best corridors do not depend on a model, which only gives the start of their search.
    """
    return bool(run and data.read_record(pathlib.Path(run))["ssm_leak"])
