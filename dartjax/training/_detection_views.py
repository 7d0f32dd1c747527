"""What the detector sees of an example in training: another field, other grey values."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dartjax._types import Image, Scalar
from dartjax.models import detector_input
from dartjax.training._detection_examples import LEAST_EXPOSED, MASK_CELLS, DetectionBatch
from dartjax.training._randomise import RANDOMISATIONS, randomise

_LOG_SCALE = (-0.3, 0.7)  # up to the parts in which a radiograph is searched
_LOG_ASPECT = 0.06
_SHIFT = 0.12  # of the field's side
_MIRRORED = 0.5
_SHADES = 7  # of a veil, per side of the image
_MOST_VEIL = 0.25  # standard deviation of a veil, in ranges of the image
_FINE_ONLY = 0.25  # share of the views without the smooth grey values
_LEAST_VISIBLE_SIDE = 3.0  # px


class DetectionTruth(eqx.Module):
    """Vertebrae that the network's image shows; those of level -1 are padding. Pixels of that
    image."""

    level: Int[Array, " vertebra"]
    box: Float[Array, "vertebra 4"]  # around the visible part
    body_box: Float[Array, "vertebra 4"]
    center: Float[Array, "vertebra 2"]  # of the body
    whole_box: Float[Array, "vertebra 4"]  # in whose cells the mask is stored
    mask: Float[Array, "vertebra m m"]
    sacrum: Scalar

    @property
    def present(self) -> Bool[Array, " vertebra"]:
        """Return which vertebrae are not padding."""
        return self.level >= 0


def whole_view(example: DetectionBatch, size: int) -> tuple[Float[Array, "h w 3"], DetectionTruth]:
    """Show the exposed field of one example as it is: the network's input, and the truth."""
    middle, side = _field(example)
    return _shown(example, jnp.full(2, size / side), middle - 0.5 * side, size)


def _field(example: DetectionBatch) -> tuple[Float[Array, "2"], Scalar]:
    """Middle and side of the square around the exposed field, px of the example."""
    low, high = example.open_field[:2], example.open_field[2:]
    return 0.5 * (low + high), jnp.max(high - low)


def random_view_of(
    example: DetectionBatch, size: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "h w 3"], DetectionTruth]:
    """Show one example with a random scale, place, mirror image and grey values."""
    first, second, third, mirror, tone = jax.random.split(key, 5)
    middle, side = _field(example)
    log_scale = jax.random.uniform(first, minval=_LOG_SCALE[0], maxval=_LOG_SCALE[1])
    aspect = _LOG_ASPECT * jax.random.uniform(second, minval=-1.0)
    scale = size / side * jnp.exp(log_scale + jnp.stack([aspect, -aspect]))
    # A magnified view is anywhere in the field.
    reach = _SHIFT + 0.5 * jnp.maximum(1.0 - jnp.exp(-log_scale), 0.0)
    middle = middle + reach * side * jax.random.uniform(third, (2,), minval=-1.0)
    signs = jnp.where(jax.random.bernoulli(mirror, _MIRRORED), jnp.array([-1.0, 1.0]), 1.0)
    scale = scale * signs
    tones, veil, fine_only = jax.random.split(tone, 3)
    toned = with_veil(randomise(example.image, RANDOMISATIONS["detector"], key=tones), key=veil)
    example = eqx.tree_at(lambda e: e.image, example, toned)
    image, truth = _shown(example, scale, middle - 0.5 * size / scale, size)
    dropped = jax.random.bernoulli(fine_only, _FINE_ONLY)
    return image.at[..., 0].multiply(jnp.where(dropped, 0.0, 1.0)), truth


def with_veil(image: Image, *, key: PRNGKeyArray) -> Image:
    """Add smooth random shades, as of other bodies: where a vertebra is seen through lung, heart or
    fat differs between people more than in simulated ones."""
    amount, shades = jax.random.split(key)
    spread = jnp.quantile(image[::4, ::4], 0.95) - jnp.quantile(image[::4, ::4], 0.05)
    cells = jax.random.normal(shades, (_SHADES, _SHADES))
    share = _MOST_VEIL * jax.random.uniform(amount)
    return image + share * spread * jax.image.resize(cells, image.shape, "cubic")


