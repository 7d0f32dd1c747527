"""Shape models made to agree with published lengths of the population.

Lengths (widths, heights) are linear in the shape to first order: m = M v, each the distance of
two points of the surface along the line between them. For shapes N(mu, F F^T), F the modes,
their covariance is G G^T with G = M F.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize

_Modes = Float[np.ndarray, "mode vertex 3"]
# A mode's variance is changed by no more than this; how strongly it is held to 1 beside the
# lengths, whose variances count 1 each.
_VARIANCE_RANGE = (0.35, 2.0)
_HOLD = 0.05
_ERROR_MM = 0.3  # of a measured length: half a voxel at either end


class LinearLengths:
    """Lengths as linear functions of a surface: one row per length, mm."""

    def __init__(
        self,
        ends: Float[np.ndarray, "length 2 3"],
        vertices: Int[np.ndarray, "length 2 corner"],
        weights: Float[np.ndarray, "length 2 corner"],
    ):
        """`ends` on the surface the rows are linearised at; each is the combination of
        `vertices` with `weights` (sum 1)."""
        along = ends[:, 1] - ends[:, 0]
        self.direction = along / np.linalg.norm(along, axis=1, keepdims=True)
        self.vertices, self.weights = vertices, weights

    def __call__(self, field: Float[np.ndarray, "vertex 3 *column"]) -> np.ndarray:
        """M field: (length, *column). Of a surface the lengths, of a displacement their change."""
        ends = np.einsum("lec,lec...->le...", self.weights, field[self.vertices])
        return np.einsum("lx,lx...->l...", self.direction, ends[:, 1] - ends[:, 0])


def amplitudes(
    response: Float[np.ndarray, "length mode"], spreads: Float[np.ndarray, " length"]
) -> Float[np.ndarray, " mode"]:
    """Factors for the modes that bring the standard deviation of each length near its published
    spread: least squares in relative variances, each mode held near 1.

    The directions and their order stay: what a model with few modes can reach does not change.
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
    """The surface moved the most probable way under the modes that gives it the wanted lengths
    (mm) within their error e, to first order: mu + F G^T (G G^T + e^2 I)^-1 (wanted - M mu).

    The error also keeps two lengths apart that are nearly one, such as both heights of a body
    that is highest in its middle.
    """
    response = lengths(np.moveaxis(modes, 0, 2))
    gap = wanted - lengths(surface)
    covariance = response @ response.T + _ERROR_MM**2 * np.eye(len(gap))
    coefficients = response.T @ np.linalg.solve(covariance, gap)
    return surface + np.tensordot(coefficients, modes, axes=1)
