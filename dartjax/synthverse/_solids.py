"""Simple solids as implicit functions (negative inside, approximately mm) on broadcast axes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "..."]
Coordinates = tuple[Field, Field, Field]
Point = Sequence[float | int] | Float[np.ndarray, "3"]


def smooth_min(a: Field, b: Field, k: float) -> Field:
    """Compute the union with a fillet of about k mm (polynomial smooth minimum)."""
    blend = np.maximum(np.float32(k) - np.abs(a - b), np.float32(0.0))
    return np.minimum(a, b) - blend * blend * np.float32(0.25 / k)


def smooth_max(a: Field, b: Field, k: float) -> Field:
    """Compute the intersection with an edge rounded by about k mm."""
    return -smooth_min(-a, -b, k)


def capsule(
    point: Coordinates,
    start: Point,
    end: Point,
    radii: tuple[float, float],
    flat: Point = (1, 1, 1),
) -> Field:
    """Evaluate a tapered rod between two points; `flat` > 1 stretches its section along an axis."""
    stretch = 1.0 / np.asarray(flat, float)
    a, d = np.asarray(start) * stretch, (np.asarray(end) - np.asarray(start)) * stretch
    p = [axis * np.float32(s) - np.float32(o) for axis, s, o in zip(point, stretch, a, strict=True)]
    scale = 1.0 / max(float(d @ d), 1e-9)
    along = sum(pi * np.float32(di * scale) for pi, di in zip(p, d, strict=True))
    along = np.clip(along, np.float32(0.0), np.float32(1.0))
    squared = sum((pi - along * np.float32(di)) ** 2 for pi, di in zip(p, d, strict=True))
    return np.sqrt(squared) - (np.float32(radii[0]) + np.float32(radii[1] - radii[0]) * along)


def plate(
    across: tuple[Field, Field],
    normal: Field,
    ends: tuple[Point, Point],
    radii: tuple[float, float],
    thickness: float | Field,
    edge: float = 2.0,
) -> Field:
    """Evaluate a plate: a tapered rod in the plane `across` of half `thickness` along `normal`."""
    (a, b), (u, v) = np.asarray(ends, float), across
    d = b - a
    along = (u - np.float32(a[0])) * np.float32(d[0]) + (v - np.float32(a[1])) * np.float32(d[1])
    along = np.clip(along * np.float32(1.0 / (d @ d)), np.float32(0.0), np.float32(1.0))
    flat = np.hypot(
        u - np.float32(a[0]) - along * np.float32(d[0]),
        v - np.float32(a[1]) - along * np.float32(d[1]),
    ) - (np.float32(radii[0]) + np.float32(radii[1] - radii[0]) * along)
    return smooth_max(flat, np.abs(normal) - thickness, edge)


def ellipsoid(point: Coordinates, center: Point, radii: Point) -> Field:
    """Evaluate an ellipsoid; the value is approximately the distance near the surface."""
    p = [
        (axis - np.float32(c)) / np.float32(r)
        for axis, c, r in zip(point, center, radii, strict=True)
    ]
    radius = np.sqrt(sum(pi * pi for pi in p))
    return (radius - np.float32(1.0)) * np.float32(min(radii))


def rotated_axes(y: Field, z: Field, degrees: float, center: tuple[float, float] = (0.0, 0.0)):
    """Compute (y, z) in axes rotated about +x by an angle, with the centre at (0, 0)."""
    c, s = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    y, z = y - np.float32(center[0]), z - np.float32(center[1])
    return c * y + s * z, c * z - s * y


def shifted(points: Field, by: Point) -> Field:
    """Shift points by an offset in mm."""
    return points + np.asarray(by, float)
