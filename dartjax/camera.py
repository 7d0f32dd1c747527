"""The X-ray camera: a pinhole at the source, in the OpenCV frame.

Frame: origin at the X-ray source, z toward the detector, x along image columns (u, right),
y along image rows (v, down). The centre of the first pixel is at (0.5, 0.5), so an image of
width W spans u in [0, W]. World is patient RAS+ mm.
"""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._types import Matrix3, Pixels, Point, Points, Scalar
from dartjax.transforms import SE3


class Camera(eqx.Module):
    """One calibrated X-ray view, differentiable in every array leaf.

    With pixel spacing d (mm on the detector) and source-to-detector distance sdd (mm) the
    focal length is sdd / d pixels. Cropping and resizing change focal length and principal
    point only, so the perspective stays exact.
    """

    camera_from_world: SE3
    focal_length: Float[Array, "2"]  # px, along u and v
    principal_point: Float[Array, "2"]  # px, (cx, cy)
    sdd: Scalar  # mm, source to detector
    image_size: tuple[int, int] = eqx.field(static=True)  # (height, width)

    @property
    def world_from_camera(self) -> SE3:
        """Rigid transform from the camera frame to world."""
        return self.camera_from_world.inverse()

    @property
    def source(self) -> Point:
        """Position of the X-ray source, world mm."""
        return self.world_from_camera.translation()

    @property
    def beam(self) -> Point:
        """Unit vector of the central beam, source to detector, in world."""
        return self.camera_from_world.rotation().as_matrix()[2]

    @property
    def intrinsics(self) -> Matrix3:
        """K = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."""
        (fx, fy), (cx, cy) = self.focal_length, self.principal_point
        return jnp.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def pixel_spacing(self) -> Float[Array, "2"]:
        """Size of a pixel on the detector in mm, along u and v."""
        return self.sdd / self.focal_length


def from_intrinsics(
    K: Matrix3, camera_from_world: SE3, sdd: Scalar | float, image_size: tuple[int, int]
) -> Camera:
    """Make a camera from a 3 x 3 matrix K (its skew is ignored), a pose and sdd in mm."""
    return Camera(
        camera_from_world=camera_from_world,
        focal_length=jnp.array([K[0, 0], K[1, 1]]),
        principal_point=jnp.array([K[0, 2], K[1, 2]]),
        sdd=jnp.asarray(sdd, float),
        image_size=image_size,
    )


def from_carm(
    rotation: transforms.SO3,
    isocenter: Point,
    *,
    sdd: float = 1020.0,
    source_to_isocenter: float = 530.0,
    pixel_spacing: float | tuple[float, float] = 0.388,
    image_size: tuple[int, int] = (768, 768),
) -> Camera:
    """Make the camera of a C-arm whose central beam passes through `isocenter` (world mm).

    `rotation` is R_world_camera, from `transforms.carm_rotation` or `view_rotation`. The
    principal point is the image centre. Distances in mm.
    """
    height, width = image_size
    du, dv = pixel_spacing if isinstance(pixel_spacing, tuple) else (pixel_spacing, pixel_spacing)
    beam = rotation.as_matrix()[:, 2]
    source = isocenter - source_to_isocenter * beam
    return Camera(
        camera_from_world=SE3.from_rotation_and_translation(rotation, source).inverse(),
        focal_length=jnp.array([sdd / du, sdd / dv]),
        principal_point=jnp.array([width / 2.0, height / 2.0]),
        sdd=jnp.asarray(sdd, float),
        image_size=image_size,
    )


def project(camera: Camera, points: Points) -> Pixels:
    """Project world points (n, 3) to pixels (n, 2). A point at or behind the source gives
    meaningless pixels: check `depth` when that can happen."""
    x, y, z = transforms.apply(camera.camera_from_world, points).T
    normalized = jnp.stack([x / z, y / z], axis=-1)
    return normalized * camera.focal_length[None] + camera.principal_point[None]


