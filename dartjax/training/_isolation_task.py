"""Training task of the isolation network: batches, loss, validation, predictions and examples."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from dartjax import ssm, transforms
from dartjax.camera import Camera
from dartjax.models import Hint, Isolated, IsolationNet
from dartjax.render import XrayChannels, splat
from dartjax.training._clutter import with_clutter
from dartjax.training._crops import LEVELS, Crops, camera_of, crop_sampler
from dartjax.training._isolation import (
    ISOLATION_SPLATS,
    EstimateErrors,
    disturbed_surface,
    isolation_errors,
    isolation_hint,
    isolation_loss,
)
from dartjax.training._jitter import Jitter, jittered
from dartjax.training._loop import Loss
from dartjax.training._randomise import RANDOMISATIONS, randomise


class IsolationBatch(eqx.Module):
    """Batch of vertebrae, one view each."""

    image: jax.Array
    mask: jax.Array
    camera: Camera
    vertices: jax.Array
    pose: transforms.SE3
    coefficients: jax.Array
    level: jax.Array


def isolation_batch(crops: Crops, chosen: np.ndarray, views: np.ndarray) -> IsolationBatch:
    """Gather the chosen vertebrae, one view each."""
    return IsolationBatch(
        image=jnp.asarray(crops.images[chosen, views], jnp.float32),
        mask=jnp.asarray(crops.masks[chosen, views], jnp.float32),
        camera=camera_of(crops, chosen, views),
        vertices=jnp.asarray(crops.vertices[chosen]),
        pose=transforms.SE3(jnp.asarray(crops.pose[chosen])),
        coefficients=jnp.asarray(crops.coefficients[chosen]),
        level=jnp.asarray(crops.level[chosen]),
    )


def isolation_batches(crops: Crops, batch_size: int, seed: int) -> Callable[[int], IsolationBatch]:
    """Make the function that gives the batch of a step."""
    draw = crop_sampler(len(crops.level), 1, batch_size, seed)

    def of_step(step: int) -> IsolationBatch:
        chosen, views = draw(step)
        return isolation_batch(crops, chosen, views[:, 0])

    return of_step


def isolation_training_loss(
    net: IsolationNet, models: ssm.ShapeModel, *, vary: bool = True
) -> Loss:
    """Make the mean loss over a batch, with its error metrics. `vary`: replace every view by a
    random crop of it (data augmentation)."""

    def of_batch(params: PyTree, batch: IsolationBatch, key: jax.Array):
        # Separate keys: the displacement of a crop must not predict the error of the estimate.
        crops, keys = (jax.random.split(k, len(batch.level)) for k in jax.random.split(key))
        if vary:
            batch = jax.lax.map(lambda each: _other_crop(*each), (batch, crops))
            cluttered = with_clutter(batch.image, key=jax.random.fold_in(key, 1))
            batch = eqx.tree_at(lambda b: b.image, batch, cluttered)
        shown = jax.lax.map(lambda each: _shown(models, each[0], each[1], "mild"), (batch, keys))

        def one(image, hint, truth):
            found = net.apply({"params": params}, image, hint)
            cost = isolation_loss(found, truth.thickness, truth.shell, truth.silhouette)  # pyright: ignore
            error, zero_error, dice = isolation_errors(found, truth.thickness, truth.silhouette)  # pyright: ignore
            return cost, {"error_mm": error, "nothing_mm": zero_error, "mask_dice": dice}

        costs, numbers = jax.vmap(one)(*shown)
        return jnp.mean(costs), jax.tree.map(jnp.mean, numbers)

    return of_batch


def isolation_validation(
    net: IsolationNet, models: ssm.ShapeModel, held_out: Crops
) -> Callable[[PyTree], dict[str, float]]:
    """Make the function that computes the errors of parameters on every held-out vertebra, in two
    views each, always with the same initial estimates."""
    cost = jax.jit(isolation_training_loss(net, models, vary=False))
    place = np.arange(len(held_out.level))
    views = [isolation_batch(held_out, place, np.full_like(place, view)) for view in (0, 1)]

    def validate(params: PyTree) -> dict[str, float]:
        rows = [cost(params, batch, jax.random.key(7 + i)) for i, batch in enumerate(views)]
        numbers = {k: float(np.mean([row[1][k] for row in rows])) for k in rows[0][1]}
        share = numbers["error_mm"] / numbers.pop("nothing_mm")
        return {"score": float(np.mean([row[0] for row in rows])), **numbers, "share": share}

    return validate


class IsolationAnswers(eqx.Module):
    """Predictions of the network for one view of every vertebra; leading axis vertebra."""

    images: jax.Array
    hints: PyTree
    found: PyTree
    truths: PyTree
    error_mm: jax.Array  # of the thickness, inside the true mask
    guess_error_mm: jax.Array  # the same for the initial estimate
    nothing_mm: jax.Array  # the same for zero thickness
    mask_dice: jax.Array
    given_dice: jax.Array  # of the input mask


def isolation_answers(
    net: IsolationNet, models: ssm.ShapeModel, params: PyTree, crops: Crops
) -> IsolationAnswers:
    """Predict the first view of every vertebra, always with the same initial estimates."""
    place = np.arange(len(crops.level))
    batch = isolation_batch(crops, place, np.zeros_like(place))
    keys = jax.random.split(jax.random.key(7), len(place))

    def one(each: tuple[IsolationBatch, jax.Array]) -> IsolationAnswers:
        image, hint, truth = _shown(models, each[0], each[1], "none")
        found = net.apply({"params": params}, image, hint)
        error, zero_error, dice = isolation_errors(found, truth.thickness, truth.silhouette)  # pyright: ignore
        estimate = eqx.tree_at(lambda f: f.thickness, found, hint.thickness)
        estimate = eqx.tree_at(lambda f: f.mask_logit, estimate, each[0].mask - 0.5)
        estimate_error, _, given_dice = isolation_errors(
            estimate,  # pyright: ignore
            truth.thickness,
            truth.silhouette,
        )
        errors = error, estimate_error, zero_error, dice, given_dice
        return IsolationAnswers(image, hint, found, truth, *errors)

    return jax.device_get(jax.jit(lambda *each: jax.lax.map(one, each))(batch, keys))


class IsolationExample(NamedTuple):
    """Example of isolation in one crop: image, hint, prediction and ground truth."""

    title: str
    image: np.ndarray
    hint: Hint
    found: Isolated
    truth: XrayChannels


def isolation_examples(crops: Crops, found: IsolationAnswers) -> list[IsolationExample]:
    """Choose the best, the median and the worst vertebra, by the error of the thickness."""
    order = np.argsort(found.error_mm)
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}

    def one(name: str, i: int) -> IsolationExample:
        level = LEVELS[crops.level[i]]
        own = jax.tree.map(lambda leaf: leaf[i], found)
        title = f"{name}: {crops.subject[i]} {level}, {own.error_mm:.1f} mm"
        return IsolationExample(title, own.images, own.hints, own.found, own.truths)

    return [one(name, int(i)) for name, i in chosen.items()]


def _other_crop(own: IsolationBatch, key: jax.Array) -> IsolationBatch:
    seen = jittered(own.image, own.mask, own.camera, Jitter(), key=key)
    return eqx.tree_at(lambda b: (b.image, b.mask, b.camera), own, seen)


def _shown(models: ssm.ShapeModel, own: IsolationBatch, key: jax.Array, tone: str):
    """Make the image and the hint of one view of one vertebra, and the ground truth."""
    model = jax.tree.map(lambda leaf: leaf[own.level], models)
    keys = jax.random.split(key, 3)
    estimate = disturbed_surface(model, own.pose, own.coefficients, EstimateErrors(), key=keys[0])
    hint = isolation_hint(own.mask, estimate, model.faces, own.camera, key=keys[1])
    truth = splat(own.vertices, model.faces, own.camera, ISOLATION_SPLATS)
    return randomise(own.image, RANDOMISATIONS[tone], key=keys[2]), hint, truth
