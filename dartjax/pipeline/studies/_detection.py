"""Study of the detector: what it finds in simulated radiographs of CTs with known vertebrae."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from dartjax import anatomy, data, render, simulation, training
from dartjax import camera as cameras
from dartjax.camera import Camera
from dartjax.image import Radiograph, Volume, resample
from dartjax.models import DETECTED_LEVELS, box_overlaps
from dartjax.observations import LANDMARK_NAMES, Detection
from dartjax.pipeline._networks import check_not_trained_on, detector_folder, landmark_folder
from dartjax.pipeline.detection import FoundSpine, ViewDetections, detect, find_spine
from dartjax.simulation import dataset

Row = dict[str, Any]
_SAMPLES = 96  # per ray through a vertebra
_NEAR = 0.6  # of a body's side: a detection nearer than this is of that vertebra


class LabelledVertebrae(NamedTuple):
    """All labelled vertebrae of a case from head to foot, prepared for projection. Those that do
    not count are cut off in the CT, or of a level that the detector does not know."""

    levels: tuple[str, ...]
    counted: Bool[np.ndarray, " n"]
    solids: render.Solids
    points: dataset.VertebraPoints


@dataclasses.dataclass(frozen=True)
class ViewTruth:
    """Vertebrae that one view shows, from head to foot; pixels. Those that do not count may be
    found or not (`LabelledVertebrae`)."""

    levels: tuple[str, ...]
    counted: Bool[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]
    boxes: Float[np.ndarray, "n 4"]
    body_boxes: Float[np.ndarray, "n 4"]
    centers: Float[np.ndarray, "n 2"]


@dataclasses.dataclass(frozen=True)
class DetectorRows:
    """Results of the detector in one scene: a row per vertebra and view or false detection, per
    vertebra matched between the views, and per landmark and view."""

    views: list[Row]
    matches: list[Row]
    landmarks: list[Row]


def detector_rows(
    truths: Sequence[ViewTruth],
    known: Sequence[simulation.TrueVertebra],
    radiographs: Sequence[Radiograph],
    *,
    weights: str | None = None,
    landmarks: str | None = None,
    exclude: Sequence[str] = (),
    in_body: bool = False,
) -> tuple[DetectorRows, list[ViewDetections]]:
    """Compare what is found in radiographs with the vertebrae that they show. `known` are those
    with landmarks. The networks are given by their folders (None: the packaged ones). `in_body`:
    the CT is in a synthetic body, whose own vertebrae are not labelled: what is found above the
    first and below the last known vertebra does not count."""
    found = detect(radiographs, weights=weights)
    partners = [_partners(*each) for each in zip(found, truths, strict=True)]
    views: list[Row] = []
    for k, radiograph in enumerate(radiographs):
        scene = {"view": k, "lateral": _is_lateral(radiograph.camera)}
        beyond = _beyond(found[k], truths[k]) if in_body else set[int]()
        rows = _view_rows(found[k], truths[k], partners[k], radiograph, beyond)
        views += [scene | row for row in rows]
    try:
        spine = find_spine(radiographs, weights=weights, landmarks=landmarks, exclude=exclude)
    except data.DataError as error:
        lost = [{**row, "reason": str(error)} for row in _lost_rows(truths, ())]
        return DetectorRows(views, lost, []), found
    matches, right = _match_rows(spine, truths, in_body=in_body)
    landmark_rows = _landmark_rows(spine, right, known, radiographs)
    return DetectorRows(views, matches, landmark_rows), found


def labelled_vertebrae(case: data.Case) -> LabelledVertebrae:
    """Prepare the labelled vertebrae of a case for projection."""
    affine = np.asarray(case.ct.world_from_voxel, np.float64)
    labels = np.asarray(case.labels)
    present = set(np.unique(labels).tolist())
    levels = [level for level, label in anatomy.LABEL_OF_LEVEL.items() if label in present]
    numbers = [data.label_of(level) for level in levels]
    return LabelledVertebrae(
        levels=tuple(levels),
        counted=np.array([v in case.levels and v in DETECTED_LEVELS for v in levels], bool),
        solids=render.vertebra_solids(labels, affine, numbers),
        points=dataset.vertebra_points(labels, affine, numbers),
    )


def view_truth(vertebrae: LabelledVertebrae, view: Camera) -> ViewTruth:
    """Project the labelled vertebrae of a case into a view, and keep those it shows: a third of a
    vertebra, and 25 pixels."""
    masks = np.asarray(render.project_solids(vertebrae.solids, view, num_samples=_SAMPLES)) > 0.0
    height, width = view.image_size
    bodies = dataset.project_bodies(vertebrae.points, view, np.array([0.0, 0.0, width, height]))
    is_large = masks.sum((1, 2)) >= training.LEAST_PIXELS
    kept = np.flatnonzero(is_large & (bodies.exposed >= training.LEAST_EXPOSED))
    return ViewTruth(
        levels=tuple(vertebrae.levels[i] for i in kept),
        counted=vertebrae.counted[kept],
        masks=masks[kept],
        boxes=np.array([training.box_around(masks[i]) for i in kept], float).reshape(-1, 4),
        body_boxes=bodies.box[kept],
        centers=bodies.center[kept],
    )


def _partners(found: ViewDetections, truth: ViewTruth) -> dict[int, int]:
    """Index of the true vertebra of each detection that has one."""
    if not len(found) or not len(truth.levels):
        return {}
    matched = training.match_boxes(found.box, found.score, truth.boxes)
    return dict(zip(matched.found.tolist(), matched.true.tolist(), strict=True))


def _beyond(found: ViewDetections, truth: ViewTruth) -> set[int]:
    """Detections above the first and below the last true vertebra of a view."""
    if not len(truth.levels):
        return set(range(len(found)))
    first, last = truth.body_boxes[:, 1].min(), truth.body_boxes[:, 3].max()
    outside = (found.center[:, 1] < first) | (found.center[:, 1] > last)
    return set(np.flatnonzero(outside).tolist())


def _view_rows(
    found: ViewDetections,
    truth: ViewTruth,
    partner: Mapping[int, int],
    radiograph: Radiograph,
    beyond: Collection[int] = (),
) -> list[Row]:
    of_truth = {j: i for i, j in partner.items()}
    in_view = int(truth.counted.sum())
    rows: list[Row] = []
    for j, level in enumerate(truth.levels):
        if not truth.counted[j]:
            continue
        row: Row = {"level": level, "kind": "missed", "in_view": in_view}
        if j in of_truth:
            row |= {"kind": "found"} | _found_row(found, of_truth[j], truth, j, radiograph)
        rows.append(row)
    false = [i for i in range(len(found)) if i not in partner and i not in beyond]
    rows += [{"kind": "false", "score": float(found.score[i]), "in_view": in_view} for i in false]
    return rows


def _found_row(
    found: ViewDetections, i: int, truth: ViewTruth, j: int, radiograph: Radiograph
) -> Row:
    view = radiograph.camera
    mask = np.asarray(resample(found.mask_of(i, view), view).image) > 0.5
    shared, total = (mask & truth.masks[j]).sum(), mask.sum() + truth.masks[j].sum()
    bodies = box_overlaps(
        jnp.asarray(found.body_box[i : i + 1]), jnp.asarray(truth.body_boxes[j : j + 1])
    )
    off = int(np.argmax(found.log_level[i])) - DETECTED_LEVELS.index(truth.levels[j])
    side = np.ptp(truth.body_boxes[j].reshape(2, 2), axis=0).mean()
    return {
        "score": float(found.score[i]),
        "mask_dice": float(2.0 * shared / max(total, 1)),
        "mask_iou": float(shared / max(total - shared, 1)),
        "body_overlap": float(bodies[0, 0]),
        "center_error_in_bodies": float(np.linalg.norm(found.center[i] - truth.centers[j]) / side),
        "level_off": off,
    }


def _match_rows(
    spine: FoundSpine, truths: Sequence[ViewTruth], *, in_body: bool = False
) -> tuple[list[Row], dict[str, str]]:
    """Rows of the matched vertebrae and of those that all views show but that were not matched; and
    the true level of those matched rightly, by name. A true vertebra is matched once at most."""
    nearest = [_nearest_levels(*each) for each in zip(spine.views, truths, strict=True)]
    shown = _shown_by_all(truths)
    rows: list[Row] = []
    right: dict[str, str] = {}
    for named, vertebra in spine.matched.items():
        levels = [nearest[k][i] for k, i in enumerate(vertebra.index) if i >= 0]
        if in_body and not any(levels):
            continue  # a vertebra of the synthetic body
        same = len(set(levels)) == 1 and levels[0] is not None and levels[0] not in right.values()
        rows.append(
            {
                "kind": "matched",
                "level": levels[0],
                "matched_right": same,
                "shown_by_all": levels[0] in shown,
                "named": named,
                "named_reliable": spine.named,
                "level_right": bool(same and named == levels[0]),
                "num_views": vertebra.num_views,
            }
        )
        if same:
            right[named] = str(levels[0])
    return [*rows, *_lost_rows(truths, right.values())], right


def _lost_rows(truths: Sequence[ViewTruth], matched: Collection[str]) -> list[Row]:
    """Rows of the vertebrae that all views show and that were not matched."""
    lost = sorted(_shown_by_all(truths) - set(matched))
    return [{"kind": "not matched", "level": level} for level in lost]


def _shown_by_all(truths: Sequence[ViewTruth]) -> set[str]:
    """Levels that count and that every view shows."""
    return set.intersection(*({t.levels[j] for j in np.flatnonzero(t.counted)} for t in truths))


def _nearest_levels(found: ViewDetections, truth: ViewTruth) -> list[str | None]:
    """Level of the nearest true body of every detection; None if it is farther than .6 of its
    mean side."""
    if not len(truth.levels):
        return [None] * len(found)
    away = np.linalg.norm(found.center[:, None] - truth.centers[None], axis=-1)
    sides = np.ptp(truth.body_boxes.reshape(-1, 2, 2), axis=1).mean(-1)
    nearest = np.argmin(away, axis=1) if len(found) else np.zeros(0, int)
    return [
        truth.levels[j] if away[i, j] <= _NEAR * sides[j] else None for i, j in enumerate(nearest)
    ]


def _landmark_rows(
    spine: FoundSpine,
    right: Mapping[str, str],
    known: Sequence[simulation.TrueVertebra],
    radiographs: Sequence[Radiograph],
) -> list[Row]:
    true = {each.level: each.landmarks for each in known if each.landmarks is not None}
    rows: list[Row] = []
    for named, level in right.items():
        if named in spine.detections and level in true:
            points = np.asarray(true[level])
            rows += [
                {"level": level, **row}
                for row in landmark_errors(spine.detections[named], points, radiographs)
            ]
    return rows


def landmark_errors(
    detection: Detection, points: Float[np.ndarray, "10 3"], radiographs: Sequence[Radiograph]
) -> list[Row]:
    """Compare the landmarks of one vertebra with the true ones (world mm): a row per landmark and
    view that shows it, with error and reported deviation in mm at the vertebra."""
    rows: list[Row] = []
    for k, radiograph in enumerate(radiographs):
        view = radiograph.camera
        at = np.asarray(cameras.project(view, jnp.asarray(points, jnp.float32)))
        depth = np.asarray(cameras.depth(view, jnp.asarray(points, jnp.float32)))
        away = np.linalg.norm(detection.landmarks[k] - at, axis=-1)
        error = away * depth / float(view.focal_length[0])
        height, width = view.image_size
        shown = ((at > 0.0) & (at < np.array([width, height]))).all(-1)
        for i in np.flatnonzero(shown):
            found = bool(np.isfinite(detection.sigma[k, i]))
            rows.append(
                {
                    "view": k,
                    "lateral": _is_lateral(view),
                    "landmark": LANDMARK_NAMES[i],
                    "found": found,
                    "error_mm": float(error[i]) if found else float("nan"),
                    "sigma_mm": float(detection.sigma[k, i]),
                }
            )
    return rows


def _is_lateral(view: Camera) -> bool:
    return bool(abs(float(view.beam[0])) > training.LATERAL_BEAM)


def detector_summary(rows: DetectorRows) -> dict[str, float]:
    """Summarise the rows of some scenes: the figures of published detectors. NaN without cases."""
    found = [row for row in rows.views if row["kind"] == "found"]
    count = {kind: sum(row["kind"] == kind for row in rows.views) for kind in ("missed", "false")}
    matched = [row for row in rows.matches if row["kind"] == "matched"]
    missing = sum(row["kind"] == "not matched" for row in rows.matches)
    named = [row for row in matched if row["named_reliable"] and row["matched_right"]]
    kept = [row for row in rows.landmarks if row["found"]]

    def share(number: float | int, total: int) -> float:
        return number / total if total else float("nan")

    def mean(name: str) -> float:
        return share(sum(row[name] for row in found), len(found))

    def median(lateral: bool) -> float:
        errors = [row["error_mm"] for row in kept if row["lateral"] == lateral]
        return float(np.median(errors)) if errors else float("nan")

    hits = len(found)
    right = sum(row["matched_right"] for row in matched)
    of_shown = sum(row["matched_right"] and row["shown_by_all"] for row in matched)
    return {
        "precision": share(hits, hits + count["false"]),
        "recall": share(hits, hits + count["missed"]),
        "f1": share(2 * hits, 2 * hits + count["false"] + count["missed"]),
        "mask_dice": mean("mask_dice"),
        "mask_iou": mean("mask_iou"),
        "body_overlap": mean("body_overlap"),
        "center_error_in_bodies": mean("center_error_in_bodies"),
        "level_right_one_view": share(sum(row["level_off"] == 0 for row in found), hits),
        "matched_right": share(right, len(matched)),
        "matched_of_shown": share(of_shown, of_shown + missing),
        "level_right": share(sum(row["level_right"] for row in matched), right),
        "named": share(len(named), right),
        "level_right_of_named": share(sum(row["level_right"] for row in named), len(named)),
        "frontal_landmarks_mm": median(False),
        "lateral_landmarks_mm": median(True),
        "landmarks_kept": share(len(kept), len(rows.landmarks)),
    }


def joined_rows(parts: Sequence[DetectorRows]) -> DetectorRows:
    """Join the rows of several scenes."""
    names = [field.name for field in dataclasses.fields(DetectorRows)]
    return DetectorRows(*([row for part in parts for row in getattr(part, n)] for n in names))


@dataclasses.dataclass(frozen=True)
class PictureOfView:
    """A radiograph with found and true boxes of bodies, and how well they agree."""

    name: str
    image: Float[np.ndarray, "h w"]
    found: ViewDetections
    boxes: Float[np.ndarray, "n 4"]
    levels: tuple[str, ...]  # of the true boxes; empty if unknown
    score: float  # 0 to 1: F1, or the recall where all true boxes may not be drawn


def evaluate_detector(
    case: data.Case,
    *,
    pairs: int,
    views: str,
    seed: int,
    surroundings: simulation.Surroundings = "none",
    weights: str | None = None,
    landmarks: str | None = None,
) -> tuple[DetectorRows, list[PictureOfView]]:
    """Simulate pairs of radiographs of a case, and compare what the networks find with its truth.

    `views` is random or orthogonal; a spine too long for one image is seen in parts. DataError if
    a network was trained on the case."""
    check_not_trained_on(detector_folder(weights), [case.subject], "detector")
    check_not_trained_on(landmark_folder(landmarks), [case.subject], "landmark")
    people = tuple(simulation.people_of(case))
    vertebrae = labelled_vertebrae(case)
    parts: list[DetectorRows] = []
    pictures: list[PictureOfView] = []
    for number, (known, radiographs) in enumerate(_scenes(case, pairs, views, seed, surroundings)):
        truths = [view_truth(vertebrae, radiograph.camera) for radiograph in radiographs]
        rows, found = detector_rows(
            truths,
            known,
            radiographs,
            weights=weights,
            landmarks=landmarks,
            exclude=people,
            in_body=surroundings != "none",
        )
        angle = simulation.pair_angles_deg([r.camera for r in radiographs])[0]
        parts.append(_with_scene(rows, {"scene": number, "angle_deg": angle}))
        images = [np.asarray(radiograph.image) for radiograph in radiographs]
        for k, (image, own, truth) in enumerate(zip(images, found, truths, strict=True)):
            name = f"{case.subject}, scene {number + 1}, view {k + 1}"
            score = _f1_of_view(rows, k)
            pictures.append(PictureOfView(name, image, own, truth.body_boxes, truth.levels, score))
    return joined_rows(parts), pictures


def _with_scene(rows: DetectorRows, scene: Row) -> DetectorRows:
    return DetectorRows(
        views=[scene | row for row in rows.views],
        matches=[scene | row for row in rows.matches],
        landmarks=[scene | row for row in rows.landmarks],
    )


def _f1_of_view(rows: DetectorRows, view: int) -> float:
    own = [row for row in rows.views if row["view"] == view]
    return float(np.nan_to_num(detector_summary(DetectorRows(own, [], []))["f1"]))


def _scenes(
    case: data.Case,
    pairs: int,
    views: str,
    seed: int,
    surroundings: simulation.Surroundings,
) -> Iterator[tuple[list[simulation.TrueVertebra], list[Radiograph]]]:
    """Simulate pairs of radiographs of every part of the spine that fits into one image."""
    known = simulation.true_vertebrae(case)
    volume: Volume = simulation.scene_volume(case, known, surroundings)
    draw = simulation.random_views if views == "random" else simulation.ap_and_lateral
    setup = simulation.CarmSetup()
    parts = [part for _ in range(pairs) for part in simulation.seen_at_once(known)]
    for number, part in enumerate(parts):
        rng = np.random.default_rng([seed, number])
        chosen = draw(rng, simulation.middle_of(part), setup)
        yield part, simulation.simulate(volume, chosen, setup, seed=seed + number)
