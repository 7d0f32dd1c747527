"""Distal locking of a nail with a bone-mounted robot, from C-arm images to the drill's position.

  python -m experiments.distal_locking
      Images rendered over anatomy of the example chest CT (fetched once, cached): detection, pose
      estimators, sensitivity to noise, whole operations, all against the truth. A few minutes.
  python -m experiments.distal_locking --negatives=2000 --poses=10000 --draws=200
      The larger table.
  python -m experiments.distal_locking --cohort=FOLDER
      Anatomy from your own CTs (docs/input_formats.md).

Leaves report.html, tables.md, images.png, sensitivity.png, whole_system.png and every case in
metrics.json; docs/distal_locking.md says what they mean.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from dartjax import cli, data, simulation, synthverse
from experiments.distal_locking import images as distal_images
from experiments.distal_locking import opencv as distal_opencv
from experiments.distal_locking import poses as distal_poses
from experiments.distal_locking import report as distal_locking_report

_COHORT = flags.DEFINE_string("cohort", None, "Folder or manifest of CTs for the anatomy.")
_BACKGROUNDS = flags.DEFINE_integer("backgrounds", 48, "Anatomy radiographs.", 40, 1000)
_CARMS = flags.DEFINE_integer("carms", 10, "Calibrated poses of the C-arm.", 1, 200)
_IMAGES = flags.DEFINE_integer("images", 78, "Images with guide and nail.", 8, 100000)
_NEGATIVES = flags.DEFINE_integer("negatives", 200, "Images without a target.", 0, 1000000)
_POSES = flags.DEFINE_integer("poses", 1000, "Sets of ideal points per pose table.", 10, 1000000)
_DRAWS = flags.DEFINE_integer("draws", 20, "Noise draws per image of figure 10.", 2, 10000)
_OPERATIONS = flags.DEFINE_integer("operations", 17, "Operations per mounting and view.", 1, 10000)
_MAX_SUBJECTS = 4  # of a cohort; each is read whole


def main(ctx: cli.RunContext) -> None:
    """Run every part, then write tables, pictures and metrics."""
    rng = np.random.default_rng([ctx.seed, 8])
    cases = _cases()
    backgrounds = _backgrounds(cases, ctx.seed)
    with cli.progress("C-arm calibrations", _CARMS.value) as step:
        carms = []
        for _ in range(_CARMS.value):
            carms.append(simulation.carm_pose(rng))
            step()
    with cli.progress("images with guide and nail", _IMAGES.value) as step:
        images, found, shown = distal_images.detection(_IMAGES.value, carms, backgrounds, rng, step)
    with cli.progress("images without a target", _NEGATIVES.value) as step:
        negatives = distal_images.negatives(_NEGATIVES.value, carms, backgrounds, rng, step)
    tables = _pose_tables(found, ctx.seed, rng)
    curves = _curves(carms, backgrounds, rng)
    operations = _operations(carms, backgrounds, rng)
    spread = simulation.reference_spread(rng)
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})) + ", simulated nail and guide",
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    results = distal_locking_report.Results(
        images, negatives, tables, *curves, operations, spread, _calibration_rows(carms)
    )
    summary = distal_locking_report.summary(results)
    if distal_opencv.installed() and found:
        sets = [np.stack([getattr(own, key) for own in found]) for key in ("pixels", "seen")]
        summary["opencv_homography_gap_px"] = distal_opencv.homography_gap_px(*sets)
    with cli.progress("many images in one call", 1) as step:
        rate = distal_images.image_throughput(shown, _POSES.value // 10)
        summary |= {"images_per_second": rate}
        step(f"{rate:.0f} images/s")
    distal_locking_report.write_tables(ctx.out / "tables.md", record, results)
    distal_locking_report.write_pictures(ctx.out, record, summary, results, shown)
    ctx.save_metrics(record, summary, [*_labelled("image", images), *_labelled("lock", operations)])
    print(distal_locking_report.short_text(summary))


def _cases() -> list[data.Case]:
    if _COHORT.value is None:
        try:
            with cli.progress("example chest CT"):
                return [data.example_case()]
        except data.OfflineError as error:
            print(f"{error}\nRunning over SYNTHETIC anatomy instead.")
            return [synthverse.synthetic_case()]
    subjects = data.find_subjects(_COHORT.value)[:_MAX_SUBJECTS]
    cases = [data.load_case(subject) for subject in subjects]
    if len({case.dataset_kind for case in cases}) > 1:
        raise data.DataError("the cohort mixes kinds of data: run them apart")
    return cases


def _backgrounds(cases: Sequence[data.Case], seed: int) -> np.ndarray:
    """As many from every case, as images of one size."""
    each = -(-_BACKGROUNDS.value // len(cases))
    return np.concatenate([simulation.backgrounds(case, each, seed) for case in cases])


def _pose_tables(
    found: Sequence[distal_images.Detected], seed: int, rng: np.random.Generator
) -> dict[str, list[dict[str, Any]]]:
    key = jax.random.key(seed)
    tables = {}
    with cli.progress("pose estimators", 3) as step:
        if len(found) >= 2:
            sets = distal_poses.image_sets(found)
            tables[f"{len(found)} images"] = distal_poses.pose_table(sets, key)
        step("from images")
        for sigma in (0.10, 0.22):
            sets = distal_poses.ideal_sets(_POSES.value, sigma, rng)
            tables[f"points, {sigma:.2f} px"] = distal_poses.pose_table(sets, key)
            step(f"{sigma:.2f} px")
    return tables


def _curves(
    carms: Sequence[simulation.CarmPose], backgrounds: np.ndarray, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """Figures 9 and 10, and poses per second."""
    centers = distal_poses.center_noise_curve(_POSES.value, rng)
    with cli.progress("fronto-parallel images", 17) as step:
        views = distal_images.fronto_parallel_views(17, carms, backgrounds, rng, step)
    with cli.progress("edge noise", len(distal_poses.EDGE_SIGMAS_PX)) as step:
        edges = distal_poses.edge_noise_curve(views, _DRAWS.value, simulation.ESTIMATORS, step)
    return centers, edges, distal_poses.throughput(10 * _POSES.value, rng)


def _operations(
    carms: Sequence[simulation.CarmPose], backgrounds: np.ndarray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    kinds = [("bone", "fronto_parallel"), ("bone", "generic"), ("nail_head", "generic")]
    rows = []
    with cli.progress("operations", len(kinds) * _OPERATIONS.value) as step:
        for mounting, view in kinds:
            for i in range(_OPERATIONS.value):
                own = simulation.operate(mounting, view, carms, backgrounds, rng)
                rows += [{"operation": i, **row} for row in own]
                step(f"{mounting}, {view}: {own[0]['end'] if own else 'nothing'}")
    return rows


def _calibration_rows(carms: Sequence[simulation.CarmPose]) -> list[dict[str, Any]]:
    rows = []
    for carm in carms:
        calibrated = carm.calibrated
        sigma = np.asarray(calibrated.carm.sigma)
        rows.append(
            {
                "plate balls": int(np.sum(calibrated.nodes)),
                "upper balls": int(np.sum(calibrated.upper)),
                "rms [px]": float(calibrated.carm.rms_px),
                "f - true [px]": float(calibrated.carm.K[0, 0] - carm.view.K[0, 0]),
                "sigma f [px]": float(sigma[0]),
                "sigma cx [px]": float(sigma[1]),
                "sigma cy [px]": float(sigma[2]),
                **simulation.distortion_error(carm),
            }
        )
    return rows


def _labelled(part: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"part": part, **row} for row in rows]


if __name__ == "__main__":
    cli.run(main)
