"""Training task of the detector: loss over a batch, and validation on held-out subjects."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from dartjax.models import FoundVertebrae, VertebraDetector
from dartjax.training._detection import detection_loss
from dartjax.training._detection_examples import DetectionBatch, DetectionExamples
from dartjax.training._detection_scores import best_threshold, detection_summary, rows_of_batch
from dartjax.training._detection_views import DetectionTruth, random_view_of, whole_view
from dartjax.training._loop import Loss

_AT_ONCE = 8
_ANY = 0.0  # least score of the detections that a threshold is chosen from


def detection_training_loss(net: VertebraDetector) -> Loss:
    """Make the loss of a batch: every radiograph in a random view with random grey values."""

    def of_batch(params: PyTree, batch: DetectionBatch, key: PRNGKeyArray):
        views, own = jax.random.split(key)
        keys = jax.random.split(views, len(batch.level))
        images, truths = jax.lax.map(
            lambda each: random_view_of(each[0], net.config.image_size, key=each[1]), (batch, keys)
        )
        losses, terms = jax.vmap(
            lambda image, truth, k: detection_loss(net, params, image, truth, key=k)
        )(images, truths, jax.random.split(own, len(keys)))
        return jnp.mean(losses), jax.tree.map(jnp.mean, terms)

    return of_batch


def untrained_detector(net: VertebraDetector, key: PRNGKeyArray) -> PyTree:
    """Draw the parameters of a detector before training."""
    image = jnp.zeros((net.config.image_size, net.config.image_size, 3))
    return jax.jit(net.init)(key, image)["params"]


def detection_validation(
    net: VertebraDetector, examples: DetectionExamples, rows: np.ndarray
) -> Callable[[PyTree], dict[str, float]]:
    """Make the function that scores parameters on whole radiographs as they are, at the threshold
    of the best F1. The score falls with F1, mask Dice, and the share of right levels."""
    batches = [examples.batch(part) for part in _parts(rows)]

    @jax.jit
    def find(params: PyTree, batch: DetectionBatch) -> tuple[FoundVertebrae, DetectionTruth]:
        images, truths = jax.vmap(lambda one: whole_view(one, net.config.image_size))(batch)
        found = jax.vmap(lambda image: net.apply({"params": params}, image))(images)
        return found, truths  # pyright: ignore[reportReturnType]

    def validate(params: PyTree) -> dict[str, float]:
        rows = []
        for batch in batches:
            found, truths = find(params, batch)
            rows += rows_of_batch(found, truths, _ANY)
        least = best_threshold(rows)
        scores = {k: np.nan_to_num(v) for k, v in detection_summary(rows, least).items()}
        lacking = 3.0 - scores["f1"] - scores["mask_dice"] - 0.5 * scores["level_right"]
        scores = {"score": lacking - 0.5, "threshold": least, **scores}
        return {k: float(v) for k, v in scores.items()}

    return validate


def find_in_examples(
    net: VertebraDetector, params: PyTree, examples: DetectionExamples, rows: np.ndarray
) -> tuple[np.ndarray, FoundVertebrae, DetectionTruth]:
    """Find the vertebrae in some examples as they are: inputs, detections and truths."""
    batch = examples.batch(rows)

    @jax.jit
    def find(batch: DetectionBatch):
        images, truths = jax.vmap(lambda one: whole_view(one, net.config.image_size))(batch)
        return images, jax.vmap(lambda image: net.apply({"params": params}, image))(images), truths

    return jax.device_get(find(batch))


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """Split rows into full groups for one compiled program; the last one repeats its last row."""
    count = -(-len(rows) // _AT_ONCE) * _AT_ONCE
    return list(np.pad(rows, (0, count - len(rows)), mode="edge").reshape(-1, _AT_ONCE))
