"""A vertebra of boxes and cylinders whose every dimension is known."""

import numpy as np
from skimage import measure

PEDICLE = {"x": 13.0, "y": -18.0, "z": 4.0, "radius": 4.0}
BODY = {"width": 18.0, "depth": 13.0, "height": 11.0}  # half axes


def vertebra(spacing=0.75):
    """Closed genus-1 surface in its vertebra frame: vertices (n, 3) in mm, outward faces.

    Body: elliptic cylinder about z at the origin. Pedicles: along y at x = -13, 13 and z = 4,
    round, narrowest at y = -18 with radius 4. Behind the canal (y < -26) a lamina with a
    spinous process to y = -55 and transverse processes to x = -32, 32.
    """
    x, y, z = np.meshgrid(
        np.arange(-36.0, 36.1, spacing),
        np.arange(-60.0, 18.1, spacing),
        np.arange(-16.0, 16.1, spacing),
        indexing="ij",
    )
    round_body = (np.hypot(x / BODY["width"], y / BODY["depth"]) - 1.0) * BODY["depth"]
    pedicle = np.hypot(np.abs(x) - PEDICLE["x"], z - PEDICLE["z"]) - PEDICLE["radius"]
    pedicle -= 0.05 * (y - PEDICLE["y"]) ** 2
    parts = [
        np.maximum(round_body, np.abs(z) - BODY["height"]),
        np.maximum(pedicle, np.abs(y + 19.0) - 11.0),
        _box(x, y + 29.0, z - 2.0, (18.0, 3.0, 8.0)),
        _box(x, y + 42.5, z + 2.0, (3.0, 12.5, 6.0)),
        _box(x, y + 29.0, z - 4.0, (32.0, 3.0, 4.0)),
    ]
    points, faces, _, _ = measure.marching_cubes(
        -np.min(parts, axis=0), 0.0, spacing=(spacing,) * 3, gradient_direction="ascent"
    )
    return points.astype(float) + np.array([-36.0, -60.0, -16.0]), faces.astype(np.int64)


def _box(x, y, z, half):
    return np.max([np.abs(x) - half[0], np.abs(y) - half[1], np.abs(z) - half[2]], axis=0)
