"""Calibration of shape models to published lengths of the population.

Lengths (widths, heights) are linear in the shape to first order, m = M v: each is the distance of
two surface points along the line between them. For shapes N(mu, F F^T) with modes F their
covariance is G G^T with G = M F.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

_Modes = Float[np.ndarray, "mode vertex 3"]
# Limits of the factor on a mode's variance, and the weight that holds it near 1 (each length's
# variance has weight 1).
_VARIANCE_RANGE = (0.35, 2.0)
_HOLD = 0.05
_ERROR_MM = 0.3  # error of a measured length: half a voxel at either end


class LinearLengths:
    """Lengths as linear functions of a surface: one row per length, mm."""

    def __init__(
        self,
        ends: Float[np.ndarray, "length 2 3"],
        vertices: Int[np.ndarray, "length 2 corner"],
        weights: Float[np.ndarray, "length 2 corner"],
    ):
        """Linearise at `ends` on a surface; each end is the combination of `vertices` with
        `weights` (sum 1)."""
        along = ends[:, 1] - ends[:, 0]
        self.direction = along / np.linalg.norm(along, axis=1, keepdims=True)
        self.vertices, self.weights = vertices, weights

    def __call__(self, field: Float[np.ndarray, "vertex 3 *column"]) -> np.ndarray:
        """Compute M field (length, *column): lengths of a surface, changes by a displacement."""
        ends = np.einsum("lec,lec...->le...", self.weights, field[self.vertices])
        return np.einsum("lx,lx...->l...", self.direction, ends[:, 1] - ends[:, 0])


def amplitudes(
    response: Float[np.ndarray, "length mode"], spreads: Float[np.ndarray, " length"]
) -> Float[np.ndarray, " mode"]:
    """Fit factors of the modes so that the standard deviation of each length matches its published
    spread: least squares in relative variances, with each factor held near 1.

    The directions and order of the modes do not change, nor does the span of the first modes.
    """
    shares = (response / spreads[:, None]) ** 2
    count = response.shape[1]
    system = np.vstack([shares, _HOLD * np.eye(count)])
    wanted = np.concatenate([np.ones(len(spreads)), np.full(count, _HOLD)])
    return np.sqrt(optimize.lsq_linear(system, wanted, bounds=_VARIANCE_RANGE).x)


def shift_toward(
    modes: _Modes,
    lengths: LinearLengths,
    surface: Float[np.ndarray, "vertex 3"],
    wanted: Float[np.ndarray, " length"],
) -> Float[np.ndarray, "vertex 3"]:
    """Deform a surface to target lengths (mm) by the most probable coefficients of the modes.

    To first order, with error e of the lengths: mu + F G^T (G G^T + e^2 I)^-1 (wanted - M mu).
    The error also regularises lengths that are nearly the same, such as both heights of a body
    that is highest in its middle.
    """
    response = lengths(np.moveaxis(modes, 0, 2))
    gap = wanted - lengths(surface)
    covariance = response @ response.T + _ERROR_MM**2 * np.eye(len(gap))
    coefficients = response.T @ np.linalg.solve(covariance, gap)
    return surface + np.tensordot(coefficients, modes, axes=1)
