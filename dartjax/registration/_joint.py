"""Joint reconstruction of all vertebrae of a scene.

Adjacent vertebrae overlap in X-rays, and their poses and shapes correlate. Every vertebra is
therefore fitted with its neighbours rendered into the same views, with a prior on its pose relative
to them, and with a shape coupled to theirs. All vertebrae are updated simultaneously; before every
stage of the schedule each takes the latest state of its neighbours (block coordinate descent).
"""

import dataclasses
import itertools

import equinox as eqx
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
    Neighbour,
    Similarity,
    Surroundings,
    moved_pose,
    posed_vertices,
)
from dartjax.ssm import ShapeModel

REACH = 3  # levels above and below that are rendered with a vertebra and coupled to its shape
_WITHIN_REACH = np.array([step for step in range(-REACH, REACH + 1) if step])


class SpineOrder(eqx.Module):
    """Order of the vertebrae of one scene, from head to foot, padded to any number: position along
    the spine (mm, increasing toward the feet), mean forward tilt (rad, positive with the upper end
    forward), and whether the entry is a vertebra or padding."""

    along: Float[Array, " vertebra"]
    tilt: Float[Array, " vertebra"]
    present: Bool[Array, " vertebra"]


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
    neighbours_of = jax.vmap(_neighbours_of, (0, None, None, None))
    around, neighbours = neighbours_of(places, vertices, poses, order)
    deviations = jnp.einsum("vm,vmpc->vpc", parameters.coefficients, models.modes)
    neighbour_shapes = jax.vmap(_neighbour_shape, (0, 0, None, None))
    shapes = options.shape_coupling * neighbour_shapes(places, models.modes, deviations, order)

    def one(model, seen, start, x, others, expected, shape):
        rendered = others if options.neighbours_rendered else None
        evidence, splats = prepare(model, start, x, seen, scale, options, rendered)
        evidence = dataclasses.replace(evidence, neighbours=expected, shape=shape)
        stage_scale = scale._replace(learning_rate=rate)  # pyright: ignore
        return descend(x, model, start, evidence, similarity, splats, stage_scale, options)

    return jax.vmap(one)(models, observations, starts, parameters, around, neighbours, shapes)


def _neighbours_of(
    index: Array,
    vertices: Float[Array, "vertebra vertex 3"],
    poses: transforms.SE3,
    order: SpineOrder,
) -> tuple[Surroundings, Neighbour]:
    """Collect the surfaces rendered with a vertebra, and the poses that the vertebrae above and
    below suggest for it."""
    places, present = _present(index + _WITHIN_REACH, order)
    around = Surroundings(vertices[places], present)
    places, present = _present(index + jnp.array([-1, 1]), order)
    suggested = jax.vmap(lambda other: _suggested(index, other, poses, order))(places)
    return around, jax.lax.stop_gradient(Neighbour(suggested, present))


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


def _suggested(
    index: Array, other: Array, poses: transforms.SE3, order: SpineOrder
) -> transforms.SE3:
    """Predict the pose of one vertebra from another, see `suggested_step`."""
    known = jax.tree.map(lambda leaf: leaf[other], poses)
    return known @ suggested_step(order, index, other)


def suggested_step(order: SpineOrder, index: Array | int, other: Array | int) -> transforms.SE3:
    """Predict the pose of one vertebra in the frame of another: tilted by the mean difference of
    their levels, and moved along the mean of both axes."""
    forward: Scalar = order.tilt[index] - order.tilt[other]
    # A positive tilt leans the upper end forward: a rotation about the x axis by minus the tilt.
    turn = transforms.SO3.from_x_radians(-forward)
    half = transforms.SO3.from_x_radians(-0.5 * forward)
    up = jnp.zeros(3).at[2].set(order.along[other] - order.along[index])
    return transforms.SE3.from_rotation_and_translation(turn, half.apply(up))
