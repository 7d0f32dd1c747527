import gzip

import nibabel as nib
import numpy as np
import pytest

from dartjax import data, transforms
from tests.data import phantoms


def oblique_affine():
    rotation = np.asarray(transforms.SO3.from_rpy_radians(0.3, -0.2, 0.5).as_matrix())
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = [-31.5, 12.25, 400.0]
    return affine


def test_attenuation_of_air_water_and_metal():
    mu = data.hu_to_attenuation(np.array([-2048, -1000, 0, 1000, 30000]))
    np.testing.assert_allclose(mu, [0, 0, 0.0192, 0.0384, 0.0192 * 4.071], rtol=1e-6)


@pytest.mark.parametrize("axes", ["RAS", "PIR", "LPS"])
def test_affine_round_trip_in_any_orientation(tmp_path, axes):
    """A voxel keeps its value and its place in the world."""
    hu = np.arange(9 * 11 * 13, dtype=np.int16).reshape(9, 11, 13) - np.int16(600)
    image = nib.Nifti1Image(hu, oblique_affine())
    turn = nib.orientations.axcodes2ornt(axes)
    stored = image.as_reoriented(turn)
    nib.save(stored, tmp_path / "ct.nii.gz")
    volume = data.load_ct(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(volume.world_from_voxel, stored.affine, atol=1e-4)
    voxel = np.array([3, 7, 10, 1.0])
    world = oblique_affine() @ voxel
    found = np.linalg.solve(np.asarray(volume.world_from_voxel, float), world)
    i, j, k = np.rint(found[:3]).astype(int)
    np.testing.assert_allclose(found[:3], [i, j, k], atol=1e-3)
    np.testing.assert_allclose(volume.values[i, j, k], data.hu_to_attenuation(hu)[3, 7, 10])


def test_scaled_values_are_hu(tmp_path):
    hu = phantoms.hounsfield(phantoms.ring())
    image = nib.Nifti1Image(hu + 1024, phantoms.AFFINE)
    image.header.set_slope_inter(1.0, -1024.0)
    stored = nib.Nifti1Image(hu, phantoms.AFFINE, image.header)
    nib.save(stored, tmp_path / "ct.nii.gz")
    volume = data.load_ct(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(volume.values, data.hu_to_attenuation(hu), rtol=1e-6)


def test_labels_drop_the_sacrum(tmp_path):
    labels = np.where(phantoms.ring(), 20, 0).astype(np.int16)
    labels[2:4, 2:4, 2:4] = 26
    path = phantoms.save(tmp_path / "mask.nii.gz", labels)
    loaded, affine = data.load_labels(path)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, np.where(labels == 20, 20, 0))
    np.testing.assert_allclose(affine, phantoms.AFFINE)


def test_missing_file(tmp_path):
    with pytest.raises(data.DataError, match="no such file"):
        data.load_ct(tmp_path / "nothing.nii.gz")


def test_truncated_file(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 2000, phantoms.SHAPE, np.int16)
    path = phantoms.save(tmp_path / "ct.nii.gz", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(data.DataError, match=r"ct\.nii\.gz.*truncated or damaged"):
        data.load_ct(path)


def test_file_that_is_no_image(tmp_path):
    path = tmp_path / "ct.nii.gz"
    path.write_text("not an image")
    with pytest.raises(data.DataError, match="truncated or damaged"):
        data.load_ct(path)


def test_singular_affine(tmp_path):
    image = nib.Nifti1Image(phantoms.hounsfield(phantoms.ring()), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"] = [1, 0, 0, 0], [1, 0, 0, 0]
    image.header["srow_z"] = [0, 0, 1, 0]
    path = tmp_path / "ct.nii"
    image.to_filename(path)
    raw = bytearray(path.read_bytes())
    raw[252:256] = np.array([0, 1], "<i2").tobytes()  # qform_code, sform_code
    raw[280:328] = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(data.DataError, match="affine is singular"):
        data.load_ct(path)


def test_affine_in_metres(tmp_path):
    hu = phantoms.hounsfield(phantoms.ring())
    path = phantoms.save(tmp_path / "ct.nii.gz", hu, np.diag([1.5e-3, 1.5e-3, 1.5e-3, 1]))
    with pytest.raises(data.DataError, match="must be in millimetres"):
        data.load_ct(path)


def test_four_dimensions(tmp_path):
    hu = np.stack([phantoms.hounsfield(phantoms.ring())] * 2, axis=-1)
    path = phantoms.save(tmp_path / "ct.nii.gz", hu)
    with pytest.raises(data.DataError, match=r"3D image is needed.*\(40, 40, 40, 2\)"):
        data.load_ct(path)


def test_nan_voxels(tmp_path):
    hu = phantoms.hounsfield(phantoms.ring()).astype(np.float32)
    hu[1, 1, 1:4] = np.nan
    path = phantoms.save(tmp_path / "ct.nii.gz", hu)
    with pytest.raises(data.DataError, match="3 voxels are NaN"):
        data.load_ct(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: hu + np.int16(1024), "subtract 1024"),
        (lambda hu: np.clip(hu, 0, 255).astype(np.uint8), "not Hounsfield units"),
        (lambda hu: hu.astype(np.float32) / 1000.0, "not Hounsfield units"),
        (lambda hu: np.minimum(hu, np.int16(100)), "bone is above 200"),
        (np.zeros_like, "every voxel is 0"),
    ],
)
def test_values_that_are_not_hounsfield_units(tmp_path, change, message):
    path = phantoms.save(tmp_path / "ct.nii.gz", change(phantoms.hounsfield(phantoms.ring())))
    with pytest.raises(data.DataError, match=message):
        data.load_ct(path)


@pytest.mark.parametrize(
    ("value", "message"), [(43.0, r"values \[43\]"), (20.5, "fractions"), (300.0, "not VerSe")]
)
def test_labels_that_are_not_verse(tmp_path, value, message):
    labels = np.where(phantoms.ring(), np.float32(value), np.float32(0))
    path = phantoms.save(tmp_path / "mask.nii.gz", labels)
    with pytest.raises(data.DataError, match=message):
        data.load_labels(path)


def test_padding_does_not_hide_shifted_hounsfield_units(tmp_path):
    for padding in (-2000, -1024):
        hu = phantoms.hounsfield(phantoms.ring()) + np.int16(1024)
        hu[:, :2] = padding
        with pytest.raises(data.DataError, match="subtract 1024"):
            data.load_ct(phantoms.save(tmp_path / "ct.nii.gz", hu))


def test_padding_of_a_true_ct_is_accepted(tmp_path):
    hu = phantoms.hounsfield(phantoms.ring())
    hu[:, :2] = -2000
    volume = data.load_ct(phantoms.save(tmp_path / "ct.nii.gz", hu))
    np.testing.assert_allclose(volume.values, data.hu_to_attenuation(hu), rtol=1e-6)


def test_clipped_ct_is_warned_of(tmp_path):
    hu = np.clip(phantoms.hounsfield(phantoms.ring()), -100, 400)
    with pytest.warns(UserWarning, match=r"exactly -100 HU.*window"):
        data.load_ct(phantoms.save(tmp_path / "ct.nii.gz", hu))


def set_codes(path, image, qform, sform):
    """Set the orientation codes of an uncompressed file, which nibabel would not write."""
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[252:256] = np.array([qform, sform], "<i2").tobytes()
    path.write_bytes(raw)
    return path


def test_no_orientation_is_warned_of(tmp_path):
    image = nib.Nifti1Image(phantoms.hounsfield(phantoms.ring()), phantoms.AFFINE)
    path = set_codes(tmp_path / "ct.nii", image, 0, 0)
    with pytest.warns(UserWarning, match="no orientation"):
        data.load_ct(path)


def test_two_orientations_are_warned_of(tmp_path, recwarn):
    image = nib.Nifti1Image(phantoms.hounsfield(phantoms.ring()), phantoms.AFFINE)
    image.set_qform(phantoms.AFFINE, 1)
    data.load_ct(set_codes(tmp_path / "same.nii", image, 1, 1))
    assert not recwarn.list
    image.set_qform(np.diag([-1.5, 1.5, 1.5, 1.0]), 1)
    with pytest.warns(UserWarning, match=r"sform and qform put voxels up to 117\.0 mm apart"):
        data.load_ct(set_codes(tmp_path / "mirrored.nii", image, 1, 1))


def stack_of_cubes(numbers):
    """Cubes with these labels, the first on top."""
    labels = np.zeros((20, 20, 12 * len(numbers)), np.uint8)
    for index, number in enumerate(reversed(numbers)):
        labels[6:14, 6:14, 12 * index + 2 : 12 * index + 10] = number
    return labels


@pytest.mark.parametrize(
    ("numbers", "downward"),
    [
        ((17, 18, 19, 28, 20, 21, 26, 27), True),
        ((20,), True),
        ((25, 24, 23, 22, 21, 20, 19, 18), False),  # T10 to L5 of TotalSegmentator 1
        ((28, 27, 26), False),  # L4, L5 and S1 of TotalSegmentator 2
        ((21, 20), False),
    ],
)
@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_vertebrae_must_run_downward(tmp_path, numbers, downward, flip):
    labels = stack_of_cubes(numbers)[:, :, :: int(flip)]
    affine = np.diag([2.0, 2.0, 2.0 * flip, 1.0])
    path = phantoms.save(tmp_path / "mask.nii.gz", labels, affine)
    if downward:
        assert data.load_labels(path)[0].any()
        return
    with pytest.raises(data.DataError, match="run from foot to head"):
        data.load_labels(path)


def test_scaled_labels_are_rounded(tmp_path):
    labels = np.where(phantoms.ring(), 20.0, 0.0)
    image = nib.Nifti1Image(labels, phantoms.AFFINE)
    image.set_data_dtype(np.int16)  # stored with a slope that gives 19.9999
    nib.save(image, tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(data.load_labels(tmp_path / "mask.nii.gz")[0], labels)


def test_damage_inside_a_compressed_file_is_found(tmp_path):
    """gzip's checksum is behind the last voxel, where nibabel does not read."""
    hu = np.random.default_rng(0).integers(-1000, 900, phantoms.SHAPE).astype(np.int16)
    path = phantoms.save(tmp_path / "ct.nii.gz", hu)
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), 0))  # stored, not packed
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=r"ct\.nii\.gz: not a readable NIfTI.*CRC"):
        data.load_ct(path)


