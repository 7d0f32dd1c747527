"""Define the ablation of the joint fit: without each term, and with parts of the ground truth."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from dartjax import pipeline
from dartjax.pipeline import Fitter, Task
from dartjax.registration import FIT_ISOLATED, FIT_OPTIONS, JOINT, FitOptions


def _without(term: str) -> Fitter:
    weights = dataclasses.replace(FIT_OPTIONS[JOINT].weights, **{term: 0.0})
    return functools.partial(
        pipeline.fit_jointly, dataclasses.replace(FIT_OPTIONS[JOINT], weights=weights)
    )


def _with_truth(reveal: Callable[[Task], Task], options: FitOptions = FIT_OPTIONS[JOINT]) -> Fitter:
    return functools.partial(pipeline.fit_with_truth, reveal, options)


# The same fit without one part. Landmarks are still used for the start.
ABLATION: Mapping[str, Fitter] = {
    "without images": _without("similarity"),
    "without masks": _without("silhouette"),
    "without landmarks": _without("landmarks"),
    "without shape prior": _without("prior"),
    "without prior along the spine": _without("neighbours"),
    "without resemblance": functools.partial(
        pipeline.fit_jointly, dataclasses.replace(FIT_OPTIONS[JOINT], shape_coupling=0.0)
    ),
    "without neighbours": functools.partial(
        pipeline.fit_jointly, FIT_OPTIONS[JOINT], with_neighbours=False
    ),
}
# Oracle ablation: the same fit with one part of the ground truth.
LIMITS: Mapping[str, Fitter] = {
    "true isolation": _with_truth(pipeline.with_true_isolation, FIT_ISOLATED),
    "true masks": _with_truth(pipeline.with_true_masks),
    "true landmarks": _with_truth(pipeline.with_true_landmarks),
    "true start": _with_truth(pipeline.with_true_start),
    "true shape": _with_truth(pipeline.with_true_shape),
}
