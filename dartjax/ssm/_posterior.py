"""The shape model given observations: Gaussian conditioning, and completion of part of a surface.

Luethi et al., "Gaussian process morphable models" (IEEE TPAMI 40(8), 2018), section 4.2; the
posterior models of Scalismo. The posterior of a linear Gaussian model is one again, so it is
returned as a `ShapeModel` and everything that takes one (sampling, fits, the prior of a
registration) takes it as it is.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax import mesh, transforms
from dartjax._numerics import safe_divide
from dartjax._types import Points, Scalar, Vertices
from dartjax.ssm._model import CarriedPoints, ShapeModel, carried, instance
from dartjax.ssm._surface_fit import (
    NORMAL_SCALE,
    Matches,
    closest,
    gauss_newton,
    match_weights,
)


def vertex_points(indices: Int[Array, " n"]) -> CarriedPoints:
    """Vertices as carried points, to observe them with `posterior`."""
    return CarriedPoints(indices[:, None], jnp.ones((len(indices), 1)))


def posterior(
    model: ShapeModel,
    points: CarriedPoints,
    observed: Points,
    noise: Float[Array, " n"] | Scalar | float,
) -> ShapeModel:
    """The model given that carried points (n,) were seen at `observed`, vertebra frame, mm.

    Each coordinate is seen with independent noise of standard deviation `noise` mm > 0, one
    for all points or one each; inf (or a point of NaN coordinates with inf) is not observed.
    With y the offsets from the mean, A the modes at the points and W = 1 / noise^2, the
    coefficients given y are N(m, S),
        S = (I + A^T W A)^-1,   m = S A^T W y.
    The new mean shape is instance(m) and the new modes are the principal axes of S, largest
    variance first and as many as before, times their standard deviation: coefficients of the
    new model are N(0, I) again. Annotations are unchanged.
    """
    scale = jnp.broadcast_to(1.0 / jnp.asarray(noise, observed.dtype), (len(observed),))
    at_points = jax.vmap(lambda mode: carried(points, mode))(model.modes)
    rows = (scale[None, :, None] * at_points).reshape(model.num_modes, -1).T
    offset = observed - carried(points, model.mean_shape)
    # A point that is not observed may hold NaN.
    offset = jnp.where(scale[:, None] > 0.0, offset, 0.0)
    return _conditioned(model, rows, (scale[:, None] * offset).reshape(-1))


@partial(jax.jit, static_argnames=("noise", "tangential", "num_iterations"))
def posterior_from_surface(
    model: ShapeModel,
    points: Points,
    normals: Points,
    start_pose: transforms.SE3,
    *,
    noise: tuple[float, float] = (6.0, 0.5),
    tangential: tuple[float, float] = (0.5, 0.02),
    num_iterations: int = 40,
) -> tuple[transforms.SE3, ShapeModel]:
    """Complete a vertebra of which part of the surface was seen: its pose and the model given it.

    First a fit as `fit_surface`, but with the matches from the surface to the model alone: a
    part of the model that nothing was seen of is not pulled. Then the model is conditioned on
    the last matches, point to plane: n . (v - p) ~ N(0, noise[1]^2 / w) for every point p with
    normal n and matched vertex v, w the cosine between the normals (0 if they oppose).

    `points` and `normals` (n, 3) in world mm, normals unit and outward. The new mean shape is
    the completed vertebra, in the vertebra frame of the returned T_world_vertebra. The points
    count as independent and the pose as known, so the variance is a lower bound: give fewer
    points or a larger noise for errors that neighbours share. The start must be within about
    20 degrees and 20 mm.
    """
    ramp = jnp.linspace(0.0, 1.0, num_iterations)
    sigmas = noise[0] * (noise[1] / noise[0]) ** ramp
    taus = tangential[0] * (tangential[1] / tangential[0]) ** ramp

    def step(state, schedule):
        pose, coefficients = state
        sigma, tau = schedule
        shape = instance(model, coefficients)
        found = _pulled(model, transforms.apply(pose, shape), points, normals, tau)
        return gauss_newton(shape, model.modes, pose, coefficients, found, sigma), None

    start = (start_pose, jnp.zeros(model.num_modes, model.mean_shape.dtype))
    (pose, coefficients), _ = jax.lax.scan(step, start, (sigmas, taus))
    surface = transforms.apply(pose, instance(model, coefficients))
    vertex, weight = _matched(model, surface, points, normals)
    # Everything else in the vertebra frame, where the model lives.
    back = pose.inverse()
    normal = normals @ back.rotation().as_matrix().T
    scale = jnp.sqrt(weight) / noise[1]
    rows = scale[:, None] * jnp.einsum("mni,ni->nm", model.modes[:, vertex], normal)
    offset = transforms.apply(back, points) - model.mean_shape[vertex]
    return pose, _conditioned(model, rows, scale * jnp.sum(offset * normal, axis=1))


def _conditioned(
    model: ShapeModel, rows: Float[Array, "row mode"], values: Float[Array, " row"]
) -> ShapeModel:
    """The model given rows . coefficients = values, each with noise N(0, 1).

    By the singular values of the prior's rows (I) stacked on the observed ones, U D V^T: then
    S = V D^-2 V^T and m = V D^-1 U^T (0, values). Squaring the rows would cost half the digits.
    """
    prior = jnp.eye(model.num_modes, dtype=rows.dtype)
    u, d, vt = jnp.linalg.svd(jnp.concatenate([prior, rows]), full_matrices=False)
    mean = vt.T @ ((values @ u[model.num_modes :]) / d)
    axes = (vt / d[:, None])[::-1]
    modes = jnp.tensordot(axes, model.modes, axes=1)
    return eqx.tree_at(lambda m: (m.mean_shape, m.modes), model, (instance(model, mean), modes))


def _matched(
    model: ShapeModel, surface: Vertices, points: Points, normals: Points
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """The vertex closest to each point in position and normal, and the cosine of the normals."""
    own = mesh.vertex_normals(surface, model.faces)
    _, vertex = closest(
        jnp.concatenate([surface, NORMAL_SCALE * own], axis=1),
        jnp.concatenate([points, NORMAL_SCALE * normals], axis=1),
    )
    return vertex, jnp.maximum(jnp.sum(own[vertex] * normals, axis=1), 0.0)


def _pulled(
    model: ShapeModel, surface: Vertices, points: Points, normals: Points, tau: Scalar
) -> Matches:
    """The matches from the points to the surface, summed up at its vertices."""
    vertex, cosine = _matched(model, surface, points, normals)
    apart = points - surface[vertex]
    weight = match_weights(normals, cosine, tau)
    information = jnp.zeros((len(surface), 3, 3), surface.dtype).at[vertex].add(weight)
    pull = jnp.zeros_like(surface).at[vertex].add(jnp.einsum("nij,nj->ni", weight, apart))
    error = jnp.sum(cosine * jnp.abs(jnp.sum(apart * normals, axis=1)))
    return Matches(information, pull, safe_divide(error, jnp.sum(cosine)))