def test_size_that_the_file_cannot_have(tmp_path):
    image = nib.Nifti1Image(phantoms.hounsfield(phantoms.ring()), phantoms.AFFINE)
    content = bytearray(image.to_bytes())
    content[42:48] = np.array([30000] * 3, "<i2").tobytes()  # dim
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(data.DataError, match="too short for"):
        data.load_ct(tmp_path / "ct.nii.gz")


def test_damaged_qform_beside_a_sform_is_warned_of(tmp_path):
    image = nib.Nifti1Image(phantoms.hounsfield(phantoms.ring()), phantoms.AFFINE)
    image.set_qform(phantoms.AFFINE, code=1)
    path = tmp_path / "ct.nii"
    content = bytearray(image.to_bytes())
    content[256:260] = np.array([9.0], "<f4").tobytes()  # quatern_b, at most 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="qform is damaged"):
        np.testing.assert_allclose(data.load_ct(path).world_from_voxel, phantoms.AFFINE)


@pytest.mark.parametrize(
    ("labels", "numbers", "verse"),
    [
        ("totalsegmentator", (44, 43, 32, 31, 27, 26, 25, 1), (7, 8, 19, 20, 24, 0, 0, 0)),
        ("totalsegmentator_v1", (35, 34, 23, 22, 18, 92, 104, 1), (7, 8, 19, 20, 24, 0, 0, 0)),
    ],
)
def test_numbers_of_totalsegmentator(tmp_path, labels, numbers, verse):
    """C7, T1, T12, L1, L5 and other structures, from the head down."""
    mask = stack_of_cubes(numbers)
    path = phantoms.save(tmp_path / "mask.nii.gz", mask, np.diag([2.0, 2.0, 2.0, 1.0]))
    found, _ = data.load_labels(path, labels=labels)
    for number, label in zip(numbers, verse, strict=True):
        assert (found[mask == number] == label).all()
    with pytest.raises(data.DataError, match="labels=totalsegmentator"):
        data.load_labels(path)


def test_a_numbering_that_does_not_fit(tmp_path):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    path = phantoms.save(tmp_path / "mask.nii.gz", stack_of_cubes((27, 31, 32)), affine)
    with pytest.raises(data.DataError, match="read with labels=totalsegmentator, the vertebrae"):
        data.load_labels(path, labels="totalsegmentator")
    path = phantoms.save(tmp_path / "other.nii.gz", stack_of_cubes((30, 110)), affine)
    with pytest.raises(data.DataError, match=r"\[110\] are not labels of TotalSegmentator 1"):
        data.load_labels(path, labels="totalsegmentator_v1")
