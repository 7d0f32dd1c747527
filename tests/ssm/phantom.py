"""A vertebra of boxes and cylinders whose every dimension is known."""

import numpy as np
from skimage import measure

PEDICLE = {"x": 13.0, "y": -18.0, "z": 4.0, "radius": 4.0}
BODY = {"width": 18.0, "depth": 13.0, "height": 11.0}  # half axes


def vertebra(spacing=0.75):
    """Closed genus-1 surface in its vertebra frame: vertices (n, 3) in mm, outward faces.

    Body: elliptic cylinder about z at the origin. Pedicles: along y at x = -13, 13 and z = 4,
    round, narrowest at y = -18 with radius 4. Behind the canal (y < -26) a lamina with a spinous process to y = -55 and
    transverse processes to x = -32, 32.
    """
    x, y, z = np.meshgrid(
        np.arange(-36.0, 36.1, spacing),
        np.arange(-60.0, 18.1, spacing),
        np.arange(-16.0, 16.1, spacing),
        indexing="ij",
    )
    body = np.hypot(x / BODY["width"], y / BODY["depth"]) - 1.0
    solid = (body < 0) & (np.abs(z) < BODY["height"])
    to_axis = np.hypot(np.abs(x) - PEDICLE["x"], z - PEDICLE["z"])
    waisted = PEDICLE["radius"] + 0.02 * (y - PEDICLE["y"]) ** 2
    solid |= (to_axis < waisted) & (y < -8) & (y > -30)
    solid |= (np.abs(x) < 18) & (y < -26) & (y > -32) & (np.abs(z - 2) < 8)
    solid |= (np.abs(x) < 3) & (y < -30) & (y > -55) & (np.abs(z + 2) < 6)
    solid |= (np.abs(x) < 32) & (y < -26) & (y > -32) & (np.abs(z - 4) < 4)
    points, faces, _, _ = measure.marching_cubes(
        solid.astype(np.float32), 0.5, spacing=(spacing,) * 3, gradient_direction="ascent"
    )
    return points.astype(float) + np.array([-36.0, -60.0, -16.0]), faces.astype(np.int64)
