"""Training task of the multi-view similarity: batches, loss, validation and predictions."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from scipy import stats

from dartjax import ssm, transforms
from dartjax.camera import Camera
from dartjax.models import SIMILARITY_PRESETS, MultiViewSimilarity, PredictedError
from dartjax.ssm import posed
from dartjax.training._clutter import with_clutter
from dartjax.training._crops import Crops, camera_of, crop_sampler
from dartjax.training._jitter import Jitter, jittered
from dartjax.training._loop import Loss
from dartjax.training._randomise import RANDOMISATIONS, randomise
from dartjax.training._similarity import (
    Fit,
    FitErrors,
    direction_loss,
    disturbed_fit,
    moved_fit,
    prediction_loss,
    ranking_loss,
    step_to_truth,
    surface_error,
    view_pairs,
)

NUM_UNKNOWNS = 21
_NO_MASKS = 0.5  # share of the vertebrae without masks in training


class SimilarityBatch(eqx.Module):
    """Batch of vertebrae, each in several views."""

    images: jax.Array
    masks: jax.Array
    cameras: Camera
    vertices: jax.Array
    true: Fit
    level: jax.Array


def similarity_batch(crops: Crops, chosen: np.ndarray, views: np.ndarray) -> SimilarityBatch:
    """Gather the chosen vertebrae in the chosen views."""
    rows = chosen[:, None]
    return SimilarityBatch(
        images=jnp.asarray(crops.images[rows, views], jnp.float32),
        masks=jnp.asarray(crops.masks[rows, views], jnp.float32),
        cameras=camera_of(crops, rows, views),
        vertices=jnp.asarray(crops.vertices[chosen]),
        true=jax.vmap(Fit)(
            transforms.SE3(jnp.asarray(crops.pose[chosen])),
            jnp.asarray(crops.coefficients[chosen]),
        ),
        level=jnp.asarray(crops.level[chosen]),
    )


def similarity_batches(
    crops: Crops, num_views: int, batch_size: int, seed: int
) -> Callable[[int], SimilarityBatch]:
    """Make the function that gives the batch of a step."""
    draw = crop_sampler(len(crops.level), num_views, batch_size, seed)
    return lambda step: similarity_batch(crops, *draw(step))


def two_view_batch(crops: Crops) -> SimilarityBatch:
    """Gather every vertebra once, in its first two views."""
    place = np.arange(len(crops.level))
    return similarity_batch(crops, place, np.tile(np.arange(2), (len(place), 1)))


class SimilarityTask:
    """Training task: the network, and the shape models of its fits."""

    def __init__(self, preset: str, models: ssm.ShapeModel):
        self.net = MultiViewSimilarity(SIMILARITY_PRESETS[preset])
        self.models = models

    def loss(self, num_directions: int) -> Loss:
        """Make the loss over two disturbed fits of every vertebra of a batch; the direction loss
        uses the first `num_directions` vertebrae."""

        def of_batch(params: PyTree, batch: SimilarityBatch, key: jax.Array):
            own, key = jax.random.split(key)
            batch = _randomised(batch, own)
            keys = jax.random.split(key, len(batch.level))
            costs, numbers = jax.vmap(lambda own, k: self._one(params, own, k))(batch, keys)
            first = jax.tree.map(lambda leaf: leaf[:num_directions], (batch, keys))
            losses, cosine = jax.vmap(lambda own, k: self._direction(params, own, k))(*first)
            numbers = jax.tree.map(jnp.mean, numbers) | {"cosine": jnp.mean(cosine)}
            return jnp.mean(costs) + jnp.mean(losses), numbers

        return of_batch

    def predict(
        self, params: PyTree, own: SimilarityBatch, fit: Fit, valid: jax.Array | None = None
    ) -> PredictedError:
        """Predict the error of a fit of one vertebra in the `valid` views (default: all)."""
        views = own.cameras, own.images, own.masks
        seen = view_pairs(self.model_of(own), fit, *views, self.net.config.size)
        valid = jnp.ones(len(own.images), bool) if valid is None else valid
        return self.net.apply({"params": params}, seen, valid)  # pyright: ignore[reportReturnType]

    def error(self, own: SimilarityBatch, fit: Fit) -> jax.Array:
        """Compute the surface error of a fit, mm."""
        model = self.model_of(own)
        return surface_error(posed(model, fit.pose, fit.coefficients), own.vertices, model.faces)

    def model_of(self, own: SimilarityBatch) -> ssm.ShapeModel:
        """Return the shape model of the level of one vertebra."""
        return jax.tree.map(lambda leaf: leaf[own.level], self.models)

    def slope(self, params: PyTree, own: SimilarityBatch, fit: Fit) -> jax.Array:
        """Compute the gradient of the predicted log(1 + MASD), in the units of `moved_fit`."""

        def predicted(x: jax.Array) -> jax.Array:
            return self.predict(params, own, moved_fit(fit, x)).log_masd

        return jax.grad(predicted)(jnp.zeros(NUM_UNKNOWNS))

    def _one(self, params: PyTree, own: SimilarityBatch, key: jax.Array):
        first, second, views = jax.random.split(key, 3)
        most = len(own.images)
        valid = jnp.arange(most) < jax.random.randint(views, (), 1, most + 1)
        fits = [disturbed_fit(own.true, FitErrors(), key=k) for k in (first, second)]
        found = [self.predict(params, own, fit, valid) for fit in fits]
        errors = [self.error(own, fit) for fit in fits]
        parts = [
            prediction_loss(f, e, fit, own.true)
            for f, e, fit in zip(found, errors, fits, strict=True)
        ]
        ranked = ranking_loss((found[0], found[1]), (errors[0], errors[1]))
        cost = 0.5 * (parts[0][0] + parts[1][0]) + ranked
        return cost, jax.tree.map(lambda a, b: 0.5 * (a + b), parts[0][1], parts[1][1])

    def _direction(self, params: PyTree, own: SimilarityBatch, key: jax.Array):
        """Compute the direction loss of one vertebra, in its first two views."""
        two = own.images[:2], own.masks[:2], jax.tree.map(lambda leaf: leaf[:2], own.cameras)
        own = eqx.tree_at(lambda b: (b.images, b.masks, b.cameras), own, two)
        fit = disturbed_fit(own.true, FitErrors(), key=key)
        return direction_loss(self.slope(params, own, fit), step_to_truth(own.true, fit))


def _randomised(batch: SimilarityBatch, key: jax.Array) -> SimilarityBatch:
    """Augment the radiographs of a batch: clutter, domain randomisation (mild) and random crops;
    half of the vertebrae lose their masks."""
    clutter, drop, key = jax.random.split(key, 3)
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (batch.images, batch.masks, batch.cameras)
    )

    flat = (with_clutter(flat[0], key=clutter), *flat[1:])

    def one(each: tuple[jax.Array, jax.Array, Camera, jax.Array]):
        image, mask, view, key = each
        crop, tone = jax.random.split(key)
        image, mask, view = jittered(image, mask, view, Jitter(), key=crop)
        return randomise(image, RANDOMISATIONS["mild"], key=tone), mask, view

    shown = jax.lax.map(one, (*flat, jax.random.split(key, len(flat[0]))))
    seen = jax.tree.map(lambda leaf: leaf.reshape(*batch.images.shape[:2], *leaf.shape[1:]), shown)
    kept = jax.random.bernoulli(drop, 1.0 - _NO_MASKS, (len(batch.level), 1, 1, 1))
    seen = (seen[0], seen[1] * kept, seen[2])
    return eqx.tree_at(lambda b: (b.images, b.masks, b.cameras), batch, seen)


def similarity_validation(
    task: SimilarityTask, held_out: Crops
) -> Callable[[PyTree], dict[str, float]]:
    """Make the function that computes the errors of parameters in two views of every held-out
    vertebra, always with the same disturbed fits."""
    measure = similarity_predictions(task, held_out)

    def validate(params: PyTree) -> dict[str, float]:
        predicted, true = measure(params)
        log_error = np.log1p(predicted) - np.log1p(true)
        return {
            "score": float(np.sqrt(np.mean(log_error**2))),
            "masd_error_mm": float(np.mean(np.abs(predicted - true))),
            "one_less_rank": 1.0 - rank_correlation(predicted, true),
        }

    return validate


def similarity_predictions(
    task: SimilarityTask, crops: Crops
) -> Callable[[PyTree], tuple[np.ndarray, np.ndarray]]:
    """Make the function of the parameters that computes predicted and true MASD (mm) of three
    fixed disturbed fits of every vertebra, in two views."""

    @jax.jit
    def measure(params: PyTree, batch: SimilarityBatch, keys: jax.Array):
        def one(each: tuple[SimilarityBatch, jax.Array]):
            own, key = each
            fit = disturbed_fit(own.true, FitErrors(), key=key)
            found = task.predict(params, own, fit)
            return jnp.expm1(found.log_masd), task.error(own, fit)

        return jax.lax.map(one, (batch, keys))

    def predictions(params: PyTree) -> tuple[np.ndarray, np.ndarray]:
        batch = two_view_batch(crops)
        keys = jax.random.split(jax.random.key(5), (3, len(batch.level)))
        parts = [jax.device_get(measure(params, batch, k)) for k in keys]
        predicted, true = (np.concatenate(column) for column in zip(*parts, strict=True))
        return predicted, true

    return predictions


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Spearman's rank correlation of two columns."""
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])
