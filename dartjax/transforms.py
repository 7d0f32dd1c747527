"""Rigid transforms and C-arm angles, built on jaxlie.

`T_a_b` maps coordinates of frame b into frame a. World is the patient's RAS+ frame in mm
(+x right, +y anterior, +z superior).

C-arm angles follow DICOM PS3.3 C.8.7.5.1.2 and give the position of the RECEPTOR around the
patient: the primary angle is its longitude (0 in front of the chest, +90 at the patient's left,
LAO), the secondary angle its latitude (+90 toward the head, CRA). At (0, 0) the beam runs from
posterior to anterior, which is the PA view.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import jaxlie
import numpy as np
from jaxlie import SE3 as SE3
from jaxlie import SO3 as SO3
from jaxtyping import Array, Float

from dartjax._numerics import safe_norm
from dartjax._types import Matrix4, Points, Scalar

ViewName = Literal["AP", "PA", "LAT_L", "LAT_R"]

# Camera axes (u right, v down, z along the beam) as columns in patient RAS.
VIEW_AXES: dict[str, np.ndarray] = {
    "AP": np.array([[-1, 0, 0], [0, 0, -1], [0, -1, 0]], np.float32).T,
    "PA": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32).T,
    "LAT_L": np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], np.float32).T,
    "LAT_R": np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], np.float32).T,
}


def view_rotation(name: str) -> SO3:
    """Return R_world_camera of a named view: AP, PA, LAT_L or LAT_R. In LAT_L the patient's left
    side is at the detector. ValueError for another name."""
    if name not in VIEW_AXES:
        raise ValueError(f"unknown view {name!r}: choose one of {', '.join(VIEW_AXES)}")
    return SO3.from_matrix(jnp.asarray(VIEW_AXES[name]))


def carm_rotation(
    primary: Scalar | float, secondary: Scalar | float, in_plane: Scalar | float = 0.0
) -> SO3:
    """Compute R_world_camera = R_z(primary) R_x(secondary) R_PA R_z(in_plane), angles in rad.

    The beam, from source to receptor, points along
    (-sin(primary) cos(secondary), cos(primary) cos(secondary), sin(secondary)) in RAS.
    `in_plane` rotates the camera about its own beam, from u toward v.
    """
    orbit = SO3.from_z_radians(jnp.asarray(primary)) @ SO3.from_x_radians(jnp.asarray(secondary))
    return orbit @ view_rotation("PA") @ SO3.from_z_radians(jnp.asarray(in_plane))


def perturb(
    T_world_object: SE3, rotation: Float[Array, "3"], translation: Float[Array, "3"]
) -> SE3:
    """Rotate an object about its own origin by a rotation vector (rad, world axes), then translate
    it (mm): R = exp(rotation) R0, t = t0 + translation. Rotation and translation are decoupled
    when the object's origin is its centroid."""
    return SE3.from_rotation_and_translation(
        SO3.exp(rotation) @ T_world_object.rotation(),
        T_world_object.translation() + translation,
    )


def apply(T_a_b: SE3, points_b: Points) -> Points:
    """Map points of frame b into frame a, (n, 3) -> (n, 3)."""
    return points_b @ T_a_b.rotation().as_matrix().T + T_a_b.translation()[None, :]


def from_matrix(matrix: Matrix4) -> SE3:
    """Convert a 4 x 4 rigid matrix to SE3. A matrix that is not rigid gives a wrong result: check
    it on the host first, as `data.load_cameras` does."""
    return SE3.from_matrix(matrix)


