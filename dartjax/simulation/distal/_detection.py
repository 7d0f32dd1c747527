"""Detection of drill guide and nail in simulated images, and false detections without them."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dartjax._progress import Step, no_step
from dartjax.robot import NavigationError
from dartjax.robot.carm import detect_balls, project_points
from dartjax.robot.distal import EdgePoints, LocatedGuideAndNail, check_guide, check_nail
from dartjax.simulation.distal._opencv import opencv_circles, opencv_is_installed
from dartjax.simulation.distal._scene import (
    CalibratedCarm,
    LockingArrangement,
    LockingScene,
    corrected_pixels,
    expose_locking_scene,
    find_guide_and_nail,
    random_guide_and_nail,
    random_part_of_anatomy,
    random_stray_balls,
    scene_guide,
)
from dartjax.simulation.distal._throughput import cases_per_second
from dartjax.transforms import SE3

_IMAGES_AT_ONCE = 4
_IMAGES_SHOWN = 6
_FIRST_NEGATIVE_SEED = 10_000
_REACH_PX = 2.0  # largest error of a ball that counts as detected
# Half of the images show anatomy alone.
_NEGATIVES = (
    "anatomy",
    "anatomy",
    "stray balls",
    "nail",
    "anatomy",
    "anatomy",
    "stray balls",
    "guide",
)


class DetectedGuide(NamedTuple):
    """Drill guide detected in one image: balls in ideal pixels, and the true pose in the frame of
    the calibrated camera."""

    pixels: np.ndarray
    seen: np.ndarray
    K: np.ndarray
    T_true: SE3


class Detections(NamedTuple):
    """Detections in images with guide and nail."""

    rows: list[dict[str, Any]]  # one per image
    guides: list[DetectedGuide]
    shown: list[np.ndarray]  # a few of the images


def detect_guide_and_nail(
    num_images: int,
    carms: Sequence[CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Step = no_step,
) -> Detections:
    """Detect guide and nail in random images of both, with anatomy `backgrounds` (n, h, w)."""
    rows, guides, shown = [], [], []
    for i in range(num_images):
        carm = carms[i % len(carms)]
        guide, nail = random_guide_and_nail(rng)
        anatomy = random_part_of_anatomy(rng, backgrounds[i % len(backgrounds)])
        image = expose_locking_scene(LockingScene(carm, guide, nail), anatomy, i)
        row, located = _detect(image, guide, nail, carm)
        rows.append({"image": i, **row})
        if row["guide"]:
            guides.append(_detected_guide(located, carm, guide))
        if len(shown) < _IMAGES_SHOWN:
            shown.append(np.asarray(image))
        step("" if row["guide"] and row["nail"] else f"image {i}: guide or nail not found")
    return Detections(rows, guides, shown)


def _detect(
    image: jax.Array, guide: SE3, nail: SE3, carm: CalibratedCarm
) -> tuple[dict[str, Any], LocatedGuideAndNail]:
    """Detect guide and nail in one image: row with time and errors, and the result."""
    started = time.perf_counter()
    located = jax.block_until_ready(find_guide_and_nail(image, carm))
    row: dict[str, Any] = {
        "seconds": time.perf_counter() - started,
        "balls": int(located.guide.seen.sum()),
    }
    for part, check in (("guide", check_guide), ("nail", check_nail)):
        reason = _rejection(check, located)
        row |= {part: not reason, f"{part}_reason": reason}
    if row["guide"]:
        row |= _guide_errors(located, guide, carm)
    if row["nail"]:
        true = carm.T_found_true @ nail
        row |= _pose_errors("nail", true, located.nail.T_camera_nail)
    return row | _ball_scores(located, np.asarray(image), guide, carm), located


def _rejection(check: Callable[[LocatedGuideAndNail], Any], located: LocatedGuideAndNail) -> str:
    """Reason why a check rejects the result; empty if it accepts it."""
    try:
        check(located)
    except NavigationError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _detected_guide(
    located: LocatedGuideAndNail, carm: CalibratedCarm, guide: SE3
) -> DetectedGuide:
    pixels, seen = np.asarray(located.guide.pixels), np.asarray(located.guide.seen)
    K = np.asarray(carm.calibrated.carm.K)
    return DetectedGuide(pixels, seen, K, carm.T_found_true @ guide)


def _true_pixels(guide: SE3, carm: CalibratedCarm) -> np.ndarray:
    """True pixels of the balls in the corrected image. Errors of the distortion correction are thus
    not counted as errors of the balls. NaN outside the plate."""
    projected = project_points(carm.view.K, guide, scene_guide().balls)
    return corrected_pixels(carm, np.asarray(carm.view.recorded(projected)))


def _guide_errors(
    located: LocatedGuideAndNail, guide: SE3, carm: CalibratedCarm
) -> dict[str, float]:
    """Errors of the balls' centres and of the pose, in the calibrated camera's frame."""
    errors = np.asarray(located.guide.pixels) - _true_pixels(guide, carm)
    errors = errors[np.asarray(located.guide.seen)]
    pose = located.guide.pose.T_camera_object
    return {
        "center_rms_u_px": float(np.sqrt(np.mean(errors[:, 0] ** 2))),
        "center_rms_v_px": float(np.sqrt(np.mean(errors[:, 1] ** 2))),
        **_pose_errors("guide", carm.T_found_true @ guide, pose),
    }


def _pose_errors(name: str, true: SE3, found: SE3) -> dict[str, float]:
    """Angle between the z-axes; in-plane and depth error of the origin, in the true frame."""
    off = np.asarray((true.inverse() @ found).as_matrix())
    angle = np.degrees(np.arctan2(np.hypot(*off[:2, 2]), off[2, 2]))
    return {
        f"{name}_axis_deg": float(angle),
        f"{name}_in_plane_mm": float(np.hypot(off[0, 3], off[1, 3])),
        f"{name}_depth_mm": float(abs(off[2, 3])),
    }


def _ball_scores(
    located: LocatedGuideAndNail, image: np.ndarray, guide: SE3, carm: CalibratedCarm
) -> dict[str, float]:
    """Scores of the ball detections, ours and OpenCV's, against the balls of the guide."""
    truth = _true_pixels(guide, carm)
    truth = truth[np.isfinite(truth[:, 0])]
    found = {"balls": np.asarray(located.balls.centers)[np.asarray(located.balls.valid)]}
    if opencv_is_installed():
        circles = corrected_pixels(carm, opencv_circles(image))
        found["opencv"] = circles[np.isfinite(circles[:, 0])]
    return {
        f"{name}_{key}": value
        for name, centers in found.items()
        for key, value in _center_scores(centers, truth).items()
    }


