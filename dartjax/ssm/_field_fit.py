"""Fit of a shape model to a signed distance field: pose and coefficients by Gauss-Newton."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Coefficients, Point, Scalar, Vertices
from dartjax.image import Volume
from dartjax.ssm._model import ShapeModel, instance
from dartjax.ssm._surface_fit import Matches, area_shares, gauss_newton


@partial(jax.jit, static_argnames=("num_iterations", "noise", "huber"))
def fit_distance_field(
    model: ShapeModel,
    field: Volume,
    start_pose: transforms.SE3,
    *,
    num_iterations: int = 40,
    noise: tuple[float, float] = (6.0, 0.5),
    huber: tuple[float, float] = (10.0, 1.0),
) -> tuple[transforms.SE3, Coefficients, Float[Array, " iteration"]]:
    """Fit pose and coefficients so that the vertices are on the zero level of a distance field.

    `field` holds signed distances in mm, negative inside, on a grid in the world. Each iteration
    takes one Gauss-Newton step on
        sum_i 2 a_i rho(d(v_i)) / sigma^2 + |coefficients|^2,
    where d is the field interpolated at vertex v_i, a_i the vertex's share of the surface area
    (mean 1) and rho the pseudo-Huber function of scale delta (reweighted in every step). Sigma
    decreases from noise[0] to noise[1] mm and delta from huber[0] to huber[1] mm, both
    geometrically. The coefficients start at zero.

    The fit is one-directional, from model to target: unlike `fit_surface` it does not attract the
    model to parts of the target without a nearby vertex. It needs no matching, no normals and one
    look-up per vertex. Returns T_world_vertebra, the coefficients and, per iteration, the
    area-weighted mean of |d| before the step (mm). Outside the grid d increases by the distance to
    it. The start must be within about 20 degrees and 10 mm.
    """
    ramp = jnp.linspace(0.0, 1.0, num_iterations)
    sigmas, deltas = (low * (high / low) ** ramp for low, high in (noise, huber))
    look_up = jax.vmap(jax.value_and_grad(partial(_distance, field)))

    def step(state, schedule):
        pose, coefficients = state
        sigma, delta = schedule
        shape = instance(model, coefficients)
        surface = transforms.apply(pose, shape)
        distance, slope = look_up(surface)
        matches = _linearize(model, surface, distance, slope, delta)
        state = gauss_newton(shape, model.modes, pose, coefficients, matches, sigma)
        return state, matches.mean_distance

    start = (start_pose, jnp.zeros(model.num_modes, model.mean_shape.dtype))
    (pose, coefficients), history = jax.lax.scan(step, start, (sigmas, deltas))
    return pose, coefficients, history


def _distance(field: Volume, point: Point) -> Scalar:
    """Interpolate the field at a world point; outside the grid, add the distance to the grid to
    the value at its nearest point."""
    linear, offset = field.world_from_voxel[:3, :3], field.world_from_voxel[:3, 3]
    index = jnp.linalg.inv(linear) @ (point - offset)
    last = jnp.array(field.values.shape, index.dtype) - 1.0
    inside = jnp.clip(index, 0.0, last)
    distance = map_coordinates(field.values, list(inside), order=1, mode="nearest")
    return distance + safe_norm(linear @ (index - inside))


def _linearize(
    model: ShapeModel,
    surface: Vertices,
    distance: Float[Array, " vertex"],
    slope: Vertices,
    delta: Scalar,
) -> Matches:
    """Linearise the robust squared distances as a quadratic form in the vertex displacements."""
    share = area_shares(surface, model.faces)
    weight = share / jnp.sqrt(1.0 + (distance / delta) ** 2)
    information = weight[:, None, None] * slope[:, :, None] * slope[:, None, :]
    pull = -(weight * distance)[:, None] * slope
    return Matches(information, pull, jnp.mean(share * jnp.abs(distance)))
