"""Comparison of pose estimators of drill guide and nail, and their sensitivity to noise."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._progress import Step, no_step
from dartjax.robot.carm import (
    estimate_pose,
    hull_ellipse,
    pnp_depths,
    pnp_dlt,
    pnp_evolution,
    pnp_lm,
    project_points,
    residual_2d_mm,
    residual_3d_mm,
)
from dartjax.robot.distal import (
    EdgePoints,
    fronto_parallel_pose,
    fronto_parallel_view,
    generic_view,
    through_hole_pose,
)
from dartjax.simulation._calibration import CENTER, FOCAL_LENGTH, SDD
from dartjax.simulation.distal._detection import DetectedGuide, NailEdgesInImage
from dartjax.simulation.distal._opencv import OPENCV_POSE, opencv_is_installed, opencv_poses
from dartjax.simulation.distal._operation import NAIL_POSE_ESTIMATORS
from dartjax.simulation.distal._scene import scene_guide, scene_nail
from dartjax.simulation.distal._throughput import cases_per_second
from dartjax.transforms import SE3, SO3

PIXEL_MM = SDD / FOCAL_LENGTH
CENTER_NOISE_PX = (0.1, 0.22, 0.5, 1.0, 1.5, 2.0, 2.5)
EDGE_NOISE_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_SAME_MINIMUM = 0.05  # mm and deg; poses are float32
_NOMINAL_K = np.array([[FOCAL_LENGTH, 0, CENTER[0]], [0, FOCAL_LENGTH, CENTER[1]], [0, 0, 1]])
_BATCH, _BATCH_STEPS = 1024, 3  # of the throughput: fits the cache; more steps change nothing
_ERROR_KEYS = ("x_mm", "y_mm", "z_mm", "rx_deg", "ry_deg", "rz_deg")


class GuidePoints(NamedTuple):
    """Pixels of the drill guide's balls in n images, with the true poses."""

    pixels: jax.Array  # (n, 28, 2), ideal
    seen: jax.Array  # (n, 28)
    K: jax.Array  # (n, 3, 3)
    T_true: SE3  # (n,)


def detected_guide_points(guides: Sequence[DetectedGuide]) -> GuidePoints:
    """Stack the guides detected in images."""
    true = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[guide.T_true for guide in guides])
    pixels, seen, K = (jnp.stack([jnp.asarray(guide[i]) for guide in guides]) for i in range(3))
    return GuidePoints(pixels, seen, K, true)


def random_guide_points(count: int, sigma_px: float, rng: np.random.Generator) -> GuidePoints:
    """Draw pixels of all 28 balls for poses in the published range, with noise of the centres."""
    angles = np.deg2rad(rng.uniform((-10.1, -5.4, -21.1), (11.7, 9.7, 39.4), (count, 3)))
    turn = jax.vmap(lambda rpy: SO3.from_rpy_radians(*rpy) @ SO3.from_x_radians(jnp.pi))(
        jnp.asarray(angles, jnp.float32)
    )
    place = rng.uniform((-16.5, -19.8, 605.5), (28.3, 24.7, 640.4), (count, 3))
    true = jax.vmap(SE3.from_rotation_and_translation)(turn, jnp.asarray(place, jnp.float32))
    K = jnp.asarray(np.broadcast_to(_NOMINAL_K, (count, 3, 3)), jnp.float32)
    pixels = jax.vmap(lambda k, T: project_points(k, T, scene_guide().balls))(K, true)
    pixels = pixels + jnp.asarray(rng.normal(0.0, sigma_px, pixels.shape), jnp.float32)
    return GuidePoints(pixels, jnp.ones(pixels.shape[:2], bool), K, true)


def compare_guide_pose_estimators(points: GuidePoints, key: jax.Array) -> list[dict[str, Any]]:
    """Compare estimators of the guide's pose (table II of [Y]).

    Linear estimators alone and refined (NL-), and OpenCV if it is installed. One row each, with
    residuals, errors and seconds per pose.
    """
    pixels, seen, K, _ = points
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.permutation(np.flatnonzero(row))[:8] for row in np.asarray(seen)])
    given = pixels, seen, K, jnp.asarray(chosen, float), jax.random.split(key, len(pixels))
    linear, refined = {}, {}
    for name, estimator in _ESTIMATORS.items():
        poses, seconds = _timed(estimator, *given)
        linear[name] = poses, seconds
        poses, more = _timed(_refine, pixels, seen, K, poses)
        refined[f"NL-{name}"] = poses, seconds + more
    reference = refined["NL-EV"][0]
    if opencv_is_installed():
        refined[OPENCV_POSE] = opencv_poses(*map(np.asarray, (pixels, seen, K)))
    return [
        {"estimator": name, "n": len(pixels), "seconds": seconds}
        | _pose_errors(poses, points, reference)
        for name, (poses, seconds) in (linear | refined).items()
    ]


