"""Evaluation of a trained similarity and its one-shot start on unseen vertebrae."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dartjax import camera as cameras
from dartjax import data, registration, transforms
from dartjax._numerics import safe_norm
from dartjax._progress import Step
from dartjax.observations import Observations
from dartjax.pipeline._batch import run_cases
from dartjax.pipeline._learned import faithful_fit_options
from dartjax.pipeline._networks import similarity_network
from dartjax.registration import (
    CROP_WIDTH_MM,
    FitOptions,
    ObjectiveWeights,
    Reconstruction,
    Scale,
    descent_direction,
    fit,
    fit_landmarks,
    moved_pose,
)
from dartjax.ssm import ShapeModel, landmarks, posed
from dartjax.training import (
    Crops,
    Fit,
    FitErrors,
    disturbed_fit,
    one_shot_fit,
    predicted_error,
    step_to_truth,
    surface_error,
    two_view_batch,
)

LEARNED_SIMILARITY = "learned"
_LANDMARK_SIGMA_MM = 3.0
REFINING_STEPS = (0, 1, 5, 20)
CAPTURED_MM = 2.0  # a fit that ends closer to the truth than this is captured
_DEG_PER_MM = 1.5  # of a disturbed start
_DISTURBED_FITS = 4  # of every vertebra, for the predictions
Row = dict[str, Any]


class SimilarityCase(NamedTuple):
    """One vertebra in two views, with its ground truth."""

    name: Row  # subject and level
    model: ShapeModel
    observations: Observations
    true: Fit  # best fit of the model to the true surface
    vertices: jax.Array  # the true surface, in correspondence


def similarity_cases(crops: Crops, models: ShapeModel, seed: int) -> list[SimilarityCase]:
    """Make a case of every vertebra of crops from `training.with_best_fits`: its first two views,
    and landmarks with 3 mm noise."""
    batch = two_view_batch(crops)
    cases = []
    for i, level in enumerate(crops.level):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], batch)
        model = jax.tree.map(lambda leaf, level=level: leaf[level], models)
        noise = np.random.default_rng([seed, i]).normal(size=(10, 3)) * _LANDMARK_SIGMA_MM
        points = landmarks(model, own.vertices) + jnp.asarray(noise, jnp.float32)
        pixels = jax.vmap(lambda view, p=points: cameras.project(view, p))(own.cameras)
        seen = Observations(
            cameras=own.cameras,
            images=own.images,
            exposed=jnp.ones_like(own.images),
            masks=own.masks,
            landmarks=pixels,
            landmark_sigma=jnp.full(pixels.shape[:2], _LANDMARK_SIGMA_MM),
            view_valid=jnp.ones(len(own.images), bool),
        )
        name = {"subject": str(crops.subject[i]), "level": data.MODELLED_LEVELS[level]}
        cases.append(SimilarityCase(name, model, seen, own.true, own.vertices))
    return cases


def compared_similarities(folder: str) -> dict[str, FitOptions]:
    """Make the options of fits with an image similarity alone, the learned one first."""
    images = ObjectiveWeights(silhouette=0.0, landmarks=0.0)
    alone, xvr = (registration.FIT_OPTIONS[name] for name in (registration.ALONE, "xvr"))
    return {
        LEARNED_SIMILARITY: faithful_fit_options(folder),
        "local gradient NCC": FitOptions(alone.similarity, alone.scales, images, CROP_WIDTH_MM),
        "xvr": FitOptions(xvr.similarity, xvr.scales, images, CROP_WIDTH_MM),
    }


def evaluate_predictions(
    folder: str, cases: Sequence[SimilarityCase], seed: int, step: Step
) -> list[Row]:
    """Evaluate the similarity in a folder on disturbed fits of every vertebra: the predicted and
    the true distance, and the cosine between each descent direction and the step to the truth."""
    keys = [
        jax.random.fold_in(jax.random.key(seed), i) for i in range(len(cases) * _DISTURBED_FITS)
    ]
    repeated = [case for case in cases for _ in range(_DISTURBED_FITS)]
    columns = [[getattr(case, key) for case in repeated] for key in SimilarityCase._fields[1:]]
    found, _ = run_cases(_prediction(folder), *columns, keys, step=step)
    return [
        case.name | {key: float(value) for key, value in row.items()}
        for case, row in zip(repeated, found, strict=True)
    ]


@functools.cache
def _prediction(folder: str):
    net, params = similarity_network(folder)

    def one(model: ShapeModel, seen: Observations, true: Fit, vertices: jax.Array, key: jax.Array):
        wrong = disturbed_fit(true, FitErrors(), key=key)
        predicted = predicted_error(net, params, model, seen, wrong)
        to_truth = step_to_truth(true, wrong)
        row = {
            "predicted_mm": jnp.expm1(predicted.log_masd),
            "predicted_log_std": jnp.exp(0.5 * predicted.log_variance),
            "true_mm": _distance(model, wrong, vertices),
        }
        for name, options in compared_similarities(folder).items():
            descent = descent_direction(model, seen, wrong.pose, wrong.coefficients, options)
            row[f"cosine {name}"] = _cosine(descent, to_truth)
            row[f"cosine of the pose, {name}"] = _cosine(descent[:6], to_truth[:6])
        return row

    return one


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b) / jnp.maximum(safe_norm(a) * safe_norm(b), 1e-12)


def evaluate_captures(
    folder: str, cases: Sequence[SimilarityCase], starts_mm: Sequence[float], seed: int, step: Step
) -> list[Row]:
    """Fit with each similarity alone from starts displaced from the best fit by `starts_mm` and 1.5
    degrees per mm, in random directions. A start at 0 mm measures how far the optimum of a
    similarity is displaced."""
    rows: list[Row] = []
    for name, options in compared_similarities(folder).items():
        chosen = [(case, start) for start in starts_mm for case in cases]
        columns = [[getattr(case, key) for case, _ in chosen] for key in SimilarityCase._fields[1:]]
        far = [jnp.asarray(start) for _, start in chosen]
        keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(len(cases))]
        found, _ = run_cases(
            _descent(options),
            *columns,
            far,
            keys * len(starts_mm),
            step=lambda n, m=name: step(f"{m}: {n}"),
        )
        for (case, start), row in zip(chosen, found, strict=True):
            ended = {key: float(value) for key, value in row.items()}
            rows.append(case.name | {"similarity": name, "start_mm": float(start)} | ended)
    return rows


@functools.cache
def _descent(options: FitOptions):
    def one(
        model: ShapeModel,
        seen: Observations,
        true: Fit,
        vertices: jax.Array,
        far: jax.Array,
        key: jax.Array,
    ):
        shift, axis = (v / safe_norm(v) for v in jax.random.normal(key, (2, 3)))
        pose = transforms.perturb(true.pose, jnp.deg2rad(_DEG_PER_MM * far) * axis, far * shift)
        found = fit(model, seen, pose, options, coefficients=true.coefficients)
        error = true.pose.inverse() @ found.pose
        return {
            "masd_mm": _distance(model, found, vertices),
            "oracle_masd_mm": _distance(model, true, vertices),
            "shift_mm": safe_norm(found.pose.translation() - true.pose.translation()),
            "turn_deg": jnp.rad2deg(safe_norm(error.rotation().log())),
        }

    return one


def evaluate_one_shot_starts(folder: str, cases: Sequence[SimilarityCase], step: Step) -> list[Row]:
    """Measure the error after the landmark fit, with and without the step that the network
    predicts, and after 0 to 20 steps of the classical fit; and the milliseconds for one
    vertebra."""
    refine = {steps: jax.jit(_refinement(steps)) for steps in REFINING_STEPS if steps}
    rows: list[Row] = []
    for shot in (False, True):
        begin = jax.jit(_beginning(folder, shot))
        for case in cases:
            (first, masd), seconds = _timed(begin, case[1:])
            found = {0: (masd, seconds)}
            for steps, program in refine.items():
                masd, more = _timed(program, (*case[1:], first))
                found[steps] = masd, seconds + more
            for steps, (masd, seconds) in found.items():
                row = {"one_shot": shot, "steps": steps, "masd_mm": float(masd)}
                rows.append(case.name | row | {"milliseconds": 1000.0 * seconds})
            step(f"start in one step: {case.name['level']}")
    return rows


def _beginning(folder: str, shot: bool):
    net, params = similarity_network(folder)

    def one(model: ShapeModel, seen: Observations, true: Fit, vertices: jax.Array):
        start = transforms.perturb(true.pose, jnp.full(3, 0.05), jnp.full(3, 2.0))
        first = fit_landmarks(model, seen, start)
        found = Fit(moved_pose(start, first), first.coefficients)
        if shot:
            found = one_shot_fit(net, params, model, seen, found)
        return found, _distance(model, found, vertices)

    return one


def _refinement(steps: int):
    """Make a fit of one vertebra by a number of steps with the options of `ALONE`."""
    alone = registration.FIT_OPTIONS[registration.ALONE]
    scales = (Scale(64, 1.2, steps, 0.08),)
    options = FitOptions(alone.similarity[:1], scales, crop_width_mm=CROP_WIDTH_MM)

    def one(model: ShapeModel, seen: Observations, true: Fit, vertices: jax.Array, first: Fit):
        found = fit(model, seen, first.pose, options, coefficients=first.coefficients)
        return _distance(model, found, vertices)

    return one


def _distance(model: ShapeModel, found: Fit | Reconstruction, vertices: jax.Array) -> jax.Array:
    """Compute the distance between the fitted and the true surface, mm."""
    return surface_error(posed(model, found.pose, found.coefficients), vertices, model.faces)


def _timed(program: Callable[..., PyTree], arguments: Sequence[PyTree]) -> tuple[PyTree, float]:
    """Run a program; return its result, and the shortest time of three calls after compilation."""
    value, clock = jax.block_until_ready(program(*arguments)), []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(program(*arguments))
        clock.append(time.perf_counter() - started)
    return value, min(clock)
