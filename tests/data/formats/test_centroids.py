import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage

from dartjax import data
from tests.data import phantoms
from tests.data.formats.test_nifti import oblique_affine

DIRECTIONS = [
    "".join(turned)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for turned in itertools.product(*order)
]
WORLD = {"T12": np.array([-20.0, 15.0, 431.0]), "L1": np.array([-18.5, 14.0, 404.5])}


def numbers_of(path):
    entries = json.loads(path.read_text())
    return [[e["X"], e["Y"], e["Z"]] for e in entries if "label" in e]


@pytest.fixture
def mask():
    """Two blocks of different size, off centre, on an oblique anisotropic grid."""
    labels = np.zeros((30, 26, 14), np.uint8)
    labels[4:11, 5:9, 2:5] = 19
    labels[12:19, 11:20, 8:11] = 20
    return nib.Nifti1Image(labels, oblique_affine())


def true_centroids(image):
    labels = np.asarray(image.dataobj)
    return {
        level: nib.affines.apply_affine(image.affine, ndimage.center_of_mass(labels == label))
        for level, label in (("T12", 19), ("L1", 20))
    }


def test_there_are_48_directions():
    assert len(set(DIRECTIONS)) == 48


@pytest.mark.parametrize("axes", ["RAS", "PIR", "LPS", "ILA", "ASR"])
def test_round_trip_in_every_direction(tmp_path, mask, axes):
    """For images stored in several orientations, files of all 48 directions."""
    image = mask.as_reoriented(
        orientations.ornt_transform(
            orientations.io_orientation(mask.affine), orientations.axcodes2ornt(axes)
        )
    )
    truth = true_centroids(mask)
    path = tmp_path / "a_ctd.json"
    for direction in DIRECTIONS:
        data.save_centroids(path, truth, image.shape, image.affine, direction=tuple(direction))
        found = data.read_centroids(path, image.shape, image.affine)
        for level, point in truth.items():
            np.testing.assert_allclose(found[level], point, atol=0.02)  # two decimals of a voxel


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_numbers_are_voxels_of_the_turned_image(tmp_path, mask, direction):
    """Against nibabel: turn the image, and take the centre of mass of its voxels."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(mask.affine), orientations.axcodes2ornt(direction)
    )
    turned = np.asarray(mask.as_reoriented(turn).dataobj)
    expected = [ndimage.center_of_mass(turned == label) for label in (19, 20)]
    path = tmp_path / "a_ctd.json"
    truth = true_centroids(mask)
    data.save_centroids(path, truth, mask.shape, mask.affine, direction=tuple(direction))
    np.testing.assert_allclose(numbers_of(path), expected, atol=0.0051)
    again = data.mask_centroids(turned, mask.as_reoriented(turn).affine)
    np.testing.assert_allclose(again["L1"], truth["L1"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "direction"),
    [("v_iso-ctd.json", "PIR"), ("v-iso-ctd.json", "PIR"), ("v_ctd.json", "IPL")],
)
def test_files_of_the_challenges_count_millimetres(tmp_path, mask, name, direction):
    """Against nibabel: turn the image; millimetres are voxels times their size."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(mask.affine), orientations.axcodes2ornt(direction)
    )
    turned = mask.as_reoriented(turn)
    array, zooms = np.asarray(turned.dataobj), turned.header.get_zooms()
    entries = [
        dict(zip("XYZ", ndimage.center_of_mass(array == label) * np.array(zooms), strict=True))
        | {"label": label}
        for label in (19, 20)
    ]
    path = tmp_path / name
    path.write_text(json.dumps(entries))
    found = data.read_centroids(path, mask.shape, mask.affine)
    for level, point in true_centroids(mask).items():
        np.testing.assert_allclose(found[level], point, atol=1e-3)


def test_nan_and_sacrum_are_left_out_and_levels_sorted(tmp_path):
    path = tmp_path / "a_ctd.json"
    path.write_text(
        '[{"direction": ["R", "A", "S"]}, {"label": 20, "X": 1, "Y": 2, "Z": 3},'
        ' {"label": 21, "X": NaN, "Y": 2, "Z": 3}, {"label": 26, "X": 1, "Y": 2, "Z": 3},'
        ' {"label": 28, "X": 1, "Y": 2, "Z": 4}]'
    )
    found = data.read_centroids(path, (9, 9, 9), np.eye(4))
    assert list(found) == ["T13", "L1"]
    np.testing.assert_allclose(found["L1"], [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"label": 20}', "a list of"),
        ('[{"direction": ["P", "A", "R"]}]', "direction"),
        ('[{"direction": "PIR3"}]', "direction"),
        ('[{"label": 29, "X": 1, "Y": 1, "Z": 1}]', "label 29 is not a vertebra"),
        ('[{"label": 20, "X": 1, "Y": 1}]', "must have label"),
        ('[{"label": 20, "X": 1, "Y": 1, "Z": 99}]', "outside the image"),
        (
            '[{"label": 20, "X": 1, "Y": 1, "Z": 1}, {"label": 20, "X": 1, "Y": 1, "Z": 2}]',
            "L1 occurs twice",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "a_ctd.json"
    path.write_text(text)
    with pytest.raises(data.DataError, match=message):
        data.read_centroids(path, (9, 9, 9), np.eye(4))


def test_missing_file_says_how_to_go_on(tmp_path):
    phantoms.save_subject(tmp_path, "verse004", np.where(phantoms.ring(), 20, 0))
    (subject,) = data.find_subjects(tmp_path)
    assert subject.centroids_path is not None
    subject.centroids_path.unlink()
    (subject,) = data.find_subjects(tmp_path)
    with pytest.raises(data.DataError, match=r"no centroid file .*dartjax.data.mask_centroids"):
        data.load_centroids(subject)


def test_centroids_of_a_subject(tmp_path):
    labels = np.where(phantoms.ring(center=(14, 22, 20)), 20, 0).astype(np.uint8)
    phantoms.save_subject(tmp_path, "verse004", labels)
    (subject,) = data.find_subjects(tmp_path)
    truth = data.mask_centroids(labels, phantoms.AFFINE)
    np.testing.assert_allclose(truth["L1"], [21.0, 33.0, 30.0], atol=1e-6)
    data.save_centroids(
        subject.centroids_path, truth, labels.shape, phantoms.AFFINE, direction=("P", "I", "R")
    )
    np.testing.assert_allclose(data.load_centroids(subject)["L1"], truth["L1"], atol=0.01)
