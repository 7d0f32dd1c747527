"""Fits with the learned multi-view similarity: alone, or as an additional term of the joint fit."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from dartjax import ssm, transforms
from dartjax.observations import Observations
from dartjax.pipeline._batch import fit_arguments, run_cases
from dartjax.pipeline._joint import fit_jointly
from dartjax.pipeline._networks import similarity_network
from dartjax.pipeline._task import Task
from dartjax.registration import (
    CROP_WIDTH_MM,
    FitOptions,
    MultiViewScore,
    ObjectiveWeights,
    Reconstruction,
    Scale,
    fit,
)
from dartjax.render import ncc
from dartjax.training import flag_unreliable, learned_score

LEARNED_WEIGHT = 0.1  # of the predicted log(1 + MASD), added to the classical terms


def faithful_fit_options(folder: str) -> FitOptions:
    """Make the options of a fit that minimises the distance predicted by the network and, with a
    small weight, the shape prior."""
    size = similarity_network(folder)[0].config.size
    return FitOptions(
        similarity=(ncc,) * 2,
        scales=(Scale(size, 0.0, 40, 0.08), Scale(size, 0.0, 40, 0.04)),
        weights=ObjectiveWeights(similarity=0.0, silhouette=0.0, landmarks=0.0),
        crop_width_mm=CROP_WIDTH_MM,
        multiview=_score(folder),
    )


def with_score(options: FitOptions, folder: str, weight: float) -> FitOptions:
    """Add the learned similarity to the options of a fit as one more term. Scales are at least as
    fine as the input of the network."""
    size = similarity_network(folder)[0].config.size
    scales = [scale._replace(num_pixels=max(size, scale.num_pixels)) for scale in options.scales]
    return dataclasses.replace(
        options,
        scales=tuple(scales),
        weights=dataclasses.replace(options.weights, multiview=weight),
        multiview=_score(folder),
    )


def fit_faithful(
    folder: str, tasks: Sequence[Task], *, step: Callable[[str], None]
) -> tuple[list[Reconstruction], float]:
    """Fit with the learned similarity alone, from the given starts (a `Fitter`)."""
    return run_cases(_faithful(folder), *fit_arguments(tasks), step=step)


def fit_ours(
    folder: str,
    options: FitOptions,
    tasks: Sequence[Task],
    *,
    step: Callable[[str], None],
) -> tuple[list[Reconstruction], float]:
    """Fit all vertebrae of a scene jointly by `options` with the learned similarity as one more
    term, and flag results for which the network predicts a large error (a `Fitter`)."""
    options = with_score(options, folder, LEARNED_WEIGHT)
    fitted, seconds = fit_jointly(options, tasks, step=step)
    columns = fit_arguments(tasks)[:2]
    flagged, more = run_cases(_quality_check(folder), *columns, fitted, step=step)
    return flagged, seconds + more


@functools.cache
def _score(folder: str) -> MultiViewScore:
    """Make the score; cached per folder, so that fits are compiled once."""
    return learned_score(*similarity_network(folder))


@functools.cache
def _quality_check(folder: str):
    return functools.partial(flag_unreliable, *similarity_network(folder))


@functools.cache
def _faithful(folder: str):
    options, check = faithful_fit_options(folder), _quality_check(folder)

    def one(model: ssm.ShapeModel, seen: Observations, start: transforms.SE3) -> Reconstruction:
        return check(model, seen, fit(model, seen, start, options))

    return one
