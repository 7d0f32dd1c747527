"""Quality assessment of reconstructions: standard deviations and failure probabilities.

No function here uses the ground truth. `measure_quality` computes quality features of every
estimate, `assess_quality` converts them to failure probabilities and standard deviations by a
stored model, and `abstention_reasons` decides where to abstain. `recover` then fits again, and
`next_views` finds the third X-ray that reduces the uncertainty most.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dartjax import data, mesh, registration, transforms
from dartjax._progress import Step, no_step
from dartjax.observations import Observations
from dartjax.pipeline._joint import is_relied_on
from dartjax.pipeline._task import (
    Estimate,
    Task,
    estimated_surface,
    indices_by_scene,
    no_answer_reason,
    spine_order,
)
from dartjax.registration import (
    FEATURE_NAMES,
    REACH,
    FailureModel,
    FitOptions,
    Reconstruction,
    Surroundings,
    failure_features,
    failure_probability,
    laplace,
    normal_std,
)
from dartjax.ssm import ShapeModel, instance, posed

# Features of an estimate relative to the other vertebrae in the same views; NaN without them.
SCENE_FEATURE_NAMES: tuple[str, ...] = (
    "neighbour_distance_mm",  # to the position that the levels above and below suggest
    "neighbour_angle_deg",  # to the orientation they suggest
    "image_loss_above_scene",  # difference from the scene's median of a view, mean over views
    "image_loss_worst_above_scene",  # of the worst view
    "mask_loss_above_scene",
    "size_off_scene",  # log of the size over the mean shape's, distance from the scene's median
    "scene_mask_gap_mm",  # rms over the vertebrae of the scene
    "scene_landmark_gap_mm",
    "scene_landmark_bias_mm",
    "scene_mask_shift_mm",
    "scene_neighbour_distance_mm",
)
ALL_FEATURE_NAMES = (*FEATURE_NAMES, *SCENE_FEATURE_NAMES)
_SCENE_MEANS = ("mask_gap_mm", "landmark_gap_mm", "landmark_bias_mm", "mask_shift_mm")
_MAX_FROM_NEIGHBOURS = (20.0, 45.0)  # mm and degrees at which distances to neighbours are clipped
_MAX_OFF_SIZE = 0.5  # value at which differences of the log size are clipped
RenderedNeighbours = Sequence[Surroundings] | None  # the neighbours rendered with each task


class QualityMeasures(NamedTuple):
    """Quality features and uncertainties of every estimate; leading axis case. Standard deviations
    are those of `laplace` without inflation, mm."""

    features: Float[np.ndarray, "case feature"]  # ALL_FEATURE_NAMES
    losses: Float[np.ndarray, "case 2 view"]  # of image and mask
    vertex_std: Float[np.ndarray, "case vertex"]  # along the normal of the surface
    path_std: Float[np.ndarray, "case side 2 3"]  # (left, right), (entry, target), x, y, z
    covariance: Float[np.ndarray, "case unknown unknown"]  # see `registration.Uncertainty`


def measure_quality(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    options: FitOptions,
    neighbours: RenderedNeighbours = None,
    *,
    step: Step = no_step,
) -> QualityMeasures:
    """Compute quality features and standard deviations of the estimates of all tasks.

    `options` are those of the fit, `neighbours` those rendered in it (`rendered_neighbours`), if
    any. The tasks should contain all vertebrae of a scene (subject and pair of views).
    """
    rendered = [None] * len(tasks) if neighbours is None else neighbours
    cases = zip(tasks, estimates, rendered, strict=True)
    measure, parts = _measure(options), []
    for done, (task, estimate, near) in enumerate(cases, 1):
        found = as_reconstruction(task, estimate)
        detected = task.observations if task.detected is None else task.detected
        parts.append(jax.device_get(measure(task.model, task.observations, detected, found, near)))
        step(f"quality assessment: {done}/{len(tasks)}")
    own, losses, *deviations = (np.stack(column) for column in zip(*parts, strict=True))
    of_scene = scene_features(tasks, estimates, own, losses)
    return QualityMeasures(np.concatenate([own, of_scene], axis=1), losses, *deviations)


@functools.cache
def _measure(options: FitOptions):
    """Make the measuring function; cached per options, so that it is compiled once. It takes one
    case: a batch split over devices would gather its matrices for every decomposition."""

    @jax.jit
    def one(
        model: ShapeModel,
        seen: Observations,
        detected: Observations,
        found: Reconstruction,
        around: Surroundings | None,
    ):
        uncertainty = laplace(model, seen, found, options, around, inflation=1.0)
        features = failure_features(model, seen, found, uncertainty, detected=detected)
        vertices = posed(model, found.pose, found.coefficients)
        across = normal_std(uncertainty.vertices, mesh.vertex_normals(vertices, model.faces))
        variances = jnp.diagonal(uncertainty.paths, axis1=-2, axis2=-1)
        agreement = uncertainty.agreement
        losses = 1.0 - jnp.stack([agreement.scores, agreement.overlaps])
        path_std = jnp.sqrt(variances).reshape(2, 2, 3)
        return jnp.stack(features), losses, across, path_std, uncertainty.covariance

    return one


def as_reconstruction(task: Task, estimate: Estimate) -> Reconstruction:
    """Convert an estimate to the result of a fit, without the history of losses."""
    num_views = len(task.observations.view_valid)
    return Reconstruction(
        pose=estimate.pose,
        coefficients=jnp.asarray(estimate.coefficients),
        loss=jnp.zeros(()),
        history=jnp.zeros(1),
        mask_agreement=jnp.full(num_views, estimate.mask_agreement),
        status=jnp.asarray(estimate.status, jnp.int32),
    )


def rendered_neighbours(
    tasks: Sequence[Task], estimates: Sequence[Estimate], method: str
) -> RenderedNeighbours:
    """Collect the neighbours that a method rendered with every vertebra: for the joint fit the
    estimates of up to REACH levels above and below in the same views, for other methods None."""
    if method != registration.JOINT:
        return None
    rendered = [
        is_relied_on(task) and not no_answer_reason(task, estimate)
        for task, estimate in zip(tasks, estimates, strict=True)
    ]
    vertices = [
        np.asarray(estimated_surface(task, estimate).vertices)
        for task, estimate in zip(tasks, estimates, strict=True)
    ]
    neighbours = {}
    for members in indices_by_scene(tasks):
        for place, i in enumerate(members):
            near = members[max(place - REACH, 0) : place + REACH + 1]
            chosen = [j for j in near if j != i and rendered[j]]
            neighbours[i] = _padded([vertices[j] for j in chosen], vertices[i])
    return [neighbours[i] for i in range(len(tasks))]


def _padded(others: Sequence[np.ndarray], filler: np.ndarray) -> Surroundings:
    """Pad the neighbours of one vertebra to 2 REACH with meshes marked as absent."""
    missing = 2 * REACH - len(others)
    return Surroundings(
        jnp.asarray(np.stack([*others, *[filler] * missing]), jnp.float32),
        jnp.arange(2 * REACH) < len(others),
    )


def scene_features(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    own: Float[np.ndarray, "case feature"],
    losses: Float[np.ndarray, "case 2 view"],
) -> Float[np.ndarray, "case scene_feature"]:
    """Compute SCENE_FEATURE_NAMES of every estimate from the estimates in the same views."""
    size = np.array([_log_size(t, e) for t, e in zip(tasks, estimates, strict=True)])
    column = {name: own[:, i] for i, name in enumerate(FEATURE_NAMES)}
    found = np.full((len(tasks), len(SCENE_FEATURE_NAMES)), np.nan)
    answered = [not t.abstention and e.status != 1 for t, e in zip(tasks, estimates, strict=True)]
    for members in indices_by_scene(tasks):
        # Vertebrae without an estimate give no information about the others.
        scene = [i for i in members if answered[i]]
        if len(scene) < 2:
            continue
        distances = _from_neighbours([tasks[i] for i in scene], [estimates[i] for i in scene])
        found[scene, :2] = distances
        above = losses[scene] - np.nanmedian(losses[scene], axis=0)
        found[scene, 2] = above[:, 0].mean(axis=-1)
        found[scene, 3] = above[:, 0].max(axis=-1)
        found[scene, 4] = above[:, 1].mean(axis=-1)
        size_difference = np.abs(size[scene] - np.nanmedian(size[scene]))
        found[scene, 5] = np.minimum(size_difference, _MAX_OFF_SIZE)
        means = [_rms(column[name][scene]) for name in _SCENE_MEANS]
        found[scene, 6:] = [*means, _rms(distances[:, 0])]
    return found


def _log_size(task: Task, estimate: Estimate) -> float:
    """Compute the log of the rms distance of the vertices from their centroid, relative to the mean
    shape."""
    shapes = task.model.mean_shape, instance(task.model, jnp.asarray(estimate.coefficients))
    mean, own = (np.std(np.asarray(shape), axis=0) for shape in shapes)
    return float(np.log(np.linalg.norm(own) / np.linalg.norm(mean)))


def _from_neighbours(
    tasks: Sequence[Task], estimates: Sequence[Estimate]
) -> Float[np.ndarray, "vertebra 2"]:
    """Compute distance (mm) and angle (deg) of every pose from the pose the others suggest."""
    poses = registration.stack([estimate.pose for estimate in estimates])
    expected = registration.expected_poses(spine_order(tasks), poses)
    shift = poses.translation() - expected.pose.translation()
    turn = jax.vmap(lambda a, b: a.inverse() @ b)(expected.pose.rotation(), poses.rotation())
    angle = jnp.rad2deg(jax.vmap(transforms.rotation_angle)(turn))
    distances = jnp.stack([jnp.linalg.norm(shift, axis=1), angle], axis=1)
    distances = jnp.where(expected.known[:, None], distances, jnp.nan)
    return np.minimum(np.asarray(distances, float), np.array(_MAX_FROM_NEIGHBOURS))


def _rms(values: Float[np.ndarray, " n"]) -> float:
    values = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


class QualityAssessment(NamedTuple):
    """Quality assessment of one estimate: failure probability and calibrated uncertainties."""

    probability: float  # of failure, a MASD above 2 mm
    vertex_std_mm: Float[np.ndarray, " vertex"]  # along the normal of the surface
    path_std_mm: Float[np.ndarray, "side 2"]  # (left, right), (entry, target), rms of the axes
    covariance: Float[np.ndarray, "unknown unknown"]  # turn (rad), shift (mm), coefficients (SD)


def assess_quality(
    measures: QualityMeasures, stored: data.StoredFailureModel
) -> list[QualityAssessment]:
    """Compute calibrated failure probabilities and standard deviations of every estimate. Scene
    features of a vertebra without neighbours are set to their mean; an estimate that is not finite
    has failure probability 1."""
    probability = failure_probabilities(measures.features, stored)
    vertex_std, path_std = calibrated_std(
        measures.vertex_std, measures.path_std, probability, stored
    )
    paths = np.sqrt(np.mean(path_std**2, axis=-1))
    inflation = stored.inflation[_beyond(probability, stored)]
    covariance = inflation[:, None, None] ** 2 * measures.covariance
    cases = zip(probability, vertex_std, paths, covariance, strict=True)
    return [QualityAssessment(float(p), *uncertainty) for p, *uncertainty in cases]


def calibrated_std(
    vertex_std: Float[np.ndarray, "case vertex"],
    path_std: Float[np.ndarray, "case side 2 3"],
    probability: Float[np.ndarray, " case"],
    stored: data.StoredFailureModel,
) -> tuple[Float[np.ndarray, "case vertex"], Float[np.ndarray, "case side 2 3"]]:
    """Inflate standard deviations (mm) by their calibrated factors, which are larger for failure
    probabilities above the threshold."""
    kind = _beyond(probability, stored)
    across, along = stored.inflation[kind], stored.path_inflation[kind]
    return across[:, None] * vertex_std, along[:, None, None, None] * path_std


def _beyond(
    probability: Float[np.ndarray, " case"], stored: data.StoredFailureModel
) -> Int[np.ndarray, " case"]:
    """Compute the index of the inflation factor: 1 above the threshold, else 0."""
    return (probability > stored.threshold).astype(int)


def failure_probabilities(
    features: Float[np.ndarray, "case feature"], stored: data.StoredFailureModel
) -> Float[np.ndarray, " case"]:
    """Compute failure probabilities from ALL_FEATURE_NAMES. DataError for a model of other
    features."""
    if tuple(stored.features) != ALL_FEATURE_NAMES:
        raise data.DataError(
            f"the failure model was fitted on other features ({len(stored.features)}, here "
            f"{len(ALL_FEATURE_NAMES)}): fit it again with this version of dartjax "
            "(pipeline.fit_calibrated_failure_model), or use the packaged one "
            "(data.load_failure_model())"
        )
    model = FailureModel(
        *map(jnp.asarray, (stored.mean, stored.scale, stored.weights, stored.bias))
    )
    rows = jnp.asarray(fill_scene_features(features, stored.mean), jnp.float32)
    return np.asarray(jax.vmap(lambda row: failure_probability(model, row))(rows))


def fill_scene_features(
    features: Float[np.ndarray, "case feature"], mean: Float[np.ndarray, " feature"]
) -> Float[np.ndarray, "case feature"]:
    """Replace missing scene features by their mean."""
    of_scene = np.arange(features.shape[1]) >= len(FEATURE_NAMES)
    missing = of_scene[None] & ~np.isfinite(features)
    return np.where(missing, mean[None], features)


def quality_assessor(
    stored: data.StoredFailureModel,
) -> Callable[[Sequence[Task], Sequence[Estimate], str], Sequence[QualityAssessment]]:
    """Make the quality assessment of a run, as a function of tasks, estimates and method. The
    failure model is valid only for the method it was fitted on; other methods get none."""

    def assess(
        tasks: Sequence[Task], estimates: Sequence[Estimate], method: str
    ) -> Sequence[QualityAssessment]:
        if method != stored.card.get("method"):
            return ()
        neighbours = rendered_neighbours(tasks, estimates, method)
        options = registration.FIT_OPTIONS[method]
        return assess_quality(measure_quality(tasks, estimates, options, neighbours), stored)

    return assess


def abstention_reasons(assessments: Sequence[QualityAssessment], threshold: float) -> list[str]:
    """Give the reason to abstain from each estimate; "" if it is accepted. `threshold` is the
    highest failure probability to accept, see `StoredFailureModel.threshold`."""
    return [
        ""
        if each.probability <= threshold
        else f"failure probability {each.probability:.2f}, accepted up to {threshold:.2f}"
        for each in assessments
    ]
