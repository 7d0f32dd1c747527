"""Smooth modes of variation from a Gaussian process on one template, for too few training shapes
for PCA (Luethi et al., "Gaussian process morphable models", PAMI 2018).

The displacement u of a surface point has zero mean and the matrix-valued covariance
    K(p, q) = 0.9 [k(p, q) I + k(p, M q) M] + 0.1 [k(p, q) I - k(p, M q) M],
    k(p, q) = sum_i s_i^2 exp(-|p - q|^2 / (2 l_i^2)),   M = diag(-1, 1, 1),
whose two parts are left-right symmetric and antisymmetric. Growth fields of 8 % in all directions
and 5 % along each axis (standard deviations) are added.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, spatial

MIRROR = np.array([-1.0, 1.0, 1.0])
# Weight of motion along the surface relative to motion across it, in the selection of modes.
TANGENTIAL = 0.03


class Kernel(NamedTuple):
    """One Gaussian kernel: length scale and standard deviation, both in mm."""

    length_scale: float
    deviation: float


# Prior for fits to images, calibrated on the spread of adult vertebrae.
PRIOR_KERNELS = (Kernel(60.0, 1.5), Kernel(30.0, 1.5), Kernel(15.0, 1.1), Kernel(9.0, 0.6))
# Wide prior for the dense registration of a template to a known surface.
REGISTRATION_KERNELS = (Kernel(50.0, 4.0), Kernel(25.0, 2.5), Kernel(12.0, 1.2), Kernel(7.0, 0.6))


def smooth_modes(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    num_modes: int,
    *,
    kernels: tuple[Kernel, ...] = PRIOR_KERNELS,
    num_points: int = 300,
) -> Float[np.ndarray, "mode vertex 3"]:
    """Compute the first `num_modes` modes of this module's covariance on one surface, mm per SD.

    Host function. The surface must be in the vertebra frame. ValueError for more modes than the
    reduced covariance has.
    """
    factor = kernel_factor(vertices, kernels, num_points=num_points)
    # Used for point-based registration, so motion along the surface has full weight.
    return principal_modes(factor, vertices, faces, num_modes, tangential=1.0)


def kernel_factor(
    vertices: Float[np.ndarray, "vertex 3"],
    kernels: tuple[Kernel, ...] = PRIOR_KERNELS,
    *,
    symmetric_fraction: float = 0.9,
    isotropic_scale: float = 0.08,
    axis_scale: float = 0.05,
    num_points: int = 300,
) -> Float[np.ndarray, "vertex 3 column"]:
    """Compute F with F F^T this module's covariance, reduced (Nystroem) to `num_points` vertices.

    K is diagonal in the axes: k(p, q) + m_a (2 f - 1) k(p, M q) with m = (-1, 1, 1) and f the
    symmetric fraction; y and z have the same kernel. mm.
    """
    chosen = vertices[farthest_points(vertices, num_points)]
    across, within = (_scalar_kernel(points, chosen, kernels) for points in (vertices, chosen))
    across_mirrored, within_mirrored = (
        (2.0 * symmetric_fraction - 1.0) * _scalar_kernel(points, chosen * MIRROR, kernels)
        for points in (vertices, chosen)
    )
    x, yz = (
        _nystroem(across + sign * across_mirrored, within + sign * within_mirrored)
        for sign in (-1.0, 1.0)
    )
    count = x.shape[1]
    factor = np.zeros((len(vertices), 3, 3 * count + 4))
    for axis, part in enumerate((x, yz, yz)):
        factor[:, axis, axis * count : (axis + 1) * count] = part
        factor[:, axis, 3 * count + axis] = axis_scale * vertices[:, axis]
    factor[:, :, -1] = isotropic_scale * vertices
    return factor


def principal_modes(
    factor: Float[np.ndarray, "vertex 3 column"],
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    num_modes: int,
    *,
    tangential: float = TANGENTIAL,
) -> Float[np.ndarray, "mode vertex 3"]:
    """Compute the modes of F F^T without rigid motions, times their standard deviations.

    They are its eigenvectors under the inner product
    <u, v> = sum_i a_i u_i . [n_i n_i^T + tau (I - n_i n_i^T)] v_i / sum_i a_i,
    a_i the area and n_i the normal of a vertex, largest first, signed so that the largest
    component is positive. Motion along the surface hardly changes the shape: with tau = 1 it fills
    half of the modes, and coefficients of fits to surfaces are correlated. ValueError for more
    modes than columns.
    """
    if not 0 < num_modes <= factor.shape[2]:
        raise ValueError(f"num_modes is {num_modes}: give 1 to {factor.shape[2]}")
    area = vertex_areas(vertices, faces)
    root = np.sqrt(area / area.sum())[:, None, None]
    normals = outward_normals(vertices, faces)
    across = normals[:, :, None] * normals[:, None, :]
    along = np.eye(3) - across
    weight = root * (across + np.sqrt(tangential) * along)
    weighted = np.einsum("vij,vjc->vic", weight, factor).reshape(-1, factor.shape[2])
    rigid = _rigid_basis(vertices, weight)
    weighted = weighted - rigid @ (rigid.T @ weighted)
    size = weighted.shape[1]
    _, vectors = linalg.eigh(weighted.T @ weighted, subset_by_index=[size - num_modes, size - 1])
    fields = weighted @ vectors[:, ::-1]
    fields = fields * np.sign(fields[np.abs(fields).argmax(0), np.arange(num_modes)])
    unweight = (across + along / np.sqrt(tangential)) / root
    return np.einsum("vij,vjm->mvi", unweight, fields.reshape(len(vertices), 3, num_modes))


def outward_normals(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, "vertex 3"]:
    """Compute unit normals at the vertices, weighted by the area of the adjacent faces."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def vertex_areas(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Float[np.ndarray, " vertex"]:
    """Compute a third of the area of the faces adjacent to each vertex, mm^2."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    face_area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return np.bincount(faces.ravel(), np.repeat(face_area / 3.0, 3), minlength=len(vertices))


def farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, " chosen"]:
    """Select up to `count` points, each the farthest from those already selected."""
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


def _nystroem(
    across: Float[np.ndarray, "n m"], within: Float[np.ndarray, "m m"]
) -> Float[np.ndarray, "n m"]:
    """Compute B with B B^T = across within^-1 across^T."""
    values, vectors = np.linalg.eigh(within)
    keep = values > 1e-9 * values[-1]
    return across @ (vectors * np.where(keep, values, np.inf) ** -0.5)


def _rigid_basis(
    vertices: Float[np.ndarray, "vertex 3"], weight: Float[np.ndarray, "vertex 3 3"]
) -> Float[np.ndarray, "n 6"]:
    """Compute the orthonormal basis of translations and small rotations under vertex weights."""
    shifts = [np.broadcast_to(axis, vertices.shape) for axis in np.eye(3)]
    turns = [np.cross(axis, vertices) for axis in np.eye(3)]
    fields = [np.einsum("vij,vj->vi", weight, field).ravel() for field in shifts + turns]
    return np.linalg.qr(np.stack(fields, axis=1))[0]
