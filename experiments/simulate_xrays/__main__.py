"""Make a data set of simulated C-arm radiographs with the ground truth of every vertebra.

  python -m experiments.simulate_xrays --cohort=FOLDER --dataset_out=XRAYS
      Writes 50 random views of every CT of a cohort (docs/input_formats.md) to the folder XRAYS.
  python -m experiments.simulate_xrays --cohort=FOLDER --dataset_out=XRAYS --shard=0/4
      Processes a quarter of the scans. Run 0/4 to 3/4 in parallel, on one machine or several.

Every radiograph is a 16 bit PNG with a JSON file (camera, outlines, landmarks, needle paths), and
is also packed for training (dartjax.data.xray_loader). docs/xray_datasets.md describes the folder.
A run that was stopped at any moment continues when it is started again, and the final folder is the
same byte for byte. The ground truth of a scan takes about two minutes on 2 cores, a radiograph less
than half a second.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from dartjax import data, render
from dartjax.cli import launch
from dartjax.simulation import dataset
from experiments.simulate_xrays import report
from experiments.simulate_xrays.settings import Settings

# Smallest and largest side of the detector, and shift of the isocenter along each axis, mm.
FIELDS = {
    "carm": ((render.CARM_DETECTOR_MM,) * 2, 20.0),
    "torso": ((render.TORSO_DETECTOR_MM,) * 2, 20.0),
    "mixed": ((225.0, render.TORSO_DETECTOR_MM), 50.0),
}
_SHEET = 12  # radiographs on the picture


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Write the shard of this run and, after the last shard, finish the data set."""
    content, shard = _content(settings, ctx.seed), data.parse_shard(settings.shard)
    root = pathlib.Path(_needed("dataset_out", settings.dataset_out))
    subjects = data.find_subjects(
        _needed("cohort", settings.cohort), labels=cast(data.Numbering, settings.labels)
    )
    manifest = dataset.new_manifest(subjects, content, commit=ctx.config["commit"])
    data.start_dataset(root, manifest)
    if data.shard_is_done(root, shard):
        print(f"shard {settings.shard} of {root} is already done", file=sys.stderr)

    own = data.shard_of(subjects, shard)
    title = f"radiographs, shard {settings.shard} with {len(own)} of {len(subjects)} scans"
    with launch.progress(title) as step:
        written = dataset.write_shard(
            root,
            own,
            content,
            ray_workers=settings.ray_workers,
            ray_address=settings.ray_address,
            step=step,
        )

    def finished() -> dict[str, Any]:
        scans = dataset.describe_scans(root, manifest["subjects"])
        return {"record": ctx.record(**_scope(manifest, scans)), "scans": scans}

    data.finish_shard(root, shard, finished)
    scans = dataset.describe_scans(root, [scan.subject for scan in written])
    cases = [case for scan in written for case in scan.cases]
    ctx.save_metrics(ctx.record(**_scope(manifest, scans)), _summary(written, cases), cases)
    files = [f for s in written for f in dataset.radiograph_files(root / "scans" / s.subject)]
    if files:
        shown = np.unique(np.linspace(0, len(files) - 1, _SHEET).astype(int))
        title = f"{manifest['dataset']} ({manifest['dataset_kind']}), {len(files)} radiographs"
        report.write_sheet(ctx.out / "sheet.png", [files[i] for i in shown], title)


def _content(settings: Settings, seed: int) -> dataset.Settings:
    """Return the settings that determine the content of the data set."""
    low, high = _numbers("kvp", settings.kvp, (1, 2), (60.0, 120.0))
    detector_mm, isocenter_shift = FIELDS[settings.field]
    narrow, wide = _numbers("pair_deg", settings.pair_deg, (2,), (0.0, 180.0))
    return dataset.Settings(
        seed=seed,
        views=settings.views,
        num_views=settings.num_views,
        image_size=settings.image_size,
        detector_mm=detector_mm,
        isocenter_shift=isocenter_shift,
        kvp=(round(low), round(high)),
        low_dose=settings.low_dose,
        collimated=settings.collimated,
        tools=settings.tools,
        pair_deg=(narrow, wide),
        dense_fit=settings.dense_fit,
    )


def _scope(manifest: Mapping[str, Any], scans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields of the record about these scans."""
    subjects = [scan["subject"] for scan in scans]
    return {
        "dataset": manifest["dataset"],
        "dataset_kind": manifest["dataset_kind"],
        "subjects": subjects,
        "n_vertebrae": sum(len(scan["levels_whole"]) for scan in scans),
        "ssm_excludes": subjects,  # the ground truth of a scan contains its own shape
        "nsd_tolerance_mm": None,
    }


def _summary(
    written: Sequence[dataset.WrittenScan], cases: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    seconds = sum(scan.timed_seconds for scan in written)
    num_timed = sum(scan.num_timed for scan in written)
    summary = {
        "num_radiographs": len(cases),
        "num_written_now": sum(case["written_now"] for case in cases),
        "num_scans": len(written),
        "radiographs_per_second": num_timed / seconds if seconds else float("nan"),
    }
    if not seconds:
        reason = "no radiograph was made with a compiled program"
        summary["radiographs_per_second_reason"] = reason
    return summary


def _numbers(
    flag: str, texts: Sequence[str], counts: Sequence[int], within: tuple[float, float]
) -> tuple[float, float]:
    """Parse the smallest and largest number of a flag; one number stands for both."""
    low, high = within
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not low <= min(numbers) or not max(numbers) <= high:
        wanted = " or ".join(map(str, counts))
        raise data.DataError(
            f"--{flag}={','.join(texts)}: give {wanted} numbers from {low:g} to {high:g}"
        )
    return min(numbers), max(numbers)


def _needed(flag: str, value: str | None) -> str:
    if value is None:
        raise data.DataError(f"--{flag} is required: give a folder")
    return value


if __name__ == "__main__":
    launch.run(main, Settings)
