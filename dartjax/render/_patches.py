"""Approximate a closed surface by 3D Gaussian splats.

Every vertex has a patch given by its hat function (1 at the vertex, 0 at its neighbours, linear
between). The hat functions of all vertices sum to exactly 1 on the surface, so Gaussians with the
same mass, mean and covariance cover it almost evenly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._numerics import normalize, safe_divide, safe_norm
from dartjax._types import Faces, Vertices


class Patches(eqx.Module):
    """Anisotropic 3D Gaussians that cover a closed surface, one per vertex, world mm."""

    mean: Float[Array, "n 3"]
    covariance: Float[Array, "n 3 3"]  # mm^2
    area: Float[Array, " n"]  # mm^2, sums to the area of the surface
    area_vector: Float[Array, "n 3"]  # mm^2, outward; sums to zero on a closed surface


def surface_patches(
    vertices: Vertices, faces: Faces, *, smoothing: float, shell_thickness: float
) -> Patches:
    """Compute Gaussians with the moments of each vertex's hat function on the surface.

    With edges e1, e2 from the vertex and face area A, a face adds to the hat's moments about
    the vertex: mass A/3, first A/12 (e1 + e2), second A/30 (e1 e1' + e2 e2') +
    A/60 (e1 e2' + e2 e1'). The tangential variance is increased by smoothing^2 x mean patch
    area, the same for every patch: hat functions smoothed by one kernel still sum to 1, with a
    kernel that follows the local patch size they do not (the error is the Laplacian of the
    variance). The variance along the normal is shell_thickness^2 / 12, that of a uniform shell.
    A vertex without faces has zero area and draws nothing; it may be NaN.
    """
    sums = jax.ops.segment_sum(
        _hat_moments(vertices, faces), faces.T.reshape(-1), num_segments=len(vertices)
    )
    area, area_vector, first, second = jnp.split(sums, [1, 4, 7], axis=1)
    offset = safe_divide(first, jnp.broadcast_to(area, first.shape))
    second = safe_divide(second, jnp.broadcast_to(area, second.shape))
    spread = _symmetric(second) - offset[:, :, None] * offset[:, None, :]
    normal = normalize(area_vector)
    across = normal[:, :, None] * normal[:, None, :]
    smoothing_variance = smoothing**2 * jnp.mean(area)
    widened = spread + smoothing_variance * (jnp.eye(3)[None] - across)
    # Without faces the position is arbitrary: take one at which a projection is finite.
    has_faces = area > 0.0
    position = jnp.where(has_faces, vertices, 0.0)
    middle = jnp.sum(area * position, axis=0) / jnp.sum(area)
    return Patches(
        mean=jnp.where(has_faces, position + offset, middle[None]),
        covariance=widened + shell_thickness**2 / 12.0 * across,
        area=area[:, 0],
        area_vector=area_vector,
    )


def _hat_moments(vertices: Vertices, faces: Faces) -> Float[Array, "corner 13"]:
    """Compute the mass, area vector, first and second moments that faces add to their corners:
    all first corners, then all second, then all third.

    Components are along the first axis, so that the CPU works on long rows of faces; with its
    gradient this is four times faster than faces along the first axis.
    """
    v0, v1, v2 = (vertices[faces[:, i]].T for i in range(3))
    edges = (v1 - v0, v2 - v1, v0 - v2)
    outers = [_upper_outer(edge) for edge in edges]
    area_vector = 0.5 * _cross(edges[0], -edges[2])
    area = safe_norm(area_vector.T)[None]
    corners = []
    for leaving, entering in ((0, 2), (1, 0), (2, 1)):
        # (e1 e1' + e2 e2') / 30 + (e1 e2' + e2 e1') / 60
        # = (e1 e1' + e2 e2' + (e1 + e2)(e1 + e2)') / 60 with e1 = leaving, e2 = -entering.
        total = edges[leaving] - edges[entering]
        second = outers[leaving] + outers[entering] + _upper_outer(total)
        corners.append(
            jnp.concatenate(
                [area / 3.0, area_vector / 3.0, area / 12.0 * total, area / 60.0 * second]
            )
        )
    return jnp.concatenate(corners, axis=1).T


def _cross(a: Float[Array, "3 n"], b: Float[Array, "3 n"]) -> Float[Array, "3 n"]:
    return jnp.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


# Slices, not index arrays: the transpose of a gather is a slow scatter.
def _upper_outer(x: Float[Array, "3 n"]) -> Float[Array, "6 n"]:
    return jnp.concatenate([x[:1] * x, x[1:2] * x[1:], x[2:] * x[2:]])


def _symmetric(upper: Float[Array, "n 6"]) -> Float[Array, "n 3 3"]:
    xx, xy, xz, yy, yz, zz = jnp.split(upper, 6, axis=1)
    rows = [jnp.concatenate(row, axis=1) for row in ((xx, xy, xz), (xy, yy, yz), (xz, yz, zz))]
    return jnp.stack(rows, axis=1)
