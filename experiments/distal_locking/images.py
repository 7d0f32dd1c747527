"""Parts of the distal-locking experiment: what is found in images with and without a target."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import simulation
from dartjax.robot import NavigationError
from dartjax.robot.carm import detect_balls, project_points
from dartjax.robot.distal import EdgePoints, check_guide, check_nail
from dartjax.simulation import Arrangement, CarmPose
from dartjax.transforms import SE3
from experiments.distal_locking import opencv as distal_opencv

_IMAGES_AT_ONCE = 4


class Detected(NamedTuple):
    """The drill guide in one image: its balls in ideal pixels, and the true pose in the frame of
    the calibrated camera."""

    pixels: np.ndarray
    seen: np.ndarray
    K: np.ndarray
    T_true: SE3


def detection(
    num_images: int,
    carms: Sequence[CarmPose],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[Detected], list[np.ndarray]]:
    """Random images with guide and nail: one row each, what was detected, a few images."""
    rows, found, shown = [], [], []
    for i in range(num_images):
        carm = carms[i % len(carms)]
        guide, nail = simulation.random_poses(rng)
        anatomy = simulation.varied(rng, backgrounds[i % len(backgrounds)])
        image = simulation.photograph(simulation.Scene(carm, guide, nail), anatomy, i)
        started = time.perf_counter()
        sighting = jax.block_until_ready(simulation.look(image, carm))
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {
            "image": i,
            "seconds": seconds,
            "balls": int(sighting.guide.seen.sum()),
        }
        for part, check in (("guide", check_guide), ("nail", check_nail)):
            try:
                check(sighting)
                row |= {part: True, f"{part}_reason": ""}
            except NavigationError as error:
                row |= {part: False, f"{part}_reason": f"{type(error).__name__}: {error}"}
        row |= _errors(sighting, guide, nail, carm, row["guide"], row["nail"])
        row |= _ball_scores(sighting, np.asarray(image), guide, carm)
        rows.append(row)
        if row["guide"]:
            true = carm.T_found_true @ guide
            pixels, seen = np.asarray(sighting.guide.pixels), np.asarray(sighting.guide.seen)
            found.append(Detected(pixels, seen, np.asarray(carm.calibrated.carm.K), true))
        if len(shown) < 6:
            shown.append(np.asarray(image))
        step("" if row["guide"] and row["nail"] else f"image {i}: not found")
    return rows, found, shown


def _true_pixels(guide: SE3, carm: CarmPose) -> np.ndarray:
    """Where the balls are in the corrected image, by the truth: the lattice's noise is not
    theirs. NaN off the plate."""
    projected = project_points(carm.view.K, guide, simulation.GUIDE.balls)
    return simulation.ideal_in(carm, np.asarray(carm.view.recorded(projected)))


def _ball_scores(sighting: Any, image: np.ndarray, guide: SE3, carm: CarmPose) -> dict[str, float]:
    """Balls of the guide found among all that were found, by us and by OpenCV."""
    truth = _true_pixels(guide, carm)
    truth = truth[np.isfinite(truth[:, 0])]
    found = {"balls": np.asarray(sighting.balls.centers)[np.asarray(sighting.balls.valid)]}
    if distal_opencv.installed():
        circles = simulation.ideal_in(carm, distal_opencv.circles(image))
        found["opencv"] = circles[np.isfinite(circles[:, 0])]
    return {
        f"{name}_{key}": value
        for name, centers in found.items()
        for key, value in distal_opencv.ball_scores(centers, truth).items()
    }


def _errors(
    sighting: Any, guide: SE3, nail: SE3, carm: CarmPose, has_guide: bool, has_nail: bool
) -> dict[str, float]:
    """Errors of what was found, against the truth in the calibrated camera's frame."""
    row = {}
    if has_guide:
        ideal = _true_pixels(guide, carm)
        off = (np.asarray(sighting.guide.pixels) - ideal)[np.asarray(sighting.guide.seen)]
        row |= {
            "center_rms_u_px": float(np.sqrt(np.mean(off[:, 0] ** 2))),
            "center_rms_v_px": float(np.sqrt(np.mean(off[:, 1] ** 2))),
        }
        row |= _pose_error("guide", carm.T_found_true @ guide, sighting.guide.pose.T_camera_object)
    if has_nail:
        row |= _pose_error("nail", carm.T_found_true @ nail, sighting.nail.T_camera_nail)
    return row


