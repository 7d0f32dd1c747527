"""Image evidence on one vertebra, its detection in radiographs, and a planned needle path."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._numerics import safe_norm
from dartjax._types import Images, Point, Scalar
from dartjax.anatomy import LANDMARK_NAMES as LANDMARK_NAMES
from dartjax.anatomy import NUM_LANDMARKS as NUM_LANDMARKS
from dartjax.anatomy import PARTNER as PARTNER
from dartjax.anatomy import SIDES as SIDES
from dartjax.anatomy import Side as Side
from dartjax.camera import Camera
from dartjax.image import Radiograph


class Observations(eqx.Module):
    """Image evidence on one vertebra in K views, each a square crop of a radiograph around it.

    `cameras` is one Camera whose leaves have a leading view axis (the cameras of the crops).
    A landmark that was not detected has `landmark_sigma` = inf. Views with `view_valid` = False
    are ignored, so K may be padded to a common number in a batch. What is ignored may be NaN, see
    `without_ignored`.
    """

    cameras: Camera
    images: Images  # line integrals of the crops
    exposed: Images  # 1 on the detector, 0 beyond its edge
    masks: Images  # this vertebra's projected mask in [0, 1]; all 0 = unknown
    landmarks: Float[Array, "view 10 2"]  # px in the crop
    landmark_sigma: Float[Array, "view 10"]  # mm at the vertebra; inf = not detected
    view_valid: Bool[Array, " view"]


def without_ignored(observations: Observations) -> Observations:
    """Replace the ignored values of the observations of one vertebra by finite ones.

    A view that is not valid gets the camera of the first valid view and empty images. A landmark
    of such a view, or whose pixel or sigma is not finite, gets pixel 0 and sigma inf. An ignored
    value, such as NaN, then affects neither a result nor its gradient.
    """
    valid = observations.view_valid
    first = jnp.argmax(valid)

    def of_valid(leaf: Array, other: Array | float) -> Array:
        return jnp.where(valid.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, other)

    pixels, sigma = observations.landmarks, observations.landmark_sigma
    seen = valid[:, None] & jnp.isfinite(sigma) & jnp.all(jnp.isfinite(pixels), axis=-1)
    return Observations(
        cameras=jax.tree.map(lambda leaf: of_valid(leaf, leaf[first][None]), observations.cameras),
        images=of_valid(observations.images, 0.0),
        exposed=of_valid(observations.exposed, 0.0),
        masks=of_valid(observations.masks, 0.0),
        landmarks=jnp.where(seen[..., None], pixels, 0.0),
        landmark_sigma=jnp.where(seen, sigma, jnp.inf),
        view_valid=valid,
    )


class NeedlePath(eqx.Module):
    """A straight needle path from its entry into the bone to its target, world mm."""

    entry_point: Point
    target_point: Point
    radius: Scalar  # mm

    @property
    def length(self) -> Scalar:
        """Distance from entry to target, mm."""
        return safe_norm(self.target_point - self.entry_point)


@dataclasses.dataclass(frozen=True)
class Detection:
    """Detection of one vertebra in K radiographs: landmark pixels, their standard deviations as
    the detector reports them in mm (inf = not detected), and a mask in [0, 1] in a window of each
    radiograph."""

    landmarks: Float[np.ndarray, "view 10 2"]
    sigma: Float[np.ndarray, "view 10"]
    masks: tuple[Radiograph, ...]
