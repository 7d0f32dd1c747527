"""Prior of the whole spine: how the vertebrae of a person follow each other.

A Gaussian with few factors over the poses of all vertebrae relative to the next one above and over
two sizes of each: x = mean + loadings z + noise, z ~ N(0, I). The values are, for L levels,
- L - 1 steps (6 values each), of the lower vertebra in the frame of the upper one: translation
  (mm), rotation vector (rad);
- L sizes (2 each): distance of the pedicles, distance of the body's centre from their middle, mm.
The frame is that of three points (`pedicle_frame`), because the prior is estimated from scans in
which only these were marked; `T_vertebra_frame` of the prior gives it for shape models.
"""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dartjax._numerics import normalize, safe_norm, solve_positive
from dartjax._types import Scalar
from dartjax.anatomy import MODELLED_LEVELS
from dartjax.ssm._model import ShapeModel
from dartjax.ssm._pedicle import isthmus
from dartjax.transforms import SE3, SO3

SPINE_LEVELS = tuple(level for level in MODELLED_LEVELS if level != "T13")
NUM_STEPS, NUM_SIZES = len(SPINE_LEVELS) - 1, 2
KEYPOINTS = ("body", "left", "right")  # centres of the body and of the pedicles
_POSE_NOISE = (1.0, 1.0, 1.0, 0.03, 0.03, 0.03)  # of observed steps: mm, rad
_SIZE_NOISE_MM = 1.0
_ITERATIONS = 2


class SpinePrior(eqx.Module):
    """Mean, loadings and noise (standard deviations) of the values of a spine, and its frames in
    the vertebra frames of the shape models."""

    mean: Float[Array, " value"]
    loadings: Float[Array, "value factor"]
    noise: Float[Array, " value"]
    T_vertebra_frame: SE3  # of each level


class SpineEstimate(eqx.Module):
    """Mean and covariance of the values of one spine, given what was observed of it."""

    mean: Float[Array, " value"]
    covariance: Float[Array, "value value"]


class ExpectedFrame(eqx.Module):
    """Expected frame of a level, and the standard deviations of its translation (mm) and rotation
    (rad) in the axes of the nearest observed vertebra; `known` False where none was observed."""

    T_world_frame: SE3
    sigma: Float[Array, "*level 6"]
    known: Bool[Array, "*level"]


def num_spine_values() -> int:
    """Return the number of values of a spine."""
    return 6 * NUM_STEPS + NUM_SIZES * len(SPINE_LEVELS)


def pedicle_frame(points: Float[Array, "3 3"]) -> SE3:
    """Compute the frame of the points `KEYPOINTS` of a vertebra, mm.

    Origin at the body; x from the left to the right pedicle; y from the middle of the pedicles to
    the body, made perpendicular to x. Collinear points give no frame (NaN)."""
    body, left, right = points
    x = normalize(right - left)
    forward = body - 0.5 * (left + right)
    y = normalize(forward - jnp.dot(forward, x) * x)
    rotation = SO3.from_matrix(jnp.stack([x, y, jnp.cross(x, y)], axis=1))
    return SE3.from_rotation_and_translation(rotation, body)


def frame_in_vertebra(model: ShapeModel) -> SE3:
    """Compute `pedicle_frame` of a model's mean shape, in its vertebra frame, from the centres of
    both isthmuses and the origin."""
    centers = isthmus(model, model.mean_shape).center
    return pedicle_frame(jnp.concatenate([jnp.zeros((1, 3)), centers]))


def spine_frames(values: Float[Array, " value"]) -> SE3:
    """Chain the steps of a spine: the frames of all levels in that of T1."""

    def down(frame: SE3, step: Float[Array, "6"]) -> tuple[SE3, SE3]:
        lower = frame @ SE3.from_rotation_and_translation(SO3.exp(step[3:]), step[:3])
        return lower, lower

    first = SE3.identity()
    _, others = jax.lax.scan(down, first, values[: 6 * NUM_STEPS].reshape(NUM_STEPS, 6))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, others)


