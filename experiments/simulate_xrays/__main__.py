"""A data set of radiographs as a C-arm takes them, with the truth of every vertebra in them.

  python -m experiments.simulate_xrays --cohort=FOLDER --dataset_out=XRAYS
      50 random views of every CT of a cohort (docs/input_formats.md) into the folder XRAYS.
  python -m experiments.simulate_xrays --cohort=FOLDER --dataset_out=XRAYS --shard=0/4
      A quarter of the scans; run 0/4 to 3/4 side by side, on one machine or several.

Every radiograph is a 16 bit PNG with a JSON (camera, outlines, landmarks, needle paths), and
packed for training (dartjax.data.xray_loader). docs/xray_datasets.md describes the folder. A run
that was stopped, at any moment, goes on where it was when it is started again, and the folder
ends up the same byte for byte. The truth of a scan takes about two minutes on 2 cores, a
radiograph less than half a second.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from dartjax import cli, data, render
from dartjax.simulation import dataset
from experiments.simulate_xrays import report as xray_report

_COHORT = flags.DEFINE_string("cohort", None, "Folder or manifest of CTs with vertebra masks.")
_DATASET_OUT = flags.DEFINE_string("dataset_out", None, "Folder of the data set; may exist.")
_VIEWS = flags.DEFINE_enum(
    "views",
    "random",
    dataset.VIEW_SETS,
    "Random: all round the patient, tilted up to 15 degrees. Orthogonal: AP and left lateral "
    "in turn, each within 5 degrees.",
)
_NUM_VIEWS = flags.DEFINE_integer("num_views", 50, "Radiographs per scan.", lower_bound=1)
_SHARD = flags.DEFINE_string("shard", "0/1", "Which part of the scans this run writes: I/N.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 256, "Pixels a side.", 32, 2048)
_FIELD = flags.DEFINE_enum(
    "field",
    "carm",
    ["carm", "torso"],
    "Detector: 300 mm of a C-arm, which shows about six vertebrae, or 720 mm.",
)
_KVP = flags.DEFINE_list("kvp", ["70", "110"], "Tube voltage: one, or least and largest.")
_LOW_DOSE = flags.DEFINE_float("low_dose", 0.2, "Share taken with fluoroscopy's dose.", 0, 1)
_COLLIMATED = flags.DEFINE_float("collimated", 0.2, "Share with a smaller open field.", 0, 1)
_TOOLS = flags.DEFINE_float("tools", 0.2, "Share with an instrument at a pedicle.", 0, 1)
_PAIR_DEG = flags.DEFINE_list(
    "pair_deg", ["20", "160"], "Least and largest angle between the beams of a pair."
)
_DENSE_FIT = flags.DEFINE_bool(
    "dense_fit", True, "Find landmarks and needle paths; without, only masks and levels."
)
_RAY_WORKERS = flags.DEFINE_integer(
    "ray_workers", 0, "Share the scans out over so many Ray workers; 0 works without Ray.", 0
)
_RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "Ray cluster to join, such as auto; by default one on this machine."
)

_DETECTOR_MM = {"carm": render.CARM_DETECTOR_MM, "torso": render.TORSO_DETECTOR_MM}
_SHEET = 12  # radiographs on the picture


def main(ctx: cli.RunContext) -> None:
    """Write this run's share, and the manifest if it was the last."""
    settings, shard = _settings(ctx.seed), data.parse_shard(_SHARD.value)
    root = pathlib.Path(_needed("dataset_out", _DATASET_OUT.value))
    subjects = data.find_subjects(_needed("cohort", _COHORT.value))
    if len(kinds := {subject.dataset_kind for subject in subjects}) > 1:
        raise data.DataError(f"the cohort mixes {' and '.join(sorted(kinds))} data: do them apart")
    manifest = {
        "format": data.XRAY_FORMAT,
        "dataset": " + ".join(sorted({subject.dataset for subject in subjects})),
        "dataset_kind": subjects[0].dataset_kind,
        "commit": ctx.config["commit"],
        "settings": dataclasses.asdict(settings),
        "subjects": [subject.id for subject in subjects],
    }
    data.start_dataset(root, manifest)
    if data.shard_is_done(root, shard):
        print(f"shard {_SHARD.value} of {root} is already done", file=sys.stderr)
    own = data.shard_of(subjects, shard)
    title = f"radiographs, shard {_SHARD.value} with {len(own)} of {len(subjects)} scans"
    with cli.progress(title) as step:
        written = list(_write(root, own, settings, step))
    data.finish_shard(root, shard, lambda: _merged(ctx, root, manifest))
    _save(ctx, root, manifest, sorted(written))


