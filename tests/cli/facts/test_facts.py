"""`dartjax info` for every kind of file, compared with the loaders."""

import json
import pathlib

import nibabel as nib
import numpy as np
import pytest
import trimesh
from PIL import Image

from dartjax import data
from dartjax._errors import DataError
from dartjax.cli.facts import _geometry, _xray, read_facts
from dartjax.data.formats import _cameras, _radiographs
from dartjax.transforms import VIEW_AXES

CARM = {
    "sdd": 1020,
    "source_to_isocenter": 530,
    "isocenter": [5, -20, 300],
    "pixel_spacing": 0.388,
    "image_size": [768, 512],
}
MATRIX = {
    "K": [[2628.9, 0, 384], [0, 2628.9, 384], [0, 0, 1]],
    "camera_from_world": [[-1, 0, 0, 10], [0, 0, -1, 300], [0, -1, 0, 510], [0, 0, 0, 1]],
    "sdd": 1020,
    "image_size": [768, 768],
}


def write_json(path, document):
    path.write_text(json.dumps(document))
    return path


def spine_image(bright, size=(64, 48)):
    """Whole numbers whose middle is brighter than its border."""
    v, u = np.mgrid[: size[0], : size[1]]
    body = np.exp(-(((u - size[1] / 2) / 12) ** 2)) * (v > 4) * (v < size[0] - 4)
    return np.rint(bright * (0.2 + 0.7 * body))


def test_the_numbers_of_the_loaders_are_the_same():
    for name in ("FULL_SCALE", "OPEN_BEAM_PERCENTILE", "MAX_LINE_INTEGRAL"):
        assert getattr(_xray, name) == getattr(_radiographs, name)
    assert _xray.COLOR_TOLERANCE == _radiographs._COLOR_TOLERANCE
    assert set(_geometry.ALL_KEYS) == set(_cameras._ANY_FORM)
    beams = {name: tuple(np.rint(axes[:, 2]).astype(int)) for name, axes in VIEW_AXES.items()}
    assert beams == _geometry.BEAMS


@pytest.mark.parametrize(
    ("suffix", "dtype", "bright"), [(".png", np.uint8, 255), (".tif", np.uint16, 65535)]
)
@pytest.mark.parametrize("kind", ["line_integral", "intensity"])
def test_an_image_says_how_it_is_read_and_the_loader_agrees(tmp_path, suffix, dtype, bright, kind):
    pixels = spine_image(bright)
    pixels = pixels if kind == "line_integral" else bright - pixels
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels.astype(dtype)).save(path)
    found = read_facts(path)
    assert found.kind == "X-ray image" and found.facts["image_size"] == [64, 48]
    assert found.facts["bits"] == 8 * np.dtype(dtype).itemsize
    assert found.facts["pixels"] == kind
    for reading in found.facts["readings"]:
        image = np.asarray(data.load_radiograph(path, reading["pixels"]))
        assert [reading["from"], reading["to"]] == pytest.approx(
            [image.min(), image.max()], abs=0.006
        )
    assert any("image_size" in note for note in found.notes)


def test_floats_below_zero_can_only_be_line_integrals(tmp_path):
    np.save(tmp_path / "a.npy", spine_image(4.0).astype(np.float32) - 1.5)
    found = read_facts(tmp_path / "a.npy")
    assert found.facts["pixels"] == "line_integral" and len(found.facts["readings"]) == 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((32, 32)), "every pixel is 0"),
        (np.full((32, 32), np.nan), "NaN"),
        (np.ones((4, 32)), "at least 16 x 16"),
        (np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3) * 50, "colour"),
        (np.linspace(-900, 900, 1024).reshape(32, 32), "neither line integrals nor intensities"),
        (spine_image(4095).astype(np.uint16), "reach only 0.45"),
    ],
)
def test_an_image_that_will_not_work_says_so(tmp_path, pixels, message):
    np.save(tmp_path / "a.npy", pixels)
    assert message in " ".join(read_facts(tmp_path / "a.npy").warnings)