def _pose_error(name: str, true: SE3, found: SE3) -> dict[str, float]:
    """Angle of the z-axes; in-plane and depth error of the origin, in the true frame."""
    off = np.asarray((true.inverse() @ found).as_matrix())
    angle = np.degrees(np.arctan2(np.hypot(*off[:2, 2]), off[2, 2]))
    return {
        f"{name}_axis_deg": float(angle),
        f"{name}_in_plane_mm": float(np.hypot(off[0, 3], off[1, 3])),
        f"{name}_depth_mm": float(abs(off[2, 3])),
    }


def negatives(
    num_images: int,
    carms: Sequence[CarmPose],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Images without a target: half of them anatomy alone, a quarter with six stray balls, and one
    eighth each with a nail but no guide, and with a guide but no nail."""
    rows = []
    kinds = (
        "anatomy",
        "anatomy",
        "stray balls",
        "nail",
        "anatomy",
        "anatomy",
        "stray balls",
        "guide",
    )
    for i in range(num_images):
        kind = kinds[i % len(kinds)]
        carm = carms[i % len(carms)]
        guide, nail = simulation.random_poses(rng)
        scene = simulation.Scene(
            carm,
            guide if kind == "guide" else None,
            nail if kind == "nail" else None,
            simulation.stray_balls(rng) if kind == "stray balls" else None,
        )
        anatomy = simulation.varied(rng, backgrounds[int(rng.integers(len(backgrounds)))])
        sighting = simulation.look(simulation.photograph(scene, anatomy, 10_000 + i), carm)
        false_guide = kind != "guide" and _passes(check_guide, sighting)
        false_nail = kind != "nail" and _passes(check_nail, sighting)
        rows.append({"kind": kind, "false_guide": false_guide, "false_nail": false_nail})
        step("FALSE POSITIVE" if false_guide or false_nail else "")
    return rows


def _passes(check: Callable[[Any], Any], sighting: Any) -> bool:
    try:
        check(sighting)
    except NavigationError:
        return False
    return True


class NailView(NamedTuple):
    """One image of the nail seen straight on: its edge points, and the truth."""

    edges: EdgePoints
    K: jax.Array
    T_true: SE3


def fronto_parallel_views(
    count: int,
    carms: Sequence[CarmPose],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Callable[[str], None],
) -> list[NailView]:
    """Images of nail and guide with the holes at most a degree from the beam (figure 10 of [Y])."""
    views: list[NailView] = []
    straight = Arrangement(nail_tilt_deg=(0.0, 1.0))
    while len(views) < count:
        carm = carms[len(views) % len(carms)]
        guide, nail = simulation.random_poses(rng, straight)
        anatomy = backgrounds[int(rng.integers(len(backgrounds)))]
        image = simulation.photograph(simulation.Scene(carm, guide, nail), anatomy, len(views))
        sighting = simulation.look(image, carm)
        if _passes(check_guide, sighting) and _passes(check_nail, sighting):
            K = carm.calibrated.carm.K
            views.append(NailView(sighting.edges, K, carm.T_found_true @ nail))
            step("")
    return views


def image_throughput(images: Sequence[np.ndarray], count: int) -> float:
    """Images per second that are searched for balls, all in one call."""
    repeated = np.stack([images[i % len(images)] for i in range(count)]).astype(np.uint8)

    def one(image: jax.Array):
        return detect_balls(image.astype(jnp.float32))

    return per_second(
        lambda own: jax.lax.map(one, own, batch_size=_IMAGES_AT_ONCE), jnp.asarray(repeated)
    )


def per_second(function: Callable[[Any], Any], given: Any) -> float:
    """Cases of `given` (leading axis) per second in one call, after compilation."""
    run = jax.jit(function).lower(given).compile()
    started = time.perf_counter()
    jax.block_until_ready(run(given))
    return len(jax.tree.leaves(given)[0]) / (time.perf_counter() - started)
