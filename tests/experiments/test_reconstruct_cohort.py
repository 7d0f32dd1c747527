"""`experiments.reconstruct` on a cohort: killed and gone on with, over two processes, with a scan
that cannot be used."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dartjax import synthverse
from tests.data import phantoms
from tests.experiments import in_process

ROOT = Path(__file__).parent.parent.parent
QUICK = ("--recipe=landmarks", "--nobaselines", "--seed=5")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs and true shapes, kept between the runs of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two synthetic L3 and a file that is no CT."""
    root = tmp_path_factory.mktemp("cohort")
    for seed in (0, 1):
        case = synthverse.synthetic_case(seed)
        label = case.label_of("L3")
        box = ndimage.find_objects((case.labels == label).astype(np.uint8))[0]
        crop = tuple(slice(side.start - 6, side.stop + 6) for side in box)
        affine = np.asarray(case.ct.world_from_voxel, float).copy()
        affine[:3, 3] += affine[:3, :3] @ [side.start for side in crop]
        labels = np.where(case.labels[crop] == label, label, 0).astype(np.uint8)
        phantoms.save_subject(root, f"synth{seed}", labels, affine)
    phantoms.save_subject(root, "synth2", labels, affine)
    (damaged,) = root.glob("rawdata/sub-synth2/*_ct.nii.gz")
    damaged.write_bytes(damaged.read_bytes()[:2000])
    (root / "dataset_description.json").write_text('{"Name": "solids", "Synthetic": true}')
    return root


def start(cache, *flags):
    command = [sys.executable, "-m", "experiments.reconstruct", *QUICK, *flags]
    environment = os.environ | {"DARTJAX_CACHE": str(cache)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return errors


def metrics_of(run):
    """metrics.json without what a clock has measured."""
    metrics = json.loads((run / "metrics.json").read_text())
    for row in (metrics["summary"], *metrics["cases"]):
        for key in [key for key in row if key.startswith("seconds")]:
            assert row.pop(key) > 0.0
    return metrics


def units(work):
    return sorted(path.parent.name for path in work.glob("scans/*/unit"))


@pytest.fixture(scope="module")
def calm(cohort, cache, tmp_path_factory):
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("calm") / "run"
    errors = finish(start(cache, f"--cohort={cohort}", f"--out={out}"))
    assert "synth2 cannot be used" in errors
    return out


@pytest.mark.slow
def test_a_scan_that_cannot_be_used_is_counted(calm):
    metrics = metrics_of(calm)
    assert metrics["summary"]["subjects_failed"] == 1
    assert metrics["record"]["n_subjects"] == 2
    assert [case["subject"] for case in metrics["cases"]] == ["synth0", "synth1"]
    tables = (calm / "tables.md").read_text()
    assert "could not be used" in tables and "synth2" in tables and "_ct.nii.gz" in tables
    assert "1 of 3 subjects could not be used" in (calm / "report.html").read_text()
    assert not calm.with_name("run.work").exists()


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_up_the_same(calm, cohort, cache, tmp_path):
    flags = (f"--cohort={cohort}", f"--out={tmp_path / 'run'}")
    work = tmp_path / "run.work"
    process = start(cache, *flags)
    while process.poll() is None and not units(work):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert units(work) == ["synth0"]
    written = (work / "scans" / "synth0" / "unit" / "unit.json").stat().st_mtime_ns

    other = start(cache, *flags, "--pairs=2")
    _, errors = other.communicate()
    assert other.returncode == 2
    assert "settings.pairs" in errors and "--work" in errors

    finish(start(cache, *flags, f"--work={work}"))
    assert metrics_of(tmp_path / "run") == metrics_of(calm)
    assert (work / "scans" / "synth0" / "unit" / "unit.json").stat().st_mtime_ns == written
    for name in ("paths.json", "tables.md"):
        assert (tmp_path / "run" / name).read_text() == (calm / name).read_text()


@pytest.mark.slow
def test_two_processes_share_a_cohort(calm, cohort, cache, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = (
        f"--cohort={cohort}",
        f"--out={tmp_path / 'run'}",
        f"--work={tmp_path / 'work'}",
        f"--coordinator=127.0.0.1:{port}",
        "--num_processes=2",
    )
    both = [start(cache, *flags, f"--process_id={i}") for i in range(2)]
    errors = [finish(process) for process in both]
    assert "synth0" in errors[0] and "synth1" not in errors[0]
    assert "synth1" in errors[1] and "synth0" not in errors[1]
    assert metrics_of(tmp_path / "run") == metrics_of(calm)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "work"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num_processes=2",), "--coordinator"),
        (("--num_processes=2", "--coordinator=127.0.0.1:1", "--process_id=2"), "--process_id"),
        (("--num_processes=2", "--coordinator=127.0.0.1:1"), "--out or --work"),
    ],
)
def test_processes_that_cannot_meet(flags, message, tmp_path):
    done = in_process.start("reconstruct", *QUICK, f"--cohort={tmp_path}", *flags)
    assert done.returncode == 2
    assert message in done.stderr
