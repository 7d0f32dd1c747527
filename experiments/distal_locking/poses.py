"""Parts of the distal-locking experiment: estimators of pose, and their sensitivity to noise."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import simulation
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
from dartjax.transforms import SE3, SO3
from experiments.distal_locking import opencv as distal_opencv
from experiments.distal_locking.images import Detected, NailView, per_second

PIXEL_MM = simulation.SDD / simulation.FOCAL_LENGTH
SIGMAS_PX = (0.1, 0.22, 0.5, 1.0, 1.5, 2.0, 2.5)
EDGE_SIGMAS_PX = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
K_NOMINAL = np.array(
    [[simulation.FOCAL_LENGTH, 0, 384.0], [0, simulation.FOCAL_LENGTH, 288.0], [0, 0, 1]]
)
_BATCH, _BATCH_STEPS = 1024, 3  # of the throughput: what fits a cache; more steps move nothing


def pose_table(
    sets: tuple[jax.Array, jax.Array, jax.Array, SE3], key: jax.Array
) -> list[dict[str, Any]]:
    """Table II: estimators on sets of (pixels, seen, K, true pose), leading axis one set each."""
    pixels, seen, K, true = sets
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
    if distal_opencv.installed():
        refined[distal_opencv.NAME] = distal_opencv.poses(*map(np.asarray, (pixels, seen, K)))
    return [
        _table_row(name, poses, seconds, pixels, seen, K, true, reference)
        for name, (poses, seconds) in (linear | refined).items()
    ]


def _timed(estimator: Callable[..., SE3], *given: Any) -> tuple[SE3, float]:
    """Poses of all sets in one call, and the seconds each took after compilation."""
    run = jax.jit(jax.vmap(estimator)).lower(*given).compile()
    started = time.perf_counter()
    poses = jax.block_until_ready(run(*given))
    return poses, (time.perf_counter() - started) / len(given[0])


def _start() -> SE3:
    """Where evolution starts: straight below the source, seen head on."""
    turn = SO3.from_x_radians(jnp.pi)
    return SE3.from_rotation_and_translation(turn, jnp.array([0.0, 0.0, 610.0]))


_SPREAD = np.array([25.0, 25.0, 40.0, 0.2, 0.2, 1.8])  # of the first population


def _dlt(pixels, seen, K, eights, key):
    return pnp_dlt(pixels, simulation.GUIDE.balls, seen, K)


def _depths(pixels, seen, K, eights, key):
    return pnp_depths(pixels, simulation.GUIDE.balls, eights, K)


def _evolution(pixels, seen, K, eights, key):
    weight = seen.astype(pixels.dtype)
    spread = jnp.asarray(_SPREAD)
    return pnp_evolution(pixels, simulation.GUIDE.balls, weight, K, _start(), spread, key=key)


def _refine(pixels, seen, K, start):
    weight = seen.astype(pixels.dtype)
    fit, _ = pnp_lm(pixels, simulation.GUIDE.balls, weight, K, start, num_steps=20)
    return fit.T_camera_object


_ESTIMATORS = {"DLT": _dlt, "DB": _depths, "EV": _evolution}


def _table_row(name, poses, seconds, pixels, seen, K, true, reference) -> dict[str, Any]:
    balls = simulation.GUIDE.balls
    flat = jax.vmap(lambda uv, k, T: residual_2d_mm(uv, balls, k, T, PIXEL_MM))(pixels, K, poses)
    deep = jax.vmap(lambda uv, k, T: residual_3d_mm(uv, balls, k, T))(pixels, K, poses)
    mask = np.asarray(seen)
    two, three = (
        np.array([own[m].mean() for own, m in zip(np.asarray(part), mask, strict=True)])
        for part in (flat, deep)
    )
    from_truth = _deviation(true, poses)
    same = np.abs(_deviation(reference, poses)).max(axis=1) < 0.05  # mm, deg; float32
    row: dict[str, Any] = {
        "estimator": name,
        "n": len(two),
        "time [ms]": 1e3 * seconds,
        "2D [mm]": float(two.mean()),
        "2D sd": float(two.std()),
        "3D [mm]": float(three.mean()),
        "3D sd": float(three.std()),
        "same minimum as NL-EV": float(same.mean()),
    }
    for i, axis in enumerate(("x [mm]", "y [mm]", "z [mm]", "rx [deg]", "ry [deg]", "rz [deg]")):
        row[f"error {axis}"] = float(np.abs(from_truth[:, i]).mean())
    return row


def _deviation(true: SE3, found: SE3) -> np.ndarray:
    """(n, 6): translation in mm and rotation vector in degrees, camera axes."""
    shift = np.asarray(found.translation() - true.translation())
    turn = jax.vmap(lambda a, b: (b.rotation() @ a.rotation().inverse()).log())(true, found)
    return np.concatenate([shift, np.degrees(np.asarray(turn))], axis=1)


def ideal_sets(count: int, sigma_px: float, rng: np.random.Generator):
    """Sets of all 28 balls in the published range of poses, with noise of the centres."""
    angles = np.deg2rad(rng.uniform((-10.1, -5.4, -21.1), (11.7, 9.7, 39.4), (count, 3)))
    turn = jax.vmap(lambda rpy: SO3.from_rpy_radians(*rpy) @ SO3.from_x_radians(jnp.pi))(
        jnp.asarray(angles, jnp.float32)
    )
    place = rng.uniform((-16.5, -19.8, 605.5), (28.3, 24.7, 640.4), (count, 3))
    true = jax.vmap(SE3.from_rotation_and_translation)(turn, jnp.asarray(place, jnp.float32))
    K = jnp.asarray(np.broadcast_to(K_NOMINAL, (count, 3, 3)), jnp.float32)
    pixels = jax.vmap(lambda k, T: project_points(k, T, simulation.GUIDE.balls))(K, true)
    pixels = pixels + jnp.asarray(rng.normal(0.0, sigma_px, pixels.shape), jnp.float32)
    return pixels, jnp.ones(pixels.shape[:2], bool), K, true


def image_sets(found: Sequence[Detected]):
    """The sets of `pose_table` from images."""
    true = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[own.T_true for own in found])
    pixels, seen, K = (jnp.stack([jnp.asarray(own[i]) for own in found]) for i in range(3))
    return pixels, seen, K, true


_estimate = jax.jit(
    jax.vmap(
        lambda uv, seen, K: estimate_pose(uv, simulation.GUIDE.balls, seen, K, num_steps=20)[0]
    )
)


def center_noise_curve(draws: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Figure 9: NL-DLT against the noise of the balls' centres."""
    rows = []
    for sigma in SIGMAS_PX:
        pixels, seen, K, true = ideal_sets(draws, sigma, rng)
        poses = _estimate(pixels, seen, K).T_camera_object
        off = np.abs(_deviation(true, poses))
        row: dict[str, Any] = {"sigma [px]": sigma, "n": draws}
        for i, axis in enumerate(
            ("x [mm]", "y [mm]", "z [mm]", "rx [deg]", "ry [deg]", "rz [deg]")
        ):
            row[axis] = float(off[:, i].mean())
        rows.append(row)
    return rows


