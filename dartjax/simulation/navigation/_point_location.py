"""Errors of points located in a registered pair of images by different methods."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.robot import carm, navigation
from dartjax.simulation.navigation._scene import (
    NavigationView,
    RegisteredPair,
    mark_points,
    scene_target,
)
from dartjax.transforms import SE3

FIELD_MM = 25.0  # largest distance of points from the middle of the target, per axis

_locate = jax.jit(jax.vmap(navigation.locate_point, (0, None)))
_pose = jax.jit(carm.estimate_pose)
_dlt = jax.jit(carm.projection_dlt)


def point_errors(
    seen: RegisteredPair,
    pair: tuple[NavigationView, NavigationView],
    T_world_target: SE3,
    num_points: int,
    click_px: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Locate random points within 25 mm of the target's middle by every method; return errors (mm).

    Keys: `exact` and `clicked` for two planes with exact marks and with marks with a noise of
    `click_px`; `dlt` for projection matrices and `cameras` for the calibrated cameras, with exact
    marks; `gap` between the two rays, and `predicted`, the standard deviation predicted by the
    registration, both for exact marks.
    """
    points = rng.uniform(-FIELD_MM, FIELD_MM, (num_points, 3))
    in_world = np.asarray(T_world_target.apply(jnp.asarray(points, jnp.float32)))
    exact = mark_points(in_world, pair, rng, 0.0)
    located, good = _by_two_planes(seen, exact)
    sigma = np.sqrt(np.trace(np.asarray(located.covariance), axis1=1, axis2=2))
    clicked, clicked_good = _by_two_planes(seen, mark_points(in_world, pair, rng, click_px))
    return {
        "exact": _distances(located.point, points)[good],
        "gap": np.asarray(located.gap)[good],
        "predicted": sigma[good],
        "cameras": _distances(locate_by_cameras(seen, pair, exact), points),
        "dlt": _distances(locate_by_projection_matrices(seen, exact), points),
        "clicked": _distances(clicked.point, points)[clicked_good],
    }


def _by_two_planes(
    seen: RegisteredPair, marks: jax.Array
) -> tuple[navigation.LocatedPoint, np.ndarray]:
    located, status = _locate(marks, seen.views)
    return located, np.asarray(status) == 0


def _distances(located: jax.Array | np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.asarray(located) - points, axis=1)


def locate_by_projection_matrices(seen: RegisteredPair, marks: jax.Array) -> np.ndarray:
    """Locate marked points (n, view, 2) in the target's frame (n, 3) by projection matrices of 11
    parameters instead of two planes."""
    sources, directions = [], []
    for part in (0, 1):
        pixels, points, valid = _balls_of(seen, part)
        P = np.asarray(_dlt(points, pixels, valid), float)
        rays = np.linalg.solve(P[:, :3], np.c_[np.asarray(marks[:, part]), np.ones(len(marks))].T).T
        directions.append(rays / np.linalg.norm(rays, axis=1, keepdims=True))
        sources.append(np.broadcast_to(-np.linalg.solve(P[:, :3], P[:, 3]), rays.shape))
    return _triangulated(sources, directions)


def locate_by_cameras(
    seen: RegisteredPair, pair: tuple[NavigationView, NavigationView], marks: jax.Array
) -> np.ndarray:
    """Locate marked points (n, view, 2) in the target's frame (n, 3) by the calibrated cameras.

    A planner uses these cameras: K is from the plate, the pose from the target's balls.
    """
    sources, directions = [], []
    for part, view in enumerate(pair):
        pixels, points, valid = _balls_of(seen, part)
        K = view.calibrated.carm.K
        T_target_camera = _pose(pixels, points, valid, K)[0].T_camera_object.inverse()
        slopes = np.asarray(carm.to_slopes(K, marks[:, part]))
        rays = (
            np.c_[slopes, np.ones(len(slopes))]
            @ np.asarray(T_target_camera.rotation().as_matrix()).T
        )
        directions.append(rays / np.linalg.norm(rays, axis=1, keepdims=True))
        sources.append(np.broadcast_to(np.asarray(T_target_camera.translation()), rays.shape))
    return _triangulated(sources, directions)


def _balls_of(seen: RegisteredPair, part: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixels, positions and validity of the balls of one part."""
    match = seen.matches[part]
    points = scene_target().points(part).reshape(-1, 3)
    return match.pixels.reshape(-1, 2), points, match.seen.reshape(-1)


def _triangulated(sources: Sequence[np.ndarray], directions: Sequence[np.ndarray]) -> np.ndarray:
    both = np.stack(sources, axis=1), np.stack(directions, axis=1)
    X, _ = jax.vmap(navigation.triangulate_rays)(*(jnp.asarray(each, jnp.float32) for each in both))
    return np.asarray(X)
