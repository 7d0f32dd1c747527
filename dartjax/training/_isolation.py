"""Training of the isolation network: random initial estimates, hints, loss and errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from dartjax import transforms
from dartjax._types import Coefficients, Image, Scalar, Vertices
from dartjax.camera import Camera
from dartjax.models import Hint, Isolated
from dartjax.render import SplatOptions, splat
from dartjax.ssm import ShapeModel, posed

ISOLATION_SPLATS = SplatOptions(window=11)
_REGION = 8.0  # additional weight of a pixel of the vertebra
_MASK_WEIGHT, _SHELL_WEIGHT = 0.5, 0.5
_NO_MASK, _NO_ESTIMATE = 0.5, 0.15  # shares of the views without mask, without initial estimate


class EstimateErrors(eqx.Module):
    """Errors of an initial estimate of a vertebra: standard deviations per axis, times a random
    factor (uniform in [0, 1]) for each estimate. The shape lies between the mean and the true one,
    plus an error. For comparison: a fit of landmarks with 3 mm noise has errors of about 0.045 rad
    and 1 mm."""

    turn_rad: float = 0.1
    shift_mm: float = 3.0
    shape_sd: float = 0.8


def disturbed_surface(
    model: ShapeModel,
    pose: transforms.SE3,
    coefficients: Coefficients,
    errors: EstimateErrors,
    *,
    key: PRNGKeyArray,
) -> Vertices:
    """Sample a random initial estimate of a vertebra: the surface of its best fit (`pose`,
    `coefficients`) with random errors of pose and shape, world mm."""
    keys = jax.random.split(key, 5)
    severity = jax.random.uniform(keys[0])
    turn = severity * errors.turn_rad * jax.random.normal(keys[1], (3,))
    shift = severity * errors.shift_mm * jax.random.normal(keys[2], (3,))
    share = jax.random.uniform(keys[3])
    wrong = severity * errors.shape_sd * jax.random.normal(keys[4], coefficients.shape)
    shape = share * coefficients + wrong
    return posed(model, transforms.perturb(pose, turn, shift), shape)


def isolation_hint(
    mask: Image, estimate: Vertices, faces: Array, camera: Camera, *, key: PRNGKeyArray
) -> Hint:
    """Make the hint of the network from a mask and a rendered initial estimate; each is randomly
    omitted: the mask in half of the cases, the estimate in 15 %."""
    without_mask, without_estimate = jax.random.uniform(key, (2,)) < jnp.array(
        [_NO_MASK, _NO_ESTIMATE]
    )
    rendered = splat(estimate, faces, camera, ISOLATION_SPLATS)
    shown = jax.tree.map(lambda image: jnp.where(without_estimate, 0.0, image), rendered)
    return Hint(
        mask=jnp.where(without_mask, 0.0, mask),
        thickness=shown.thickness,
        shell=shown.shell,
        silhouette=shown.silhouette,
    )


def isolation_loss(found: Isolated, thickness: Image, shell: Image, silhouette: Image) -> Scalar:
    """Compute the weighted mean over pixels, with a higher weight inside the vertebra, of the
    Laplace negative log likelihood |e| exp(-s) + s of the thickness (error e in mm, predicted log
    error s), |e| / 2 of the shell in mm, and half the cross entropy of the mask."""
    error = jnp.abs(found.thickness - thickness)
    of_thickness = error * jnp.exp(-found.log_error) + found.log_error
    of_shell = jnp.abs(found.shell - shell)
    inside = silhouette > 0.5
    of_mask = jax.nn.softplus(jnp.where(inside, -1.0, 1.0) * found.mask_logit)
    cost = of_thickness + _SHELL_WEIGHT * of_shell + _MASK_WEIGHT * of_mask
    weights = 1.0 + _REGION * silhouette
    return jnp.sum(weights * cost) / jnp.sum(weights)


def isolation_errors(
    found: Isolated, thickness: Image, silhouette: Image
) -> tuple[Scalar, Scalar, Float[Array, ""]]:
    """Compute the mean |error| of the thickness inside the true mask (mm), that of a prediction of
    zero thickness, and the Dice of the mask."""
    inside: Bool[Array, "h w"] = silhouette > 0.5
    count = jnp.maximum(jnp.sum(inside), 1)
    error = jnp.sum(jnp.where(inside, jnp.abs(found.thickness - thickness), 0.0)) / count
    zero_error = jnp.sum(jnp.where(inside, thickness, 0.0)) / count
    mask = found.mask_logit > 0.0
    dice = 2.0 * jnp.sum(mask & inside) / jnp.maximum(jnp.sum(mask) + jnp.sum(inside), 1)
    return error, zero_error, dice
