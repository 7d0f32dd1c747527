"""Voxel grid of a synthetic CT, along the patient's own axes."""

import dataclasses

import numpy as np
from jaxtyping import Float

from dartjax.synthverse._solids import Coordinates

Box = tuple[slice, slice, slice]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Regular grid: voxel (i, j, k) has its centre at origin + spacing (i, j, k), mm; x right,
    y anterior, z superior."""

    origin: tuple[float, float, float]
    shape: tuple[int, int, int]
    spacing: float

    def axis(self, dimension: int) -> Float[np.ndarray, " n"]:
        """Compute the coordinates along one axis, mm."""
        steps = np.arange(self.shape[dimension])
        return (self.origin[dimension] + self.spacing * steps).astype(np.float32)

    def box(self, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Box:
        """Compute the slices of the voxels from `low` to `high`, clipped to the grid."""
        first = np.ceil((np.asarray(low) - self.origin) / self.spacing).astype(int)
        last = np.floor((np.asarray(high) - self.origin) / self.spacing).astype(int) + 1
        first = np.clip(first, 0, self.shape)
        last = np.maximum(np.clip(last, 0, self.shape), first)
        x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return x, y, z

    def coordinates(self, box: Box) -> Coordinates:
        """Compute world coordinates of a box, shaped to broadcast."""
        x, y, z = (self.axis(i)[side] for i, side in enumerate(box))
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def around(self, center: Float[np.ndarray, "3"], reach: float | tuple[float, ...]) -> Box:
        """Compute the box within `reach` mm of a point along each axis."""
        half = np.broadcast_to(np.asarray(reach, float), (3,))
        return self.box(np.asarray(center) - half, np.asarray(center) + half)


def is_empty(box: Box) -> bool:
    """Return whether a box contains no voxel."""
    return any(side.stop <= side.start for side in box)