def save_nifti(path, values, affine=None):
    affine = np.diag([-0.8, 0.8, 2.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def test_a_ct_has_its_grid_and_its_range(tmp_path):
    hu = np.linspace(-1000, 1500, 10 * 12 * 6).reshape(10, 12, 6).astype(np.int16)
    found = read_facts(save_nifti(tmp_path / "a.nii.gz", hu))
    assert found.kind == "CT" and not found.warnings
    expected = {
        "shape": [10, 12, 6],
        "spacing_mm": [0.8, 0.8, 2.0],
        "orientation": "LAS",
        "oblique_deg": 0.0,
        "field_of_view_mm": [8.0, 9.6, 12.0],
        "world_box_from_mm": [-7.6, -0.4, -1.0],
        "world_box_to_mm": [0.4, 9.2, 11.0],
        "hu_range": [-1000.0, 1500.0],
    }
    assert {key: found.facts[key] for key in expected} == expected


@pytest.mark.parametrize("large", [False, True])
def test_a_mask_has_its_levels_and_foreign_numbers(tmp_path, monkeypatch, large):
    if large:
        monkeypatch.setattr("dartjax.cli.facts._volume._MANY_VOXELS", 100)
    labels = np.zeros((10, 12, 6), np.uint8)
    labels[2, 2, 5], labels[3, 3, 1], labels[4, 4, 0], labels[5, 5, 4] = 19, 20, 26, 28
    found = read_facts(save_nifti(tmp_path / "a.nii.gz", labels))
    assert found.kind == "vertebra mask" and not found.warnings
    assert found.facts["levels"] == ["T12", "T13", "L1"] and found.facts["has_sacrum"]
    labels[6, 6, 0] = 90
    found = read_facts(save_nifti(tmp_path / "b.nii", labels.astype(np.float32)))
    assert found.facts["foreign_numbers"] == [90] and "translate the mask" in found.warnings[0]


def test_a_mask_numbered_from_foot_to_head_is_warned_of(tmp_path):
    labels = np.zeros((10, 12, 6), np.uint8)
    labels[2, 2, 5], labels[3, 3, 1] = 20, 19
    found = read_facts(save_nifti(tmp_path / "a.nii.gz", labels))
    assert "run from foot to head" in found.warnings[0]


def test_a_large_ct_is_described_by_its_middle_slices(tmp_path, monkeypatch):
    monkeypatch.setattr("dartjax.cli.facts._volume._MANY_VOXELS", 240)
    hu = np.full((10, 12, 9), 400, np.int16)
    hu[0], hu[..., 8] = -1000, 2000
    found = read_facts(save_nifti(tmp_path / "a.nii", hu))
    assert found.kind == "CT" and found.facts["values_from"] == "slices 4 to 4 of 9"
    assert found.facts["hu_range"] == [-1000.0, 400.0]  # not the 2000 of the last slice


@pytest.mark.parametrize(
    ("values", "affine", "message"),
    [
        (np.zeros((4, 4, 4, 3), np.int16), None, "one 3D image"),
        (np.full((4, 4, 4), 300, np.int16), None, "not Hounsfield units"),
        (np.zeros((4, 4, 4), np.int16), None, "no vertebra"),
        (np.zeros((4, 4, 4), np.int16), np.diag([0.01, 0.01, 0.01, 1.0]), "must be in mm"),
    ],
)
def test_a_volume_that_will_not_work_says_so(tmp_path, values, affine, message):
    found = read_facts(save_nifti(tmp_path / "a.nii.gz", values, affine))
    assert message in " ".join(found.warnings)


@pytest.mark.parametrize("suffix", ["ply", "stl", "obj"])
def test_a_mesh_has_its_size_and_volume(tmp_path, suffix):
    path = tmp_path / f"l1.{suffix}"
    trimesh.creation.box((40.0, 30.0, 20.0)).export(path)
    found = read_facts(path)
    assert found.kind == "mesh" and not found.warnings
    assert found.facts["vertices"] == 8 and found.facts["faces"] == 12
    assert found.facts["size_mm"] == [40.0, 30.0, 20.0] and found.facts["volume_cm3"] == 24.0
    assert found.facts["closed"] and found.facts["level_by_name"] == "L1"


def test_an_open_mesh_in_metres_says_so(tmp_path):
    box = trimesh.creation.box((0.04, 0.03, 0.02))
    trimesh.Trimesh(box.vertices, box.faces[1:]).export(tmp_path / "a.ply")
    warnings = " ".join(read_facts(tmp_path / "a.ply").warnings)
    assert "not closed" in warnings and "not a size in mm" in warnings


@pytest.mark.parametrize(
    ("view", "form"),
    [
        (MATRIX, "matrix"),
        ({"primary_deg": 30, "secondary_deg": -10, **CARM}, "C-arm angles"),
        ({"view": "LAT_R", **CARM, "pixel_spacing": [0.388, 0.4]}, "named view"),
    ],
)
def test_a_camera_stands_where_the_loader_puts_it(tmp_path, view, form):
    path = write_json(tmp_path / "cameras.json", [view, {"view": "PA", **CARM}])
    found, (camera, _) = read_facts(path), data.load_cameras(path)
    row = found.facts["views"][0]
    assert found.kind == "cameras" and row["form"] == form
    np.testing.assert_allclose(row["source_mm"], np.asarray(camera.source), atol=0.06)
    spacing = float(camera.sdd) / np.asarray(camera.focal_length)
    np.testing.assert_allclose(row["pixel_mm"], spacing, rtol=1e-3)
    primary, secondary = np.radians([row["primary_deg"], row["secondary_deg"]])
    beam = [-np.sin(primary) * np.cos(secondary), np.cos(primary) * np.cos(secondary)]
    np.testing.assert_allclose([*beam, np.sin(secondary)], np.asarray(camera.beam), atol=2e-3)


def test_two_views_say_their_angle_and_directions(tmp_path):
    views = [{"view": "AP", **CARM}, {"view": "LAT_L", **CARM}]
    found = read_facts(write_json(tmp_path / "c.json", {"cameras": views}))
    assert not found.warnings
    assert [row["beam"] for row in found.facts["views"]] == ["to posterior", "to left"]
    assert found.facts["views"][0]["nearest_view"] == "AP, 0 deg off"
    assert found.facts["pairs"][0]["angle_deg"] == 90.0
    assert found.facts["pairs"][0]["beams_pass_within_mm"] == 0.0


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([{"view": "AP", **CARM}], "only one view"),
        ([{"view": "AP", **CARM}, {"view": "PA", **CARM}], "180 deg apart, nearly parallel"),
        ([{"view": "AP", "sdd": 1020}], "missing source_to_isocenter"),
        ([{"view": "XY", **CARM}], "XY"),
        ([{"view": "AP", **CARM, "sod": 3}], "sod"),
        ([{"view": "AP", **CARM, "sdd": 1.02}], "from 300 to 3000 mm"),
        ([{"view": "AP", **CARM, "pixel_spacing": 388}], "from 0.05 to 3 mm"),
        ([{**MATRIX, "camera_from_world": [[1, 2], [3, 4]]}], "the pose is invalid"),
    ],
)
def test_cameras_that_will_not_work_say_so(tmp_path, views, message):
    found = read_facts(write_json(tmp_path / "cameras.json", views))
    assert message in " ".join(found.warnings)


