"""Joint reconstruction of all vertebrae of a scene.

Adjacent vertebrae overlap in X-rays, and their poses and shapes correlate. Every vertebra is
therefore fitted with its neighbours rendered into the same views, with a prior on its pose given
all others, and with a shape coupled to theirs. All vertebrae are updated simultaneously; before
every stage of the schedule each takes the latest state of the others (block coordinate descent).
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax import transforms
from dartjax._numerics import solve_positive
from dartjax._types import Coefficients, Scalar
from dartjax.observations import Observations
from dartjax.registration._fit import (
    FitOptions,
    Reconstruction,
    Scale,
    descend,
    finish,
    prepare,
    start_parameters,
)
from dartjax.registration._objective import (
    FitParameters,
    Similarity,
    Surroundings,
    moved_pose,
    posed_vertices,
)
from dartjax.registration._spine import SpineOrder, expected_poses
from dartjax.ssm import ShapeModel

REACH = 3  # levels above and below that are rendered with a vertebra and coupled to its shape
_WITHIN_REACH = np.array([step for step in range(-REACH, REACH + 1) if step])


def fit_together(
    models: ShapeModel,
    observations: Observations,
    starts: transforms.SE3,
    order: SpineOrder,
    options: FitOptions,
    coefficients: Float[Array, "vertebra mode"] | None = None,
) -> Reconstruction:
    """Fit pose and shape of V vertebrae seen in the same K views, with the objective of `fit` and
    priors between neighbours. Arguments and result have a leading vertebra axis, from head to foot.

    Landmarks refine the starts first, unless `coefficients` are given, as in `fit`. A vertebra that
    is not `present` in `order` is fitted to its observations but does not affect the others. jit
    with `options` static; vmap over scenes. Never raises: read `status`.
    """
    num = len(order.present)

    def begin(model, seen, start, shape):
        return start_parameters(model, seen, start, options, shape)

    parameters = jax.vmap(begin)(models, observations, starts, coefficients)
    histories = []
    stages = zip(options.scales, options.similarity, strict=True)
    for (scale, similarity), group in itertools.groupby(stages, key=_without_rate):
        # Stages that differ only in their learning rate share one program.
        def stage(x, rate, scale=scale, similarity=similarity):
            return _stage(models, observations, starts, x, order, scale, rate, similarity, options)

        rates = jnp.array([each.learning_rate for each, _ in group])
        parameters, history = jax.lax.scan(stage, parameters, rates)
        histories.append(jnp.moveaxis(history, 0, 1).reshape(num, -1))

    def finished(model, seen, start, x, history):
        return finish(model, seen, start, x, history, options)

    history = jnp.concatenate(histories, axis=1)
    return jax.vmap(finished)(models, observations, starts, parameters, history)


def _without_rate(stage: tuple[Scale, Similarity]) -> tuple[Scale, Similarity]:
    scale, similarity = stage
    return scale._replace(learning_rate=0.0), similarity


def _stage(
    models: ShapeModel,
    observations: Observations,
    starts: transforms.SE3,
    parameters: FitParameters,
    order: SpineOrder,
    scale: Scale,
    rate: Scalar,
    similarity: Similarity,
    options: FitOptions,
) -> tuple[FitParameters, Float[Array, "vertebra step"]]:
    """Run one stage for all vertebrae, each with its neighbours in their state at its start."""
    vertices = jax.vmap(posed_vertices)(models, starts, parameters)
    poses = jax.vmap(moved_pose)(starts, parameters)
    # A vertebra whose fit is not finite must not affect its neighbours.
    finite = jnp.all(jnp.isfinite(vertices), axis=(1, 2))
    order = dataclasses.replace(order, present=order.present & finite)
    places = jnp.arange(len(order.present))
    around = jax.vmap(_surroundings_of, (0, None, None))(places, vertices, order)
    expected = jax.lax.stop_gradient(expected_poses(order, poses))
    deviations = jnp.einsum("vm,vmpc->vpc", parameters.coefficients, models.modes)
    neighbour_shapes = jax.vmap(_neighbour_shape, (0, 0, None, None))
    shapes = options.shape_coupling * neighbour_shapes(places, models.modes, deviations, order)

    def one(model, seen, start, x, others, expected, shape):
        rendered = others if options.neighbours_rendered else None
        evidence, splats = prepare(model, start, x, seen, scale, options, rendered)
        evidence = dataclasses.replace(evidence, expected=expected, shape=shape)
        stage_scale = scale._replace(learning_rate=rate)  # pyright: ignore
        return descend(x, model, start, evidence, similarity, splats, stage_scale, options)

    return jax.vmap(one)(models, observations, starts, parameters, around, expected, shapes)


def _surroundings_of(
    index: Array, vertices: Float[Array, "vertebra vertex 3"], order: SpineOrder
) -> Surroundings:
    """Collect the surfaces rendered with a vertebra."""
    places, present = _present(index + _WITHIN_REACH, order)
    return Surroundings(vertices[places], present)


def _neighbour_shape(
    index: Array,
    modes: Float[Array, "mode vertex 3"],
    deviations: Float[Array, "vertebra vertex 3"],
    order: SpineOrder,
) -> Coefficients:
    """Compute the mean deviation of the neighbours from their mean shapes, as coefficients of this
    vertebra's modes (by least squares, because regions have different modes). 0 without
    neighbours."""
    places, present = _present(index + _WITHIN_REACH, order)
    deviation = jnp.where(present[:, None, None], deviations[places], 0.0)
    mean = jnp.sum(deviation, axis=0) / jnp.maximum(jnp.sum(present), 1)
    flat = modes.reshape(len(modes), -1)
    return solve_positive(flat @ flat.T, (flat @ mean.reshape(-1))[:, None])[:, 0]


def _present(places: Array, order: SpineOrder) -> tuple[Array, Bool[Array, " other"]]:
    """Clip places to the scene, and mark those that hold a vertebra."""
    inside = (places >= 0) & (places < len(order.present))
    places = jnp.clip(places, 0, len(order.present) - 1)
    return places, inside & order.present[places]
