"""Fit of a shape model to a known surface: pose and coefficients by closest points.

With the 15 modes of the prior this is the oracle fit: the upper bound of any reconstruction with
that model.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Float, Int

from dartjax import mesh, transforms
from dartjax._numerics import safe_divide
from dartjax._types import Coefficients, Faces, Points, Scalar, Vertices
from dartjax.ssm._model import ShapeModel, landmarks, paths, posed

NORMAL_SCALE = 5.0  # mm: normals at 90 degrees equal a distance of 7 mm
_CHUNK = 64  # rows per block, whose distances fit into the cache


class Registration(NamedTuple):
    """Result of a fit to a surface; everything in the world frame of that surface, mm."""

    landmarks: Float[Array, "10 3"]
    pose: transforms.SE3  # T_world_vertebra
    mean_residual: float  # mean distance along the normal, both directions
    coefficients: Coefficients
    vertices: Vertices
    paths: Float[Array, "2 2 3"]


class Matches(eqx.Module):
    """Quadratic form sum (d - x)^T H (d - x) of the matches, accumulated per vertex."""

    information: Float[Array, "vertex 3 3"]  # 1/mm^2
    pull: Float[Array, "vertex 3"]  # 1/mm, H d
    mean_distance: Float[Array, ""]  # mm, along the target's normals


def fit_surface(
    model: ShapeModel,
    target_points: Points,
    target_normals: Points,
    start_pose: transforms.SE3,
    *,
    num_iterations: int = 40,
    noise: tuple[float, float] = (6.0, 0.5),
    tangential: tuple[float, float] = (0.5, 0.02),
) -> tuple[transforms.SE3, Coefficients, Float[Array, " iteration"]]:
    """Fit pose and coefficients of a model to a surface given as points with normals.

    Each iteration matches every vertex to its closest target point and every target point to its
    closest vertex (closest in position and normal), then takes one Gauss-Newton step on
        sum w d^T [n n^T + tau (I - n n^T)] d / sigma^2 + |coefficients|^2,
    where d is the match vector, n the target normal and w the cosine between the normals, reduced
    for distances beyond sigma (pseudo-Huber). Sigma changes from noise[0] to noise[1] mm and tau
    from tangential[0] to tangential[1], both geometrically. The coefficients start at zero.

    Returns T_world_vertebra, the coefficients and, per iteration, the mean distance along the
    normals before the step (mm). Points and normals in the world frame, (n, 3); normals unit and
    outward. The start must be within about 20 degrees and 20 mm.
    """
    return fit_modes(
        model.mean_shape,
        model.modes,
        model.faces,
        target_points,
        target_normals,
        start_pose,
        num_iterations=num_iterations,
        noise=noise,
        tangential=tangential,
    )


@partial(jax.jit, static_argnames=("num_iterations", "noise", "tangential"))
def fit_modes(
    mean_shape: Vertices,
    modes: Float[Array, "mode vertex 3"],
    faces: Faces,
    target_points: Points,
    target_normals: Points,
    start_pose: transforms.SE3,
    *,
    num_iterations: int,
    noise: tuple[float, float],
    tangential: tuple[float, float] = (0.5, 0.02),
) -> tuple[transforms.SE3, Coefficients, Float[Array, " iteration"]]:
    """Fit a mean shape with modes to a surface as `fit_surface` does, without annotations."""
    ramp = jnp.linspace(0.0, 1.0, num_iterations)
    sigmas = noise[0] * (noise[1] / noise[0]) ** ramp
    taus = tangential[0] * (tangential[1] / tangential[0]) ** ramp

    def step(state, schedule):
        pose, coefficients = state
        sigma, tau = schedule
        shape = mean_shape + jnp.tensordot(coefficients, modes, axes=1)
        surface = transforms.apply(pose, shape)
        matches = match_points(surface, faces, target_points, target_normals, tau, sigma)
        state = gauss_newton(shape, modes, pose, coefficients, matches, sigma)
        return state, matches.mean_distance

    start = (start_pose, jnp.zeros(len(modes), mean_shape.dtype))
    (pose, coefficients), history = jax.lax.scan(step, start, (sigmas, taus))
    return pose, coefficients, history


def register_surface(
    model: ShapeModel,
    vertices: Float[np.ndarray, "w 3"],
    faces: Int[np.ndarray, "g 3"],
    *,
    tilts_deg: tuple[float, ...] = (-20.0, 0.0, 20.0),
    num_points: int = 3000,
    seed: int = 0,
) -> Registration:
    """Fit a model to the surface of one whole vertebra in RAS+ mm, from several tilts (host).

    Start poses have the patient's axes, tilted about the left-right axis, and coincident surface
    centroids. A short fit to every sixth point selects the tilt, a long fit to all points follows.
    """
    points, normals = surface_samples(vertices, faces, num_points, seed=seed)
    starts = _starts(model, points, tilts_deg)
    poses, history = _try_starts(model, points[::6], normals[::6], starts)
    best = int(jnp.nanargmin(history[:, -1]))
    start = jax.tree.map(lambda leaf: leaf[best], poses)
    pose, coefficients, history = fit_surface(
        model, points, normals, start, noise=(4.0, 0.5), num_iterations=30
    )
    return registration_of(model, pose, coefficients, float(history[-1]))


def registration_of(
    model: ShapeModel, pose: transforms.SE3, coefficients: Coefficients, residual: float
) -> Registration:
    """Collect the result of a fit: surface, landmarks and paths in world."""
    surface = posed(model, pose, coefficients)
    return Registration(
        landmarks(model, surface), pose, residual, coefficients, surface, paths(model, surface)
    )


def sample_surface(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    count: int,
    *,
    seed: int,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Sample `count` points uniformly over a surface, mm, with outward unit normals."""
    rng = np.random.default_rng(seed)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    doubled = np.linalg.norm(normal, axis=1)
    # Stratified along the cumulative area: more even than independent samples.
    position = (np.arange(count) + rng.random(count)) / count * doubled.sum()
    face = np.minimum(np.searchsorted(np.cumsum(doubled), position), len(faces) - 1)
    u, v = rng.random((2, count))
    u, v = np.where(u + v > 1, 1 - u, u)[:, None], np.where(u + v > 1, 1 - v, v)[:, None]
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return points, normal[face] / doubled[face][:, None]


