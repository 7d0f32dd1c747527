"""Analytic X-ray shadows of balls, drill guide and nail, and the recorded image with anatomy.

`rays` are slopes (x/z, y/z) in the camera frame, one per sample of the recorded image. The rays
include the intensifier's distortion, so the image needs no resampling.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dartjax._types import Image, Points, Scalar
from dartjax.image import gaussian_blur
from dartjax.robot.carm._carm import CarmView, project_points, to_slopes
from dartjax.robot.carm._phantoms import DrillGuide, Nail
from dartjax.transforms import SE3, apply

SHADOW_WINDOW = 20  # px, side of the square around a ball's centre
RAY_STEP = 4  # px between exactly undistorted rays
SUPERSAMPLE = 2  # rays along each side of a pixel
STEEL = 0.95  # 1/mm, attenuation at the effective energy of 80 kV behind tissue
DELRIN = 0.028  # 1/mm
_TINY = 1e-9

Rays = Float[Array, "h w 2"]


class Exposure(eqx.Module):
    """Exposure parameters. Automatic exposure brings the median pixel to `mean_quanta`, which is
    displayed as grey value `grey` of 255."""

    mean_quanta: float = eqx.field(static=True, default=1000.0)
    scatter: float = eqx.field(static=True, default=0.15)  # scatter over the surrounding primary
    blur_px: float = eqx.field(static=True, default=1.0)  # sigma of the point spread
    electronic: float = eqx.field(static=True, default=4.0)  # electronic noise, quanta rms
    grey: float = eqx.field(static=True, default=90.0)


def image_rays(view: CarmView, supersample: int = SUPERSAMPLE) -> Rays:
    """Compute the slopes of the rays of all samples of the recorded image.

    The distortion is inverted at every fourth pixel and interpolated; the error is at most
    0.002 px.
    """
    height, width = view.image_size
    u, v = jnp.meshgrid(jnp.arange(0, width + 1, RAY_STEP), jnp.arange(0, height + 1, RAY_STEP))
    recorded = jnp.stack([u.reshape(-1), v.reshape(-1)], axis=1).astype(view.K.dtype)
    nodes = to_slopes(view.K, view.ideal(recorded)).reshape(*u.shape, 2)
    return jnp.stack(
        [_interpolate_cells(nodes[..., i], RAY_STEP * supersample) for i in (0, 1)], axis=-1
    )


def _interpolate_cells(nodes: Image, count: int) -> Float[Array, "fine_h fine_w"]:
    """Interpolate `count` x `count` samples in every cell of a grid of nodes, bilinearly."""
    share = ((jnp.arange(count) + 0.5) / count)[None, :, None]
    for _ in range(2):
        rows = nodes[:-1, None] * (1.0 - share) + nodes[1:, None] * share
        nodes = rows.reshape(-1, nodes.shape[1]).T
    return nodes


def ball_thickness(
    rays: Rays, centers: Points, radius: Scalar | float, pixels: Float[Array, "n 2"], window: int
) -> Image:
    """Compute the thickness of balls along every ray (mm): 2 sqrt(r^2 - b^2), with b the distance
    of the ray from the centre.

    `centers` (n, 3) are in the camera frame. `pixels` are approximate centres of the shadows in
    samples of the ray grid; only a square of `window` samples around each is computed.
    """
    height, width, _ = rays.shape

    def add_ball(total: Image, ball: tuple[Array, Array]) -> tuple[Image, None]:
        center, pixel = ball
        corner = jnp.round(pixel[::-1] - 0.5 * window).astype(int)
        corner = jnp.clip(corner, 0, jnp.array([height - window, width - window]))
        patch = jax.lax.dynamic_slice(rays, (corner[0], corner[1], 0), (window, window, 2))
        along = jnp.concatenate([patch, jnp.ones((window, window, 1))], axis=-1)
        along = along / jnp.linalg.norm(along, axis=-1, keepdims=True)
        offset = center[None, None] - jnp.sum(along * center[None, None], -1, keepdims=True) * along
        half = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(offset**2, axis=-1), 0.0))
        before = jax.lax.dynamic_slice(total, (corner[0], corner[1]), (window, window))
        after = before + 2.0 * half
        return jax.lax.dynamic_update_slice(total, after, (corner[0], corner[1])), None

    return jax.lax.scan(add_ball, jnp.zeros((height, width)), (centers, pixels))[0]


def _rays_in_object_frame(rays: Rays, T_camera_object: SE3) -> tuple[Float[Array, "3 h w"], ...]:
    """Rays in the object's frame: the point nearest to its origin, and the unit direction."""
    rotation = T_camera_object.rotation().as_matrix()
    source = -rotation.T @ T_camera_object.translation()
    d = [rays[..., 0] * rotation[0, i] + rays[..., 1] * rotation[1, i] for i in range(3)]
    direction = jnp.stack([d[i] + rotation[2, i] for i in range(3)])
    direction = direction / jnp.linalg.norm(direction, axis=0)[None]
    along = jnp.tensordot(source, direction, 1)
    return source[:, None, None] - along[None] * direction, direction


