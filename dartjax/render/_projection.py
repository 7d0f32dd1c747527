"""Projection of 3D Gaussians to the detector (EWA), and their exact line integral."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._types import Points
from dartjax.camera import Camera


class DetectorGaussians(eqx.Module):
    """Gaussians in pixel coordinates, each normalised to unit integral over the detector."""

    mean: Float[Array, "n 2"]  # px
    covariance: Float[Array, "n 3"]  # px^2: uu, uv, vv


class RayGeometry(eqx.Module):
    """Geometry of the central ray of each splat."""

    distance: Float[Array, " n"]  # mm from the source, tau
    direction: Float[Array, "n 3"]  # unit, world
    density: Float[Array, " n"]  # px^2 on the detector per mm^2 perpendicular to the ray


def project_gaussians(
    camera: Camera, mean: Points, covariance: Float[Array, "n 3 3"], *, antialias: float
) -> DetectorGaussians:
    """Project 3D Gaussians to the detector by EWA (Zwicker et al. 2001).

    The covariance becomes J R Sigma R' J' + antialias * I, with J the Jacobian of the perspective
    at the mean. `antialias` is a variance in px^2. At 600 mm from the source the error of the
    local affine approximation is below 1e-3 of the peak for a splat of 1.5 mm (against the exact
    `line_integral_of_gaussian`).
    """
    x, y, z = transforms.apply(camera.camera_from_world, mean).T
    fx, fy = camera.focal_length
    zero = jnp.zeros_like(z)
    rotation = camera.camera_from_world.rotation().as_matrix()
    jacobian_u = jnp.stack([fx / z, zero, -fx * x / z**2], axis=1) @ rotation
    jacobian_v = jnp.stack([zero, fy / z, -fy * y / z**2], axis=1) @ rotation
    sigma_u = jnp.einsum("nij,nj->ni", covariance, jacobian_u)
    uu = jnp.sum(jacobian_u * sigma_u, axis=1) + antialias
    uv = jnp.sum(jacobian_v * sigma_u, axis=1)
    vv = jnp.einsum("ni,nij,nj->n", jacobian_v, covariance, jacobian_v) + antialias
    pixel = jnp.stack([x / z, y / z], axis=1) * camera.focal_length[None]
    return DetectorGaussians(pixel + camera.principal_point[None], jnp.stack([uu, uv, vv], axis=1))


def ray_geometry(camera: Camera, mean: Points) -> RayGeometry:
    """Compute the distance and direction of each splat from the source, and the detector density
    fx fy tau / z^3: the pixels covered by one mm^2 perpendicular to the ray."""
    from_source = mean - camera.source[None]
    distance = jnp.linalg.norm(from_source, axis=1)
    z = from_source @ camera.beam
    density = camera.focal_length[0] * camera.focal_length[1] * distance / z**3
    return RayGeometry(distance, from_source / distance[:, None], density)


def line_integral_of_gaussian(
    mean: Float[Array, "3"],
    covariance: Float[Array, "3 3"],
    source: Float[Array, "3"],
    direction: Float[Array, "3"],
) -> Float[Array, ""]:
    """Compute the exact integral of a 3D Gaussian of unit mass along a ray, 1/mm^2.

    The ray starts at `source` with unit `direction`. Reference for the EWA projection.

    With P = covariance^-1 and m = mean - source:
    (2 pi)^-1 sqrt(det P / d'Pd) exp(-(m'Pm - (d'Pm)^2 / d'Pd) / 2).
    """
    precision = jnp.linalg.inv(covariance)
    offset = mean - source
    along = direction @ precision @ direction
    cross = direction @ precision @ offset
    exponent = offset @ precision @ offset - cross**2 / along
    return jnp.sqrt(jnp.linalg.det(precision) / along) / (2.0 * jnp.pi) * jnp.exp(-0.5 * exponent)
