"""Training of the multi-view similarity: pairs of X-rays and renders of disturbed fits, errors of
these fits, and losses of the predictions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax import camera as cameras
from dartjax import mesh, transforms
from dartjax._numerics import pseudo_huber, safe_divide, safe_norm
from dartjax._types import Coefficients, Images, Scalar, Vertices
from dartjax.camera import Camera
from dartjax.models import PredictedError, ViewPair, view_code
from dartjax.registration import Comparison
from dartjax.render import SplatOptions, splat, two_compartment
from dartjax.ssm import ShapeModel, posed

# Units in which steps of pose and shape have similar effects.
TURN_UNIT, SHIFT_UNIT_MM = 0.05, 2.5
_SPLATS = SplatOptions(window=9)
_RANKING, _MARGIN = 0.5, 0.5  # weight, and margin as a share of the true log difference
_DIRECTION, _AUXILIARY = 0.5, 0.1  # weights


class Fit(eqx.Module):
    """Pose and shape of one vertebra."""

    pose: transforms.SE3  # T_world_vertebra
    coefficients: Coefficients


class FitErrors(eqx.Module):
    """Disturbances of a best fit: standard deviations per axis, times a random factor for each fit
    between `least` and 1 with a uniform logarithm. Small factors are frequent because most results
    of a fit lie close to the optimum."""

    turn_rad: float = 0.2
    shift_mm: float = 6.0
    shape_sd: float = 0.8
    least: float = 0.1


def disturbed_fit(true: Fit, errors: FitErrors, *, key: PRNGKeyArray) -> Fit:
    """Disturb a fit at random."""
    keys = jax.random.split(key, 4)
    size = errors.least ** jax.random.uniform(keys[0])
    turn, shift = (
        size * sigma * jax.random.normal(k, (3,))
        for sigma, k in ((errors.turn_rad, keys[1]), (errors.shift_mm, keys[2]))
    )
    shape = true.coefficients + size * errors.shape_sd * jax.random.normal(
        keys[3], true.coefficients.shape
    )
    return Fit(transforms.perturb(true.pose, turn, shift), shape)


def moved_fit(fit: Fit, x: Float[Array, " unknown"]) -> Fit:
    """Move a fit by a step: rotation vector and shift in their units (about the vertebra's own
    origin, world axes), then coefficients."""
    pose = transforms.perturb(fit.pose, TURN_UNIT * x[:3], SHIFT_UNIT_MM * x[3:6])
    return Fit(pose, fit.coefficients + x[6:])


def step_to_truth(true: Fit, fit: Fit) -> Float[Array, " unknown"]:
    """Compute the step with which `moved_fit` moves a fit to the truth."""
    turn = (true.pose.rotation() @ fit.pose.rotation().inverse()).log() / TURN_UNIT
    shift = (true.pose.translation() - fit.pose.translation()) / SHIFT_UNIT_MM
    return jnp.concatenate([turn, shift, true.coefficients - fit.coefficients])


def view_pairs(
    model: ShapeModel, fit: Fit, views: Camera, images: Images, masks: Images, size: int
) -> ViewPair:
    """Make the network input of a fit in K views: crops averaged down to `size` pixels."""
    vertices = posed(model, fit.pose, fit.coefficients)
    small = jax.vmap(lambda view: cameras.resize(view, (size, size)))(views)
    channels = jax.vmap(lambda view: splat(vertices, model.faces, view, _SPLATS))(small)
    comparison = Comparison(
        rendered=jax.vmap(two_compartment)(channels),
        silhouettes=channels.silhouette,
        observed=averaged(images, size),
        masks=averaged(masks, size),
        cameras=small,
        pose=fit.pose,
        valid=jnp.ones(len(images), bool),
    )
    return pairs_of(comparison, size)


def pairs_of(comparison: Comparison, size: int) -> ViewPair:
    """Make the network input from a `Comparison`, at any resolution that `size` divides."""
    into_vertebra = comparison.pose.rotation().inverse()
    middle, right = comparison.pose.translation(), jnp.array([1.0, 0.0, 0.0])

    def code(view: Camera) -> Float[Array, "7"]:
        return view_code(
            into_vertebra.apply(view.beam),
            into_vertebra.apply(view.camera_from_world.rotation().inverse().apply(right)),
            safe_norm(view.source - middle),
        )

    return ViewPair(
        observed=averaged(comparison.observed, size),
        mask=averaged(comparison.masks, size),
        rendered=averaged(comparison.rendered, size),
        silhouette=averaged(comparison.silhouettes, size),
        code=jax.vmap(code)(comparison.cameras),
    )


def averaged(images: Images, size: int) -> Float[Array, "view small small"]:
    """Downsample square images to `size` pixels by averaging. ValueError if the factor is not an
    integer."""
    factor = images.shape[-1] // size
    if factor * size != images.shape[-1]:
        raise ValueError(f"crops of {images.shape[-1]} px cannot be averaged down to {size} px")
    return images.reshape(-1, size, factor, size, factor).mean((2, 4))


def surface_error(vertices: Vertices, true: Vertices, faces: Array) -> Scalar:
    """Compute the mean distance along the normals between surfaces in correspondence, averaged over
    the normals of both, mm: a smooth approximation of the MASD."""
    step = vertices - true
    along = [
        jnp.mean(jnp.abs(jnp.sum(step * mesh.vertex_normals(surface, faces), axis=1)))
        for surface in (vertices, true)
    ]
    return 0.5 * (along[0] + along[1])


def prediction_loss(
    found: PredictedError, error_mm: Scalar, fit: Fit, true: Fit
) -> tuple[Scalar, dict[str, Scalar]]:
    """Compute the loss of a prediction for one fit: the Gaussian negative log likelihood of
    log(1 + MASD), plus a pseudo-Huber loss of the step of the auxiliary heads (in the units of
    `moved_fit`)."""
    residual = found.log_masd - jnp.log1p(error_mm)
    likelihood = 0.5 * (residual**2 * jnp.exp(-found.log_variance) + found.log_variance)
    step_residual = predicted_step(found, fit) - step_to_truth(true, fit)
    auxiliary = jnp.mean(pseudo_huber(step_residual**2, 1.0))
    error = jnp.abs(jnp.expm1(found.log_masd) - error_mm)
    return likelihood + _AUXILIARY * auxiliary, {"masd_error_mm": error}


def predicted_step(found: PredictedError, fit: Fit) -> Float[Array, " unknown"]:
    """Convert the prediction of the auxiliary heads to a step of `moved_fit`."""
    rotation = fit.pose.rotation()
    turn, shift = rotation.apply(found.turn), rotation.apply(found.shift)
    return jnp.concatenate([turn / TURN_UNIT, shift / SHIFT_UNIT_MM, found.coefficients])


def ranking_loss(
    found: tuple[PredictedError, PredictedError], errors_mm: tuple[Scalar, Scalar]
) -> Scalar:
    """Compute the ranking loss of two fits of the same vertebra: the prediction must rank the worse
    fit lower, by at least half of the true difference in log(1 + MASD)."""
    true = jnp.log1p(errors_mm[1]) - jnp.log1p(errors_mm[0])
    predicted = found[1].log_masd - found[0].log_masd
    return _RANKING * jax.nn.relu(_MARGIN * jnp.abs(true) - jnp.sign(true) * predicted)


def direction_loss(
    gradient: Float[Array, " unknown"], to_truth: Float[Array, " unknown"]
) -> tuple[Scalar, Scalar]:
    """Compute half of 1 - cosine between minus the gradient of the prediction and the step to the
    truth, and the cosine itself."""
    length = safe_norm(gradient) * safe_norm(to_truth)
    cosine = safe_divide(-jnp.sum(gradient * to_truth), length)
    return _DIRECTION * (1.0 - cosine), cosine
