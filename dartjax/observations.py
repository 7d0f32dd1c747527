"""What is known of one vertebra before it is reconstructed, and the path planned in it."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Images, Point, Scalar
from dartjax.anatomy import LANDMARK_NAMES as LANDMARK_NAMES
from dartjax.anatomy import NUM_LANDMARKS as NUM_LANDMARKS
from dartjax.anatomy import PARTNER as PARTNER
from dartjax.anatomy import SIDES as SIDES
from dartjax.anatomy import Side as Side
from dartjax.camera import Camera
from dartjax.image import Radiograph


class Observations(eqx.Module):
    """Evidence on one vertebra in K views, each a square crop of a radiograph around it.

    `cameras` is one Camera whose leaves carry a leading view axis (the cameras of the crops).
    A landmark that was not seen has `landmark_sigma` = inf. A view switched off in
    `view_valid` takes no part, so K may be padded to a common number in a batch.
    """

    cameras: Camera
    images: Images  # line integrals of the crops
    exposed: Images  # 1 where the detector recorded, 0 beyond its edge: nothing is known there
    masks: Images  # this vertebra's projected mask in [0, 1]; all 0 = unknown
    landmarks: Float[Array, "view 10 2"]  # px in the crop
    landmark_sigma: Float[Array, "view 10"]  # mm at the vertebra; inf = not seen
    view_valid: Bool[Array, " view"]


class NeedlePath(eqx.Module):
    """A straight path: where the needle enters the bone and where its tip ends, world mm."""

    entry_point: Point
    target_point: Point
    radius: Scalar  # mm

    @property
    def length(self) -> Scalar:
        """Entry to target, mm."""
        return jnp.linalg.norm(self.target_point - self.entry_point)


@dataclasses.dataclass(frozen=True)
class Detection:
    """One vertebra in K radiographs: pixels of landmarks in them, the standard deviations the
    detector reports in mm (inf = missed), and a mask in a window of each, in [0, 1]."""

    landmarks: Float[np.ndarray, "view 10 2"]
    sigma: Float[np.ndarray, "view 10"]
    masks: tuple[Radiograph, ...]
