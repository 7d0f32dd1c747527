"""Shadows of balls, drill guide and nail, exact along every ray, and the image that a C-arm makes
of them in front of anatomy.

`rays` are slopes (x/z, y/z) in the camera frame, one per sample of the image. They are those of
the recorded pixels, so an intensifier's distortion is in the image from the start and nothing is
resampled.
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

SHADOW_WINDOW = 20  # px around the middle of a ball
RAY_STEP = 4  # px
SUPERSAMPLE = 2  # rays along each side of a pixel
STEEL = 0.95  # 1/mm, at the effective energy of 80 kV behind tissue
DELRIN = 0.028
_TINY = 1e-9

Rays = Float[Array, "h w 2"]


class Exposure(eqx.Module):
    """How an image is recorded. The automatic exposure brings the median pixel to
    `mean_quanta`, shown as `grey` of 255."""

    mean_quanta: float = eqx.field(static=True, default=1000.0)
    scatter: float = eqx.field(static=True, default=0.15)  # over the primary around
    blur_px: float = eqx.field(static=True, default=1.0)  # sigma of the point spread
    electronic: float = eqx.field(static=True, default=4.0)  # quanta rms
    grey: float = eqx.field(static=True, default=90.0)


def image_rays(view: CarmView, supersample: int = SUPERSAMPLE) -> Rays:
    """Slopes of the rays that reach every sample of the recorded image.

    The distortion is undone at every fourth pixel and interpolated, which moves no ray by more
    than 0.002 px.
    """
    height, width = view.image_size
    u, v = jnp.meshgrid(jnp.arange(0, width + 1, RAY_STEP), jnp.arange(0, height + 1, RAY_STEP))
    recorded = jnp.stack([u.reshape(-1), v.reshape(-1)], axis=1).astype(view.K.dtype)
    nodes = to_slopes(view.K, view.ideal(recorded)).reshape(*u.shape, 2)
    return jnp.stack([_between(nodes[..., i], RAY_STEP * supersample) for i in (0, 1)], axis=-1)


def _between(nodes: Image, count: int) -> Float[Array, "fine_h fine_w"]:
    """`count` x `count` samples in every cell of a grid of nodes, bilinear."""
    share = ((jnp.arange(count) + 0.5) / count)[None, :, None]
    for _ in range(2):
        rows = nodes[:-1, None] * (1.0 - share) + nodes[1:, None] * share
        nodes = rows.reshape(-1, nodes.shape[1]).T
    return nodes


def ball_thickness(
    rays: Rays, centers: Points, radius: Scalar | float, pixels: Float[Array, "n 2"], window: int
) -> Image:
    """Millimetres of balls along every ray: 2 sqrt(r^2 - b^2), b the distance of ray and centre.

    `centers` (n, 3) are in the camera frame, `pixels` roughly where their shadows fall, in samples
    of the ray grid; only a square of `window` samples around each is computed.
    """
    height, width, _ = rays.shape

    def add_one(total: Image, ball: tuple[Array, Array]) -> tuple[Image, None]:
        center, pixel = ball
        corner = jnp.round(pixel[::-1] - 0.5 * window).astype(int)
        corner = jnp.clip(corner, 0, jnp.array([height - window, width - window]))
        own = jax.lax.dynamic_slice(rays, (corner[0], corner[1], 0), (window, window, 2))
        along = jnp.concatenate([own, jnp.ones((window, window, 1))], axis=-1)
        along = along / jnp.linalg.norm(along, axis=-1, keepdims=True)
        off = center[None, None] - jnp.sum(along * center[None, None], -1, keepdims=True) * along
        half = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(off**2, axis=-1), 0.0))
        before = jax.lax.dynamic_slice(total, (corner[0], corner[1]), (window, window))
        after = before + 2.0 * half
        return jax.lax.dynamic_update_slice(total, after, (corner[0], corner[1])), None

    return jax.lax.scan(add_one, jnp.zeros((height, width)), (centers, pixels))[0]


def _in_frame(rays: Rays, T_camera_object: SE3) -> tuple[Float[Array, "3 h w"], ...]:
    """Point nearest to the object's origin, and unit direction, of every ray in its frame."""
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
    """Where rays p + t d enter and leave an infinite cylinder, from the two coordinates across
    its axis. Entry after exit means a miss."""
    a = jnp.maximum(d[0] ** 2 + d[1] ** 2, _TINY)
    b = p[0] * d[0] + p[1] * d[1]
    discriminant = b**2 - a * (p[0] ** 2 + p[1] ** 2 - radius**2)
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))
    hit = discriminant > 0.0
    return jnp.where(hit, (-b - root) / a, 0.0), jnp.where(hit, (-b + root) / a, 0.0)


