"""Training of the isolation network: what it is shown, what it should say, what an error costs."""

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
_REGION = 8.0  # weight of a pixel of the vertebra or of the guess beside one far away
_MASK_WEIGHT, _SHELL_WEIGHT = 0.5, 0.5
_NO_MASK, _NO_GUESS = 0.15, 0.15  # shares of the views without


class GuessErrors(eqx.Module):
    """How wrong a first guess of a vertebra is: normal, per axis, times a factor uniform in
    [0, 1] of its own for every guess. The shape is off as well, and between the mean and the
    truth. A fit of landmarks with 3 mm noise is off by about 0.045 rad and 1 mm."""

    turn_rad: float = 0.1
    shift_mm: float = 3.0
    shape_sd: float = 0.8


def guessed_surface(
    model: ShapeModel,
    pose: transforms.SE3,
    coefficients: Coefficients,
    errors: GuessErrors,
    *,
    key: PRNGKeyArray,
) -> Vertices:
    """A guess of a vertebra whose best fit is known, world mm."""
    keys = jax.random.split(key, 5)
    severity = jax.random.uniform(keys[0])
    turn = severity * errors.turn_rad * jax.random.normal(keys[1], (3,))
    shift = severity * errors.shift_mm * jax.random.normal(keys[2], (3,))
    share = jax.random.uniform(keys[3])
    wrong = severity * errors.shape_sd * jax.random.normal(keys[4], coefficients.shape)
    shape = share * coefficients + wrong
    return posed(model, transforms.perturb(pose, turn, shift), shape)


def isolation_hint(
    mask: Image, guess: Vertices, faces: Array, camera: Camera, *, key: PRNGKeyArray
) -> Hint:
    """Mask and rendered guess, each sometimes left out."""
    without_mask, without_guess = jax.random.uniform(key, (2,)) < jnp.array([_NO_MASK, _NO_GUESS])
    rendered = splat(guess, faces, camera, ISOLATION_SPLATS)
    shown = jax.tree.map(lambda image: jnp.where(without_guess, 0.0, image), rendered)
    return Hint(
        mask=jnp.where(without_mask, 0.0, mask),
        thickness=shown.thickness,
        shell=shown.shell,
        silhouette=shown.silhouette,
    )


def isolation_loss(found: Isolated, thickness: Image, shell: Image, silhouette: Image) -> Scalar:
    """Mean over the pixels, those of the vertebra counted more, of |e| exp(-s) + s (Laplace: the
    network says by s how large it expects its error e of the thickness to be), |e| / 2 of the
    shell in mm, and the cross entropy of the mask."""
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
    """Mean |error| of the thickness inside the true mask (mm), the same of an answer of nothing,
    and the Dice of the mask."""
    inside: Bool[Array, "h w"] = silhouette > 0.5
    count = jnp.maximum(jnp.sum(inside), 1)
    off = jnp.sum(jnp.where(inside, jnp.abs(found.thickness - thickness), 0.0)) / count
    nothing = jnp.sum(jnp.where(inside, thickness, 0.0)) / count
    own = found.mask_logit > 0.0
    dice = 2.0 * jnp.sum(own & inside) / jnp.maximum(jnp.sum(own) + jnp.sum(inside), 1)
    return off, nothing, dice
