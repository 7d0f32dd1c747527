"""Ground truth of all vertebrae of a case, with shape models that exclude its people."""

import pathlib
import sys
from collections.abc import Callable, Sequence

from dartjax import data
from dartjax.simulation._ground_truth import TrueVertebra, true_vertebra


def people_of(case: data.Case) -> tuple[str, ...]:
    """Return the people that shape models must exclude: the subject, and the parents of a synthetic
    subject."""
    return (case.subject, *case.parents)


def model_set(case: data.Case, ssm: str | None = None) -> pathlib.Path:
    """Select the shape models of a case.

    The given ones, else a set that excludes the subject and its parents; if there is none, a set
    that excludes only the subject, which counts as a leak.
    """
    if ssm:
        return pathlib.Path(ssm)
    try:
        return data.shape_model_set(people_of(case))
    except data.DataError:
        return data.shape_model_set([case.subject])


def is_leak(case: data.Case, ssm: str | None = None) -> bool:
    """Return whether the shape models of a case include the subject or one of its parents."""
    card = data.shape_model_card(model_set(case, ssm))
    return data.includes_subject(card, case.subject, case.ct_hash) or any(
        data.includes_subject(card, parent) for parent in case.parents
    )


def excluded(cases: Sequence[data.Case]) -> list[str]:
    """List the people that the shape models of a run exclude, for its record."""
    return sorted({p for case in cases if not is_leak(case) for p in people_of(case)})


def levels_of(case: data.Case, wanted: Sequence[str] = (), ssm: str | None = None) -> list[str]:
    """Select the complete levels of a case that are wanted (all if empty) and have a shape model.

    Raises DataError with the reason if there are none. Wanted levels that are not available are
    printed to stderr.
    """
    known = (*data.shape_model_levels(ssm), *data.SUPERNUMERARY)
    levels = [level for level in wanted or case.levels if level in known and level in case.levels]
    if not levels and wanted:
        case.label_of(wanted[0])  # raises the reason
    if not levels:
        raise data.DataError(
            f"subject {case.subject} has no complete vertebra with a shape model: "
            f"{case.rejected or 'its mask is empty'}"
        )
    if missing := set(wanted) - set(levels):
        print(f"{case.subject} has no complete {', '.join(sorted(missing))}", file=sys.stderr)
    return levels


def true_vertebrae(
    case: data.Case,
    wanted: Sequence[str] = (),
    step: Callable[[str], None] = lambda note: None,
    ssm: str | None = None,
) -> list[TrueVertebra]:
    """Compute the ground truth of the levels of `levels_of`; calls `step` after each level."""
    found = []
    for level in levels_of(case, wanted, ssm):
        model = data.load_shape_model(level, path=model_set(case, ssm))
        found.append(true_vertebra(case, level, model))
        step(level)
    return found