def _timed(estimator: Callable[..., SE3], *given: Any) -> tuple[SE3, float]:
    """Poses of all point sets in one call, and the seconds per pose after compilation."""
    run = jax.jit(jax.vmap(estimator)).lower(*given).compile()
    started = time.perf_counter()
    poses = jax.block_until_ready(run(*given))
    return poses, (time.perf_counter() - started) / len(given[0])


def _start() -> SE3:
    """Initial pose of the evolution: straight below the source, facing it."""
    turn = SO3.from_x_radians(jnp.pi)
    return SE3.from_rotation_and_translation(turn, jnp.array([0.0, 0.0, 610.0]))


_SPREAD = np.array([25.0, 25.0, 40.0, 0.2, 0.2, 1.8])  # of the first population


def _dlt(pixels, seen, K, eights, key):
    return pnp_dlt(pixels, scene_guide().balls, seen, K)


def _depths(pixels, seen, K, eights, key):
    return pnp_depths(pixels, scene_guide().balls, eights, K)


def _evolution(pixels, seen, K, eights, key):
    weight = seen.astype(pixels.dtype)
    spread = jnp.asarray(_SPREAD)
    return pnp_evolution(pixels, scene_guide().balls, weight, K, _start(), spread, key=key)


def _refine(pixels, seen, K, start):
    weight = seen.astype(pixels.dtype)
    fit, _ = pnp_lm(pixels, scene_guide().balls, weight, K, start, num_steps=20)
    return fit.T_camera_object


_ESTIMATORS = {"DLT": _dlt, "DB": _depths, "EV": _evolution}


def _pose_errors(poses: SE3, points: GuidePoints, reference: SE3) -> dict[str, float]:
    """Mean residuals and errors of poses, and the fraction that agrees with the reference."""
    pixels, seen, K, true = points
    balls = scene_guide().balls
    flat = jax.vmap(lambda uv, k, T: residual_2d_mm(uv, balls, k, T, PIXEL_MM))(pixels, K, poses)
    deep = jax.vmap(lambda uv, k, T: residual_3d_mm(uv, balls, k, T))(pixels, K, poses)
    mask = np.asarray(seen)
    two, three = (
        np.array([row[m].mean() for row, m in zip(np.asarray(residual), mask, strict=True)])
        for residual in (flat, deep)
    )
    same = np.abs(_deviation(reference, poses)).max(axis=1) < _SAME_MINIMUM
    return {
        "residual_2d_mm": float(two.mean()),
        "residual_2d_sd_mm": float(two.std()),
        "residual_3d_mm": float(three.mean()),
        "residual_3d_sd_mm": float(three.std()),
        "same_minimum_fraction": float(same.mean()),
        **_mean_errors(true, poses),
    }


def _mean_errors(true: SE3, found: SE3) -> dict[str, float]:
    errors = np.abs(_deviation(true, found))
    return {key: float(errors[:, i].mean()) for i, key in enumerate(_ERROR_KEYS)}


def _deviation(true: SE3, found: SE3) -> np.ndarray:
    """(n, 6): translation in mm and rotation vector in degrees, camera axes."""
    shift = np.asarray(found.translation() - true.translation())
    turn = jax.vmap(lambda a, b: (b.rotation() @ a.rotation().inverse()).log())(true, found)
    return np.concatenate([shift, np.degrees(np.asarray(turn))], axis=1)


_estimate = jax.jit(
    jax.vmap(lambda uv, seen, K: estimate_pose(uv, scene_guide().balls, seen, K, num_steps=20)[0])
)


