"""Sampling of C-arm views: random and orthogonal views of a point of the spine, and view pairs.

A pair of views is useful when its beams are far from parallel; opposed beams, 180 degrees
apart, give mirrored silhouettes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from dartjax._types import Point, Points, Scalar
from dartjax.camera import Camera
from dartjax.transforms import SE3, carm_rotation

CARM_DETECTOR_MM = 300.0  # side of the square detector of a mobile C-arm
TORSO_DETECTOR_MM = 720.0  # shows a torso of 420 mm at a magnification of 1.7
MIN_PAIR_DEG, MAX_PAIR_DEG = 20.0, 160.0

_Range = tuple[float, float]


class ViewRanges(NamedTuple):
    """Uniform ranges from which views are drawn. Lengths in mm, angles in deg.

    `jitter_deg` is the largest deviation of each C-arm angle of an orthogonal view. The isocenter
    is at least `min_isocenter_to_detector` before the detector, which leaves room for the
    patient.
    """

    sdd: _Range = (900.0, 1100.0)
    source_to_isocenter: _Range = (530.0, 700.0)
    min_isocenter_to_detector: float = 300.0
    isocenter_shift: float | Scalar = 20.0  # largest, along each axis of world
    tilt_deg: float = 15.0  # largest secondary angle of a random view
    jitter_deg: float = 5.0


def random_view(
    isocenter: Point,
    *,
    key: PRNGKeyArray,
    ranges: ViewRanges = ViewRanges(),
    detector_mm: float | Scalar = CARM_DETECTOR_MM,
    image_size: tuple[int, int] = (256, 256),
) -> Camera:
    """Draw a random C-arm view near `isocenter` (world mm).

    The primary angle is uniform over the circle, the secondary angle within the tilt; distances
    and the shift of the isocenter are uniform in `ranges`. `detector_mm` is the longer side of
    the detector, whose pixels are square.
    """
    angles, position = jax.random.split(key)
    primary, secondary = jax.random.uniform(angles, (2,), minval=-1.0)
    return _carm_view(
        jnp.pi * primary,
        jnp.radians(ranges.tilt_deg) * secondary,
        isocenter,
        position,
        ranges,
        detector_mm,
        image_size,
    )


def orthogonal_views(
    isocenter: Point,
    *,
    key: PRNGKeyArray,
    ranges: ViewRanges = ViewRanges(),
    detector_mm: float | Scalar = CARM_DETECTOR_MM,
    image_size: tuple[int, int] = (256, 256),
) -> tuple[Camera, Camera]:
    """Draw an AP and a left lateral view (LAT_L).

    Each deviates by at most the jitter in both angles and has its own distances and shift of the
    isocenter; otherwise as `random_view`."""

    def view(primary: float, key: PRNGKeyArray) -> Camera:
        angles, position = jax.random.split(key)
        jitter = jnp.radians(ranges.jitter_deg) * jax.random.uniform(angles, (2,), minval=-1.0)
        return _carm_view(
            primary + jitter[0], jitter[1], isocenter, position, ranges, detector_mm, image_size
        )

    first, second = jax.random.split(key)
    return view(jnp.pi, first), view(0.5 * jnp.pi, second)


def _carm_view(
    primary: Scalar,
    secondary: Scalar,
    isocenter: Point,
    key: PRNGKeyArray,
    ranges: ViewRanges,
    detector_mm: float | Scalar,
    image_size: tuple[int, int],
) -> Camera:
    """Draw distances and isocenter of the view at the given C-arm angles (rad)."""
    far, near, shift = jax.random.split(key, 3)
    sdd = jax.random.uniform(far, minval=ranges.sdd[0], maxval=ranges.sdd[1])
    low, high = ranges.source_to_isocenter
    source_to_isocenter = jax.random.uniform(
        near,
        minval=low,
        maxval=jnp.maximum(low, jnp.minimum(high, sdd - ranges.min_isocenter_to_detector)),
    )
    aim = isocenter + ranges.isocenter_shift * jax.random.uniform(shift, (3,), minval=-1.0)
    rotation = carm_rotation(primary, secondary)
    source = aim - source_to_isocenter * rotation.as_matrix()[:, 2]
    height, width = image_size
    pixel_spacing = detector_mm / max(height, width)
    return Camera(
        camera_from_world=SE3.from_rotation_and_translation(rotation, source).inverse(),
        focal_length=jnp.full(2, sdd / pixel_spacing),
        principal_point=jnp.array([width / 2.0, height / 2.0]),
        sdd=sdd,
        image_size=image_size,
    )


def angles_between(beams: Points) -> Float[Array, "n n"]:
    """Compute the angles in deg, 0 to 180, between all pairs of unit beam directions (n, 3)."""
    cosines = jnp.clip(beams @ beams.T, -1.0, 1.0)
    return jnp.degrees(jnp.arccos(cosines))


def usable_pairs(
    beams: Points, *, min_deg: float | Scalar = MIN_PAIR_DEG, max_deg: float | Scalar = MAX_PAIR_DEG
) -> Bool[Array, "n n"]:
    """Return which views i < j form a pair whose beams are `min_deg` to `max_deg` apart."""
    angles = angles_between(beams)
    later = jnp.arange(len(beams))[None, :] > jnp.arange(len(beams))[:, None]
    return later & (angles >= min_deg) & (angles <= max_deg)


def sample_pairs(
    beams: Points,
    num_pairs: int,
    *,
    key: PRNGKeyArray,
    min_deg: float | Scalar = MIN_PAIR_DEG,
    max_deg: float | Scalar = MAX_PAIR_DEG,
) -> tuple[Int[Array, "pair 2"], Float[Array, " pair"]]:
    """Draw pairs of views uniformly, with repeats, and return their indices and angles in deg.

    Only views whose beams (n, 3) are `min_deg` to `max_deg` apart form a pair. If there is none,
    the indices are -1 and the angles NaN.
    """
    usable = usable_pairs(beams, min_deg=min_deg, max_deg=max_deg)
    logits = jnp.where(usable, 0.0, -jnp.inf).reshape(-1)
    drawn = jax.random.categorical(key, logits, shape=(num_pairs,))
    pairs = jnp.stack(jnp.divmod(drawn, len(beams)), axis=1)
    angles = angles_between(beams)[pairs[:, 0], pairs[:, 1]]
    found = jnp.any(usable)
    return jnp.where(found, pairs, -1), jnp.where(found, angles, jnp.nan)
