"""Reconstruction in one call: all stages, for all vertebrae of one set of views.

`reconstruct` runs these stages, each a function on values:

    tasks, warnings = found_tasks(radiographs, levels, options)  # or spine_tasks, with starts
    tasks, _ = start_tasks(tasks)
    estimates, _ = fit_spine(tasks, options)
    answers = assess_spine(tasks, estimates, options)
    spine = plan_spine(tasks, answers, ...)
"""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dartjax import data
from dartjax._progress import Progress, Step, no_progress, no_step
from dartjax.image import Radiograph
from dartjax.observations import Detection, Observations
from dartjax.pipeline._assess import QualityAssessment
from dartjax.pipeline._assess_spine import AssessedAnswers, assess_spine
from dartjax.pipeline._networks import check_networks, network_folders
from dartjax.pipeline._options import ReconstructOptions, method_of
from dartjax.pipeline._own_xrays import Start
from dartjax.pipeline._paths import planned_paths
from dartjax.pipeline._recipes import NEEDED_NETWORK, run_method
from dartjax.pipeline._spine import Spine, Vertebra
from dartjax.pipeline._spine_tasks import spine_tasks
from dartjax.pipeline._starts import initialise_tasks
from dartjax.pipeline._task import (
    ABSTENTION_PREFIX,
    GIVEN,
    Estimate,
    Task,
    estimated_surface,
    no_answer_reason,
    start_estimate,
    status_text,
)
from dartjax.pipeline.detection import found_tasks


def reconstruct(
    radiographs: Sequence[Radiograph],
    *,
    levels: Sequence[str] | None = None,
    observations: Mapping[str, Detection | Observations] | None = None,
    starts: Mapping[str, Start] | None = None,
    options: ReconstructOptions | None = None,
    progress: Progress | None = None,
) -> Spine:
    """Reconstruct all vertebrae of one set of calibrated radiographs. This is
    `dartjax.reconstruct`; its documentation is there."""
    options = ReconstructOptions() if options is None else options
    stage = no_progress if progress is None else progress
    with jax.enable_x64(False):
        radiographs, observations, starts = _in_float32((radiographs, observations, starts))
        if observations or starts:
            tasks, warnings = spine_tasks(radiographs, levels, observations, starts, options)
        else:
            tasks, warnings = found_tasks(radiographs, levels, options, stage)
        with stage("starts") as step:
            tasks, seconds_to_start = start_tasks(tasks, step=step)
        with stage("fit") as step:
            estimates, seconds = fit_spine(tasks, options, step=step)
        with stage("quality assessment") as step:
            answers = assess_spine(tasks, estimates, options, step=step)
        with stage("needle paths", len(tasks)) as step:
            return plan_spine(
                tasks,
                answers,
                options,
                warnings=warnings,
                seconds_per_vertebra=seconds_to_start + seconds,
                step=step,
            )


def spine_of_answers(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    assessments: Sequence[QualityAssessment],
    options: ReconstructOptions,
) -> Spine:
    """Make the spine of a study's estimates in one set of views. `assessments` has one entry per
    task, or is empty. No vertebra is abstained from because of its failure probability."""
    abstentions = [no_answer_reason(*each) for each in zip(tasks, estimates, strict=True)]
    found: list[QualityAssessment | None] = [*assessments] or [None] * len(tasks)
    return plan_spine(tasks, AssessedAnswers(list(estimates), abstentions, found), options)


def _in_float32(tree: Any) -> Any:
    """Convert every floating-point JAX array of a pytree to single precision."""
    arrays, rest = eqx.partition(tree, lambda leaf: isinstance(leaf, jax.Array))
    floats, whole = eqx.partition(arrays, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), floats), whole, rest)


def start_tasks(tasks: Sequence[Task], *, step: Step = no_step) -> tuple[list[Task], float]:
    """Initialise the tasks that have no given start from their detections; return all tasks, and
    the seconds per vertebra after compilation."""
    waiting = [i for i, task in enumerate(tasks) if task.tier != GIVEN and not task.found]
    started = list(tasks)
    if not waiting:
        return started, 0.0
    found, seconds = initialise_tasks([tasks[i] for i in waiting], step=step)
    for i, task in zip(waiting, found, strict=True):
        started[i] = task
    return started, seconds


def fit_spine(
    tasks: Sequence[Task], options: ReconstructOptions, *, step: Step = no_step
) -> tuple[list[Estimate], float]:
    """Fit all vertebrae by the recipe; return the estimates, and the seconds per vertebra after
    compilation.

    DataError for an unknown recipe, for restarts of a recipe that fits all vertebrae jointly, and
    for a network that was trained on a subject of `options.exclude`.
    """
    method = method_of(options)
    given = {"similarity": options.similarity, "isolation": options.isolation}
    folders = network_folders(given, NEEDED_NETWORK.get(method))
    check_networks(folders, options.exclude)
    return run_method(
        method, tasks, num_starts=options.restarts, seed=options.seed, step=step, weights=folders
    )


def plan_spine(
    tasks: Sequence[Task],
    answers: AssessedAnswers,
    options: ReconstructOptions,
    *,
    warnings: Sequence[str] = (),
    seconds_per_vertebra: float = float("nan"),
    step: Step = no_step,
) -> Spine:
    """Make the spine of all estimates, with the needle paths of each surface."""
    method, vertebrae = method_of(options), []
    cases = zip(tasks, answers.estimates, answers.abstentions, answers.assessments, strict=True)
    for task, estimate, abstention, assessment in cases:
        vertebrae.append(
            _vertebra(task, estimate, abstention, assessment, options.needle_radius_mm)
        )
        step(task.level)
    folder = data.shape_model_set(options.exclude, path=options.shape_models)
    return Spine(
        vertebrae=tuple(vertebrae),
        warnings=tuple(warnings),
        num_views=len(tasks[0].observations.view_valid),
        shape_models=data.shape_model_card(folder)["name"],
        weights=_networks_of(tasks, method),
        seconds_per_vertebra=seconds_per_vertebra,
        version=metadata.version("dartjax"),
    )


def _networks_of(tasks: Sequence[Task], method: str) -> tuple[str, ...]:
    """Names of the networks behind a spine."""
    detected = ("detector",) if any(task.found for task in tasks) else ()
    needed = NEEDED_NETWORK.get(method)
    return (*detected, *([needed] if needed else []))


def _vertebra(
    task: Task,
    estimate: Estimate,
    abstention: str,
    assessment: QualityAssessment | None,
    radius_mm: float,
) -> Vertebra:
    """Make one vertebra of the spine, without paths if it is abstained from."""
    surface = estimated_surface(task, estimate)
    known = assessment is not None and np.isfinite(assessment.probability)
    status = ABSTENTION_PREFIX + abstention if abstention else status_text(task, estimate)
    return Vertebra(
        level=task.level,
        pose=estimate.pose,
        coefficients=jnp.asarray(estimate.coefficients),
        surface=surface,
        start_surface=estimated_surface(task, start_estimate(task)),
        covariance=jnp.asarray(assessment.covariance) if assessment else None,
        paths=None if abstention else planned_paths(task.model, surface, radius_mm),
        p_failure=assessment.probability if assessment and known else None,
        status=status,
        abstained=bool(abstention),
        tier=task.tier,
        mask_agreement=estimate.mask_agreement,
        level_probability=task.level_probability if task.found else None,
        level_reliable=task.level_reliable,
    )
