"""Further rows of the table: the joint fit without each of its terms, and the oracle ablation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from dartjax import pipeline
from dartjax.pipeline import Fitter, Task
from dartjax.registration import FIT_OPTIONS, OURS, SHOWN_ALONE, FitOptions


def _without(term: str) -> Fitter:
    weights = dataclasses.replace(FIT_OPTIONS[OURS].weights, **{term: 0.0})
    return functools.partial(
        pipeline.fit_jointly, dataclasses.replace(FIT_OPTIONS[OURS], weights=weights)
    )


def _with_truth(reveal: Callable[[Task], Task], options: FitOptions = FIT_OPTIONS[OURS]) -> Fitter:
    return functools.partial(pipeline.fit_with_truth, reveal, options)


# What every part of OURS is worth: the same fit without it. Landmarks still move the start.
ABLATION: Mapping[str, Fitter] = {
    "without images": _without("similarity"),
    "without masks": _without("silhouette"),
    "without landmarks": _without("landmarks"),
    "without shape prior": _without("prior"),
    "without prior along the spine": _without("neighbours"),
    "without resemblance": functools.partial(
        pipeline.fit_jointly, dataclasses.replace(FIT_OPTIONS[OURS], kinship=0.0)
    ),
    "without neighbours": functools.partial(
        pipeline.fit_jointly, FIT_OPTIONS[OURS], among_others=False
    ),
}
# The same fit with one part of the ground truth.
LIMITS: Mapping[str, Fitter] = {
    "true isolation": _with_truth(pipeline.with_true_isolation, SHOWN_ALONE),
    "true masks": _with_truth(pipeline.with_true_masks),
    "true landmarks": _with_truth(pipeline.with_true_landmarks),
    "true start": _with_truth(pipeline.with_true_start),
    "true shape": _with_truth(pipeline.with_true_shape),
}
