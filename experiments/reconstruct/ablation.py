"""The joint fit without each of its terms, and with one part of the truth each."""

import dataclasses
import functools
from collections.abc import Mapping

from dartjax import pipeline
from dartjax.pipeline import Fitter
from dartjax.registration import FIT_OPTIONS, OURS, SHOWN_ALONE
from experiments.reconstruct import limits


def _without(term: str) -> Fitter:
    weights = dataclasses.replace(FIT_OPTIONS[OURS].weights, **{term: 0.0})
    return functools.partial(
        pipeline.fit_jointly, dataclasses.replace(FIT_OPTIONS[OURS], weights=weights)
    )


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
# The same fit told one part of the truth.
LIMITS: Mapping[str, Fitter] = {
    name: functools.partial(
        limits.fit_told, tell, SHOWN_ALONE if name == limits.ISOLATION else FIT_OPTIONS[OURS]
    )
    for name, tell in limits.LIMITS.items()
}