def _cylinder(
    p: tuple[Image, Image], d: tuple[Image, Image], radius: Scalar | float
) -> tuple[Image, Image]:
    """Parameters t at which rays p + t d enter and leave an infinite cylinder, from the two
    coordinates perpendicular to its axis. Both are 0 for a ray that misses."""
    a = jnp.maximum(d[0] ** 2 + d[1] ** 2, _TINY)
    b = p[0] * d[0] + p[1] * d[1]
    discriminant = b**2 - a * (p[0] ** 2 + p[1] ** 2 - radius**2)
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    hit = discriminant > 0.0
    return jnp.where(hit, (-b - root) / a, 0.0), jnp.where(hit, (-b + root) / a, 0.0)


def _slab(p: Image, d: Image, low: Scalar, high: Scalar) -> tuple[Image, Image]:
    safe = jnp.where(jnp.abs(d) < _TINY, _TINY, d)
    at_low, at_high = (low - p) / safe, (high - p) / safe
    return jnp.minimum(at_low, at_high), jnp.maximum(at_low, at_high)


def nail_thickness(rays: Rays, nail: Nail, T_camera_nail: SE3) -> Image:
    """Compute the thickness of metal along every ray (mm): the nail's cylinder minus its holes."""
    p, d = _rays_in_object_frame(rays, T_camera_nail)
    body = _cylinder((p[1], p[2]), (d[1], d[2]), nail.radius)
    ends = _slab(p[0], d[0], nail.ends[0], nail.ends[1])
    enter, leave = jnp.maximum(body[0], ends[0]), jnp.minimum(body[1], ends[1])
    metal = jnp.maximum(leave - enter, 0.0)
    for x in (0.0, -nail.spacing):
        hole = _cylinder((p[0] - x, p[1]), (d[0], d[1]), nail.hole_radius)
        missing = jnp.minimum(leave, hole[1]) - jnp.maximum(enter, hole[0])
        metal = metal - jnp.maximum(missing, 0.0)
    return jnp.maximum(metal, 0.0)


def block_thickness(rays: Rays, corners: Float[Array, "2 3"], T_camera_object: SE3) -> Image:
    """Compute the thickness of a box along every ray, mm."""
    p, d = _rays_in_object_frame(rays, T_camera_object)
    slabs = [_slab(p[i], d[i], corners[0, i], corners[1, i]) for i in range(3)]
    enter = jnp.maximum(jnp.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = jnp.minimum(jnp.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return jnp.maximum(leave - enter, 0.0)


def balls_attenuation(
    rays: Rays, view: CarmView, balls: Points, radius: Scalar | float, T_camera_object: SE3
) -> Image:
    """Compute the -log transmission of steel balls (object frame) with shadows of at most 16 px."""
    samples = rays.shape[0] // view.image_size[0]
    pixels = view.recorded(project_points(view.K, T_camera_object, balls)) * samples
    in_camera = apply(T_camera_object, balls)
    return STEEL * ball_thickness(rays, in_camera, radius, pixels, SHADOW_WINDOW * samples)


def guide_attenuation(rays: Rays, view: CarmView, guide: DrillGuide, T_camera_guide: SE3) -> Image:
    """Compute the -log transmission of the drill guide's target: balls and plastic."""
    plastic = DELRIN * block_thickness(rays, guide.block, T_camera_guide)
    return plastic + balls_attenuation(rays, view, guide.balls, guide.radius, T_camera_guide)


def nail_attenuation(rays: Rays, nail: Nail, T_camera_nail: SE3) -> Image:
    """Compute the -log transmission of the steel nail."""
    return STEEL * nail_thickness(rays, nail, T_camera_nail)


def record_image(
    anatomy: Image,
    metal: Float[Array, "hs ws"],
    exposure: Exposure = Exposure(),
    *,
    key: PRNGKeyArray,
) -> Image:
    """Render the 8 bit image of anatomy and metal, bright where the beam passes.

    `anatomy` is a -log transmission (h, w), `metal` one on a finer grid. The model has primary,
    scatter, quantum noise, blur and electronic noise; grey values are 0 to 255. Quantum noise is
    approximated as normal, which is accurate above 20 quanta.
    """
    height, width = anatomy.shape
    fine = metal.shape[0] // height
    through = jnp.exp(-metal).reshape(height, fine, width, fine).mean(axis=(1, 3))
    primary = jnp.exp(-anatomy) * through
    level = jnp.median(jnp.exp(-anatomy)[::4, ::4])
    quanta = exposure.mean_quanta / level * (primary + exposure.scatter * _scattered(primary))
    for_quanta, for_electronics = jax.random.split(key)
    noisy = quanta + jnp.sqrt(quanta) * jax.random.normal(for_quanta, quanta.shape)
    # The blur pads with zeros; an image does not darken toward its border.
    blurred = gaussian_blur(noisy, exposure.blur_px) / gaussian_blur(
        jnp.ones_like(noisy), exposure.blur_px
    )
    reading = blurred + exposure.electronic * jax.random.normal(for_electronics, quanta.shape)
    return jnp.clip(jnp.round(reading * exposure.grey / exposure.mean_quanta), 0.0, 255.0)


def _scattered(primary: Image) -> Image:
    """Shape of the scatter: the primary blurred by 64 px."""
    height, width = primary.shape
    coarse = jax.image.resize(primary, (height // 16, width // 16), "linear")
    weight = gaussian_blur(jnp.ones_like(coarse), 4.0)
    return jax.image.resize(gaussian_blur(coarse, 4.0) / weight, (height, width), "linear")