def test_starts_have_their_levels_and_what_is_missing(tmp_path):
    starts = [
        {"level": "L1", "center_world": [1, -20, 310], "rotation_deg": [8, 0, 0]},
        {"landmarks_world": {"spinous_tip": [0, -60, -5], "elbow": [0, 0, 0]}},
    ]
    found = read_facts(write_json(tmp_path / "init.json", starts))
    assert found.kind == "initial estimates"
    assert found.facts["starts"][0] == {
        "level": "L1",
        "center_mm": [1, -20, 310],
        "turned_by": "rotation_deg",
        "landmarks": 0,
    }
    warnings = " ".join(found.warnings)
    assert "elbow" in warnings and "no level" in warnings and "three landmarks" in warnings
    one = write_json(tmp_path / "one.json", starts[0])
    assert [row["level"] for row in read_facts(one).facts["starts"]] == ["L1"]


def test_centroids_of_verse_have_levels(tmp_path):
    entries = [
        {"direction": ["P", "I", "R"]},
        {"label": 20, "X": 1.5, "Y": 2, "Z": 3},
        {"label": 19, "X": float("nan"), "Y": 2, "Z": 3},
        {"label": 99, "X": 1, "Y": 2, "Z": 3},
    ]
    found = read_facts(write_json(tmp_path / "a_ctd.json", entries))
    assert found.kind == "centroids (VerSe)"
    assert found.facts["centroids"] == [{"level": "L1", "point": [1.5, 2.0, 3.0]}]
    assert "[99]" in found.warnings[0] and "1 entries without coordinates" in found.warnings[1]


SPINE = {
    "frame": "patient",
    "version": "0.1.0",
    "views": 2,
    "vertebrae": [
        {
            "level": "L1",
            "status": "converged",
            "abstained": False,
            "p_failure": 0.12345,
            "mesh": "meshes/L1.ply",
            "paths": {"left": {"feasible": True}, "right": {"feasible": False}},
        },
        {"level": "L2", "status": "too few landmarks", "abstained": True, "paths": None},
    ],
}