def surface_samples(
    vertices: Float[np.ndarray, "w 3"], faces: Int[np.ndarray, "g 3"], count: int, *, seed: int = 0
) -> tuple[Points, Points]:
    """Sample a surface as JAX arrays for `fit_surface`: points (mm) and outward unit normals."""
    points, normals = sample_surface(np.asarray(vertices), np.asarray(faces), count, seed=seed)
    return jnp.asarray(points, jnp.float32), jnp.asarray(normals, jnp.float32)


def _starts(model: ShapeModel, points: Points, tilts_deg: tuple[float, ...]) -> transforms.SE3:
    """Make poses with the patient's axes tilted about x and coincident surface centroids."""
    rotation = jax.vmap(transforms.SO3.from_x_radians)(jnp.radians(jnp.array(tilts_deg)))
    centroid = mesh_centroid(model.mean_shape, model.faces)
    shift = jnp.mean(points, axis=0)[None] - jax.vmap(lambda r: r.apply(centroid))(rotation)
    return transforms.SE3.from_rotation_and_translation(rotation, shift)


def mesh_centroid(vertices: Vertices, faces: Faces) -> Float[Array, "3"]:
    """Compute the area-weighted centroid of a surface, mm."""
    area = jnp.linalg.norm(mesh.area_vectors(vertices, faces), axis=1)
    return jnp.sum(area[:, None] * jnp.mean(vertices[faces], axis=1), axis=0) / jnp.sum(area)


@jax.jit
def _try_starts(model: ShapeModel, points: Points, normals: Points, starts: transforms.SE3):
    def attempt(start: transforms.SE3):
        pose, _, history = fit_surface(
            model, points, normals, start, noise=(6.0, 2.0), num_iterations=12
        )
        return pose, history

    return jax.vmap(attempt)(starts)


def area_shares(vertices: Vertices, faces: Faces) -> Float[Array, " vertex"]:
    """Compute the shares of the surface area at the vertices, with mean 1."""
    area = jnp.repeat(jnp.linalg.norm(mesh.area_vectors(vertices, faces), axis=1), 3)
    share = jnp.zeros(len(vertices), vertices.dtype).at[faces.reshape(-1)].add(area)
    return share / jnp.mean(share)


def match_points(
    vertices: Vertices,
    faces: Faces,
    points: Points,
    normals: Points,
    tau: float | Scalar,
    robust: float | Scalar,
) -> Matches:
    """Match closest points in both directions and accumulate them at the vertices.

    Both directions have the same total weight. Tangential components have weight `tau`; distances
    are weighted by a pseudo-Huber cost of scale `robust` mm.
    """
    vertex_normals = mesh.vertex_normals(vertices, faces)
    share = area_shares(vertices, faces)
    forward, backward = closest(
        jnp.concatenate([vertices, NORMAL_SCALE * vertex_normals], axis=1),
        jnp.concatenate([points, NORMAL_SCALE * normals], axis=1),
    )
    to_target = points[forward] - vertices
    from_target = points - vertices[backward]
    agreement = jnp.maximum(jnp.sum(vertex_normals * normals[forward], axis=1), 0.0) * share
    agreement_back = jnp.maximum(jnp.sum(vertex_normals[backward] * normals, axis=1), 0.0)
    agreement_back = agreement_back * (len(vertices) / len(points))
    distance_forward = jnp.sum(to_target * normals[forward], axis=1)
    distance_back = jnp.sum(from_target * normals, axis=1)
    # Pseudo-Huber by reweighting: distant matches are often wrong.
    robust_forward = agreement / jnp.sqrt(1.0 + (distance_forward / robust) ** 2)
    robust_back = agreement_back / jnp.sqrt(1.0 + (distance_back / robust) ** 2)
    weight = match_weights(normals[forward], robust_forward, tau)
    weight_back = match_weights(normals, robust_back, tau)
    information = weight.at[backward].add(weight_back)
    pull = jnp.einsum("nij,nj->ni", weight, to_target)
    pull = pull.at[backward].add(jnp.einsum("nij,nj->ni", weight_back, from_target))
    error = jnp.sum(agreement * jnp.abs(distance_forward))
    error_back = jnp.sum(agreement_back * jnp.abs(distance_back))
    mean = safe_divide(error + error_back, jnp.sum(agreement) + jnp.sum(agreement_back))
    return Matches(information, pull, mean)


