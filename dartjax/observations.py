"""What is known of one vertebra before it is reconstructed, and the path planned in it."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dartjax._types import Images, Point, Scalar
from dartjax.camera import Camera

# The ten anatomical landmarks, in the order of every landmark array.
LANDMARK_NAMES: tuple[str, ...] = (
    "superior_endplate_center",
    "inferior_endplate_center",
    "anterior_wall_center",
    "left_waist",
    "right_waist",
    "left_isthmus",
    "right_isthmus",
    "spinous_tip",
    "left_transverse_tip",
    "right_transverse_tip",
)
NUM_LANDMARKS = len(LANDMARK_NAMES)
_OTHER_SIDE = {"left": "right", "right": "left"}


def _partner(name: str) -> str:
    """The landmark on the other side, itself for one on the midline."""
    side, _, rest = name.partition("_")
    return f"{_OTHER_SIDE[side]}_{rest}" if side in _OTHER_SIDE else name


# For every landmark the index of the one on the other side of the body.
PARTNER: tuple[int, ...] = tuple(LANDMARK_NAMES.index(_partner(name)) for name in LANDMARK_NAMES)


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


Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
