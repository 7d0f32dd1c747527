"""Quality assessment of the estimates in one set of views, and recovery of unreliable ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.pipeline._assess import (
    QualityAssessment,
    QualityMeasures,
    RenderedNeighbours,
    abstention_reasons,
    assess_quality,
    measure_quality,
    rendered_neighbours,
)
from dartjax.pipeline._options import ReconstructOptions, method_of
from dartjax.pipeline._recover import Recovery, recover
from dartjax.pipeline._task import Estimate, Task, no_answer_reason
from dartjax.registration import FIT_OPTIONS, FitOptions


class AssessedAnswers(NamedTuple):
    """Estimates with their quality assessments, in the order of the tasks."""

    estimates: list[Estimate]
    abstentions: list[str]  # reason to abstain; "" if the estimate is accepted
    # None without an estimate, or for a learned objective. The probability is NaN where the failure
    # model does not apply: no mask in every view, found by a network, another recipe.
    assessments: list[QualityAssessment | None]


def assess_spine(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    options: ReconstructOptions,
    *,
    step: Step = no_step,
) -> AssessedAnswers:
    """Assess the quality of each estimate, fit unreliable ones again, and abstain from those that
    stay unreliable.

    The packaged failure model applies to the joint fit with landmarks and masks. Other estimates
    get a covariance but no failure probability, and this function never abstains from them.
    """
    method, answers = method_of(options), list(estimates)
    abstentions = [no_answer_reason(*each) for each in zip(tasks, answers, strict=True)]
    assessments: list[QualityAssessment | None] = [None] * len(tasks)
    fit_options = FIT_OPTIONS.get(method)
    if fit_options is None:  # the curvature of a learned objective is not known
        return AssessedAnswers(answers, abstentions, assessments)
    stored = data.load_failure_model()
    applies = method == stored.card["method"] and not any(
        data.includes_subject(stored.card, person) for person in options.exclude
    )
    fitted = _Fitted(tasks, answers, rendered_neighbours(tasks, answers, method), fit_options)
    answered = [i for i, reason in enumerate(abstentions) if not reason]
    # The model was fitted to simulated detections, not to those of a network.
    usable = [task.mask_in_every_view and not task.found for task in tasks]
    known = [i for i in answered if applies and usable[i]]
    found = _recovered(fitted.only(known), stored, options, step)
    reasons = abstention_reasons(found.assessments, stored.threshold)
    for i, answer, assessment, reason in zip(
        known, found.estimates, found.assessments, reasons, strict=True
    ):
        answers[i], assessments[i], abstentions[i] = answer, assessment, reason
    rest = [i for i in answered if i not in known]
    covariances = _with_unknown_probability(fitted.only(rest), stored, step)
    for i, assessment in zip(rest, covariances, strict=True):
        assessments[i] = assessment
    return AssessedAnswers(answers, abstentions, assessments)


class _Fitted(NamedTuple):
    """Estimates of one fit, with the neighbours that were rendered in it."""

    tasks: Sequence[Task]
    estimates: Sequence[Estimate]
    neighbours: RenderedNeighbours
    options: FitOptions

    def only(self, index: Sequence[int]) -> "_Fitted":
        near = self.neighbours and [self.neighbours[i] for i in index]
        tasks = [self.tasks[i] for i in index]
        return _Fitted(tasks, [self.estimates[i] for i in index], near, self.options)

    def measured(self, step: Step) -> QualityMeasures:
        return measure_quality(self.tasks, self.estimates, self.options, self.neighbours, step=step)


def _recovered(
    fitted: _Fitted, stored: data.StoredFailureModel, options: ReconstructOptions, step: Step
) -> Recovery:
    """Replace estimates with a high failure probability where another start gives a better one."""
    if not fitted.tasks:
        return Recovery([], [], [])
    measures = fitted.measured(step)
    if not options.recover:
        found = assess_quality(measures, stored)
        return Recovery(list(fitted.estimates), found, ["first fit"] * len(found))
    return recover(
        fitted.tasks,
        fitted.estimates,
        measures,
        fitted.options,
        stored,
        fitted.neighbours,
        seed=options.seed,
        step=step,
    )


def _with_unknown_probability(
    fitted: _Fitted, stored: data.StoredFailureModel, step: Step
) -> list[QualityAssessment]:
    """Assess estimates to which the failure model does not apply: probability NaN, covariance
    inflated by the factor of unreliable estimates."""
    if not fitted.tasks:
        return []
    measures = fitted.measured(step)
    unknown = measures._replace(features=np.full_like(measures.features, np.nan))
    nan = float("nan")
    return [each._replace(probability=nan) for each in assess_quality(unknown, stored)]
