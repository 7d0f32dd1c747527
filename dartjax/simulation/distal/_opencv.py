"""OpenCV baselines of distal locking, if OpenCV is installed: HoughCircles on images, solvePnP on
points, findHomography on the planes of the guide."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dartjax.robot.carm import apply_homography, homography_dlt, homography_refine
from dartjax.simulation.distal._scene import scene_guide
from dartjax.transforms import SE3, SO3

OPENCV_POSE = "OpenCV: SQPnP + LM"
# Tuned on other images for the highest recall at a precision of at least 0.9.
_CIRCLES = {"dp": 1.0, "minDist": 8, "param1": 60, "param2": 12, "minRadius": 4, "maxRadius": 9}
_CAPACITY = 256
_MIN_BALLS = 6  # per plane, for a homography


@functools.cache
def _opencv() -> Any:
    """The module cv2, or None."""
    try:
        import cv2  # noqa: PLC0415  (optional)
    except ImportError:
        return None
    return cv2


def opencv_is_installed() -> bool:
    """Return whether OpenCV is installed."""
    return _opencv() is not None


def opencv_circles(image: np.ndarray) -> np.ndarray:
    """Detect circles with HoughCircles: centres (256, 2), px of the recorded image, padded with
    NaN."""
    cv2 = _opencv()
    found = cv2.HoughCircles(image.astype(np.uint8), cv2.HOUGH_GRADIENT, **_CIRCLES)
    centers = np.full((_CAPACITY, 2), np.nan, np.float32)
    if found is not None:
        best = found[0, :_CAPACITY, :2]
        centers[: len(best)] = best + 0.5
    return centers


def opencv_poses(pixels: np.ndarray, seen: np.ndarray, K: np.ndarray) -> tuple[SE3, float]:
    """Estimate T_camera_guide of every point set (n, 28, 2) by solvePnP (SQPnP) and its
    Levenberg-Marquardt refinement. Also returns the seconds per pose."""
    cv2 = _opencv()
    balls = np.asarray(scene_guide().balls, float)
    turns, places = [], []
    started = time.perf_counter()
    for uv, mask, k in zip(pixels.astype(float), seen, K.astype(float), strict=True):
        given = balls[mask], uv[mask], k, None
        _, turn, place = cv2.solvePnP(*given, flags=cv2.SOLVEPNP_SQPNP)
        turn, place = cv2.solvePnPRefineLM(*given, turn, place)
        turns.append(turn[:, 0])
        places.append(place[:, 0])
    seconds = (time.perf_counter() - started) / len(pixels)
    turn, place = (jnp.asarray(np.array(each), jnp.float32) for each in (turns, places))
    T = jax.vmap(lambda w, t: SE3.from_rotation_and_translation(SO3.exp(w), t))(turn, place)
    return T, seconds


def opencv_homography_gap_px(pixels: np.ndarray, seen: np.ndarray) -> float:
    """Measure the largest distance between balls mapped by our homographies and by
    findHomography, over both planes of every point set (n, 28, 2)."""
    plane, source = np.asarray(scene_guide().plane), np.asarray(scene_guide().balls)[:, :2]
    worst = 0.0
    for uv, mask in zip(pixels, seen, strict=True):
        for valid in (mask & plane, mask & ~plane):
            if valid.sum() >= _MIN_BALLS:
                worst = max(worst, _gap_px(source, uv, valid))
    return worst


def _gap_px(source: np.ndarray, uv: np.ndarray, valid: np.ndarray) -> float:
    cv2 = _opencv()
    theirs, _ = cv2.findHomography(source[valid].astype(float), uv[valid].astype(float), 0)
    mapped = cv2.perspectiveTransform(source[None, valid].astype(float), theirs)[0]
    ours = np.asarray(_homography(jnp.asarray(source), jnp.asarray(uv), jnp.asarray(valid)))
    return float(np.linalg.norm(ours[valid] - mapped, axis=1).max())


@jax.jit
def _homography(source: jax.Array, target: jax.Array, valid: jax.Array) -> jax.Array:
    H, _ = homography_dlt(source, target, valid)
    H, _ = homography_refine(H, source, target, valid)
    return apply_homography(H, source)