def _shown(
    example: DetectionBatch, scale: Float[Array, "2"], origin: Float[Array, "2"], size: int
) -> tuple[Float[Array, "h w 3"], DetectionTruth]:
    """Resample one example; `scale` is negative along a mirrored axis."""
    side = example.image.shape[0]
    along_u, along_v = (_resampling(side, size, scale[i], origin[i]) for i in (0, 1))
    low, high = example.open_field[:2], example.open_field[2:]
    pixel = jnp.arange(side) + 0.5
    open_u, open_v = ((pixel > low[i]) & (pixel < high[i]) for i in (0, 1))
    exposed = jnp.outer(along_v @ open_v, along_u @ open_u) > 0.5
    image = along_v @ example.image @ along_u.T
    truth = _visible(_moved(example, scale, origin), exposed)
    return detector_input(image, exposed.astype(image.dtype)), truth


def _resampling(
    side: int, size: int, scale: Float[Array, ""], origin: Float[Array, ""]
) -> Float[Array, "new old"]:
    """Weights of a linear interpolation, averaged over a pixel of the coarser image."""
    at = (jnp.arange(size) + 0.5) / scale + origin
    width = jnp.maximum(1.0, 1.0 / jnp.abs(scale))
    away = jnp.abs(at[:, None] - (jnp.arange(side) + 0.5)[None]) / width
    weights = jnp.maximum(1.0 - away, 0.0)
    inside = (at > 0.0) & (at < side)
    total = jnp.sum(weights, axis=1, keepdims=True)
    return jnp.where(inside[:, None], weights / jnp.maximum(total, 1e-6), 0.0)


def _moved(
    example: DetectionBatch, scale: Float[Array, "2"], origin: Float[Array, "2"]
) -> DetectionBatch:
    """Move boxes, centres and masks."""

    def points(p: Float[Array, "*n 2"]) -> Float[Array, "*n 2"]:
        return (p - origin[None]) * scale[None]

    def boxes(b: Float[Array, "n 4"]) -> Float[Array, "n 4"]:
        ends = jnp.stack([points(b[:, :2]), points(b[:, 2:])])
        return jnp.concatenate([ends.min(0), ends.max(0)], axis=-1)

    mask = jnp.where(scale[0] < 0.0, example.mask[:, :, ::-1], example.mask)
    moved = boxes(example.box), boxes(example.body_box), points(example.center), mask
    return eqx.tree_at(lambda e: (e.box, e.body_box, e.center, e.mask), example, moved)


def _visible(example: DetectionBatch, exposed: Bool[Array, "h w"]) -> DetectionTruth:
    """Keep the vertebrae of which at least a third is visible, with boxes around what is."""
    steps = (jnp.arange(MASK_CELLS) + 0.5) / MASK_CELLS
    sides = example.box[:, 2:] - example.box[:, :2]
    u = example.box[:, :1] + steps[None] * sides[:, :1]  # (vertebra, cell)
    v = example.box[:, 1:2] + steps[None] * sides[:, 1:2]
    height, width = exposed.shape
    open_u, open_v = jnp.any(exposed, axis=0), jnp.any(exposed, axis=1)

    def seen(at: Float[Array, "n cell"], is_open: Bool[Array, " m"], size: int):
        index = jnp.clip(jnp.floor(at).astype(int), 0, size - 1)
        return (at > 0.0) & (at < size) & is_open[index]

    shown = seen(v, open_v, height)[:, :, None] & seen(u, open_u, width)[:, None, :]
    mask = example.mask > 0.5
    both = mask & shown
    share = jnp.sum(both, axis=(1, 2)) / jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)
    columns, rows = jnp.any(both, axis=1), jnp.any(both, axis=2)
    half = 0.5 * sides / MASK_CELLS

    def ends(at: Float[Array, "n cell"], is_seen: Bool[Array, "n cell"], half: Float[Array, " n"]):
        low = jnp.min(jnp.where(is_seen, at, jnp.inf), axis=1) - half
        return low, jnp.max(jnp.where(is_seen, at, -jnp.inf), axis=1) + half

    u0, u1 = ends(u, columns, half[:, 0])
    v0, v1 = ends(v, rows, half[:, 1])
    around = jnp.stack([u0, v0, u1, v1], axis=-1)
    limits = jnp.array([width, height, width, height], jnp.float32)
    body = jnp.clip(example.body_box, 0.0, limits[None])
    large = jnp.min(around[:, 2:] - around[:, :2], axis=1) > _LEAST_VISIBLE_SIDE
    kept = (example.level >= 0) & (share * example.exposed >= LEAST_EXPOSED) & large
    kept &= jnp.min(body[:, 2:] - body[:, :2], axis=1) > 1.0
    return DetectionTruth(
        level=jnp.where(kept, example.level, -1),
        box=jnp.where(kept[:, None], around, 0.0),
        body_box=jnp.where(kept[:, None], body, 0.0),
        center=example.center,
        whole_box=example.box,
        mask=example.mask,
        sacrum=example.sacrum,
    )
