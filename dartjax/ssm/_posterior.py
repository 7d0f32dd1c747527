"""Conditioning of a shape model on observations, and completion of a partial surface.

Luethi et al., "Gaussian process morphable models" (IEEE TPAMI 40(8), 2018), section 4.2; as the
posterior models of Scalismo. The posterior of a linear Gaussian model is again one, so it is
returned as a `ShapeModel` and can be used wherever one is (sampling, fits, the prior of a
registration).
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
    """Convert vertex indices to carried points, to observe them with `posterior`."""
    return CarriedPoints(indices[:, None], jnp.ones((len(indices), 1)))


def posterior(
    model: ShapeModel,
    points: CarriedPoints,
    observed: Points,
    noise: Float[Array, " n"] | Scalar | float,
) -> ShapeModel:
    """Condition a model on carried points (n,) observed at `observed`, vertebra frame, mm.

    Each coordinate has independent noise of standard deviation `noise` mm > 0, one value for all
    points or one per point. A point with noise inf is not observed; its coordinates may be NaN.
    With y the offsets from the mean, A the modes at the points and W = 1 / noise^2, the
    coefficients given y are N(m, S),
        S = (I + A^T W A)^-1,   m = S A^T W y.
    The new mean shape is instance(m). The new modes are the principal axes of S, largest variance
    first and as many as before, times their standard deviation, so coefficients of the new model
    are again N(0, I). Annotations are unchanged.
    """
    scale = jnp.broadcast_to(1.0 / jnp.asarray(noise, observed.dtype), (len(observed),))
    at_points = jax.vmap(lambda mode: carried(points, mode))(model.modes)
    rows = (scale[None, :, None] * at_points).reshape(model.num_modes, -1).T
    offset = observed - carried(points, model.mean_shape)
    # A point that is not observed may be NaN.
    offset = jnp.where(scale[:, None] > 0.0, offset, 0.0)
    return _condition(model, rows, (scale[:, None] * offset).reshape(-1))


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
    """Complete a vertebra from part of its surface: its pose and the conditioned model.

    First the model is fitted as in `fit_surface`, but only with matches from the surface to the
    model, so unobserved parts of the model are not displaced. Then the model is conditioned on
    the last matches, point to plane: n . (v - p) ~ N(0, noise[1]^2 / w) for every point p with
    normal n and matched vertex v, w the cosine between the normals (0 if they oppose).

    `points` and `normals` (n, 3) in world mm, normals unit and outward. The new mean shape is
    the completed vertebra, in the vertebra frame of the returned T_world_vertebra. The variance
    is a lower bound, since points are taken as independent and the pose as known: use fewer
    points or a larger noise when errors are correlated. The start must be within about 20
    degrees and 20 mm.
    """
    ramp = jnp.linspace(0.0, 1.0, num_iterations)
    sigmas = noise[0] * (noise[1] / noise[0]) ** ramp
    taus = tangential[0] * (tangential[1] / tangential[0]) ** ramp

    def step(state, schedule):
        pose, coefficients = state
        sigma, tau = schedule
        shape = instance(model, coefficients)
        matches = _match_points_only(model, transforms.apply(pose, shape), points, normals, tau)
        return gauss_newton(shape, model.modes, pose, coefficients, matches, sigma), None

    start = (start_pose, jnp.zeros(model.num_modes, model.mean_shape.dtype))
    (pose, coefficients), _ = jax.lax.scan(step, start, (sigmas, taus))
    surface = transforms.apply(pose, instance(model, coefficients))
    vertex, weight = _match_vertices(model, surface, points, normals)
    # From here on in the vertebra frame, the frame of the model.
    back = pose.inverse()
    normal = normals @ back.rotation().as_matrix().T
    scale = jnp.sqrt(weight) / noise[1]
    rows = scale[:, None] * jnp.einsum("mni,ni->nm", model.modes[:, vertex], normal)
    offset = transforms.apply(back, points) - model.mean_shape[vertex]
    return pose, _condition(model, rows, scale * jnp.sum(offset * normal, axis=1))


def _condition(
    model: ShapeModel, rows: Float[Array, "row mode"], values: Float[Array, " row"]
) -> ShapeModel:
    """Condition a model on rows . coefficients = values, each with noise N(0, 1).

    With the singular value decomposition U D V^T of the prior's rows (I) stacked on the observed
    rows: S = V D^-2 V^T and m = V D^-1 U^T (0, values). Normal equations would lose half the
    digits.
    """
    prior = jnp.eye(model.num_modes, dtype=rows.dtype)
    u, d, vt = jnp.linalg.svd(jnp.concatenate([prior, rows]), full_matrices=False)
    mean = vt.T @ ((values @ u[model.num_modes :]) / d)
    axes = (vt / d[:, None])[::-1]
    modes = jnp.tensordot(axes, model.modes, axes=1)
    return eqx.tree_at(lambda m: (m.mean_shape, m.modes), model, (instance(model, mean), modes))


def _match_vertices(
    model: ShapeModel, surface: Vertices, points: Points, normals: Points
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Match each point to the vertex closest in position and normal; also the normals' cosine."""
    vertex_normal = mesh.vertex_normals(surface, model.faces)
    _, vertex = closest(
        jnp.concatenate([surface, NORMAL_SCALE * vertex_normal], axis=1),
        jnp.concatenate([points, NORMAL_SCALE * normals], axis=1),
    )
    return vertex, jnp.maximum(jnp.sum(vertex_normal[vertex] * normals, axis=1), 0.0)


def _match_points_only(
    model: ShapeModel, surface: Vertices, points: Points, normals: Points, tau: Scalar
) -> Matches:
    """Match the points to the surface and sum the matches at its vertices."""
    vertex, cosine = _match_vertices(model, surface, points, normals)
    offset = points - surface[vertex]
    weight = match_weights(normals, cosine, tau)
    information = jnp.zeros((len(surface), 3, 3), surface.dtype).at[vertex].add(weight)
    pull = jnp.zeros_like(surface).at[vertex].add(jnp.einsum("nij,nj->ni", weight, offset))
    error = jnp.sum(cosine * jnp.abs(jnp.sum(offset * normals, axis=1)))
    return Matches(information, pull, safe_divide(error, jnp.sum(cosine)))
