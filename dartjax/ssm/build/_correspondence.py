"""Dense registration of a template to a surface, the input of shape models.

Three stages, from stiff to soft: rigid, 300 smooth Gaussian-process modes with annealed noise
(`_surface_fit.fit_modes`), then free vertices under an elastic energy whose stiffness is annealed.
All closest-point matches use the normals.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dartjax import transforms
from dartjax._types import Faces, Points, Scalar, Vertices
from dartjax.ssm._model import ShapeModel, landmarks, paths
from dartjax.ssm._surface_fit import (
    Registration,
    fit_modes,
    match_points,
    register_surface,
    sample_surface,
    surface_samples,
)
from dartjax.ssm.build._gaussian_process import REGISTRATION_KERNELS, smooth_modes
from dartjax.ssm.build._remesh import unfolded

_NUM_MODES = 300
_NUM_POINTS = 6000
_ROBUST_MM = 2.0
_STIFFNESS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)  # of an edge, relative to one vertex match


class Correspondence(NamedTuple):
    """A template registered to a surface: its vertices and their distance from the surface."""

    vertices: Float[np.ndarray, "vertex 3"]  # mm, in the frame of the surface
    smooth_residual: float  # mm, mean distance along the normal after the smooth modes
    residual: float  # mm, the same at the end


def correspond(
    template: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    target_vertices: Float[np.ndarray, "w 3"],
    target_faces: Int[np.ndarray, "g 3"],
    *,
    seed: int = 0,
) -> Correspondence:
    """Register a template to one closed surface in the same (vertebra) frame, mm, on the host.

    The surface must be of the same or a neighbouring level and aligned within about 15 degrees
    and 10 mm.
    """
    sampled = sample_surface(target_vertices, target_faces, _NUM_POINTS, seed=seed)
    modes = smooth_modes(template, faces, _NUM_MODES, kernels=REGISTRATION_KERNELS)
    # In float64, since in float32 the nearest of two points would depend on the machine.
    with jax.enable_x64(True):
        points, normals = (jnp.asarray(array) for array in sampled)
        surface, smooth_residual = _fit_smooth_modes(
            template, modes, jnp.asarray(faces), points, normals
        )
        surface, residual = relax_onto(surface, jnp.asarray(faces), points, normals)
        surface = np.asarray(surface)
    vertices = unfolded(surface, faces, least_angle_deg=8.0)
    return Correspondence(vertices, float(smooth_residual), float(residual))


def dense_landmarks(
    model: ShapeModel,
    vertices: Float[np.ndarray, "w 3"],
    faces: Int[np.ndarray, "g 3"],
    *,
    coarse: Registration | None = None,
    seed: int = 0,
) -> Registration:
    """Find landmarks and paths of a known surface by dense registration of the mean shape (host).

    Starts from the pose of `coarse` (by default from `register_surface`) and runs the stages of
    this module. The result is independent of the model's modes: `coefficients` is empty, `pose` is
    that of the smooth stage, `vertices` are in correspondence with the model. World RAS+ mm.
    """
    if coarse is None:
        coarse = register_surface(model, vertices, faces, seed=seed)
    modes = _modes_about(np.asarray(model.mean_shape).tobytes(), np.asarray(model.faces).tobytes())
    points, normals = surface_samples(vertices, faces, _NUM_POINTS, seed=seed + 1)
    pose, coefficients, _ = fit_modes(
        model.mean_shape,
        modes,
        model.faces,
        points,
        normals,
        coarse.pose,
        noise=(3.0, 0.4),
        num_iterations=25,
    )
    shape = model.mean_shape + jnp.tensordot(coefficients, modes, axes=1)
    surface, residual = relax_onto(transforms.apply(pose, shape), model.faces, points, normals)
    return Registration(
        landmarks(model, surface),
        pose,
        float(residual),
        jnp.zeros(0),
        surface,
        paths(model, surface),
    )


@functools.lru_cache(maxsize=24)
def _modes_about(mean: bytes, faces: bytes) -> Float[Array, "mode vertex 3"]:
    """Compute the smooth modes about a mean shape (float32, int32). Cached: each takes seconds, and
    all subjects of a cohort need the modes of the same levels."""
    vertices = np.frombuffer(mean, np.float32).reshape(-1, 3).astype(float)
    triangles = np.frombuffer(faces, np.int32).reshape(-1, 3)
    modes = smooth_modes(vertices, triangles, _NUM_MODES, kernels=REGISTRATION_KERNELS)
    return jnp.asarray(modes, jnp.float32)


@jax.jit
def _fit_smooth_modes(
    template: Vertices,
    modes: Float[Array, "mode vertex 3"],
    faces: Faces,
    points: Points,
    normals: Points,
) -> tuple[Vertices, Scalar]:
    start = transforms.SE3.identity()
    pose, coefficients, history = fit_modes(
        template, modes, faces, points, normals, start, noise=(6.0, 0.4), num_iterations=40
    )
    shape = template + jnp.tensordot(coefficients, modes, axes=1)
    return transforms.apply(pose, shape), history[-1]


@functools.partial(jax.jit, static_argnames=("stiffness", "num_steps"))
def relax_onto(
    vertices: Vertices,
    faces: Faces,
    points: Points,
    normals: Points,
    *,
    stiffness: tuple[float, ...] = _STIFFNESS,
    num_steps: int = 4,
) -> tuple[Vertices, Scalar]:
    """Move every vertex onto the target surface with smooth displacements.

    For every stiffness, `num_steps` times: match closest points in both directions, using the
    normals, then minimise over the displacements u from the given surface
        sum_i (u_i - d_i)^T H_i (u_i - d_i) + stiffness sum_edges |u_i - u_j|^2
    by conjugate gradients, with d_i and H_i from `match_points`. Returns the surface and its mean
    distance along the normals, mm.
    """
    start, end = _directed_edges(faces)
    degree = jnp.zeros(len(vertices), vertices.dtype).at[start].add(1.0)

    def laplacian(field: Vertices) -> Vertices:
        around = jnp.zeros_like(field).at[start].add(field[end])
        return degree[:, None] * field - around

    def step(displacement: Vertices, weight: Scalar):
        matches = match_points(vertices + displacement, faces, points, normals, 0.02, _ROBUST_MM)
        pull = matches.pull + jnp.einsum("nij,nj->ni", matches.information, displacement)

        def apply(field: Vertices) -> Vertices:
            return jnp.einsum("nij,nj->ni", matches.information, field) + weight * laplacian(field)

        displacement, _ = jax.scipy.sparse.linalg.cg(apply, pull, x0=displacement, maxiter=60)
        return displacement, matches.mean_distance

    schedule = jnp.repeat(jnp.array(stiffness, vertices.dtype), num_steps)
    displacement, history = jax.lax.scan(step, jnp.zeros_like(vertices), schedule)
    return vertices + displacement, history[-1]


def _directed_edges(faces: Faces) -> tuple[Int[Array, " e"], Int[Array, " e"]]:
    """List every edge of a closed surface in both directions: its two triangles traverse it in
    opposite directions."""
    return faces.reshape(-1), jnp.roll(faces, -1, axis=1).reshape(-1)