def throughput(count: int, rng: np.random.Generator) -> float:
    """Poses per second by NL-DLT, all in one call."""
    pixels, seen, K, _ = ideal_sets(min(count, 500), 0.1, rng)
    repeat = -(-count // len(pixels))
    sets = tuple(jnp.concatenate([own] * repeat)[:count] for own in (pixels, seen, K))

    def one(given: tuple[jax.Array, ...]):
        uv, mask, k = given
        return estimate_pose(uv, simulation.GUIDE.balls, mask, k, num_steps=_BATCH_STEPS)

    return per_second(lambda own: jax.lax.map(one, own, batch_size=_BATCH), sets)


@functools.partial(jax.jit, static_argnames="draws")
def _disturbed(view: NailView, sigma: jax.Array, key: jax.Array, draws: int):
    """Deviations (draw, estimator, 3) in axis angle (rad), in-plane and depth (mm)."""
    nail, edges, K = simulation.NAIL, view.edges, view.K
    x_axis = view.T_true.rotation().as_matrix()[:2, 0]

    def one(key: jax.Array) -> jax.Array:
        on_holes, on_contour = jax.random.split(key)
        hole = edges.hole + sigma * jax.random.normal(on_holes, edges.hole.shape)
        contour = edges.contour + sigma * jax.random.normal(on_contour, edges.contour.shape)
        moved = EdgePoints(hole, edges.hole_valid, contour, edges.contour_valid)
        ellipses, _ = jax.vmap(hull_ellipse)(moved.hole, moved.hole_valid)
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], ellipses) for i in (0, 1))
        fronto, _ = fronto_parallel_view(first, second, x_axis, K, nail)
        generic, _, _ = generic_view(first, second, K, nail)
        centers = jnp.stack([first.center, second.center])
        start = fronto_parallel_pose(centers, x_axis, K, nail)
        through, _ = through_hole_pose(moved, start, K, nail)
        poses = (through.T_camera_nail, fronto, generic)
        return jnp.stack([_three_errors(view.T_true, pose) for pose in poses])

    return jax.lax.map(one, jax.random.split(key, draws))


def _three_errors(true: SE3, found: SE3) -> jax.Array:
    off = true.inverse() @ found
    axis, place = off.rotation().as_matrix()[:, 2], off.translation()
    angle = jnp.arctan2(jnp.hypot(axis[0], axis[1]), axis[2])
    return jnp.stack([angle, jnp.hypot(place[0], place[1]), jnp.abs(place[2])])


def edge_noise_curve(
    views: Sequence[NailView], draws: int, names: Sequence[str], step: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Figure 10: every estimator of the nail's pose against noise of the edge points."""
    rows = []
    for sigma in EDGE_SIGMAS_PX:
        errors = []
        for i, view in enumerate(views):
            key = jax.random.key(i)
            errors.append(np.asarray(_disturbed(view, jnp.asarray(sigma), key, draws)))
        stacked = np.concatenate(errors)  # (draws, estimator, 3)
        for j, name in enumerate(names):
            own = stacked[:, j]
            good = np.isfinite(own).all(axis=1)
            mean = own[good].mean(axis=0)
            rows.append(
                {
                    "sigma [px]": sigma,
                    "estimator": name,
                    "n": len(own),
                    "no answer": int((~good).sum()),
                    "axis [deg]": float(np.degrees(mean[0])),
                    "in plane [mm]": float(mean[1]),
                    "depth [mm]": float(mean[2]),
                }
            )
        step(f"{sigma:g} px")
    return rows
