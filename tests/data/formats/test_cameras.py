import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, transforms

CARM = {
    "sdd": 1020.0,
    "source_to_isocenter": 530,
    "isocenter": [10.0, -20.0, 300.0],
    "pixel_spacing": 0.4,
    "image_size": [480, 640],
}
ANGLES = CARM | {"primary_deg": 30, "secondary_deg": -10.0}
VIEW = CARM | {"view": "LAT_L"}


def matrix_entry():
    cam = camera.from_carm(
        transforms.carm_rotation(0.4, 0.2), jnp.array([1.0, 2.0, 3.0]), image_size=(480, 640)
    )
    return {
        "K": np.asarray(cam.intrinsics).tolist(),
        "camera_from_world": np.asarray(cam.camera_from_world.as_matrix()).tolist(),
        "sdd": 1020.0,
        "image_size": [480, 640],
    }, cam


def write(tmp_path, content):
    path = tmp_path / "cameras.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_camera_by_matrix(tmp_path):
    entry, expected = matrix_entry()
    (loaded,) = data.load_cameras(write(tmp_path, [entry]))
    points = jnp.array([[0.0, 0.0, 0.0], [30.0, -20.0, 50.0]])
    np.testing.assert_allclose(
        camera.project(loaded, points), camera.project(expected, points), atol=2e-2
    )
    assert loaded.image_size == (480, 640)
    assert float(loaded.sdd) == 1020.0


def test_camera_by_angles_and_by_view(tmp_path):
    by_angle, by_view = data.load_cameras(write(tmp_path, {"cameras": [ANGLES, VIEW]}))
    primary, secondary = np.radians([30.0, -10.0])
    beam = [-np.sin(primary) * np.cos(secondary), np.cos(primary) * np.cos(secondary)]
    np.testing.assert_allclose(by_angle.beam, [*beam, np.sin(secondary)], atol=1e-6)
    np.testing.assert_allclose(by_view.beam, [-1.0, 0.0, 0.0], atol=1e-6)
    for cam in (by_angle, by_view):
        expected = np.array(CARM["isocenter"]) - 530.0 * np.asarray(cam.beam)
        np.testing.assert_allclose(cam.source, expected, atol=1e-3)
        np.testing.assert_allclose(cam.pixel_spacing, [0.4, 0.4], rtol=1e-6)


def test_pixels_of_two_sizes_and_one_camera_alone(tmp_path):
    (cam,) = data.load_cameras(write(tmp_path, VIEW | {"pixel_spacing": [0.4, 1]}))
    np.testing.assert_allclose(cam.pixel_spacing, [0.4, 1.0], rtol=1e-6)


def broken():
    entry, _ = matrix_entry()
    pose = np.array(entry["camera_from_world"])
    scaled, mirrored, sheared = pose.copy(), pose.copy(), pose.copy()
    scaled[:3, :3] *= 1.01
    mirrored[0, :3] *= -1
    sheared[3] = [0, 0, 1, 1]
    return [
        (entry | {"camera_from_world": scaled.tolist()}, "not a rotation"),
        (entry | {"camera_from_world": mirrored.tolist()}, "a mirror"),
        (entry | {"camera_from_world": sheared.tolist()}, "last row must be 0 0 0 1"),
        (entry | {"camera_from_world": pose[:3].tolist()}, r"4 x 4 finite numbers"),
        (entry | {"K": [[2000, 5, 9], [0, 2000, 9], [0, 0, 1]]}, r"K must be \[\[fx"),
        (entry | {"sdd": 1.02}, r"sdd: 1.02 is not a number from 300 to 3000 mm"),
        (entry | {"K": [[100, 0, 9], [0, 100, 9], [0, 0, 1]]}, "pixel spacing sdd / f"),
        ({k: v for k, v in entry.items() if k != "sdd"}, "missing sdd"),
        (ANGLES | {"source_to_isocentre": 5}, "did you mean 'source_to_isocenter'"),
        (ANGLES | {"pixel_spacing": 0.0004}, "pixel_spacing: 0.0004"),
        (ANGLES | {"source_to_isocenter": 1500}, "source_to_isocenter: 1500"),
        (ANGLES | {"isocenter": [1, 2]}, "isocenter: 3 finite numbers"),
        (ANGLES | {"isocenter": [1, 2, None]}, "isocenter: 3 finite numbers"),
        (ANGLES | {"primary_deg": "left"}, "primary_deg: 'left' is not a number"),
        (ANGLES | {"image_size": [480.5, 640]}, "whole pixels"),
        (VIEW | {"view": "LAT"}, "unknown view 'LAT'.*did you mean"),
        (VIEW | {"primary_deg": 3}, "unknown key 'primary_deg'"),
        (CARM, "missing primary_deg, secondary_deg"),
        (7, "JSON object"),
    ]


@pytest.mark.parametrize(("entry", "message"), broken())
def test_mistakes_name_the_camera_and_the_key(tmp_path, entry, message):
    with pytest.raises(data.DataError, match=f"camera 2.*{message}"):
        data.load_cameras(write(tmp_path, [VIEW, entry]))


def test_files_that_are_no_camera_list(tmp_path):
    with pytest.raises(data.DataError, match="cannot be read"):
        data.load_cameras(tmp_path / "absent.json")
    with pytest.raises(data.DataError, match="not valid JSON"):
        data.load_cameras(write(tmp_path, "[{]"))
    with pytest.raises(data.DataError, match="list of cameras"):
        data.load_cameras(write(tmp_path, []))


LANDMARKS = {
    "superior_endplate_center": [0, 0, 13],
    "inferior_endplate_center": [0, 0, -13],
    "spinous_tip": [0, -60, -5],
}