def test_a_spine_has_its_vertebrae(tmp_path):
    found = read_facts(write_json(tmp_path / "spine.json", SPINE))
    assert found.kind == "reconstructed spine" and found.facts["num_vertebrae"] == 2
    first = found.facts["vertebrae"][0]
    assert first["p_failure"] == 0.1235
    assert first["paths"] == ["left", "right"] and first["feasible"] == ["left"]
    warnings = " ".join(found.warnings)
    assert "meshes/L1.ply is not next to" in warnings and "no answer for L2" in warnings
    assert read_facts(tmp_path).facts == found.facts


METRICS = {"record": {"dataset": "x"}, "summary": {"dice_mean": 0.9, "rows": []}, "cases": [{}, {}]}
CONFIG = {"experiment": "dartjax demo", "command": ["dartjax", "demo"], "flags": {"seed": 3}}


def test_a_run_folder_and_its_files(tmp_path):
    run = tmp_path / "run"
    (run / "meshes").mkdir(parents=True)
    (run / "meshes/L1.ply").touch()
    results = read_facts(write_json(run / "metrics.json", METRICS))
    assert results.kind == "results of a run"
    assert results.facts["summary"] == {"dice_mean": 0.9} and results.facts["num_cases"] == 2
    config = read_facts(write_json(run / "config.json", CONFIG))
    assert config.kind == "settings of a run" and config.facts["run_of"] == "dartjax demo"
    found = read_facts(run)
    assert found.kind == "run folder" and found.facts["num_cases"] == 2
    assert found.facts["meshes"] == 1 and not found.facts["has_report"] and not found.warnings
    (run / "error.log").write_text("Traceback\nValueError: no")
    assert read_facts(run).warnings == ["the run failed: ValueError: no"]


def test_a_folder_of_cts_is_counted(tmp_path):
    for name in ("rawdata/sub-a/sub-a_ct.nii.gz", "derivatives/sub-a/sub-a_seg-vert_msk.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = read_facts(tmp_path)
    assert found.kind == "folder of CTs" and not found.warnings
    assert (found.facts["cts"], found.facts["masks"]) == (1, 1)
    (tmp_path / "rawdata/sub-a/sub-b_ct.nii.gz").touch()
    assert "2 CTs and 1 masks" in read_facts(tmp_path).warnings[0]


def test_folders_of_meshes_and_of_weights(tmp_path):
    (tmp_path / "T12.ply").touch()
    assert read_facts(tmp_path).facts["levels_by_name"] == ["T12"]
    assert read_facts(data.NETWORKS / "similarity").kind == "network"
    card = read_facts(data.NETWORKS / "similarity/card.json")
    assert card.kind == "network" and card.facts["never_seen"] == ["lidc0001", "tptct"]
    assert read_facts(data.NETWORKS / "similarity/weights.npz").facts == card.facts


def test_a_manifest_is_counted(tmp_path):
    manifest = {"format": "dartjax cohort", "name": "x", "subjects": [{"id": "a", "ct": "a.nii"}]}
    found = read_facts(write_json(tmp_path / "manifest.json", manifest))
    assert found.facts["num_scans"] == 1 and "a.nii" in found.warnings[0]


def test_needle_paths_have_their_lengths(tmp_path):
    ends = {"entry_point": [0, 0, 0], "target_point": [0, 3, 4]}
    paths = {"unit": "mm", "frame": "RAS+ world", "paths": {"a_L1_pair1": {"left": ends}}}
    found = read_facts(write_json(tmp_path / "paths.json", paths))
    assert found.facts["paths"] == [{"vertebra": "a_L1_pair1", "length_mm": [5.0]}]


@pytest.mark.parametrize(("name", "content"), [("a.dcm", b"x"), ("a", b"\0" * 128 + b"DICM")])
def test_dicom_is_recognised(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = read_facts(tmp_path / name)
    assert found.kind == "DICOM" and "does not read yet" in found.warnings[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"\x89PNG\r\n\x1a\n truncated", "not a readable image"),
        ("a.npy", b"x" * 64, "not a readable image"),
        ("a.nii.gz", b"x" * 64, "not a readable NIfTI"),
        ("a.nii", b"x" * 400, "not a readable NIfTI"),
        ("a.ply", b"ply\nnothing", "not a readable mesh"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"[]", "not a JSON file that dartjax reads"),
        ("a.json", b'{"colour": 3}', "found: colour"),
        ("a.jpg", b"x", "save it as 16 bit PNG"),
        ("a.txt", b"x", "does not read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_facts(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_a_missing_file_and_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        read_facts(tmp_path / "a.png")
    with pytest.raises(DataError, match="nothing that dartjax reads"):
        read_facts(pathlib.Path(tmp_path))