def _slab(p: Image, d: Image, low: Scalar, high: Scalar) -> tuple[Image, Image]:
    safe = jnp.where(jnp.abs(d) < _TINY, _TINY, d)
    one, other = (low - p) / safe, (high - p) / safe
    return jnp.minimum(one, other), jnp.maximum(one, other)


def nail_thickness(rays: Rays, nail: Nail, T_camera_nail: SE3) -> Image:
    """Millimetres of metal along every ray: the nail's cylinder less what each hole takes of it."""
    p, d = _in_frame(rays, T_camera_nail)
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
    """Millimetres of a box along every ray."""
    p, d = _in_frame(rays, T_camera_object)
    slabs = [_slab(p[i], d[i], corners[0, i], corners[1, i]) for i in range(3)]
    enter = jnp.maximum(jnp.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = jnp.minimum(jnp.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return jnp.maximum(leave - enter, 0.0)


def balls_attenuation(
    rays: Rays, view: CarmView, balls: Points, radius: Scalar | float, T_camera_object: SE3
) -> Image:
    """-log transmission of steel balls (object frame) whose shadows are at most 16 px wide."""
    samples = rays.shape[0] // view.image_size[0]
    pixels = view.recorded(project_points(view.K, T_camera_object, balls)) * samples
    in_camera = apply(T_camera_object, balls)
    return STEEL * ball_thickness(rays, in_camera, radius, pixels, SHADOW_WINDOW * samples)


def guide_attenuation(rays: Rays, view: CarmView, guide: DrillGuide, T_camera_guide: SE3) -> Image:
    """-log transmission of the drill guide's target, balls and plastic."""
    plastic = DELRIN * block_thickness(rays, guide.block, T_camera_guide)
    return plastic + balls_attenuation(rays, view, guide.balls, guide.radius, T_camera_guide)


def nail_attenuation(rays: Rays, nail: Nail, T_camera_nail: SE3) -> Image:
    """-log transmission of the steel nail."""
    return STEEL * nail_thickness(rays, nail, T_camera_nail)


def record_image(
    anatomy: Image,
    metal: Float[Array, "hs ws"],
    exposure: Exposure = Exposure(),
    *,
    key: PRNGKeyArray,
) -> Image:
    """The 8 bit image, bright where the beam passes, of an anatomy's -log transmission (h, w) and
    of metal on a finer grid: primary, scatter, quantum noise, blur, electronic noise, grey values
    0 to 255. Noise of quanta is normal, which is close above 20 of them."""
    height, width = anatomy.shape
    fine = metal.shape[0] // height
    through = jnp.exp(-metal).reshape(height, fine, width, fine).mean(axis=(1, 3))
    primary = jnp.exp(-anatomy) * through
    level = jnp.median(jnp.exp(-anatomy)[::4, ::4])
    quanta = exposure.mean_quanta / level * (primary + exposure.scatter * _spread(primary))
    for_quanta, for_electronics = jax.random.split(key)
    noisy = quanta + jnp.sqrt(quanta) * jax.random.normal(for_quanta, quanta.shape)
    # The blur pads with zeros; an image does not darken toward its border.
    blurred = gaussian_blur(noisy, exposure.blur_px) / gaussian_blur(
        jnp.ones_like(noisy), exposure.blur_px
    )
    reading = blurred + exposure.electronic * jax.random.normal(for_electronics, quanta.shape)
    return jnp.clip(jnp.round(reading * exposure.grey / exposure.mean_quanta), 0.0, 255.0)


def _spread(primary: Image) -> Image:
    """The primary blurred by 64 px: where its scatter falls."""
    height, width = primary.shape
    coarse = jax.image.resize(primary, (height // 16, width // 16), "linear")
    weight = gaussian_blur(jnp.ones_like(coarse), 4.0)
    return jax.image.resize(gaussian_blur(coarse, 4.0) / weight, (height, width), "linear")
