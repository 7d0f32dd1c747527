"""Alpha-composited splatting, a baseline for the additive X-ray mode.

This is 3D Gaussian splatting for visible light: splats in front occlude those behind. It is
physically wrong for X-rays, since order matters and the far cortex disappears.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._numerics import normalize
from dartjax._types import Faces, Image, Scalar, Vertices
from dartjax.camera import Camera
from dartjax.render._accumulate import conic_form, gaussian
from dartjax.render._patches import surface_patches
from dartjax.render._projection import project_gaussians, ray_geometry
from dartjax.render._splat import SplatOptions


def splat_alpha(
    vertices: Vertices,
    faces: Faces,
    camera: Camera,
    options: SplatOptions = SplatOptions(),
    *,
    opacity: float | Scalar = 0.6,
    rows_per_chunk: int = 16,
) -> Image:
    """Render sum_i c_i a_i prod_{j<i} (1 - a_j), front to back, a_i = min(opacity exp(-q/2), 0.99).

    The colour c_i = |n . d| is that of a lamp at the source, so the image is in [0, 1]. Memory is
    vertices x rows_per_chunk x width. Differentiable except for the order.
    """
    patches = surface_patches(
        vertices,
        faces,
        smoothing=options.smoothing,
        shell_thickness=options.shell_thickness,
    )
    gaussians = project_gaussians(
        camera, patches.mean, patches.covariance, antialias=options.antialias
    )
    rays = ray_geometry(camera, patches.mean)
    facing = jnp.abs(jnp.sum(normalize(patches.area_vector) * rays.direction, axis=1))
    order = jnp.argsort(jax.lax.stop_gradient(rays.distance))
    conic, _ = conic_form(gaussians, jnp.ones((len(vertices), 1)))
    conic, mean, color = conic[order], gaussians.mean[order], facing[order]
    height, width = camera.image_size
    dx = jnp.arange(width)[None, :] + 0.5 - mean[:, :1]

    def one_row(v: Float[Array, ""]) -> Float[Array, " w"]:
        alpha = jnp.minimum(opacity * gaussian(conic, dx, v - mean[:, 1:])[:, 0], 0.99)
        behind = jnp.cumprod(1.0 - alpha, axis=0)
        transmitted = jnp.concatenate([jnp.ones_like(behind[:1]), behind[:-1]])
        return jnp.sum(color[:, None] * alpha * transmitted, axis=0)

    return jax.lax.map(one_row, jnp.arange(height) + 0.5, batch_size=rows_per_chunk)
