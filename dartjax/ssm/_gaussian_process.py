"""Smooth modes of variation from a Gaussian process on one template, where training shapes are
too few for PCA (Luethi et al., "Gaussian process morphable models", PAMI 2018).

The displacement u of a surface point has zero mean and the matrix-valued covariance
    K(p, q) = 0.9 [k(p, q) I + k(p, M q) M] + 0.1 [k(p, q) I - k(p, M q) M],
    k(p, q) = sum_i s_i^2 exp(-|p - q|^2 / (2 l_i^2)),   M = diag(-1, 1, 1),
whose two parts are left-right symmetric and antisymmetric; added are growth fields, 8 % in all
directions and 5 % along each axis (standard deviations).
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dartjax.ssm._model import ShapeModel

_MIRROR = np.array([-1.0, 1.0, 1.0])


class Kernel(NamedTuple):
    """One Gaussian term: its length scale and its standard deviation, both in mm."""

    length_scale: float
    deviation: float


# Calibrated on the spread of adult vertebrae: what images are explained with.
PRIOR_KERNELS = (Kernel(60.0, 1.5), Kernel(30.0, 1.5), Kernel(15.0, 1.1), Kernel(9.0, 0.6))
# Wide and rich: what a template is registered densely to a known surface with.
REGISTRATION_KERNELS = (Kernel(50.0, 4.0), Kernel(25.0, 2.5), Kernel(12.0, 1.2), Kernel(7.0, 0.6))


def gaussian_process_model(
    template: ShapeModel,
    num_modes: int = 15,
    *,
    kernels: tuple[Kernel, ...] = PRIOR_KERNELS,
    symmetric_fraction: float = 0.9,
    isotropic_scale: float = 0.08,
    axis_scale: float = 0.05,
    num_points: int = 300,
) -> ShapeModel:
    """The template with the first `num_modes` modes of the covariance above (host).

    Rank reduction by Nystroem on `num_points` spread vertices; rigid motions are projected out;
    the modes are the eigenvectors under the area-weighted inner product
    <u, v> = sum_i a_i u_i . v_i / sum_i a_i, each times its standard deviation, largest first
    (its largest component positive). The template must be in the vertebra frame.
    Raises ValueError when more modes are asked for than the reduced covariance has.
    """
    rank = 3 * min(num_points, len(template.mean_shape)) + 4
    if not 0 < num_modes <= rank:
        raise ValueError(f"num_modes is {num_modes}, but {num_points} points give 1 to {rank}")
    vertices = np.asarray(template.mean_shape, float)
    weights = vertex_areas(vertices, np.asarray(template.faces))
    weights = weights / weights.sum()
    chosen = farthest_points(vertices, num_points)
    factor = _nystroem_factor(vertices, vertices[chosen], kernels, symmetric_fraction)
    factor = np.concatenate([factor, _scale_fields(vertices, isotropic_scale, axis_scale)], 1)
    factor = _without_rigid_motion(factor, vertices, weights)
    modes = _principal_fields(factor, np.repeat(weights, 3), num_modes)
    modes = modes.T.reshape(num_modes, -1, 3)
    return eqx.tree_at(lambda m: m.modes, template, jnp.asarray(modes, jnp.float32))


def vertex_areas(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, " vertex"]:
    """A third of the area of the faces around each vertex, mm^2."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.bincount(faces.ravel(), np.repeat(face_area / 3.0, 3), minlength=len(vertices))


def farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, " chosen"]:
    """Indices of up to `count` points, each the farthest from those before it."""
    chosen = np.zeros(min(count, len(points)), int)
    distance = np.full(len(points), np.inf)
    for i in range(1, len(chosen)):
        distance = np.minimum(distance, np.sum((points - points[chosen[i - 1]]) ** 2, axis=1))
        chosen[i] = np.argmax(distance)
    return chosen


def covariance(
    points: Float[np.ndarray, "n 3"],
    others: Float[np.ndarray, "m 3"],
    kernels: tuple[Kernel, ...],
    symmetric_fraction: float,
) -> Float[np.ndarray, "three_n three_m"]:
    """The Gaussian-process part of the covariance, mm^2, as (3 n, 3 m)."""
    direct = _scalar_kernel(points, others, kernels)
    across = _scalar_kernel(points, others * _MIRROR, kernels) * (2.0 * symmetric_fraction - 1.0)
    blocks = [np.kron(direct + sign * across, np.diag(axis)) for sign, axis in _axes()]
    return blocks[0] + blocks[1] + blocks[2]


def _axes() -> list[tuple[float, Float[np.ndarray, "3"]]]:
    return [(float(_MIRROR[i]), np.eye(3)[i]) for i in range(3)]


def _scalar_kernel(
    points: Float[np.ndarray, "n 3"],
    others: Float[np.ndarray, "m 3"],
    kernels: tuple[Kernel, ...],
) -> Float[np.ndarray, "n m"]:
    squared = np.sum((points[:, None] - others[None]) ** 2, axis=2)
    terms = [k.deviation**2 * np.exp(-0.5 * squared / k.length_scale**2) for k in kernels]
    return np.sum(terms, axis=0)


def _nystroem_factor(
    vertices: Float[np.ndarray, "vertex 3"],
    chosen: Float[np.ndarray, "m 3"],
    kernels: tuple[Kernel, ...],
    symmetric_fraction: float,
) -> Float[np.ndarray, "three_vertex rank"]:
    """F with F F^T = K(v, c) K(c, c)^-1 K(c, v)."""
    values, vectors = np.linalg.eigh(covariance(chosen, chosen, kernels, symmetric_fraction))
    keep = values > 1e-9 * values[-1]
    across = covariance(vertices, chosen, kernels, symmetric_fraction)
    return across @ (vectors[:, keep] / np.sqrt(values[keep]))


def _scale_fields(
    vertices: Float[np.ndarray, "vertex 3"], isotropic: float, axis: float
) -> Float[np.ndarray, "three_vertex 4"]:
    """Growth in all directions and along each axis, one standard deviation each."""
    fields = [isotropic * vertices] + [axis * vertices * np.eye(3)[i] for i in range(3)]
    return np.stack([field.ravel() for field in fields], axis=1)


def _without_rigid_motion(
    fields: Float[np.ndarray, "three_vertex rank"],
    vertices: Float[np.ndarray, "vertex 3"],
    weights: Float[np.ndarray, " vertex"],
) -> Float[np.ndarray, "three_vertex rank"]:
    """The fields minus their area-weighted projection on shifts and small rotations."""
    shifts = [np.broadcast_to(axis, vertices.shape).ravel() for axis in np.eye(3)]
    turns = [np.cross(axis, vertices).ravel() for axis in np.eye(3)]
    root = np.sqrt(np.repeat(weights, 3))[:, None]
    basis = np.linalg.qr(root * np.stack(shifts + turns, axis=1))[0]
    return fields - basis @ (basis.T @ (root * fields)) / root


def _principal_fields(
    factor: Float[np.ndarray, "three_vertex rank"],
    weights: Float[np.ndarray, " three_vertex"],
    count: int,
) -> Float[np.ndarray, "three_vertex count"]:
    """The leading area-weighted eigenvectors of factor factor^T, times their deviations."""
    gram = factor.T @ (weights[:, None] * factor)
    fields = factor @ np.linalg.eigh(gram)[1][:, ::-1][:, :count]
    largest = fields[np.abs(fields).argmax(0), np.arange(count)]
    return fields * np.sign(largest)
