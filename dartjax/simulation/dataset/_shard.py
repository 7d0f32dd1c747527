"""One shard of a data set, written by one process or by Ray workers, and the manifest."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.simulation.dataset._cluster import starmap_unordered
from dartjax.simulation.dataset._plan import Settings
from dartjax.simulation.dataset._truth import TRUTH_FILE, read_truth
from dartjax.simulation.dataset._writer import WrittenScan, write_scan


def new_manifest(
    subjects: Sequence[data.Subject], settings: Settings, *, commit: str
) -> dict[str, Any]:
    """Build the initial manifest of a data set, see `data.start_dataset`.

    Raises DataError for a cohort that mixes kinds of data.
    """
    if len(kinds := {subject.dataset_kind for subject in subjects}) > 1:
        raise data.DataError(
            f"the cohort mixes {' and '.join(sorted(kinds))} data: write one data set for each"
        )
    return {
        "format": data.XRAY_FORMAT,
        "dataset": " + ".join(sorted({subject.dataset for subject in subjects})),
        "dataset_kind": subjects[0].dataset_kind,
        "commit": commit,
        "settings": dataclasses.asdict(settings),
        "subjects": [subject.id for subject in subjects],
    }


def write_shard(
    root: pathlib.Path,
    subjects: Sequence[data.Subject],
    settings: Settings,
    *,
    ray_workers: int = 0,
    ray_address: str | None = None,
    step: Step = no_step,
) -> list[WrittenScan]:
    """Write the missing radiographs of these scans; returns all scans, sorted by subject.

    With `ray_workers` above 0 the scans are distributed over that number of Ray workers, on this
    machine or on the cluster at `ray_address`. `step` is called after every part. Raises DataError
    as `write_scan` does, and if Ray is not installed.
    """
    if ray_workers:
        written = _written_by_ray(root, subjects, settings, ray_workers, ray_address, step)
    else:
        written = (write_scan(root, subject, settings, step) for subject in subjects)
    return sorted(written, key=lambda scan: scan.subject)


def _written_by_ray(
    root: pathlib.Path,
    subjects: Sequence[data.Subject],
    settings: Settings,
    num_workers: int,
    address: str | None,
    step: Step,
) -> Iterator[WrittenScan]:
    arguments = [(root, subject, settings) for subject in subjects]
    for done in starmap_unordered(write_scan, arguments, num_workers=num_workers, address=address):
        step(f"{done.subject}: {len(done.cases)} radiographs")
        yield done


def describe_scans(root: pathlib.Path, subjects: Sequence[str]) -> list[dict[str, Any]]:
    """Build the scan entries of the manifest of a finished data set."""
    return [_describe_scan(root, subject) for subject in subjects]


def _describe_scan(root: pathlib.Path, subject: str) -> dict[str, Any]:
    folder = root / "scans" / subject
    truth = read_truth(folder / TRUTH_FILE)
    packed = sorted(folder.glob(f"views-*/{data.PACKED}"))
    return {
        "subject": subject,
        "split": truth.split,
        "parents": list(truth.parents),
        "ct_hash": truth.ct_hash,
        "levels": list(truth.levels),
        "levels_whole": [v.level for v in truth.vertebrae if v.whole],
        "levels_with_landmarks": [v.level for v in truth.vertebrae if not v.reason],
        "units": [
            {
                "folder": path.parent.relative_to(root).as_posix(),
                "num_radiographs": len(list(path.parent.glob("*.png"))),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in packed
        ],
    }
