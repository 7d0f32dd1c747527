"""Scores of detections against the true vertebrae: precision, recall, masks, centres, levels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dartjax.models import DETECTED_LEVELS, FoundVertebrae, box_overlaps
from dartjax.training._detection import mask_in_boxes
from dartjax.training._detection_views import DetectionTruth

MATCH_OVERLAP = 0.5  # least IoU of a found and a true box, as in the papers
_THRESHOLDS = tuple(float(t) for t in np.arange(0.05, 0.75, 0.025).round(3))


class Matches(NamedTuple):
    """Pairs of found and true boxes, one to one."""

    found: Int[np.ndarray, " pair"]
    true: Int[np.ndarray, " pair"]
    overlap: Float[np.ndarray, " pair"]


def match_boxes(
    found: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    true: Float[np.ndarray, "m 4"],
    overlap: float = MATCH_OVERLAP,
) -> Matches:
    """Match found to true boxes as COCO does: in the order of the scores, each takes the free true
    box of the highest IoU, if that is at least `overlap`."""
    shared = np.array(box_overlaps(jnp.asarray(found), jnp.asarray(true))).reshape(
        len(found), len(true)
    )
    pairs = []
    for i in np.argsort(-scores, kind="stable"):
        if not shared.shape[1] or shared[i].max() < overlap:
            continue
        j = int(np.argmax(shared[i]))
        pairs.append((int(i), j, float(shared[i, j])))
        shared[:, j] = -1.0
    columns = list(zip(*pairs, strict=True)) or [(), (), ()]
    return Matches(
        np.array(columns[0], int), np.array(columns[1], int), np.array(columns[2], float)
    )


def image_scores(
    found: FoundVertebrae, truth: DetectionTruth, threshold: float
) -> list[dict[str, Any]]:
    """Compare one image's detections (above `threshold`) with its truth: one row for every true
    vertebra and every false detection. Host function.

    A row has `kind` (found, missed, false), and for found ones `overlap`, `mask_dice`, `mask_iou`,
    `center_error_px`, `level_right`, `level_off`, and `body_overlap`."""
    taken = np.flatnonzero(np.asarray(found.valid) & (np.asarray(found.score) >= threshold))
    present = np.flatnonzero(np.asarray(truth.present))
    boxes, scores = np.asarray(found.box)[taken], np.asarray(found.score)[taken]
    matches = match_boxes(boxes, scores, np.asarray(truth.box)[present])
    rows: list[dict[str, Any]] = []
    if len(matches.found):
        rows += _pairs(found, truth, taken[matches.found], present[matches.true], matches.overlap)
    for j in np.setdiff1d(present, present[matches.true]):
        rows.append({"kind": "missed", "level": DETECTED_LEVELS[int(truth.level[j])]})
    for i in np.setdiff1d(taken, taken[matches.found]):
        rows.append({"kind": "false", "score": float(found.score[i])})
    return rows


def _pairs(
    found: FoundVertebrae,
    truth: DetectionTruth,
    own: Int[np.ndarray, " n"],
    true: Int[np.ndarray, " n"],
    overlaps: Float[np.ndarray, " n"],
) -> list[dict[str, Any]]:
    size = found.mask.shape[-1]
    target = mask_in_boxes(
        jnp.asarray(truth.mask)[true],
        jnp.asarray(truth.whole_box)[true],
        jnp.asarray(found.box)[own],
        size,
    )
    dice, iou = _mask_overlap(np.asarray(found.mask)[own] > 0.5, np.asarray(target) > 0.5)
    bodies = np.diag(
        np.asarray(
            box_overlaps(jnp.asarray(found.body_box)[own], jnp.asarray(truth.body_box)[true])
        )
    )
    off = np.linalg.norm(np.asarray(found.center)[own] - np.asarray(truth.center)[true], axis=1)
    named = np.argmax(np.asarray(found.log_level)[own], axis=1)
    levels = np.asarray(truth.level)[true]
    return [
        {
            "kind": "found",
            "level": DETECTED_LEVELS[int(levels[k])],
            "score": float(np.asarray(found.score)[own[k]]),
            "overlap": float(overlaps[k]),
            "body_overlap": float(bodies[k]),
            "mask_dice": float(dice[k]),
            "mask_iou": float(iou[k]),
            "center_error_px": float(off[k]),
            "level_right": bool(named[k] == levels[k]),
            "level_off": int(named[k] - levels[k]),
        }
        for k in range(len(own))
    ]


def _mask_overlap(
    found: Bool[np.ndarray, "n m m"], true: Bool[np.ndarray, "n m m"]
) -> tuple[np.ndarray, np.ndarray]:
    """Dice and IoU within the found boxes; what the true mask has outside them is not counted."""
    shared = (found & true).sum((1, 2))
    total = found.sum((1, 2)) + true.sum((1, 2))
    union = np.maximum(total - shared, 1)
    return 2.0 * shared / np.maximum(total, 1), shared / union


def best_threshold(rows: Sequence[dict[str, Any]]) -> float:
    """Choose the least score of a detection that gives the best F1; `rows` of all detections."""
    return max(_THRESHOLDS, key=lambda least: (_f1(*_counts(rows, least)), least))


def _counts(rows: Sequence[dict[str, Any]], least: float) -> tuple[int, int, int]:
    """Count the found, the missed and the false detections of at least some score."""
    missed = sum(row["kind"] == "missed" for row in rows)
    found = sum(row["kind"] == "found" and row["score"] >= least for row in rows)
    below = sum(row["kind"] == "found" and row["score"] < least for row in rows)
    false = sum(row["kind"] == "false" and row["score"] >= least for row in rows)
    return found, missed + below, false


def _f1(found: int, missed: int, false: int) -> float:
    return 2 * found / max(2 * found + missed + false, 1)


def detection_summary(rows: Sequence[dict[str, Any]], least: float = 0.0) -> dict[str, float]:
    """Summarise the rows of `image_scores`, without detections whose score is below `least`: NaN
    where nothing was found."""
    hits, missed, false = _counts(rows, least)
    found = [row for row in rows if row["kind"] == "found" and row["score"] >= least]

    def ratio(a: int, b: int) -> float:
        return a / b if b else float("nan")

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in found])) if found else float("nan")

    return {
        "precision": ratio(hits, hits + false),
        "recall": ratio(hits, hits + missed),
        "f1": _f1(hits, missed, false),
        "mask_dice": mean("mask_dice"),
        "mask_iou": mean("mask_iou"),
        "body_overlap": mean("body_overlap"),
        "center_error_px": mean("center_error_px"),
        "level_right": mean("level_right"),
        "level_within_one": ratio(sum(abs(row["level_off"]) <= 1 for row in found), len(found)),
    }


def rows_of_batch(
    found: FoundVertebrae, truth: DetectionTruth, threshold: float
) -> list[dict[str, Any]]:
    """Compare the images of a batch: the rows of `image_scores` of all."""
    found, truth = jax.device_get((found, truth))
    rows = []
    for i in range(len(found.score)):
        own, true = (jax.tree.map(lambda leaf, i=i: leaf[i], tree) for tree in (found, truth))
        rows += image_scores(own, true, threshold)
    return rows