def spine_values(points: Float[Array, "level 3 3"]) -> Float[Array, " value"]:
    """Compute the values of a spine from the points `KEYPOINTS` of its levels, world mm; NaN where
    they need a point that is NaN."""
    seen = jnp.all(jnp.isfinite(points), axis=(1, 2))
    steps = _steps(jax.vmap(pedicle_frame)(points), jnp.maximum(jnp.arange(len(points)) - 1, 0))
    steps = jnp.where((seen[:-1] & seen[1:])[:, None], steps[1:], jnp.nan)
    body, left, right = jnp.moveaxis(points, 1, 0)
    behind = body - 0.5 * (left + right)
    sizes = jnp.stack([safe_norm(right - left), safe_norm(behind)], axis=1)
    return jnp.concatenate([steps.reshape(-1), sizes.reshape(-1)])


def spine_sizes(values: Float[Array, " value"]) -> Float[Array, "level 2"]:
    """Return the distances between the pedicles, and of the body from their middle, mm."""
    return values[6 * NUM_STEPS :].reshape(len(SPINE_LEVELS), NUM_SIZES)


def spine_sample(prior: SpinePrior, *, key: PRNGKeyArray) -> Float[Array, " value"]:
    """Draw the values of a random spine."""
    common, own = jax.random.split(key)
    factors = jax.random.normal(common, (prior.loadings.shape[1],))
    return (
        prior.mean
        + prior.loadings @ factors
        + prior.noise * jax.random.normal(own, prior.noise.shape)
    )


def spine_log_likelihood(
    prior: SpinePrior, values: Float[Array, " value"], seen: Bool[Array, " value"]
) -> Scalar:
    """Compute the log density of the values that were `seen`; the others may be NaN."""
    weight = jnp.where(seen, 1.0 / prior.noise, 0.0)
    residual = weight * jnp.where(seen, values - prior.mean, 0.0)
    scaled = weight[:, None] * prior.loadings
    inner = jnp.eye(scaled.shape[1]) + scaled.T @ scaled
    explained = solve_positive(inner, (scaled.T @ residual)[:, None])[:, 0]
    square = jnp.sum(residual**2) - (scaled.T @ residual) @ explained
    log_noise = jnp.sum(jnp.where(seen, jnp.log(prior.noise), 0.0))
    log_det = jnp.linalg.slogdet(inner)[1] + 2.0 * log_noise
    return -0.5 * (square + log_det + jnp.sum(seen) * jnp.log(2.0 * jnp.pi))


def condition_spine(
    prior: SpinePrior,
    frames: SE3,
    known: Bool[Array, " level"],
    sizes: Float[Array, "level 2"] | None = None,
) -> SpineEstimate:
    """Condition the prior on the observed frames of some levels (T_world_frame, level axis).

    Between each observed level and the next observed one above, the chain of steps is linearised
    (two Gauss-Newton steps; observation noise 1 mm and 0.03 rad). `sizes` of the observed levels
    are used if given, with 1 mm noise. Frames and sizes of levels that are not known may be NaN.
    """
    upper, has_upper = _previous_known(known)
    frames = jax.tree.map(
        lambda leaf, other: jnp.where(known[:, None], leaf, other[None]), frames, SE3.identity()
    )
    use_sizes = known & (sizes is not None)
    sizes = jnp.where(use_sizes[:, None], sizes, 0.0) if sizes is not None else None
    seen = jnp.concatenate([jnp.repeat(has_upper, 6), jnp.repeat(use_sizes, NUM_SIZES)])

    def observed(values: Float[Array, " value"]) -> Float[Array, " row"]:
        own = values[6 * NUM_STEPS :]
        return seen * jnp.concatenate([_steps(spine_frames(values), upper).reshape(-1), own])

    target = jnp.zeros(NUM_SIZES * len(SPINE_LEVELS)) if sizes is None else sizes.reshape(-1)
    target = seen * jnp.concatenate([_steps(frames, upper).reshape(-1), target])
    noise = jnp.concatenate(
        [
            jnp.tile(jnp.array(_POSE_NOISE), len(SPINE_LEVELS)),
            jnp.full(NUM_SIZES * len(SPINE_LEVELS), _SIZE_NOISE_MM),
        ]
    )
    covariance = prior.loadings @ prior.loadings.T + jnp.diag(prior.noise**2)

    def step(values: Float[Array, " value"], _):
        jacobian = jax.jacfwd(observed)(values)
        gain = covariance @ jacobian.T / noise[None]
        inner = jacobian @ gain / noise[:, None] + jnp.eye(len(noise))
        gap = target - observed(values) + jacobian @ (values - prior.mean)
        solved = solve_positive(inner, jnp.concatenate([(gap / noise)[:, None], gain.T], axis=1))
        mean = prior.mean + gain @ solved[:, 0]
        return mean, covariance - gain @ solved[:, 1:]

    mean, covariances = jax.lax.scan(step, prior.mean, length=_ITERATIONS)
    return SpineEstimate(mean, covariances[-1])