def _center_scores(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall, precision, and the sum of squared errors per axis with its count. Pixels (n, 2),
    (m, 2)."""
    if not len(found):
        return {"recall": 0.0, "precision": 1.0, "square_px": 0.0, "matched": 0}
    apart = np.linalg.norm(truth[:, None] - found[None], axis=-1)
    near = apart.min(axis=1) < _REACH_PX
    off = (truth - found[apart.argmin(axis=1)])[near]
    return {
        "recall": float(near.mean()),
        "precision": float((apart.min(axis=0) < _REACH_PX).mean()),
        "square_px": float(np.sum(off**2) / 2.0),
        "matched": int(near.sum()),
    }


def ball_detector_rows(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summarise recall, precision and accuracy of both ball detectors over all scored images."""
    rows = []
    for name, stem in (("detect_balls", "balls"), ("OpenCV HoughCircles", "opencv")):
        scored = [row for row in images if f"{stem}_recall" in row]
        if not scored:
            continue
        square, matched = (
            sum(row[f"{stem}_{key}"] for row in scored) for key in ("square_px", "matched")
        )
        rows.append(
            {
                "detector": name,
                "images": len(scored),
                "recall": float(np.mean([row[f"{stem}_recall"] for row in scored])),
                "precision": float(np.mean([row[f"{stem}_precision"] for row in scored])),
                "rms_px": float(np.sqrt(square / max(matched, 1))),
            }
        )
    return rows


def false_detections(
    num_images: int,
    carms: Sequence[CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Step = no_step,
) -> list[dict[str, Any]]:
    """Count false detections in images without guide, without nail, or without both.

    Half of the images show anatomy alone, a quarter have six stray balls, one eighth have a nail
    but no guide, and one eighth a guide but no nail.
    """
    rows = []
    for i in range(num_images):
        kind = _NEGATIVES[i % len(_NEGATIVES)]
        carm = carms[i % len(carms)]
        guide, nail = random_guide_and_nail(rng)
        scene = LockingScene(
            carm,
            guide if kind == "guide" else None,
            nail if kind == "nail" else None,
            random_stray_balls(rng) if kind == "stray balls" else None,
        )
        anatomy = random_part_of_anatomy(rng, backgrounds[int(rng.integers(len(backgrounds)))])
        image = expose_locking_scene(scene, anatomy, _FIRST_NEGATIVE_SEED + i)
        located = find_guide_and_nail(image, carm)
        false_guide = kind != "guide" and not _rejection(check_guide, located)
        false_nail = kind != "nail" and not _rejection(check_nail, located)
        rows.append({"kind": kind, "false_guide": false_guide, "false_nail": false_nail})
        step("FALSE POSITIVE" if false_guide or false_nail else "")
    return rows


class NailEdgesInImage(NamedTuple):
    """Edge points of the nail in one fronto-parallel image, with the true pose."""

    edges: EdgePoints
    K: jax.Array
    T_true: SE3


def fronto_parallel_nails(
    count: int,
    carms: Sequence[CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
    step: Step = no_step,
) -> list[NailEdgesInImage]:
    """Detect the nail in images with a tilt of at most one degree (figure 10 of [Y])."""
    found: list[NailEdgesInImage] = []
    straight = LockingArrangement(nail_tilt_deg=(0.0, 1.0))
    while len(found) < count:
        carm = carms[len(found) % len(carms)]
        guide, nail = random_guide_and_nail(rng, straight)
        anatomy = backgrounds[int(rng.integers(len(backgrounds)))]
        image = expose_locking_scene(LockingScene(carm, guide, nail), anatomy, len(found))
        located = find_guide_and_nail(image, carm)
        if not _rejection(check_guide, located) and not _rejection(check_nail, located):
            K = carm.calibrated.carm.K
            found.append(NailEdgesInImage(located.edges, K, carm.T_found_true @ nail))
            step("")
    return found


def ball_detection_rate(images: Sequence[np.ndarray], count: int) -> float:
    """Measure the rate of the ball detector: images per second, `count` in one call."""
    repeated = np.stack([images[i % len(images)] for i in range(count)]).astype(np.uint8)

    def one(image: jax.Array):
        return detect_balls(image.astype(jnp.float32))

    return cases_per_second(
        lambda batch: jax.lax.map(one, batch, batch_size=_IMAGES_AT_ONCE), jnp.asarray(repeated)
    )
