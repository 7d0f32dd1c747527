"""The jobs that `benchmarks.kills` kills: their data, commands, and finished pieces."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from benchmarks._kill_files import contents, damaged_checkpoint, damaged_files, latest_step

_REGULAR = ("config.json", "report.html")  # they name folders, times and machines
_DAMAGED_BYTES = 2000


@dataclasses.dataclass(frozen=True)
class Job:
    """A job with its results in one folder, `base`. The same command continues it."""

    name: str
    flags: Callable[[pathlib.Path, pathlib.Path], list[str]]  # of the data and of base
    pieces: Callable[[pathlib.Path], dict[str, pathlib.Path]]  # what is finished, by name
    results: tuple[str, ...]  # folders in base that must equal the reference in the end
    volatile: tuple[str, ...]  # keys and files that may differ
    keeps_pieces: bool  # whether the pieces stay after the run

    def command(self, cohorts: pathlib.Path, base: pathlib.Path) -> list[str]:
        """Return the command that starts the job, and continues it."""
        return [sys.executable, "-m", *self.flags(cohorts, base), f"--out={run_of(base)}"]

    def damaged(self, base: pathlib.Path) -> list[str]:
        """List the files that are half-written under their final names."""
        return [*damaged_files(base), *damaged_checkpoint(checkpoints_of(base))]

    def progress(self, base: pathlib.Path) -> int:
        """Count the finished pieces and training steps."""
        return len(self.pieces(base)) + (latest_step(checkpoints_of(base)) or 0)

    def outcome(self, base: pathlib.Path) -> dict[str, str]:
        """Hash the results that must equal those of the reference."""
        return {
            f"{folder}/{name}": digest
            for folder in self.results
            for name, digest in contents(base / folder, (*_REGULAR, *self.volatile)).items()
        } | _curve(base)


def run_of(base: pathlib.Path) -> pathlib.Path:
    """Return the run folder of a job."""
    return base / "run"


def checkpoints_of(base: pathlib.Path) -> pathlib.Path:
    """Return the folder of the checkpoints of a training."""
    return base / "crops" / "work-isolation-smoke"


def _curve(base: pathlib.Path) -> dict[str, str]:
    """Hash the curve in the last checkpoint of a training."""
    work = checkpoints_of(base)
    if (step := latest_step(work)) is None:
        return {}
    return {f"curve at step {step}": contents(work / str(step) / "log" / "metadata")["metadata"]}


def _reconstruct(cohorts: pathlib.Path, base: pathlib.Path) -> list[str]:
    quick = ["--recipe=landmarks", "--nobaselines", "--seed=5"]
    kept = [f"--work={base / 'run.work'}"] if base.name.startswith("reference") else []
    return ["experiments.reconstruct", *quick, *kept, f"--cohort={cohorts / 'solids'}"]


def _units(base: pathlib.Path) -> dict[str, pathlib.Path]:
    return {path.parent.name: path for path in sorted(base.glob("run.work/scans/*/unit"))}


def _simulate(cohorts: pathlib.Path, base: pathlib.Path) -> list[str]:
    small = ["--image_size=96", "--num_views=24", "--nodense_fit", "--tools=0.3", "--seed=5"]
    folders = [f"--cohort={cohorts / 'rings'}", f"--dataset_out={base / 'set'}"]
    return ["experiments.simulate_xrays", *folders, *small]


def _blocks(base: pathlib.Path) -> dict[str, pathlib.Path]:
    patterns = ("scans/*/views-*", "scans/*/truth.json", "shards/*.json")
    found = [path for pattern in patterns for path in sorted((base / "set").glob(pattern))]
    return {path.relative_to(base / "set").as_posix(): path for path in found}


def _train(cohorts: pathlib.Path, base: pathlib.Path) -> list[str]:
    small = ["--preset=smoke", "--subjects=synth0", "--validation=synth1"]
    folders = [f"--cohort={cohorts / 'solids'}", f"--crops={base / 'crops'}"]
    return ["experiments.train_isolation", *folders, *small, "--checkpoint_minutes=0"]


def _crops(base: pathlib.Path) -> dict[str, pathlib.Path]:
    return {path.name: path for path in sorted(base.glob("crops/*.npz"))}


_SPEEDS = ("radiographs_per_second", "images_per_second", "steps_per_second")
JOBS = {
    job.name: job
    for job in (
        Job("reconstruct", _reconstruct, _units, ("run",), (), keeps_pieces=False),
        Job(
            "dataset",
            _simulate,
            _blocks,
            ("run", "set"),
            (*_SPEEDS, "radiographs_per_second_reason", "written_now", "num_written_now"),
            keeps_pieces=True,
        ),
        Job("train", _train, _crops, ("run",), _SPEEDS, keeps_pieces=True),
    )
}


def write_cohorts(folder: pathlib.Path) -> None:
    """Write the cohorts of all jobs: synthetic L3 with a damaged scan, and rings of bone."""
    from tests.data import phantoms

    rings, solids = folder / "rings", folder / "solids"
    for name, label in (("a", 20), ("b", 12), ("c", 16)):
        phantoms.save_subject(rings, name, phantoms.ring() * np.uint8(label))
    for number in (0, 1):
        labels, affine = _one_vertebra(number)
        phantoms.save_subject(solids, f"synth{number}", labels, affine)
    phantoms.save_subject(solids, "synth2", labels, affine)
    (damaged,) = solids.glob("rawdata/sub-synth2/*_ct.nii.gz")
    damaged.write_bytes(damaged.read_bytes()[:_DAMAGED_BYTES])
    for root in (rings, solids):
        text = f'{{"Name": "{root.name}", "Synthetic": true}}'
        (root / "dataset_description.json").write_text(text)


def _one_vertebra(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the L3 out of a synthetic subject; its labels and affine."""
    from scipy import ndimage

    from dartjax import synthverse

    case = synthverse.synthetic_case(number)
    label = case.label_of("L3")
    box = ndimage.find_objects((case.labels == label).astype(np.uint8))[0]
    crop = tuple(slice(side.start - 6, side.stop + 6) for side in box)
    affine = np.asarray(case.ct.world_from_voxel, float).copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in crop]
    return np.where(case.labels[crop] == label, label, 0).astype(np.uint8), affine
