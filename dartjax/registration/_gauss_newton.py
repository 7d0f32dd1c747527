"""Fit of one vertebra by damped Gauss-Newton steps instead of Adam.

A step renders every view once with one tangent for each unknown; a step of Adam renders every view
once with one reverse pass. So Gauss-Newton needs fewer, more expensive renderings
(`benchmarks/solvers.py`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._types import Scalar
from dartjax.observations import Observations
from dartjax.registration._curvature import Quadratic, Unknowns, expand, parameters_of, unknowns
from dartjax.registration._fit import (
    FitOptions,
    Reconstruction,
    finish,
    prepare,
    start_parameters,
)
from dartjax.registration._objective import Surroundings
from dartjax.ssm import ShapeModel

FIRST_DAMPING = 0.03
TINY = 1e-12  # keeps a problem without any curvature solvable


def fit_gauss_newton(
    model: ShapeModel,
    observations: Observations,
    start: transforms.SE3,
    options: FitOptions,
    around: Surroundings | None = None,
    *,
    num_steps: int = 8,
) -> Reconstruction:
    """Fit pose (6) and shape (m) of one vertebra to K views, with the stages and the objective of
    `fit`: landmarks first, then the images from coarse to fine.

    Every scale takes `num_steps` steps of Levenberg-Marquardt, rejected steps included; the
    numbers of steps and learning rates of `options.scales` are ignored. `history` has
    num_steps + 1 losses for each scale, one for each rendering, and never rises within a scale. jit
    with `options` and `num_steps` static; vmap over cases and starts. Never raises: read `status`.
    """
    parameters = start_parameters(model, observations, start, options)
    histories = []
    for scale, similarity in zip(options.scales, options.similarity, strict=True):
        evidence, splat_options = prepare(
            model, start, parameters, observations, scale, options, around
        )

        def near(x: Unknowns, seen=evidence, similarity=similarity, splats=splat_options):
            expansion = expand(x, model, start, seen, similarity, options.weights, splats)
            return expansion.quadratic

        x, history = damped_gauss_newton(near, unknowns(parameters), num_steps=num_steps)
        parameters = parameters_of(x)
        histories.append(history)
    return finish(model, observations, start, parameters, jnp.concatenate(histories), options)


def damped_gauss_newton(
    near: Callable[[Unknowns], Quadratic], start: Unknowns, *, num_steps: int
) -> tuple[Unknowns, Float[Array, " step"]]:
    """Minimise a function given by its quadratic expansion `near` any point, by a fixed number of
    Levenberg-Marquardt steps with Marquardt's scaling. Returns the point and the losses.

    A step that does not lower the loss is rejected and the damping is raised tenfold; otherwise
    the damping is lowered fivefold. Every step evaluates the expansion once, at the trial point.
    """

    def step(carry: tuple[Unknowns, Quadratic, Unknowns, Scalar], _):
        x, here, delta, damping = carry
        there = near(x + delta)
        better = there.loss < here.loss
        damping = jnp.clip(jnp.where(better, damping / 5.0, damping * 10.0), 1e-5, 1e5)
        x, here = jax.tree.map(lambda a, b: jnp.where(better, a, b), (x + delta, there), (x, here))
        scale = jnp.diag(here.curvature)
        scale = damping * scale + 1e-6 * jnp.max(scale) + TINY
        delta = jnp.linalg.solve(here.curvature + jnp.diag(scale), -here.gradient)
        return (x, here, delta, damping), here.loss

    # The first step only evaluates the start, so that all renderings share one program.
    flat = jnp.zeros_like(start)
    nowhere = Quadratic(jnp.asarray(jnp.inf, start.dtype), flat, jnp.diag(flat))
    carry = (start, nowhere, flat, jnp.asarray(5.0 * FIRST_DAMPING, start.dtype))
    (x, *_), losses = jax.lax.scan(step, carry, length=num_steps + 1)
    return x, losses