def guide_pose_sensitivity(draws: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Compute mean errors of the guide's pose by NL-DLT against noise of the balls' centres
    (figure 9 of [Y])."""
    rows = []
    for sigma in CENTER_NOISE_PX:
        pixels, seen, K, true = random_guide_points(draws, sigma, rng)
        poses = _estimate(pixels, seen, K).T_camera_object
        rows.append({"sigma_px": sigma, "n": draws, **_mean_errors(true, poses)})
    return rows


def guide_pose_rate(count: int, rng: np.random.Generator) -> float:
    """Measure the rate of NL-DLT: poses of the guide per second, `count` in one call."""
    pixels, seen, K, _ = random_guide_points(min(count, 500), 0.1, rng)
    repeat = -(-count // len(pixels))
    sets = tuple(jnp.concatenate([array] * repeat)[:count] for array in (pixels, seen, K))

    def one(given: tuple[jax.Array, ...]):
        uv, mask, k = given
        return estimate_pose(uv, scene_guide().balls, mask, k, num_steps=_BATCH_STEPS)

    return cases_per_second(lambda cases: jax.lax.map(one, cases, batch_size=_BATCH), sets)


def nail_pose_sensitivity(
    nails: Sequence[NailEdgesInImage], draws: int, step: Step = no_step
) -> list[dict[str, Any]]:
    """Compute mean errors of the nail's pose by every estimator against noise of its edge points
    (figure 10 of [Y]), with `draws` per image."""
    rows = []
    for sigma in EDGE_NOISE_PX:
        errors = [
            np.asarray(_disturbed(nail, jnp.asarray(sigma), jax.random.key(i), draws))
            for i, nail in enumerate(nails)
        ]
        stacked = np.concatenate(errors)  # (draws, estimator, 3)
        rows += [
            {"sigma_px": sigma, "estimator": name, **_nail_errors(stacked[:, j])}
            for j, name in enumerate(NAIL_POSE_ESTIMATORS)
        ]
        step(f"{sigma:g} px")
    return rows


def _nail_errors(errors: np.ndarray) -> dict[str, Any]:
    """Means of errors (n, 3) of axis angle (rad), in-plane and depth position (mm)."""
    good = np.isfinite(errors).all(axis=1)
    mean = errors[good].mean(axis=0)
    return {
        "n": len(errors),
        "no_answer": int((~good).sum()),
        "axis_deg": float(np.degrees(mean[0])),
        "in_plane_mm": float(mean[1]),
        "depth_mm": float(mean[2]),
    }


@functools.partial(jax.jit, static_argnames="draws")
def _disturbed(view: NailEdgesInImage, sigma: jax.Array, key: jax.Array, draws: int) -> jax.Array:
    """Errors (draw, estimator, 3) of axis angle (rad), in-plane and depth position (mm)."""
    x_axis = view.T_true.rotation().as_matrix()[:2, 0]

    def one(key: jax.Array) -> jax.Array:
        edges = _with_noise(view.edges, sigma, key)
        return jnp.stack(
            [_three_errors(view.T_true, pose) for pose in _poses(edges, x_axis, view.K)]
        )

    return jax.lax.map(one, jax.random.split(key, draws))


def _with_noise(edges: EdgePoints, sigma: jax.Array, key: jax.Array) -> EdgePoints:
    on_holes, on_contour = jax.random.split(key)
    hole = edges.hole + sigma * jax.random.normal(on_holes, edges.hole.shape)
    contour = edges.contour + sigma * jax.random.normal(on_contour, edges.contour.shape)
    return EdgePoints(hole, edges.hole_valid, contour, edges.contour_valid)


def _poses(edges: EdgePoints, x_axis: jax.Array, K: jax.Array) -> tuple[SE3, ...]:
    """T_camera_nail by every estimator, in the order of `NAIL_POSE_ESTIMATORS`."""
    ellipses, _ = jax.vmap(hull_ellipse)(edges.hole, edges.hole_valid)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], ellipses) for i in (0, 1))
    fronto, _ = fronto_parallel_view(first, second, x_axis, K, scene_nail())
    generic, _, _ = generic_view(first, second, K, scene_nail())
    centers = jnp.stack([first.center, second.center])
    start = fronto_parallel_pose(centers, x_axis, K, scene_nail())
    through, _ = through_hole_pose(edges, start, K, scene_nail())
    return through.T_camera_nail, fronto, generic


def _three_errors(true: SE3, found: SE3) -> jax.Array:
    error = true.inverse() @ found
    axis, place = error.rotation().as_matrix()[:, 2], error.translation()
    angle = jnp.arctan2(jnp.hypot(axis[0], axis[1]), axis[2])
    return jnp.stack([angle, jnp.hypot(place[0], place[1]), jnp.abs(place[2])])
