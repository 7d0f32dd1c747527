"""Reconstruction of all vertebrae of a scene together.

Bones next to each other overlap in X-rays, one follows from the other, and those of one person
resemble each other. So every vertebra is fitted with its neighbours rendered into the same views,
and with a prior on where it stands among them and on its shape; before every stage of the schedule
all of them take over the others' latest state (block coordinate descent, in step).
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

REACH = 3  # levels above and below that are rendered with a vertebra, and that resemble it
_WITHIN_REACH = np.array([step for step in range(-REACH, REACH + 1) if step])


class SpineOrder(eqx.Module):
    """The vertebrae of one scene from head to foot, padded to any number: where each lies along
    the spine (mm, growing toward the feet), its usual forward tilt (rad, + with the head end
    forward), and whether there is one at all."""

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
    """Pose and shape of V vertebrae seen in the same K views, as `fit` finds one; every argument
    and the result have a leading axis for the vertebra, in the order of the spine.

    Landmarks move the starts first, unless `coefficients` are given, as in `fit`. A vertebra that
    is not `present` is fitted to whatever its observations are and disturbs no other. jit with
    `options` static; vmap over scenes. Never raises: read `status`.
    """
    num = len(order.present)

    def begin(model, seen, start, shape):
        return start_parameters(model, seen, start, options, shape)

    parameters = jax.vmap(begin)(models, observations, starts, coefficients)
    histories = []
    stages = zip(options.scales, options.similarity, strict=True)
    for (scale, similarity), alike in itertools.groupby(stages, key=_but_for_rate):
        # Stages that differ in their learning rate alone are one program.
        def stage(x, rate, scale=scale, similarity=similarity):
            return _stage(models, observations, starts, x, order, scale, rate, similarity, options)

        rates = jnp.array([each.learning_rate for each, _ in alike])
        parameters, history = jax.lax.scan(stage, parameters, rates)
        histories.append(jnp.moveaxis(history, 0, 1).reshape(num, -1))

    def finished(model, seen, start, x, history):
        return finish(model, seen, start, x, history, options)

    history = jnp.concatenate(histories, axis=1)
    return jax.vmap(finished)(models, observations, starts, parameters, history)


def _but_for_rate(stage: tuple[Scale, Similarity]) -> tuple[Scale, Similarity]:
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
    """One stage for all vertebrae, each among the others as they are at its beginning."""
    vertices = jax.vmap(posed_vertices)(models, starts, parameters)
    poses = jax.vmap(moved_pose)(starts, parameters)
    places = jnp.arange(len(order.present))
    beside = jax.vmap(_beside, (0, None, None, None))
    around, neighbours = beside(places, vertices, poses, order)
    deviations = jnp.einsum("vm,vmpc->vpc", parameters.coefficients, models.modes)
    resembling = jax.vmap(_resembling, (0, 0, None, None))
    shapes = options.kinship * resembling(places, models.modes, deviations, order)

    def one(model, seen, start, x, others, expected, shape):
        drawn = others if options.neighbours_rendered else None
        evidence, splats = prepare(model, start, x, seen, scale, options, drawn)
        evidence = dataclasses.replace(evidence, neighbours=expected, shape=shape)
        own = scale._replace(learning_rate=rate)  # pyright: ignore
        return descend(x, model, start, evidence, similarity, splats, own, options)

    return jax.vmap(one)(models, observations, starts, parameters, around, neighbours, shapes)


def _beside(
    index: Array,
    vertices: Float[Array, "vertebra vertex 3"],
    poses: transforms.SE3,
    order: SpineOrder,
) -> tuple[Surroundings, Neighbour]:
    """What is rendered with a vertebra, and where those above and below expect it."""
    places, there = _present(index + _WITHIN_REACH, order)
    around = Surroundings(vertices[places], there)
    places, there = _present(index + jnp.array([-1, 1]), order)
    suggested = jax.vmap(lambda other: _suggested(index, other, poses, order))(places)
    return around, jax.lax.stop_gradient(Neighbour(suggested, there))


def _resembling(
    index: Array,
    modes: Float[Array, "mode vertex 3"],
    deviations: Float[Array, "vertebra vertex 3"],
    order: SpineOrder,
) -> Coefficients:
    """The mean deviation of the neighbours' shapes from the means of their levels, in the modes of
    this vertebra (least squares: regions have modes of their own). 0 without neighbours."""
    places, there = _present(index + _WITHIN_REACH, order)
    each = jnp.where(there[:, None, None], deviations[places], 0.0)
    mean = jnp.sum(each, axis=0) / jnp.maximum(jnp.sum(there), 1)
    own = modes.reshape(len(modes), -1)
    return solve_positive(own @ own.T, (own @ mean.reshape(-1))[:, None])[:, 0]


def _present(places: Array, order: SpineOrder) -> tuple[Array, Bool[Array, " other"]]:
    inside = (places >= 0) & (places < len(order.present))
    places = jnp.clip(places, 0, len(order.present) - 1)
    return places, inside & order.present[places]


def _suggested(
    index: Array, other: Array, poses: transforms.SE3, order: SpineOrder
) -> transforms.SE3:
    """The pose of one vertebra from that of another: tilted by the usual difference, and moved
    along the mean of both axes."""
    known = jax.tree.map(lambda leaf: leaf[other], poses)
    forward: Scalar = order.tilt[index] - order.tilt[other]
    # + tilt leans the head end forward: a turn about the right-hand axis by minus that.
    turn = transforms.SO3.from_x_radians(-forward)
    half = transforms.SO3.from_x_radians(-0.5 * forward)
    up = jnp.zeros(3).at[2].set(order.along[other] - order.along[index])
    step = transforms.SE3.from_rotation_and_translation(turn, half.apply(up))
    return known @ step
