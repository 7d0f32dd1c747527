"""Training task of the landmark network: batches, loss, validation, and errors by landmark."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt8

from dartjax import camera as cameras
from dartjax import ssm
from dartjax._types import Image, Matrix3
from dartjax.anatomy import LANDMARK_NAMES, PARTNER
from dartjax.camera import Camera
from dartjax.models import FoundLandmarks, LandmarkNet, detector_input
from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM
from dartjax.render import splat
from dartjax.training._clutter import with_clutter
from dartjax.training._crops import LEVELS, Crops, camera_of, crop_sampler
from dartjax.training._isolation import ISOLATION_SPLATS
from dartjax.training._jitter import Jitter, jittered
from dartjax.training._landmarks import landmark_loss
from dartjax.training._loop import Loss
from dartjax.training._randomise import RANDOMISATIONS, randomise

_MM_PER_PX = CROP_WIDTH_MM / CROP_PIXELS
_JITTER = Jitter(roll_rad=0.12, zoom=0.08, shift_px=5.0)
_CUT, _DEEPEST_CUT = 0.15, 0.35  # chance that a side is not exposed, and how much of the crop
_VIEWS = (0, 1, 2, 3)  # of every held-out vertebra
_AT_ONCE = 16
LATERAL_BEAM = 0.707  # |x| of the beam in the patient's axes, above which a view is lateral


class LandmarkBatch(eqx.Module):
    """Batch of vertebrae, one view each."""

    image: Float[Array, "*n h w"]
    silhouette: Float[Array, "*n h w"]  # of the true surface
    camera: Camera
    landmarks: Float[Array, "*n 10 3"]  # true, world mm


class LandmarkCrops(eqx.Module):
    """Crops with what the landmark network learns: silhouettes and landmarks of the true
    surfaces."""

    crops: Crops
    silhouettes: UInt8[np.ndarray, "n view h w"]
    landmarks: Float[np.ndarray, "n 10 3"]  # world mm

    def batch(self, chosen: np.ndarray, views: np.ndarray) -> LandmarkBatch:
        """Gather the chosen vertebrae, one view each."""
        return LandmarkBatch(
            image=jnp.asarray(self.crops.images[chosen, views], jnp.float32),
            silhouette=jnp.asarray(self.silhouettes[chosen, views], jnp.float32),
            camera=camera_of(self.crops, chosen, views),
            landmarks=jnp.asarray(self.landmarks[chosen]),
        )


def landmark_crops(crops: Crops, models: ssm.ShapeModel) -> LandmarkCrops:
    """Add the silhouettes and landmarks of the true surfaces to crops; `models` have a leading
    level axis (`stacked_shape_models`)."""

    @jax.jit
    def one(level: Array, vertices: Array, views: Camera):
        model = jax.tree.map(lambda leaf: leaf[level], models)
        shown = jax.lax.map(lambda c: splat(vertices, model.faces, c, ISOLATION_SPLATS), views)
        return shown.silhouette > 0.5, ssm.landmarks(model, vertices)

    place = np.arange(crops.images.shape[1])
    found = [
        one(crops.level[i], crops.vertices[i], camera_of(crops, np.full_like(place, i), place))
        for i in range(len(crops.level))
    ]
    silhouettes, points = zip(*jax.device_get(found), strict=True)
    return LandmarkCrops(crops, np.stack(silhouettes).astype(np.uint8), np.stack(points))


def landmark_batches(
    crops: LandmarkCrops, batch_size: int, seed: int
) -> Callable[[int], LandmarkBatch]:
    """Make the function that gives the batch of a step."""
    draw = crop_sampler(len(crops.landmarks), 1, batch_size, seed)

    def of_step(step: int) -> LandmarkBatch:
        chosen, views = draw(step)
        return crops.batch(chosen, views[:, 0])

    return of_step


def untrained_landmarks(net: LandmarkNet, key: PRNGKeyArray) -> PyTree:
    """Draw the parameters of a landmark network before training."""
    image = jnp.zeros((net.config.image_size, net.config.image_size, 3))
    return jax.jit(net.init)(key, image, jnp.eye(3))["params"]


class _Shown(eqx.Module):
    """What the network is given of one view, and what it shall find (px)."""

    image: Float[Array, "h w 3"]
    view: Matrix3
    landmarks: Float[Array, "10 2"]
    visible: Bool[Array, " 10"]
    mask: Image


def landmark_training_loss(net: LandmarkNet) -> Loss:
    """Make the loss of a batch: every view in another crop, mirrored, with clutter and random
    grey values, and partly not exposed."""

    def of_batch(params: PyTree, batch: LandmarkBatch, key: PRNGKeyArray):
        clutter, own = jax.random.split(key)
        cluttered = with_clutter(batch.image, key=clutter)
        batch = eqx.tree_at(lambda b: b.image, batch, cluttered)
        keys = jax.random.split(own, len(batch.image))
        shown = jax.lax.map(lambda each: _varied(each[0], key=each[1]), (batch, keys))
        losses, terms = jax.vmap(lambda each: _loss(net, params, each))(shown)
        return jnp.mean(losses), jax.tree.map(jnp.mean, terms)

    return of_batch


def _loss(net: LandmarkNet, params: PyTree, shown: _Shown):
    found = net.apply({"params": params}, shown.image, shown.view)
    return landmark_loss(found, shown.landmarks, shown.visible, shown.mask)  # pyright: ignore[reportArgumentType]


def _as_it_is(own: LandmarkBatch) -> _Shown:
    everywhere = jnp.ones_like(own.image)
    return _shown(own.image, own.silhouette, own.camera, own.landmarks, everywhere)


def _varied(own: LandmarkBatch, *, key: PRNGKeyArray) -> _Shown:
    """Show one view in a random crop, half of them mirrored."""
    crop, flip, tone, cut = jax.random.split(key, 4)
    image, mask, view = jittered(own.image, own.silhouette, own.camera, _JITTER, key=crop)
    image = randomise(image, RANDOMISATIONS["detector"], key=tone)
    shown = _shown(image, mask, view, own.landmarks, _open_field(image.shape[0], key=cut))
    mirrored = jax.random.bernoulli(flip)
    return jax.tree.map(lambda a, b: jnp.where(mirrored, a, b), mirror(shown), shown)


def _open_field(size: int, *, key: PRNGKeyArray) -> Image:
    """Draw the exposed part of a crop: 1 inside."""
    chance, depth = jax.random.split(key)
    cut = jax.random.bernoulli(chance, _CUT, (2, 2))
    deep = jnp.where(cut, _DEEPEST_CUT * size * jax.random.uniform(depth, (2, 2)), 0.0)
    place = jnp.arange(size) + 0.5
    inside = (place[None] > deep[:, :1]) & (place[None] < size - deep[:, 1:])
    return jnp.outer(inside[0], inside[1]).astype(jnp.float32)


def _shown(
    image: Image, mask: Image, view: Camera, landmarks: Float[Array, "10 3"], exposed: Image
) -> _Shown:
    pixels = cameras.project(view, landmarks)
    size = image.shape[0]
    inside = jnp.all((pixels > 0.0) & (pixels < size), axis=1)
    column, row = (jnp.clip(pixels[:, i].astype(int), 0, size - 1) for i in (0, 1))
    return _Shown(
        image=detector_input(image, exposed),
        view=view.camera_from_world.rotation().as_matrix(),
        landmarks=pixels,
        visible=inside & (exposed[row, column] > 0.5),
        mask=mask * exposed,
    )


def mirror(shown: _Shown) -> _Shown:
    """Show the mirror image of the patient: left and right are exchanged, and the axes of the
    camera are mirrored with them."""
    partner = jnp.array(PARTNER)
    pixels = shown.landmarks.at[:, 0].set(shown.image.shape[1] - shown.landmarks[:, 0])
    signs = jnp.outer(jnp.array([-1.0, 1.0, 1.0]), jnp.array([-1.0, 1.0, 1.0]))
    return _Shown(
        image=shown.image[:, ::-1],
        view=signs * shown.view,
        landmarks=pixels[partner],
        visible=shown.visible[partner],
        mask=shown.mask[:, ::-1],
    )


def landmark_validation(
    net: LandmarkNet, held_out: LandmarkCrops
) -> Callable[[PyTree], dict[str, float]]:
    """Make the function that scores parameters on the held-out crops, four views of each vertebra.
    The score grows with the mean error (in units of 5 mm) and falls with the Dice of the mask."""

    def validate(params: PyTree) -> dict[str, float]:
        rows = landmark_rows(net, params, held_out)
        summary = landmark_summary(rows)
        error = np.mean([row["error_mm"] for row in rows])
        return {"score": float(error / 5.0 + 1.0 - summary["mask_dice"]), **summary}

    return validate


def landmark_rows(net: LandmarkNet, params: PyTree, crops: LandmarkCrops) -> list[dict[str, Any]]:
    """Compare the network's landmarks with the true ones: one row per visible landmark of four
    views of every vertebra, with the error and the predicted deviation in mm."""

    @jax.jit
    def find(batch: LandmarkBatch) -> tuple[_Shown, FoundLandmarks]:
        shown = jax.vmap(_as_it_is)(batch)
        return shown, jax.vmap(lambda s: net.apply({"params": params}, s.image, s.view))(shown)  # pyright: ignore[reportReturnType]

    rows = []
    count = len(crops.landmarks)
    for chosen in np.array_split(np.arange(count), max(count // _AT_ONCE, 1)):
        for view in _VIEWS:
            batch = crops.batch(chosen, np.full_like(chosen, view))
            shown, found = jax.device_get(find(batch))
            rows += _rows(crops, chosen, view, shown, found)
    return rows


def _rows(
    crops: LandmarkCrops, chosen: np.ndarray, view: int, shown: _Shown, found: FoundLandmarks
) -> list[dict[str, Any]]:
    errors = _MM_PER_PX * np.linalg.norm(found.landmarks - shown.landmarks, axis=-1)
    sigmas = _MM_PER_PX * np.exp(found.log_sigma)
    rows = []
    for i, vertebra in enumerate(chosen):
        scene = {
            "subject": str(crops.crops.subject[vertebra]),
            "level": LEVELS[crops.crops.level[vertebra]],
            "view": view,
            "lateral": bool(abs(shown.view[i, 2, 0]) > LATERAL_BEAM),
            "mask_dice": _dice(np.asarray(found.mask[i]) > 0.0, np.asarray(shown.mask[i])),
        }
        rows += [
            scene
            | {"landmark": LANDMARK_NAMES[k]}
            | {"error_mm": float(errors[i, k]), "sigma_mm": float(sigmas[i, k])}
            for k in np.flatnonzero(shown.visible[i])
        ]
    return rows


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    """Dice of a mask with a true one of more pixels."""
    step = true.shape[0] // found.shape[0]
    coarse = true.reshape(found.shape[0], step, found.shape[1], step).mean((1, 3)) > 0.5
    return float(2.0 * (found & coarse).sum() / max(found.sum() + coarse.sum(), 1))


def landmark_summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Summarise the rows of `landmark_rows`."""

    def median(lateral: bool) -> float:
        return float(np.median([row["error_mm"] for row in rows if row["lateral"] == lateral]))

    ratio = [row["error_mm"] / row["sigma_mm"] for row in rows]
    scenes = {(row["subject"], row["level"], row["view"]): row["mask_dice"] for row in rows}
    return {
        "frontal_error_mm": median(False),
        "lateral_error_mm": median(True),
        # rms of both axes is sqrt(2) where the deviations are right.
        "error_in_sigma": float(np.sqrt(np.mean(np.square(ratio)) / 2.0)),
        "mask_dice": float(np.mean(list(scenes.values()))),
    }
