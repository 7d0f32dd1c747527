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
from scipy import linalg, spatial

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
    (signed so that the largest weighted component is positive). The template must be in the
    vertebra frame.
    Raises ValueError when more modes are asked for than the reduced covariance has.
    """
    rank = 3 * min(num_points, len(template.mean_shape)) + 4
    if not 0 < num_modes <= rank:
        raise ValueError(f"num_modes is {num_modes}, but {num_points} points give 1 to {rank}")
    vertices = np.asarray(template.mean_shape, float)
    root = np.sqrt(vertex_areas(vertices, np.asarray(template.faces)))
    root = root / np.linalg.norm(root)
    chosen = vertices[farthest_points(vertices, num_points)]
    factors = _axis_factors(vertices, chosen, kernels, symmetric_fraction) * root[:, None]
    growth = _scale_fields(vertices, isotropic_scale, axis_scale) * root[:, None]
    rigid = _rigid_basis(vertices, root)
    weighted = _principal_fields(factors, growth, rigid, num_modes)
    modes = np.transpose(weighted / root[:, None], (2, 1, 0))
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


def _scalar_kernel(
    points: Float[np.ndarray, "n 3"],
    others: Float[np.ndarray, "m 3"],
    kernels: tuple[Kernel, ...],
) -> Float[np.ndarray, "n m"]:
    squared = spatial.distance.cdist(points, others, "sqeuclidean")
    terms = [k.deviation**2 * np.exp(-0.5 * squared / k.length_scale**2) for k in kernels]
    return np.sum(terms, axis=0)


def _axis_factors(
    vertices: Float[np.ndarray, "vertex 3"],
    chosen: Float[np.ndarray, "m 3"],
    kernels: tuple[Kernel, ...],
    symmetric_fraction: float,
) -> Float[np.ndarray, "3 vertex m"]:
    """F_a per axis a with F_a F_a^T = K_a(v, c) K_a(c, c)^-1 K_a(c, v).

    K is diagonal in the axes: k(p, q) + m_a (2 f - 1) k(p, M q), m = (-1, 1, 1), f the
    symmetric fraction; y and z share theirs.
    """
    factors = []
    for sign in _MIRROR[:2]:
        across, within = (
            _scalar_kernel(points, chosen, kernels)
            + sign
            * (2.0 * symmetric_fraction - 1.0)
            * _scalar_kernel(points, chosen * _MIRROR, kernels)
            for points in (vertices, chosen)
        )
        values, vectors = np.linalg.eigh(within)
        keep = values > 1e-9 * values[-1]
        factors.append(across @ (vectors * np.where(keep, values, np.inf) ** -0.5))
    return np.stack([factors[0], factors[1], factors[1]])


def _scale_fields(
    vertices: Float[np.ndarray, "vertex 3"], isotropic: float, axis: float
) -> Float[np.ndarray, "3 vertex 4"]:
    """Growth in all directions and along each axis, one standard deviation each."""
    each = axis * vertices.T[:, :, None] * np.eye(3)[:, None]
    return np.concatenate([isotropic * vertices.T[:, :, None], each], axis=2)


def _rigid_basis(
    vertices: Float[np.ndarray, "vertex 3"], root: Float[np.ndarray, " vertex"]
) -> Float[np.ndarray, "3 vertex 6"]:
    """Orthonormal shifts and small rotations, weighted by the root of the area."""
    shifts = [np.broadcast_to(axis, vertices.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, vertices) for axis in np.eye(3)]
    fields = np.stack([(root[:, None] * field).T.ravel() for field in shifts + turns], axis=1)
    return np.linalg.qr(fields)[0].reshape(3, -1, 6)


def _principal_fields(
    factors: Float[np.ndarray, "3 vertex m"],
    growth: Float[np.ndarray, "3 vertex 4"],
    rigid: Float[np.ndarray, "3 vertex 6"],
    count: int,
) -> Float[np.ndarray, "3 vertex count"]:
    """Leading eigenvectors of P (F F^T) P, F = [factors, growth], P = 1 - rigid rigid^T, times
    their deviations: F V - rigid C^T V with V those of F^T F - C C^T, C = F^T rigid."""
    m = factors.shape[2]
    coupling = np.einsum("avm,avr->amr", factors, rigid, optimize=True).reshape(3 * m, 6)
    coupling = np.concatenate([coupling, np.einsum("avg,avr->gr", growth, rigid, optimize=True)])
    with_growth = np.einsum("avm,avg->amg", factors, growth, optimize=True).reshape(3 * m, 4)
    gram = np.block(
        [
            [linalg.block_diag(*(f.T @ f for f in factors)), with_growth],
            [with_growth.T, np.einsum("avg,avh->gh", growth, growth, optimize=True)],
        ]
    )
    size = len(gram)
    _, vectors = linalg.eigh(gram - coupling @ coupling.T, subset_by_index=[size - count, size - 1])
    vectors = vectors[:, ::-1]
    fields = np.stack([factors[a] @ vectors[a * m : (a + 1) * m] for a in range(3)])
    fields += growth @ vectors[3 * m :] - rigid @ (coupling.T @ vectors)
    flat = fields.reshape(-1, count)
    return fields * np.sign(flat[np.abs(flat).argmax(0), np.arange(count)])