def depth(camera: Camera, points: Points) -> Float[Array, " n"]:
    """Compute the distance of world points from the source along the beam, mm (negative behind)."""
    return transforms.apply(camera.camera_from_world, points)[:, 2]


def reprojection_mm(camera: Camera, points: Points, pixels: Pixels) -> Float[Array, "n 2"]:
    """Compute reprojection errors of world points (n, 3) against pixels (n, 2), along u and v.

    The error of each point is in mm at its own depth."""
    error = (project(camera, points) - pixels) / camera.focal_length[None]
    return error * depth(camera, points)[:, None]


def back_project(camera: Camera, pixels: Pixels, depths: Float[Array, " n"]) -> Points:
    """Compute the world points at given pixels and depths along the beam: inverse of `project`."""
    xy = (pixels - camera.principal_point[None]) / camera.focal_length[None]
    in_camera = jnp.concatenate([xy, jnp.ones_like(xy[:, :1])], axis=1) * depths[:, None]
    return transforms.apply(camera.world_from_camera, in_camera)


def pixel_centers(camera: Camera) -> Float[Array, "h w 2"]:
    """Return the pixel coordinates (u, v) of every pixel centre."""
    height, width = camera.image_size
    u, v = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    return jnp.stack([u, v], axis=-1)


def ray_directions(camera: Camera) -> Float[Array, "h w 3"]:
    """Compute unit directions (world) of the rays from the source through every pixel centre."""
    offset = pixel_centers(camera) - camera.principal_point[None, None]
    xy = offset / camera.focal_length[None, None]
    in_camera = jnp.concatenate([xy, jnp.ones_like(xy[..., :1])], axis=-1)
    in_camera = in_camera / jnp.linalg.norm(in_camera, axis=-1, keepdims=True)
    return in_camera @ camera.camera_from_world.rotation().as_matrix()


def crop(camera: Camera, top_left: Float[Array, "2"], image_size: tuple[int, int]) -> Camera:
    """Crop a camera to the window whose upper left corner is at pixel (u, v) `top_left`, which
    may be fractional or outside the image."""
    return dataclasses.replace(
        camera, principal_point=camera.principal_point - top_left, image_size=image_size
    )


def resize(camera: Camera, image_size: tuple[int, int]) -> Camera:
    """Resample a camera to another number of pixels. Pixel edges, not centres, are kept:
    u' = u * width' / width."""
    (height, width), (new_height, new_width) = camera.image_size, image_size
    scale = jnp.array([new_width / width, new_height / height])
    return dataclasses.replace(
        camera,
        focal_length=camera.focal_length * scale,
        principal_point=camera.principal_point * scale,
        image_size=image_size,
    )


def region_around(camera: Camera, center: Point, *, width_mm: float, num_pixels: int) -> Camera:
    """Crop a camera to a square region of interest around the projection of `center` (world).

    The region spans `width_mm` at the depth of `center` and has `num_pixels` a side."""
    center_px = project(camera, center[None])[0]
    distance = depth(camera, center[None])[0]
    side_px = width_mm / distance * camera.focal_length  # in pixels of the full image
    scale = num_pixels / side_px
    return dataclasses.replace(
        camera,
        focal_length=camera.focal_length * scale,
        principal_point=(camera.principal_point - center_px) * scale + num_pixels / 2.0,
        image_size=(num_pixels, num_pixels),
    )


def reproject(
    pixels: Float[np.ndarray, "*n 2"], of: Camera, to: Camera
) -> Float[np.ndarray, "*n 2"]:
    """Convert pixels of camera `of` to pixels of camera `to`, which has the same source and axes,
    such as its crop. Host."""
    ray = (pixels - np.asarray(of.principal_point)) / np.asarray(of.focal_length)
    return ray * np.asarray(to.focal_length) + np.asarray(to.principal_point)