def _write(
    root: pathlib.Path,
    subjects: Sequence[data.Subject],
    settings: dataset.Settings,
    step: Callable[[str], None],
) -> Iterator[dataset.Written]:
    if not _RAY_WORKERS.value:
        for subject in subjects:
            yield dataset.write_scan(root, subject, settings, step)
        return
    for done in dataset.starmap_unordered(
        dataset.write_scan,
        [(root, subject, settings) for subject in subjects],
        num_workers=_RAY_WORKERS.value,
        address=_RAY_ADDRESS.value,
    ):
        step(f"{done.subject}: {len(done.cases)} radiographs")
        yield done


def _merged(ctx: cli.RunContext, root: pathlib.Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the finished data set's manifest says beside how it was begun."""
    scans = dataset.scan_entries(root, manifest["subjects"])
    num_vertebrae = sum(len(scan["levels_whole"]) for scan in scans)
    return {"record": _record(ctx, manifest, manifest["subjects"], num_vertebrae), "scans": scans}


def _record(
    ctx: cli.RunContext, manifest: dict[str, Any], subjects: Sequence[str], num_vertebrae: int
) -> dict[str, Any]:
    return ctx.record(
        dataset=manifest["dataset"],
        dataset_kind=manifest["dataset_kind"],
        subjects=subjects,
        n_vertebrae=num_vertebrae,
        ssm_excludes=subjects,  # of every one's truth its own shape
        nsd_tolerance_mm=None,
    )


def _save(
    ctx: cli.RunContext,
    root: pathlib.Path,
    manifest: dict[str, Any],
    written: Sequence[dataset.Written],
) -> None:
    """Metrics of this run's share, and a picture of some of its radiographs."""
    cases = [case for each in written for case in each.cases]
    seconds = sum(each.timed_seconds for each in written)
    num_timed = sum(each.num_timed for each in written)
    summary = {
        "num_radiographs": len(cases),
        "num_written_now": sum(case["written_now"] for case in cases),
        "num_scans": len(written),
        "radiographs_per_second": num_timed / seconds if seconds else float("nan"),
        "radiographs_per_second_reason": "no radiograph was taken by a compiled program",
    }
    if seconds:
        del summary["radiographs_per_second_reason"]
    subjects = [each.subject for each in written]
    scans = dataset.scan_entries(root, subjects)
    num_vertebrae = sum(len(scan["levels_whole"]) for scan in scans)
    ctx.save_metrics(_record(ctx, manifest, subjects, num_vertebrae), summary, cases)
    files = [file for s in subjects for file in dataset.entries_of(root / "scans" / s)]
    if files:
        shown = np.unique(np.linspace(0, len(files) - 1, _SHEET).astype(int))
        title = f"{manifest['dataset']} ({manifest['dataset_kind']}), {len(files)} radiographs"
        xray_report.write_sheet(ctx.out / "sheet.png", [files[i] for i in shown], title)


def _settings(seed: int) -> dataset.Settings:
    low, high = _numbers("kvp", _KVP.value, (1, 2), (60.0, 120.0))
    narrow, wide = _numbers("pair_deg", _PAIR_DEG.value, (2,), (0.0, 180.0))
    return dataset.Settings(
        seed=seed,
        views=_VIEWS.value,
        num_views=_NUM_VIEWS.value,
        image_size=_IMAGE_SIZE.value,
        detector_mm=_DETECTOR_MM[_FIELD.value],
        kvp=(round(low), round(high)),
        low_dose=_LOW_DOSE.value,
        collimated=_COLLIMATED.value,
        tools=_TOOLS.value,
        pair_deg=(narrow, wide),
        dense_fit=_DENSE_FIT.value,
    )


def _numbers(
    flag: str, texts: Sequence[str], counts: Sequence[int], within: tuple[float, float]
) -> tuple[float, float]:
    """Least and largest number of a flag, the same where one is given."""
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
        raise data.DataError(f"--{flag} is needed: name a folder")
    return value


if __name__ == "__main__":
    cli.run(main)