def from_twist(twist: Float[Array, "6"]) -> SE3:
    """Compute the exponential of a twist (translation part in mm, rotation vector in rad).

    t = v + (1 - cos a) / a^2 w x v + (a - sin a) / a^3 w x (w x v) with a = |w|. Below 0.3 rad the
    factors are power series. `SE3.exp` of jaxlie replaces them by those of R below 3 mrad in
    float32, which moves the tip of a lever of 300 mm by up to 0.45 mm.
    """
    v, w = twist[:3], twist[3:]
    square = jnp.sum(w * w)
    is_small = square < 0.1
    s = jnp.where(is_small, square, 0.0)
    large = jnp.where(is_small, 1.0, square)
    a = jnp.sqrt(large)
    first = 1 / 2 - s * (1 / 24 - s * (1 / 720 - s * (1 / 40320 - s / 3628800)))
    second = 1 / 6 - s * (1 / 120 - s * (1 / 5040 - s * (1 / 362880 - s / 39916800)))
    first = jnp.where(is_small, first, (1.0 - jnp.cos(a)) / large)
    second = jnp.where(is_small, second, (a - jnp.sin(a)) / (large * a))
    across = jnp.cross(w, v)
    translation = v + first * across + second * jnp.cross(w, across)
    return SE3.from_rotation_and_translation(SO3.exp(w), translation)


def rotation_angle(rotation: SO3) -> Scalar:
    """Compute the angle of a rotation, rad in [0, pi]; its gradient at the identity is 0."""
    return safe_norm(rotation.log())


@jax.custom_jvp
def _nearest_rotation(matrix: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
    """Compute the rotation R that maximises trace(R' matrix).

    Its derivative exists where the plain derivative of an SVD does not: for equal singular
    values, as of symmetric point sets. It is 0 about an axis that the matrix leaves free."""
    return _rotation_and_stretch(matrix)[0]


def _rotation_and_stretch(
    matrix: Float[Array, "3 3"],
) -> tuple[Float[Array, "3 3"], Float[Array, "3"], Float[Array, "3 3"]]:
    """Decompose matrix = R V diag(stretch) V'; return R, the stretch and V'."""
    u, singular, vt = jnp.linalg.svd(matrix)
    mirror = jnp.array([1.0, 1.0, 1.0]).at[2].set(jnp.sign(jnp.linalg.det(u @ vt)))
    return (u * mirror[None, :]) @ vt, mirror * singular, vt


@_nearest_rotation.defjvp
def _nearest_rotation_jvp(primals, tangents):  # pyright: ignore
    """R' dR = W is skew with W P + P W = R' dM - dM' R, where P = V diag(stretch) V'."""
    rotation, stretch, vt = _rotation_and_stretch(primals[0])
    moved = rotation.T @ tangents[0]
    skew = vt @ (moved - moved.T) @ vt.T
    sums = stretch[:, None] + stretch[None, :]
    is_free = jnp.abs(sums) <= 1e-6 * jnp.abs(stretch[0])
    turn = jnp.where(is_free, 0.0, skew / jnp.where(is_free, 1.0, sums))
    return rotation, rotation @ vt.T @ turn @ vt


def align_points(source: Points, target: Points, weights: Float[Array, " n"] | None = None) -> SE3:
    """Compute the rigid T_target_source minimising sum_i w_i |T source_i - target_i|^2 (Kabsch).

    At least three non-collinear points are needed; with fewer the rotation about the free axis is
    arbitrary. Points of weight 0 are ignored and may be NaN; without any weight the result is the
    identity.
    """
    weight = jnp.ones(len(source)) if weights is None else weights
    counts = (weight != 0.0)[:, None]
    source, target = (jnp.where(counts, points, 0.0) for points in (source, target))
    total = jnp.sum(weight)
    weight = (weight / jnp.where(total == 0.0, 1.0, total))[:, None]
    source_mean, target_mean = jnp.sum(weight * source, 0), jnp.sum(weight * target, 0)
    covariance = (weight * (target - target_mean[None])).T @ (source - source_mean[None])
    rotation = SO3.from_matrix(_nearest_rotation(covariance))
    return jaxlie.SE3.from_rotation_and_translation(
        rotation, target_mean - rotation.apply(source_mean)
    )