def test_start_by_centre_and_angles(tmp_path):
    start = data.load_init(
        write(tmp_path, {"center_world": [1, 2, 3], "rotation_deg": [90, 0, 90], "level": "L1"})
    )
    np.testing.assert_allclose(start.center_world, [1, 2, 3])
    # About x: superior z goes to -y; then about z: -y goes to +x.
    np.testing.assert_allclose(start.axes_world[:, 2], [1, 0, 0], atol=1e-6)
    assert (start.level, start.landmarks_world) == ("L1", {})


def test_start_by_landmarks(tmp_path):
    start = data.load_init(write(tmp_path, {"landmarks_world": LANDMARKS}))
    assert start.center_world is None
    np.testing.assert_allclose(start.axes_world, np.eye(3), atol=1e-7)
    np.testing.assert_allclose(start.landmarks_world["spinous_tip"], [0, -60, -5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "give center_world or landmarks_world"),
        ({"center": [0, 0, 0]}, "did you mean 'center_world'"),
        ({"center_world": [0, 0]}, "center_world: 3 finite"),
        ({"center_world": [0, 0, 0], "axes_world": np.diag([1, 1, -1]).tolist()}, "a mirror"),
        (
            {
                "center_world": [0, 0, 0],
                "axes_world": np.eye(3).tolist(),
                "rotation_deg": [0, 0, 0],
            },
            "not both",
        ),
        ({"center_world": [0, 0, 0], "level": "L9"}, "unknown level 'L9'"),
        ({"landmarks_world": LANDMARKS | {"spinus_tip": [0, 0, 0]}}, "mean 'spinous_tip'"),
        ({"landmarks_world": LANDMARKS | {"spinous_tip": [0, 0, -40]}}, "not on one line"),
        ({"landmarks_world": {"spinous_tip": [0, 0, 0]}}, "at least three"),
    ],
)
def test_start_mistakes(tmp_path, content, message):
    with pytest.raises(data.DataError, match=message):
        data.load_init(write(tmp_path, content))


def test_examples_of_the_docs_load(tmp_path):
    page = pathlib.Path(__file__).parents[3] / "docs" / "input_formats.md"
    blocks = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        load = data.load_cameras if block.startswith("[") else data.load_init
        load(write(tmp_path, block))


def test_the_starts_of_several_vertebrae(tmp_path):
    entries = [
        {"level": "L3", "center_world": [1, 2, 3]},
        {"level": "T12", "landmarks_world": LANDMARKS},
    ]
    starts = data.load_starts(write(tmp_path, entries))
    assert list(starts) == ["L3", "T12"]
    np.testing.assert_array_equal(starts["L3"].center_world, [1.0, 2.0, 3.0])
    assert starts["T12"].landmarks_world.keys() == LANDMARKS.keys()
    assert list(data.load_starts(write(tmp_path, entries[0]))) == ["L3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the list is empty"),
        ([{"center_world": [1, 2, 3]}], "vertebra 1: give its level"),
        ([{"level": "L3", "center_world": [1, 2, 3]}] * 2, "vertebra 2: L3 occurs twice"),
        ([{"level": "L3", "center_world": [1, 2]}], "vertebra 1: center_world"),
        ([{"level": "Q3", "center_world": [1, 2, 3]}], "Q3"),
        (["L3"], "vertebra 1: a JSON object with keys center_world"),
        ([{"level": "L3"}], "vertebra 1: give center_world or landmarks_world"),
    ],
)
def test_starts_that_cannot_be_read_are_named(content, message, tmp_path):
    with pytest.raises(data.DataError, match=message):
        data.load_starts(write(tmp_path, content))


def test_cameras_and_starts_are_read_as_they_were_written(tmp_path):
    turned = camera.from_carm(
        transforms.carm_rotation(0.4, 0.1), jnp.array([1.0, 2.0, 3.0]), image_size=(64, 48)
    )
    data.save_cameras(tmp_path / "cameras.json", [turned, turned])
    again, _ = data.load_cameras(tmp_path / "cameras.json")
    np.testing.assert_array_equal(again.intrinsics, turned.intrinsics)
    assert again.image_size == (64, 48)
    points = jnp.array([[5.0, -8.0, 13.0], [0.0, 4.0, -3.0]])
    seen = (camera.project(each, points) for each in (again, turned))
    np.testing.assert_allclose(*seen, atol=1e-3)
    pose = transforms.perturb(transforms.SE3.identity(), jnp.array([0.3, -0.2, 0.1]), jnp.ones(3))
    data.save_starts(tmp_path / "init.json", {"L2": pose})
    start = data.load_starts(tmp_path / "init.json")["L2"]
    np.testing.assert_array_equal(start.center_world, np.asarray(pose.translation(), float))
    np.testing.assert_allclose(start.axes_world, pose.rotation().as_matrix(), atol=1e-6)


def test_values_of_another_type_are_named(tmp_path):
    (tmp_path / "a.json").write_text(
        '[{"view": ["AP"], "sdd": 1020, "source_to_isocenter": 530, "isocenter": [0, 0, 0], '
        '"pixel_spacing": 0.4, "image_size": [64, 64]}]'
    )
    with pytest.raises(data.DataError, match="unknown view"):
        data.load_cameras(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('[{"direction": [["P"], ["I"], ["R"]]}]')
    with pytest.raises(data.DataError, match="direction"):
        data.read_centroids(tmp_path / "b.json", (9, 9, 9), np.eye(4))


def test_byte_order_mark(tmp_path):
    text = json.dumps([matrix_entry()[0]])
    (tmp_path / "a.json").write_text("\ufeff" + text, encoding="utf-8")
    assert len(data.load_cameras(tmp_path / "a.json")) == 1
