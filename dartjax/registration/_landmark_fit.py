"""Pose and shape from landmarks alone: the maximum a posteriori by Levenberg-Marquardt."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax.observations import Observations
from dartjax.registration._objective import (
    FitParameters,
    evidence_at_scale,
    landmark_residuals,
    posed_vertices,
    zero_parameters,
)
from dartjax.ssm import ShapeModel, landmarks

Residual = Callable[[Float[Array, " unknown"]], Float[Array, " residual"]]


def levenberg_marquardt(
    residual: Residual, start: Float[Array, " unknown"], *, num_steps: int
) -> Float[Array, " unknown"]:
    """Minimise |residual(x)|^2 / 2 in a fixed number of damped Gauss-Newton steps.

    A step that does not lower the sum is rejected and the damping raised tenfold, else it is
    lowered; so the result is never worse than the start. Fixed length: suits `vmap`.
    """

    def step(carry, _):
        x, damping = carry
        r, jacobian = residual(x), jax.jacfwd(residual)(x)
        normal = jacobian.T @ jacobian
        scale = jnp.diag(normal) + 1e-6
        delta = jnp.linalg.solve(normal + damping * jnp.diag(scale), -jacobian.T @ r)
        better = jnp.sum(residual(x + delta) ** 2) < jnp.sum(r**2)
        damping = jnp.clip(jnp.where(better, damping / 10.0, damping * 10.0), 1e-6, 1e6)
        return (jnp.where(better, x + delta, x), damping), None

    (x, _), _ = jax.lax.scan(step, (start, jnp.asarray(1e-3, start.dtype)), length=num_steps)
    return x


def fit_landmarks(
    model: ShapeModel, observations: Observations, start: transforms.SE3, *, num_steps: int = 12
) -> FitParameters:
    """Pose and shape that minimise sum |r / sigma|^2 + |b|^2 over the landmarks of all valid
    views, none of which needs to be seen twice. Without landmarks the start is returned."""
    evidence = evidence_at_scale(observations, observations.images.shape[-1], 0.0)
    flat, unravel = ravel_pytree(zero_parameters(len(model.modes)))

    def residual(x: Float[Array, " unknown"]) -> Float[Array, " residual"]:
        parameters = unravel(x)
        points = landmarks(model, posed_vertices(model, start, parameters))
        reprojection = jnp.where(
            observations.view_valid[:, None, None], landmark_residuals(points, evidence), 0.0
        )
        return jnp.concatenate([reprojection.reshape(-1), parameters.coefficients])

    return unravel(levenberg_marquardt(residual, flat, num_steps=num_steps))
