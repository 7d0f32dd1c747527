"""Evaluate the detector and the landmark network on CTs with known vertebrae and real radiographs.

  python -m experiments.evaluate_detector --cohort=FOLDER --pairs=5
      Simulates pairs of radiographs of every CT, and compares what is found with the truth.
  python -m experiments.evaluate_detector --images=FOLDER
      Finds vertebrae in real radiographs; boxes of bodies in YOLO text files are compared.

Writes tables.md, metrics.json with a row for every vertebra and view, matched vertebra and
landmark, pictures (from the best to the worst image), and kept.png, the error of the landmarks
against the share that is kept.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from dartjax import data, pipeline, simulation
from dartjax.cli import launch
from dartjax.pipeline import DetectorRows, PictureOfView
from experiments.common import detection_figures
from experiments.evaluate_detector import report
from experiments.evaluate_detector.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Evaluate on the CTs, on the real radiographs, or on both, and write tables and pictures."""
    if not (settings.cohort or settings.images):
        raise data.DataError("give --cohort=FOLDER (CTs) or --images=FOLDER (radiographs), or both")
    found: dict[str, DetectorRows] = {}
    kinds: set[str] = set()
    images: list[dict[str, Any]] = []
    of_images: dict[str, float] = {}
    if settings.cohort:
        found, kinds = _on_cohort(settings, ctx)
    if settings.images:
        images, of_images = _on_images(settings, ctx.out)
    record = ctx.record(
        dataset=" and ".join(filter(None, (settings.cohort, settings.images))),
        dataset_kind=_kind(kinds),
        subjects=[*found, *(f"image {row['image']}" for row in images)],
        n_vertebrae=sum(len(rows.matches) for rows in found.values()),
        ssm_excludes=list(found),
        nsd_tolerance_mm=None,
    )
    summary, text = dict(of_images), ""
    if found:
        joined = pipeline.joined_rows(list(found.values()))
        summary |= pipeline.detector_summary(joined)
        text += report.cohort_tables(record, found)
        kept = [row for row in joined.landmarks if row["found"]]
        if kept:
            detection_figures.draw_kept(ctx.out / "kept.png", kept, len(joined.landmarks))
    if images:
        text += report.image_table(record, images, of_images)
    (ctx.out / "tables.md").write_text(text, encoding="utf-8")
    ctx.save_metrics(record, summary, [*_cases(found), *({"about": "image"} | i for i in images)])


def _cases(found: Mapping[str, DetectorRows]) -> list[dict[str, Any]]:
    """Join the rows of all subjects; `about` tells what a row is of."""
    return [
        {"subject": name, "about": about, **row}
        for name, rows in found.items()
        for about in ("views", "matches", "landmarks")
        for row in getattr(rows, about)
    ]


def _kind(kinds: set[str]) -> str:
    if not kinds:
        return "real_xray"  # radiographs alone
    return "synthetic" if kinds == {"synthetic"} else "real_ct_drr"


def _on_cohort(
    settings: Settings, ctx: launch.RunContext
) -> tuple[dict[str, DetectorRows], set[str]]:
    """Evaluate on every subject of the cohort; draw the pictures."""
    assert settings.cohort is not None
    subjects = data.find_subjects(settings.cohort, labels=cast(data.Numbering, settings.labels))
    known = {subject.id: subject for subject in subjects}
    wanted = settings.subjects or tuple(known)
    if unknown := sorted(set(wanted) - set(known)):
        raise data.DataError(f"{settings.cohort} has no {', '.join(unknown)}")
    found: dict[str, DetectorRows] = {}
    pictures: list[PictureOfView] = []
    with launch.progress("detection", len(wanted)) as step:
        for name in wanted:
            around = "synthetic" if name in settings.bodies else "none"
            rows, shown = pipeline.evaluate_detector(
                data.load_case(known[name]),
                pairs=settings.pairs,
                views=settings.views,
                seed=ctx.seed,
                surroundings=cast(simulation.Surroundings, around),
                weights=settings.detector_weights,
                landmarks=settings.landmark_weights,
            )
            found[name] = rows
            pictures += shown
            step(f"{name}: recall {pipeline.detector_summary(rows)['recall']:.2f}")
    detection_figures.draw_views(ctx.out / "views.png", _best_to_worst(pictures))
    return found, {known[name].dataset_kind for name in wanted}


def _best_to_worst(pictures: Sequence[PictureOfView], count: int = 6) -> list[PictureOfView]:
    ordered = sorted(pictures, key=lambda each: -each.score)
    places = np.unique(np.linspace(0, len(ordered) - 1, count).astype(int))
    return [ordered[i] for i in places]


def _on_images(
    settings: Settings, out: pathlib.Path
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Find vertebrae in the real radiographs; a row per image, and the summary."""
    assert settings.images is not None
    radiographs = pipeline.real_radiographs(settings.images)
    with launch.progress("real radiographs", len(radiographs)) as step:
        found = pipeline.detect(
            list(radiographs.values()), weights=settings.detector_weights, step=step
        )
    rows, compared, pictures = [], [], []
    for (name, radiograph), detections in zip(radiographs.items(), found, strict=True):
        text = pathlib.Path(settings.images) / f"{name}.txt"
        row: dict[str, Any] = {"image": name, "boxes": len(detections)}
        boxes = np.zeros((0, 4))
        if text.is_file():
            boxes = pipeline.drawn_boxes(text, radiograph.camera.image_size)
            own = pipeline.body_box_rows(detections, boxes)
            compared.append(own)
            row |= {
                kind: sum(r["kind"] == kind for r in own) for kind in ("found", "missed", "false")
            }
        rows.append(row)
        score = row.get("found", 0) / max(len(boxes), 1)
        image = np.asarray(radiograph.image)
        pictures.append(PictureOfView(name, image, detections, boxes, (), score))
    detection_figures.draw_views(out / "images.png", _best_to_worst(pictures))
    return rows, pipeline.body_box_summary(compared) if compared else {}


if __name__ == "__main__":
    launch.run(main, Settings)