def expected_frames(
    estimate: SpineEstimate, frames: SE3, known: Bool[Array, " level"]
) -> ExpectedFrame:
    """Predict the frames of all levels from the observed ones by an estimate of
    `condition_spine`, each from the nearest observed level (of two, the upper one)."""
    places = jnp.arange(len(SPINE_LEVELS))
    away = jnp.abs(places[:, None] - places[None])
    nearest = jnp.argmin(jnp.where(known[None], away, len(places)), axis=1)

    def step_to(values: Float[Array, " value"]) -> Float[Array, "level 6"]:
        return _steps(spine_frames(values), nearest)

    steps, jacobian = step_to(estimate.mean), jax.jacfwd(step_to)(estimate.mean)
    variance = jnp.einsum("lav,vw,law->la", jacobian, estimate.covariance, jacobian)
    from_nearest = jax.vmap(
        lambda step: SE3.from_rotation_and_translation(SO3.exp(step[3:]), step[:3])
    )(steps)
    anchors = jax.tree.map(lambda leaf: leaf[nearest], frames)
    expected = jax.vmap(lambda a, b: a @ b)(anchors, from_nearest)
    sigma = jnp.sqrt(jnp.maximum(variance, 0.0))
    return ExpectedFrame(expected, sigma, jnp.broadcast_to(jnp.any(known), known.shape))


@jax.jit
def frames_from_others(
    prior: SpinePrior, frames: SE3, known: Bool[Array, " level"]
) -> ExpectedFrame:
    """Predict the frame of every level from the observed frames of all other levels
    (T_world_frame, level axis; those that are not known may be NaN)."""
    places = jnp.arange(len(SPINE_LEVELS))

    def one(place: Array) -> ExpectedFrame:
        others = known & (places != place)
        found = expected_frames(condition_spine(prior, frames, others), frames, others)
        return jax.tree.map(lambda leaf: leaf[place], found)

    return jax.vmap(one)(places)


def spine_places(levels: Iterable[str]) -> Int[np.ndarray, " vertebra"]:
    """Return the places of levels in `SPINE_LEVELS`, -1 for none (host).

    With a T13 among them, it and the thoracic levels above move up by one place, so that it is next
    to L1; T1 then has none."""
    levels = list(levels)
    shift = int("T13" in levels)
    place = {level: i for i, level in enumerate(SPINE_LEVELS)} | {"T13": SPINE_LEVELS.index("L1")}
    return np.array([place[level] - (shift if level[0] == "T" else 0) for level in levels], int)


def _previous_known(known: Bool[Array, " level"]) -> tuple[Array, Bool[Array, " level"]]:
    """Return the index of the next known level above each known level, and whether it exists."""
    places = jnp.arange(len(known))
    before = known[None] & (places[None] < places[:, None])
    upper = jnp.max(jnp.where(before, places[None], -1), axis=1)
    return jnp.maximum(upper, 0), known & (upper >= 0)


def _steps(frames: SE3, upper: Array) -> Float[Array, "level 6"]:
    """Translation and rotation vector of each frame in that of the level `upper`."""
    above = jax.tree.map(lambda leaf: leaf[upper], frames)
    step = jax.vmap(lambda a, b: a.inverse() @ b)(above, frames)
    turns = jax.vmap(lambda turn: turn.log())(step.rotation())
    return jnp.concatenate([step.translation(), turns], axis=1)
