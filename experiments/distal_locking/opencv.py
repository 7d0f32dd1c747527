"""OpenCV on the data of distal locking, where it is installed: HoughCircles on the images,
solvePnP on the points, findHomography on the planes of the target."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dartjax import simulation
from dartjax.robot.carm import apply_homography, homography_dlt, homography_refine
from dartjax.transforms import SE3, SO3

try:
    import cv2
except ImportError:
    cv2 = None

NAME = "OpenCV: SQPnP + LM"
# Chosen on other images, for the most balls found at no more than a tenth of false ones.
_CIRCLES = {"dp": 1.0, "minDist": 8, "param1": 60, "param2": 12, "minRadius": 4, "maxRadius": 9}
_CAPACITY = 256


def installed() -> bool:
    """Whether there is an OpenCV to compare with."""
    return cv2 is not None


def circles(image: np.ndarray) -> np.ndarray:
    """Centres of dark or bright circles (256, 2), px of the recorded image; NaN after the last."""
    assert cv2 is not None
    settings: dict[str, Any] = _CIRCLES
    found = cv2.HoughCircles(image.astype(np.uint8), cv2.HOUGH_GRADIENT, **settings)
    centers = np.full((_CAPACITY, 2), np.nan, np.float32)
    if found is not None:
        best = found[0, :_CAPACITY, :2]
        centers[: len(best)] = best + 0.5
    return centers


def ball_scores(found: np.ndarray, truth: np.ndarray, reach_px: float = 2.0) -> dict[str, float]:
    """Share of the true balls found, share of what was found that is a ball, and the sum of
    squared errors per axis with its count. Pixels (n, 2), (m, 2)."""
    if not len(found):
        return {"recall": 0.0, "precision": 1.0, "square_px": 0.0, "matched": 0}
    apart = np.linalg.norm(truth[:, None] - found[None], axis=-1)
    near = apart.min(axis=1) < reach_px
    off = (truth - found[apart.argmin(axis=1)])[near]
    return {
        "recall": float(near.mean()),
        "precision": float((apart.min(axis=0) < reach_px).mean()),
        "square_px": float(np.sum(off**2) / 2.0),
        "matched": int(near.sum()),
    }


def poses(pixels: np.ndarray, seen: np.ndarray, K: np.ndarray) -> tuple[SE3, float]:
    """solvePnP (SQPnP) and its Levenberg-Marquardt on every set, and the seconds of one."""
    assert cv2 is not None
    balls = np.asarray(simulation.GUIDE.balls, float)
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


def homography_gap_px(pixels: np.ndarray, seen: np.ndarray) -> float:
    """Greatest distance between balls mapped by our homographies and by findHomography, over both
    planes of every set (n, 28, 2)."""
    assert cv2 is not None
    worst = 0.0
    fit = jax.jit(_homography)
    for uv, mask in zip(pixels, seen, strict=True):
        for plane in (True, False):
            own = mask & (np.asarray(simulation.GUIDE.plane) == plane)
            if own.sum() < 6:
                continue
            source = np.asarray(simulation.GUIDE.balls)[:, :2]
            theirs, _ = cv2.findHomography(source[own].astype(float), uv[own].astype(float), 0)
            mapped = cv2.perspectiveTransform(source[None, own].astype(float), theirs)[0]
            ours = np.asarray(fit(jnp.asarray(source), jnp.asarray(uv), jnp.asarray(own)))[own]
            worst = max(worst, float(np.linalg.norm(ours - mapped, axis=1).max()))
    return worst


def _homography(source: jax.Array, target: jax.Array, valid: jax.Array) -> jax.Array:
    H, _ = homography_dlt(source, target, valid)
    H, _ = homography_refine(H, source, target, valid)
    return apply_homography(H, source)


def detection_rows(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both detectors over all images whose rows hold their scores."""
    rows = []
    for name, stem in (("detect_balls", "balls"), ("OpenCV HoughCircles", "opencv")):
        own = [row for row in images if f"{stem}_recall" in row]
        if not own:
            continue
        square, matched = (
            sum(row[f"{stem}_{key}"] for row in own) for key in ("square_px", "matched")
        )
        rows.append(
            {
                "detector": name,
                "images": len(own),
                "balls found": float(np.mean([row[f"{stem}_recall"] for row in own])),
                "of the found are balls": float(np.mean([row[f"{stem}_precision"] for row in own])),
                "rms per axis [px]": float(np.sqrt(square / max(matched, 1))),
            }
        )
    return rows
