"""`experiments.simulate_xrays` as a user calls it: killed twice, in shards, with mistakes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as PillowImage

from dartjax import camera, data
from dartjax.simulation import dataset
from experiments.simulate_xrays import __main__ as simulate_xrays
from experiments.simulate_xrays.settings import Settings
from tests.data import phantoms
from tests.experiments import in_process

ROOT = Path(__file__).parent.parent.parent
SMALL = ("--image_size=112", "--num_views=14", "--nodense_fit", "--tools=0.3", "--seed=5")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs, kept between the runs of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two scans with a ring of bone that is called a vertebra."""
    root = tmp_path_factory.mktemp("cohort")
    for name, label in (("a", 20), ("b", 12)):
        phantoms.save_subject(root, name, phantoms.ring() * np.uint8(label))
    (root / "dataset_description.json").write_text('{"Name": "rings", "Synthetic": true}')
    return root


def start(cache, *flags):
    command = [sys.executable, "-m", "experiments.simulate_xrays", *flags]
    environment = os.environ | {"DARTJAX_CACHE": str(cache)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(cache, *flags):
    process = start(cache, *flags)
    _, errors = process.communicate()
    return process.returncode, errors


def content(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def units(root):
    return sorted(root.glob("scans/*/views-*"))


def kill_when(process, condition):
    """SIGKILL a process as soon as a condition holds."""
    while process.poll() is None and not condition():
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def written(cohort, cache, tmp_path_factory):
    """A data set written by one run that nobody stopped: its folder and the run's."""
    folder = tmp_path_factory.mktemp("written")
    flags = (f"--cohort={cohort}", f"--dataset_out={folder / 'set'}", f"--out={folder / 'run'}")
    code, errors = run(cache, *flags, *SMALL)
    assert code == 0, errors
    return folder / "set", folder / "run"


@pytest.mark.slow
def test_killed_twice_it_ends_up_the_same_byte_for_byte(written, cohort, cache, tmp_path):
    calm, _ = written
    killed = tmp_path / "set"
    flags = (f"--cohort={cohort}", f"--dataset_out={killed}", *SMALL)
    kill_when(start(cache, *flags, "--shard=1/2"), lambda: len(units(killed)) >= 1)
    assert {path.parent.name for path in units(killed)} == {"b"}
    kill_when(start(cache, *flags), (killed / "scans/a/truth.json").exists)
    there = {path: path.stat().st_mtime_ns for path in units(killed)}
    assert 1 <= len(there) < 4
    with pytest.raises(data.DataError, match="not finished"):
        data.open_xrays(killed)
    code, errors = run(cache, *flags, f"--out={tmp_path / 'run'}")
    assert code == 0, errors
    assert content(killed) == content(calm)
    for path, written_at in there.items():
        assert path.stat().st_mtime_ns == written_at  # not written again
    summary = json.loads((tmp_path / "run" / "metrics.json").read_text())["summary"]
    assert summary["num_radiographs"] == 28
    assert summary["num_written_now"] == 28 - sum(len(list(u.glob("*.png"))) for u in there)


@pytest.mark.slow
def test_two_ray_workers_make_the_same_set(written, cohort, cache, tmp_path):
    pytest.importorskip("ray")
    flags = (f"--cohort={cohort}", f"--dataset_out={tmp_path / 'set'}", *SMALL)
    code, errors = run(cache, *flags, "--ray_workers=2", f"--out={tmp_path / 'run'}")
    assert code == 0, errors
    assert content(tmp_path / "set") == content(written[0])
    other = ("--ray_workers=2", "--seed=6", f"--out={tmp_path / 'other'}")
    broken = cohort.parent / "broken"
    shutil.copytree(cohort, broken)
    mask = next(broken.glob("derivatives/sub-b/*.nii.gz"))
    mask.write_bytes(mask.read_bytes()[:-400])
    flags = (f"--cohort={broken}", f"--dataset_out={tmp_path / 'two'}", *SMALL)
    code, errors = run(cache, *flags, *other)
    assert code == 2, errors
    assert mask.name in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_shard_that_is_done_says_so_and_does_nothing(written, cohort, cache, tmp_path):
    folder, _ = written
    before = content(folder)
    flags = (f"--cohort={cohort}", f"--dataset_out={folder}", *SMALL)
    code, errors = run(cache, *flags, f"--out={tmp_path / 'again'}")
    assert code == 0 and "shard 0/1" in errors and "already done" in errors
    assert content(folder) == before
    metrics = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert metrics["summary"]["num_written_now"] == 0
    assert len(metrics["cases"]) == metrics["summary"]["num_radiographs"] == 28
    assert metrics["summary"]["radiographs_per_second"] is None
    assert metrics["summary"]["radiographs_per_second_reason"]


@pytest.mark.slow
def test_metrics_and_manifest_say_what_was_made(written):
    folder, run_folder = written
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["record"]["dataset"] == "rings"
    assert metrics["record"]["dataset_kind"] == "synthetic"
    assert len(metrics["cases"]) == metrics["summary"]["num_radiographs"] == 28
    assert metrics["summary"]["radiographs_per_second"] > 0.0
    assert (run_folder / "sheet.png").stat().st_size > 10_000
    manifest = json.loads((folder / "dataset.json").read_text())
    assert manifest["finished"] and manifest["settings"]["num_views"] == 14
    assert [scan["subject"] for scan in manifest["scans"]] == ["a", "b"]
    assert manifest["record"]["n_vertebrae"] == 2
    assert sum(u["num_radiographs"] for scan in manifest["scans"] for u in scan["units"]) == 28


@pytest.mark.slow
def test_a_radiograph_and_its_truth_agree(written):
    """PNG, JSON and packed record tell the same story, and the outlines fit the masks."""
    folder, _ = written
    xrays = data.open_xrays(folder)
    assert len(xrays) == 28
    for index in (0, 13, 20):
        row = xrays[index]
        unit = folder / xrays.units[xrays.rows[index][1]]
        entry = json.loads((unit / f"{row['view']:04d}.json").read_text())
        assert entry["subject"] == xrays.subjects[row["scan"]]
        image = data.load_radiograph(unit / entry["image"])
        np.testing.assert_allclose(image, row["image"], atol=1e-6)
        (view,) = data.load_cameras(_as_file(unit, entry["camera"]))
        np.testing.assert_array_equal(view.intrinsics, row["K"])
        np.testing.assert_allclose(
            view.camera_from_world.as_matrix(), row["camera_from_world"], atol=1e-4
        )
        vertebra = entry["vertebrae"][0]
        assert vertebra["mask_area_px"] == row["masks"][0].sum() > 0
        assert vertebra["landmarks"] is None and "no dense fit" in vertebra["reason"]
        assert not row["landmarks_visible"].any() and np.isnan(row["landmarks"]).all()
        outline = np.concatenate([np.array(line) for line in vertebra["contours"]])
        rows, columns = np.nonzero(row["masks"][0])
        assert abs(outline[:, 0].min() - (columns.min() + 0.5)) < 1.0
        assert abs(outline[:, 1].max() - (rows.max() + 0.5)) < 1.0
        center = camera.project(view, jnp.asarray(_center_of(folder, entry["subject"]))[None])[0]
        assert np.linalg.norm(np.asarray(center) - outline.mean(0)) < 4.0


def _as_file(unit, entry):
    path = unit.parents[3] / "camera.json"
    path.write_text(json.dumps([entry]))
    return path


def _center_of(folder, subject):
    truth = json.loads((folder / "scans" / subject / "truth.json").read_text())
    return np.array(truth["vertebrae"][0]["center_world"], np.float32)


@pytest.mark.slow
def test_pngs_open_as_16_bit_grey_and_variants_show(written):
    folder, run_folder = written
    cases = json.loads((run_folder / "metrics.json").read_text())["cases"]
    kinds = {kind for case in cases for kind in case["variants"].split("+")}
    assert kinds == {"none", "low_dose", "collimated", "tool"}
    for file in sorted(folder.glob("scans/*/views-*/0*.json")):
        entry = json.loads(file.read_text())
        with PillowImage.open(file.with_suffix(".png")) as image:
            assert image.mode == "I;16" and image.size == (112, 112)
            pixels = np.asarray(image)
        u0, v0, u1, v1 = np.rint(entry["open_field_px"]).astype(int)
        open_part = pixels[v0:v1, u0:u1]
        assert open_part.size == pixels.size or "collimated" in entry["variants"]
        if "collimated" in entry["variants"] and u0 >= 3:
            assert pixels[:, : u0 - 2].min() > open_part.mean()  # lead lets little through
        assert bool(entry["tools"]) == ("tool" in entry["variants"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--cohort=COHORT",), "--dataset_out is required"),
        (("--dataset_out=COHORT", "--cohort=COHORT"), "empty folder"),
    ],
)
def test_mistakes_get_one_clear_message(cohort, tmp_path, flags, message):
    named = [f.replace("SET", str(tmp_path / "set")).replace("COHORT", str(cohort)) for f in flags]
    done = in_process.start("simulate_xrays", *named, f"--out={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_choices_are_those_of_the_library():
    choices = {f.name: f.metadata["choices"] for f in dataclasses.fields(Settings)}
    assert choices["views"] == dataset.VIEW_SETS
    assert choices["field"] == tuple(simulate_xrays.FIELDS)
