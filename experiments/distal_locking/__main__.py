"""Simulate distal locking of a nail with a bone-mounted robot, from C-arm images to drilling.

  python -m experiments.distal_locking
      Renders nail and drill guide over X-rays of the example chest CT (fetched once, cached).
      Evaluates detection, pose estimators, sensitivity to noise and complete operations against
      the ground truth. Takes a few minutes.
  python -m experiments.distal_locking --negatives=2000 --poses=10000 --draws=200
      Uses the larger numbers of the tables in docs/results/distal_locking.md.
  python -m experiments.distal_locking --cohort=FOLDER
      Uses the anatomy of your own CTs (docs/input_formats.md).

Writes report.html, tables.md, images.png, sensitivity.png, whole_system.png, and every case to
metrics.json. docs/results/distal_locking.md explains them.
"""

from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np

from dartjax import data, simulation, synthverse
from dartjax.cli import launch
from experiments.distal_locking import report
from experiments.distal_locking.settings import Settings

_MAX_SUBJECTS = 4  # of a cohort; each is read whole
_EDGE_IMAGES = 17  # of figure 10
_POINT_NOISE_PX = (0.10, 0.22)  # of the pose tables
_OPERATIONS = (("bone", "fronto_parallel"), ("bone", "generic"), ("nail_head", "generic"))
_Rows = list[dict[str, Any]]


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Run every part of the study, then write tables, figures and metrics."""
    rng = np.random.default_rng([ctx.seed, 8])
    cases = _cases(settings.cohort, settings.labels)
    backgrounds = _backgrounds(cases, settings.backgrounds, ctx.seed)
    carms = _calibrated_carms(settings.carms, rng)
    with launch.progress("images with guide and nail", settings.images) as step:
        found = simulation.detect_guide_and_nail(settings.images, carms, backgrounds, rng, step)
    with launch.progress("images without a target", settings.negatives) as step:
        negatives = simulation.false_detections(settings.negatives, carms, backgrounds, rng, step)
    pose_tables = _pose_tables(found, settings.poses, ctx.seed, rng)
    center_curve = simulation.guide_pose_sensitivity(settings.poses, rng)
    edge_curve = _edge_curve(settings.draws, carms, backgrounds, rng)
    poses_per_second = simulation.guide_pose_rate(10 * settings.poses, rng)
    operations = _operations(settings.operations, carms, backgrounds, rng)
    results = simulation.DistalLockingResults(
        images=found.rows,
        negatives=negatives,
        pose_tables=pose_tables,
        center_curve=center_curve,
        edge_curve=edge_curve,
        poses_per_second=poses_per_second,
        operations=operations,
        reference_poses=simulation.reference_pose_spread(rng),
        calibrations=[simulation.calibration_row(carm) for carm in carms],
    )
    summary = simulation.distal_locking_summary(results) | _opencv_summary(found)
    summary["images_per_second"] = _image_rate(found.shown, settings.poses // 10)
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})) + ", simulated nail and guide",
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    report.write_tables(ctx.out / "tables.md", record, results)
    report.write_pictures(ctx.out, record, summary, results, found.shown)
    rows = [*_labelled("image", results.images), *_labelled("lock", results.operations)]
    ctx.save_metrics(record, summary, rows)
    print(report.short_text(summary))


def _cases(cohort: str | None, labels: str) -> list[data.Case]:
    if cohort is None:
        try:
            with launch.progress("example chest CT"):
                return [data.example_case()]
        except data.OfflineError as error:
            print(f"{error}\nRunning over SYNTHETIC anatomy instead.")
            return [synthverse.synthetic_case()]
    subjects = data.find_subjects(cohort, labels=cast(data.Numbering, labels))[:_MAX_SUBJECTS]
    cases = [data.load_case(subject) for subject in subjects]
    if len({case.dataset_kind for case in cases}) > 1:
        raise data.DataError("the cohort mixes real and synthetic data: run them separately")
    return cases


def _backgrounds(cases: Sequence[data.Case], count: int, seed: int) -> np.ndarray:
    """Make anatomy radiographs of one size, equally many from every case."""
    each = -(-count // len(cases))
    with launch.progress("anatomy radiographs", each * len(cases)) as step:
        return np.concatenate(
            [simulation.anatomy_backgrounds(case, each, seed, step) for case in cases]
        )


def _calibrated_carms(count: int, rng: np.random.Generator) -> list[simulation.CalibratedCarm]:
    carms = []
    with launch.progress("C-arm calibrations", count) as step:
        for _ in range(count):
            carms.append(simulation.calibrated_carm(rng))
            step()
    return carms


def _pose_tables(
    found: simulation.Detections, count: int, seed: int, rng: np.random.Generator
) -> dict[str, _Rows]:
    """Compare pose estimators of the guide, on the images and on points with noise."""
    key = jax.random.key(seed)
    tables = {}
    with launch.progress("pose estimators", 1 + len(_POINT_NOISE_PX)) as step:
        if len(found.guides) >= 2:
            points = simulation.detected_guide_points(found.guides)
            name = f"{len(found.guides)} images"
            tables[name] = simulation.compare_guide_pose_estimators(points, key)
        step("from images")
        for sigma in _POINT_NOISE_PX:
            points = simulation.random_guide_points(count, sigma, rng)
            name = f"points, {sigma:.2f} px"
            tables[name] = simulation.compare_guide_pose_estimators(points, key)
            step(f"{sigma:.2f} px")
    return tables


def _edge_curve(
    draws: int,
    carms: Sequence[simulation.CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
) -> _Rows:
    with launch.progress("fronto-parallel images", _EDGE_IMAGES) as step:
        nails = simulation.fronto_parallel_nails(_EDGE_IMAGES, carms, backgrounds, rng, step)
    with launch.progress("edge noise", len(simulation.EDGE_NOISE_PX)) as step:
        return simulation.nail_pose_sensitivity(nails, draws, step)


def _operations(
    count: int,
    carms: Sequence[simulation.CalibratedCarm],
    backgrounds: np.ndarray,
    rng: np.random.Generator,
) -> _Rows:
    rows = []
    with launch.progress("operations", len(_OPERATIONS) * count) as step:
        for mounting, view in _OPERATIONS:
            for i in range(count):
                own = simulation.distal_locking_operation(mounting, view, carms, backgrounds, rng)
                rows += [{"operation": i, **row} for row in own]
                step(f"{mounting}, {view}: {own[0]['end'] if own else 'nothing'}")
    return rows


def _opencv_summary(found: simulation.Detections) -> dict[str, float]:
    if not (simulation.opencv_is_installed() and found.guides):
        return {}
    points = simulation.detected_guide_points(found.guides)
    gap = simulation.opencv_homography_gap_px(np.asarray(points.pixels), np.asarray(points.seen))
    return {"opencv_homography_gap_px": gap}


def _image_rate(images: Sequence[np.ndarray], count: int) -> float:
    with launch.progress("many images in one call", 1) as step:
        rate = simulation.ball_detection_rate(images, count)
        step(f"{rate:.0f} images/s")
    return rate


def _labelled(part: str, rows: _Rows) -> _Rows:
    return [{"part": part, **row} for row in rows]


if __name__ == "__main__":
    launch.run(main, Settings)
