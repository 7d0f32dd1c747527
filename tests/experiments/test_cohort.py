"""`experiments.cohort` as a user calls it."""

import dataclasses
import json
import typing

import numpy as np
import pytest
from PIL import Image

from dartjax import data
from dartjax.data.cohorts import _inspect
from experiments.cohort.settings import Settings
from tests.data import phantoms
from tests.experiments.in_process import start


def run(*flags):
    return start("cohort", *flags, COLUMNS="200")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two scans of a split each, one with an L2 that the border cuts."""
    root = tmp_path_factory.mktemp("verse")
    whole = np.where(phantoms.ring(), 20, 0).astype(np.uint8)
    cut = whole.copy()
    cut[phantoms.ring(center=(20, 20, 1), radii=(9.0, 4.0))] = 21
    oblique = np.array([[1.4, -0.5, 0, 3], [0.5, 1.4, 0, -9], [0, 0, -2.0, 70], [0, 0, 0, 1]])
    for folder, name, labels, affine in (
        ("training", "verse004", cut, phantoms.AFFINE),
        ("test", "verse400_split-verse090", whole, oblique),
    ):
        phantoms.save_subject(root / folder, name, labels, affine)
        (subject,) = data.find_subjects(root / folder)
        centroids = data.mask_centroids(labels, affine)
        path = subject.centroids_path
        data.save_centroids(path, centroids, labels.shape, affine, direction=("P", "I", "R"))
    return root


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    done = run(f"--cohort={cohort}", f"--out={out}", "--verse_small=rule", "--centroids=file")
    assert done.returncode == 0, done.stderr
    return done, out


def test_what_a_run_leaves(finished):
    done, out = finished
    name = "VerSe'19-rule (2 scans, 2 vertebrae)"
    assert f"2 scans, 2 complete vertebrae: {name}" in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["record"]["dataset"] == name
    assert metrics["record"]["dataset_kind"] == "real_ct_drr"
    first, second = metrics["cases"]
    assert (first["subject"], first["split"], first["orientation"]) == (
        "verse004",
        "training",
        "RAS",
    )
    assert "border" in first["rejected"]["L2"] and first["levels"] == ["L1"]
    assert (second["patient"], second["orientation"]) == ("verse400", "RAI")
    np.testing.assert_allclose(second["oblique_deg"], np.degrees(np.arctan2(0.5, 1.4)), rtol=1e-6)
    np.testing.assert_allclose(second["spacing_mm"], [1.4866, 1.4866, 2.0], atol=1e-4)
    assert first["centroid_source"] == "file"
    assert metrics["summary"]["num_rejected"] == 1 and metrics["summary"]["num_leaks"] == 0
    assert "| verse004 | training |" in (out / "table.md").read_text()
    width, height = Image.open(out / "sheet.png").size
    assert width > height > 100


def test_the_manifest_is_a_cohort_and_leaks_into_itself(cohort, finished, tmp_path):
    manifest = finished[1] / "manifest.json"
    assert [s.id for s in data.find_subjects(manifest)] == ["verse004", "verse400_split-verse090"]
    done = run(f"--cohort={cohort / 'test'}", f"--against={manifest}", f"--out={tmp_path / 'o'}")
    assert done.returncode == 1
    assert "1 leaks into" in done.stderr and "same id and same person" in done.stdout
    (leak,) = json.loads((tmp_path / "o/metrics.json").read_text())["record"]["leaks"]
    assert leak["first"] == leak["second"] == "verse400_split-verse090"


def test_bad_scans_are_all_named_and_leave_nothing(cohort, tmp_path):
    broken = tmp_path / "broken"
    whole = np.where(phantoms.ring(), 20, 0).astype(np.uint8)
    for name in ("a", "b", "c"):
        phantoms.save_subject(broken, name, whole)
    next(broken.rglob("sub-a_ct.nii.gz")).write_bytes(b"no image")
    phantoms.save(next(broken.rglob("sub-b_seg-vert_msk.nii.gz")), whole * 0)
    done = run(f"--cohort={broken}", f"--out={tmp_path / 'o'}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "2 of 3 scans cannot be used" in done.stderr
    assert "truncated or damaged" in done.stderr and "no vertebra label" in done.stderr
    assert not list(tmp_path.glob("*o*.partial")) and not (tmp_path / "o").exists()
    done = run(f"--cohort={broken}", f"--out={tmp_path / 'o'}", "--skip_bad")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "o/metrics.json").read_text())["record"]
    assert [each["subject"] for each in record["unusable"]] == ["a", "b"]
    assert record["n_subjects"] == 1


def test_bad_usage(cohort, tmp_path):
    done = run(f"--cohort={cohort}", f"--against={tmp_path / 'm.json'}", f"--out={tmp_path / 'o'}")
    assert done.returncode == 2 and "m.json: cannot be read" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_sources_of_centroids_are_those_of_the_library():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(Settings)}
    assert choices["centroids"] == typing.get_args(_inspect.CentroidSource)