def match_weights(
    normals: Points, weight: Float[Array, " n"], tau: float | Scalar
) -> Float[Array, "n 3 3"]:
    """Compute weight (n n^T + tau (I - n n^T))."""
    outer = normals[:, :, None] * normals[:, None, :]
    return weight[:, None, None] * ((1.0 - tau) * outer + tau * jnp.eye(3)[None])


def closest(
    features: Float[Array, "n 6"], others: Float[Array, "m 6"]
) -> tuple[Int[Array, " n"], Int[Array, " m"]]:
    """Find the closest row of the other set, in both directions, by blocks of rows."""
    count = len(features)
    padding = -count % _CHUNK
    far = jnp.pad(features, ((0, padding), (0, 0)), constant_values=1e6)
    blocks = far.reshape(-1, _CHUNK, 6)
    squared = jnp.sum(others**2, axis=1)

    def nearest(best, block_and_start):
        block, start = block_and_start
        distance = (
            jnp.sum(block**2, axis=1)[:, None]
            + squared[None]
            - 2.0 * jnp.matmul(block, others.T, precision="highest")
        )
        row, smallest = _first_minimum(distance, 0)
        closer = smallest < best[0]
        best = jnp.where(closer, smallest, best[0]), jnp.where(closer, start + row, best[1])
        return best, _first_minimum(distance, 1)[0]

    none = jnp.zeros(len(others), jnp.int32)
    start = (jnp.full(len(others), jnp.inf, features.dtype), none)
    rows = jnp.arange(len(blocks), dtype=jnp.int32) * _CHUNK
    (_, backward), forward = jax.lax.scan(nearest, start, (blocks, rows))
    return forward.reshape(-1)[:count], backward


def _first_minimum(
    values: Float[Array, "n m"], axis: int
) -> tuple[Int[Array, " k"], Float[Array, " k"]]:
    """Find the first minimum along an axis, index and value. On a CPU two plain reductions are
    several times faster than argmin."""
    minimum = jnp.min(values, axis=axis, keepdims=True)
    index = jax.lax.broadcasted_iota(jnp.int32, values.shape, axis)
    first = jnp.min(jnp.where(values == minimum, index, values.shape[axis]), axis=axis)
    return first, jnp.squeeze(minimum, axis)


def gauss_newton(
    shape: Vertices,
    modes: Float[Array, "mode vertex 3"],
    pose: transforms.SE3,
    coefficients: Coefficients,
    matches: Matches,
    sigma: Float[Array, ""],
) -> tuple[transforms.SE3, Coefficients]:
    """Take one Gauss-Newton step on rotation vector, translation and coefficients."""
    jacobian = _jacobian(shape, modes, pose)
    weighted = jnp.einsum("vij,vjp->vip", matches.information, jacobian)
    size = jacobian.shape[2]
    normal_matrix = jacobian.reshape(-1, size).T @ weighted.reshape(-1, size) / sigma**2
    gradient = jacobian.reshape(-1, size).T @ matches.pull.reshape(-1) / sigma**2
    prior = jnp.concatenate([jnp.full(6, 1e-6), jnp.ones(size - 6)])
    gradient = gradient - jnp.concatenate([jnp.zeros(6), coefficients])
    factor = jsl.cho_factor(normal_matrix + jnp.diag(prior))
    step = jsl.cho_solve(factor, gradient)
    return transforms.perturb(pose, step[:3], step[3:6]), coefficients + step[6:]


def _jacobian(
    shape: Vertices, modes: Float[Array, "mode vertex 3"], pose: transforms.SE3
) -> Float[Array, "vertex 3 parameter"]:
    """Compute d posed / d (rotation vector, translation, coefficients) for `transforms.perturb`:
    (w x R s, I, R modes)."""
    rotation = pose.rotation().as_matrix()
    rotated = shape @ rotation.T
    axes = jnp.eye(3, dtype=rotated.dtype)
    by_rotation = jnp.cross(axes[None], rotated[:, None], axis=-1).transpose(0, 2, 1)
    by_translation = jnp.broadcast_to(axes[None], (len(rotated), 3, 3))
    by_coefficients = jnp.einsum("ij,mvj->vim", rotation, modes)
    return jnp.concatenate([by_rotation, by_translation, by_coefficients], axis=2)
