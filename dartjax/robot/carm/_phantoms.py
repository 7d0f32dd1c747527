"""Geometry of the objects in C-arm images: drill guide, nail and calibration phantom, mm.

Every fiducial is a steel ball. In the frames of guide and nail, z is the axis of the first hole and
points to the X-ray source; the second hole is at (-30, 0, 0).
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dartjax._types import Point, Points, Scalar
from dartjax.robot._errors import BadParameter

HOLE_SPACING = 30.0

# Balls of the drill guide: 0 none, 1 in the plane z = 0, 2 in z = 20. No rotation, reflection or
# shift maps more than 13 of the 28 balls of this pattern onto each other.
_GUIDE_PATTERN = np.array(
    [
        [0, 0, 0, 2, 0, 0, 0],
        [1, 2, 1, 2, 2, 2, 2],
        [2, 0, 2, 1, 2, 1, 1],
        [2, 1, 2, 2, 1, 1, 1],
        [2, 1, 1, 1, 1, 2, 1],
    ]
)
GUIDE_PITCH = 8.0
# Places of the phantom's second plane without a ball, (column, row) from its middle. Their mirror
# images about the diagonal have one, which tells a transposed image from a proper one.
_EMPTY_PLACES = ((1, -1), (2, 0), (2, 1), (-1, -2), (1, 0), (3, -1))
GUIDE_PLANES = (0.0, 20.0)
_GUIDE_BLOCK = ((-42.5, -4.0, 2.5), (12.5, 36.0, 17.5))  # 55 x 40 x 15 mm of Delrin


class DrillGuide(eqx.Module):
    """Target of steel balls in two planes next to a pair of drill holes."""

    balls: Points
    plane: Bool[Array, " n"]  # False: the plane z = 0, True: the plane z = 20
    radius: Scalar
    block: Float[Array, "2 3"]  # opposite corners of the plastic block that holds the balls


class Nail(eqx.Module):
    """Round nail along x with two holes along z, at the origin and at x = -spacing. `ends` are
    the x coordinates of its ends."""

    radius: Scalar
    hole_radius: Scalar
    spacing: Scalar
    ends: Float[Array, "2"]

    @property
    def hole_centers(self) -> Float[Array, "2 3"]:
        """Centres of both holes."""
        return jnp.stack([jnp.zeros(3), jnp.array([-1.0, 0.0, 0.0]) * self.spacing])


class CalibrationPhantom(eqx.Module):
    """Calibration phantom: a lattice of balls on the intensifier (z = 0) for the distortion, and a
    second plane of balls toward the source for the focal length. z points away from the source.

    A phantom that equals its own mirror image about the diagonal x = y cannot show that an image is
    transposed.
    """

    plate: Float[Array, "rows columns 3"]
    on_plate: Bool[Array, "rows columns"]  # the field of an intensifier is round
    upper: Points
    radius: Scalar
    pitch: Scalar


def drill_guide(ball_diameter: float = 3.0) -> DrillGuide:
    """Build the drill guide's target: 28 balls on a lattice of 8 mm in two planes 20 mm apart.

    The balls lie on one side of the two drill holes, so that the nail's holes stay visible.
    Raises BadParameter unless 0 < diameter < 8 mm.
    """
    _check_balls(ball_diameter, GUIDE_PITCH)
    row, column = np.nonzero(_GUIDE_PATTERN)
    is_near = _GUIDE_PATTERN[row, column] == 2
    x = (column - 3) * GUIDE_PITCH - 0.5 * HOLE_SPACING
    balls = np.stack([x, row * GUIDE_PITCH, np.where(is_near, *GUIDE_PLANES[::-1])], axis=1)
    return DrillGuide(
        jnp.asarray(balls, float),
        jnp.asarray(is_near),
        jnp.asarray(0.5 * ball_diameter),
        jnp.asarray(_GUIDE_BLOCK, float),
    )


def locking_nail(
    diameter: float = 12.0, hole_diameter: float = 5.0, ends: tuple[float, float] = (-160.0, 18.0)
) -> Nail:
    """Build a femoral nail with two locking holes 30 mm apart.

    Raises BadParameter if a hole is wider than 0.8 of the nail or an end lies inside a hole.
    """
    if not 0.0 < hole_diameter < 0.8 * diameter:
        raise BadParameter(
            f"a hole of {hole_diameter:g} mm in a nail of {diameter:g} mm: "
            "give a hole smaller than 0.8 of the nail's diameter"
        )
    if not (ends[0] < -HOLE_SPACING - hole_diameter and ends[1] > hole_diameter):
        raise BadParameter(
            f"the nail ends at x = {ends} mm cut a hole at 0 or -30 mm: give ends beyond both holes"
        )
    return Nail(
        jnp.asarray(0.5 * diameter),
        jnp.asarray(0.5 * hole_diameter),
        jnp.asarray(HOLE_SPACING),
        jnp.asarray(ends, float),
    )


def calibration_phantom(
    pitch: float = 10.0,
    field_radius: float = 112.0,
    ball_diameter: float = 3.0,
    plane_distance: float = 150.0,
    nominal_depth: float = 985.0,
) -> CalibrationPhantom:
    """Build the phantom: a plate of balls and a second plane.

    For a source at `nominal_depth` above the plate, the shadows of the second plane lie between
    those of the plate. Six balls of the second plane are missing on one side of the diagonal x = y,
    so that no mirror image of the phantom is the phantom. Raises BadParameter if neighbouring
    shadows would touch.
    """
    _check_balls(2.0 * ball_diameter, pitch)
    half = int(field_radius // pitch) + 1
    steps = pitch * np.arange(-half, half + 1)
    x, y = np.meshgrid(steps, steps)
    plate = np.stack([x, y, np.zeros_like(x)], axis=-1)
    magnified = nominal_depth / (nominal_depth - plane_distance)
    steps = np.arange(-half // 3, half // 3 + 1)
    column, row = (axis.reshape(-1) for axis in np.meshgrid(steps, steps))
    u, v = pitch * (3 * column + 0.5), pitch * (3 * row + 0.5)
    inside = np.hypot(u, v) < field_radius
    inside &= [place not in _EMPTY_PLACES for place in zip(column, row, strict=True)]
    upper = np.stack([u / magnified, v / magnified, np.full_like(u, -plane_distance)], axis=1)
    return CalibrationPhantom(
        jnp.asarray(plate),
        jnp.asarray(np.hypot(x, y) <= field_radius),
        jnp.asarray(upper[inside]),
        jnp.asarray(0.5 * ball_diameter),
        jnp.asarray(pitch),
    )


def axis_point(point: Point, direction: Point, z: Scalar | float) -> Point:
    """Intersect the line through `point` along `direction` with the plane of height z."""
    return point + direction * ((z - point[2]) / direction[2])


def _check_balls(diameter: float, pitch: float) -> None:
    if not 0.0 < diameter < pitch:
        raise BadParameter(
            f"balls of {diameter:g} mm at a pitch of {pitch:g} mm touch: give smaller balls"
        )
