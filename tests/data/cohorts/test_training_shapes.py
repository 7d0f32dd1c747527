"""Training shapes of a folder: every layout is found, and every rejection has one reason."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, mesh
from dartjax.mesh import TriangleMesh
from tests import shapes
from tests.data import phantoms
from tests.ssm import phantom

AFFINE = np.diag([1.0, 1.0, 1.0, 1.0])
T11, T12 = 18, 19


@pytest.fixture(scope="module")
def bone():
    return phantom.vertebra()


@pytest.fixture(scope="module")
def solid():
    """The phantom as voxels of 1 mm, 4 mm clear of the border."""
    return mesh.voxelize(*phantom.vertebra(), np.array([-36.0, -60.0, -16.0]), (73, 78, 33))


def save_mesh(path, vertices, faces):
    path.parent.mkdir(parents=True, exist_ok=True)
    surface = TriangleMesh(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces, jnp.int32))
    data.save_ply(path, surface)
    return path


def load_all(folder):
    """Everything of a folder, as a caller does."""
    taken, kept, rejected = {}, [], []
    for source in data.find_shapes(folder):
        shapes, failed = data.load_shapes(source, taken)
        taken |= {(shape.subject, shape.level): shape.source for shape in shapes}
        kept += shapes
        rejected += failed
    return kept, rejected


def reason_against(tmp_path, vertices, faces, level="T11"):
    save_mesh(tmp_path / "someone" / f"{level}.ply", vertices, faces)
    kept, rejected = load_all(tmp_path)
    assert not kept
    (one,) = rejected
    assert (one.subject, one.level) == ("someone", level)
    return one.reason


def reasons_against_labels(tmp_path, labels, affine=AFFINE):
    phantoms.save(tmp_path / "label" / "one_seg.nii.gz", labels.astype(np.uint8), affine)
    kept, rejected = load_all(tmp_path)
    assert not kept
    return {one.level: one.reason for one in rejected}


def volume(vertices, faces):
    return float(mesh.volume(jnp.asarray(vertices), jnp.asarray(faces)))


def test_every_layout_is_found(tmp_path):
    names = {
        "a/rawdata/sub-verse004/sub-verse004_ct.nii.gz": None,
        "a/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz": "verse004",
        "a/derivatives/sub-verse004/sub-verse004_seg-subreg_msk.nii.gz": None,
        "b/sub-verse400_split-verse253_seg-vert_msk.nii.gz": "verse400",
        "c/verse012.nii.gz": None,
        "c/verse012_seg.nii.gz": "verse012",
        "c/GL003_CT_ax_seg.nii.gz": "GL003",
        "CTSpine1K/label/liver_12_seg.nii.gz": "liver_12",
        "CTSpine1K/label/volume-covid19-A-0003_ct_seg.nii.gz": "volume-covid19-A-0003",
        "CTSpine1K/data/liver_12.nii.gz": None,
        "d/labels/case7.nii": "case7",
        "meshes/lidc/T12.ply": "lidc0001",
        "meshes/tptbox/l3.STL": "tptct",
        "meshes/someone/L1.obj": "someone",
        "meshes/someone/pelvis.ply": None,
        "meshes/someone/L1.txt": None,
    }
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = data.find_shapes(tmp_path)
    by_name = {source.path.relative_to(tmp_path).as_posix(): source.subject for source in found}
    assert by_name == {name: subject for name, subject in names.items() if subject}
    assert [source.level for source in found] == ["T12", "L1", "L3"] + [None] * 7


def test_nothing_found(tmp_path):
    with pytest.raises(data.DataError, match="no vertebrae found: expected masks"):
        data.find_shapes(tmp_path)
    with pytest.raises(data.DataError, match="no such folder"):
        data.find_shapes(tmp_path / "absent")


def test_mesh_is_kept_and_a_crumb_dropped(tmp_path, bone):
    vertices, faces = bone
    crumb, crumb_faces = shapes.sphere(100, 2.0, center=(40.0, 0.0, 0.0))
    file = save_mesh(
        tmp_path / "someone" / "T11.ply",
        np.concatenate([vertices, crumb]),
        np.concatenate([faces, crumb_faces + len(vertices)]),
    )
    (shape,), rejected = load_all(tmp_path)
    assert not rejected
    assert (shape.subject, shape.level, shape.source) == ("someone", "T11", file)
    assert shape.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert volume(shape.surface.vertices, shape.surface.faces) == pytest.approx(
        volume(vertices, faces), rel=1e-4
    )


@pytest.mark.parametrize("x_axis", [1.0, -1.0])
def test_mask_is_kept_next_to_a_cut_neighbour(tmp_path, solid, x_axis):
    """A left-right flip is not seen, and the surface faces outward all the same."""
    labels = np.zeros((73, 78, 50), np.uint8)
    labels[:, :, 17:][solid] = T11
    labels[:, :, :10][solid[:, :, -10:]] = T12
    labels[2:6, 2:6, 40:44] = 5
    affine = np.diag([x_axis, 1.0, 1.0, 1.0])
    phantoms.save(tmp_path / "label" / "one_seg.nii.gz", labels, affine)
    (shape,), rejected = load_all(tmp_path)
    assert (shape.subject, shape.level) == ("one", "T11")
    assert volume(shape.surface.vertices, shape.surface.faces) == pytest.approx(
        solid.sum(), rel=0.02
    )
    reasons = {one.level: one.reason for one in rejected}
    assert list(reasons) == ["C5", "T12"]
    assert "cervical" in reasons["C5"] and "cut by the border" in reasons["T12"]


def test_mesh_goes_before_the_mask_of_the_same_person(tmp_path, bone, solid):
    file = save_mesh(tmp_path / "lidc" / "T11.ply", *bone)
    labels = np.where(solid, T11, 0).astype(np.uint8)
    phantoms.save(tmp_path / "a" / "sub-lidc0001_seg-vert_msk.nii.gz", labels)
    (shape,), (rejected,) = load_all(tmp_path)
    assert (shape.subject, shape.source) == ("lidc0001", file)
    assert (rejected.subject, rejected.level) == ("lidc0001", "T11")
    assert rejected.reason == f"already taken from {file}"


def test_coarse_mesh(tmp_path):
    assert "only 996 faces" in reason_against(tmp_path, *shapes.sphere(500, 20.0))


def test_open_mesh(tmp_path, bone):
    vertices, faces = bone
    assert "not watertight" in reason_against(tmp_path, vertices, faces[1:])


def test_mirrored_coordinates(tmp_path, bone):
    vertices, faces = bone
    assert "faces point inward" in reason_against(tmp_path, vertices * [1.0, -1.0, 1.0], faces)


def test_island(tmp_path, bone):
    vertices, faces = bone
    share = 0.1
    radius = (share / (1 - share) * volume(*bone) / (4 / 3 * np.pi)) ** (1 / 3)
    other, other_faces = shapes.sphere(500, radius, center=(60.0, 0.0, 0.0))
    reason = reason_against(
        tmp_path,
        np.concatenate([vertices, other]),
        np.concatenate([faces, other_faces + len(vertices)]),
    )
    assert "the second largest is 10% of the bone" in reason


def test_closed_canal_and_further_tunnel(tmp_path, solid):
    assert "no tunnel" in reason_against(tmp_path / "ball", *shapes.sphere(1200, 20.0))
    labels = np.where(solid, T11, 0)
    labels[44:49, 45:, 8:13] = 0  # through the body, below the pedicle
    reasons = reasons_against_labels(tmp_path / "hole", labels)
    assert reasons == {"T11": "1 tunnels in addition to the canal"}


def test_merged_neighbours(tmp_path, solid):
    labels = np.zeros((73, 78, 60), np.uint8)
    labels[:, :, :33][solid] = T11
    labels[:, :, 26:59][solid] = T11
    labels[33:40, 28:34, 10:50] = T11  # the laminae touch
    reasons = reasons_against_labels(tmp_path, labels)
    assert "merged with a neighbour: more than a body" in reasons["T11"]


def test_flipped_axes(tmp_path, bone, solid):
    vertices, faces = bone
    turned = vertices * [-1.0, -1.0, 1.0]  # LPS
    assert "the y axis is flipped" in reason_against(tmp_path / "lps", turned, faces)
    overturned = vertices * [-1.0, 1.0, -1.0]
    assert "the z axis is flipped" in reason_against(tmp_path / "down", overturned, faces)
    labels = np.where(solid, T11, 0)
    flipped = reasons_against_labels(tmp_path / "mask", labels, np.diag([1.0, -1.0, 1.0, 1.0]))
    assert "the y axis is flipped" in flipped["T11"]


def test_levels_from_foot_to_head(tmp_path, solid):
    labels = np.zeros((73, 78, 70), np.uint8)
    labels[:, :, :33][solid] = T11
    labels[:, :, 36:69][solid] = T12
    reasons = reasons_against_labels(tmp_path, labels)
    assert list(reasons) == [""]  # the file, not a level of it
    assert "from foot to head" in reasons[""]


def test_sizes_of_another_level(tmp_path, bone):
    vertices, faces = bone
    assert "volume of" in reason_against(tmp_path / "small", 0.4 * vertices, faces)
    wide = reason_against(tmp_path / "wide", vertices * [1.5, 1.0, 1.0], faces)
    assert "tp_span of 96.0 mm" in wide and "plausible at T11, where 29 to 79 mm are" in wide
    tall = reason_against(tmp_path / "tall", vertices * [1.0, 1.0, 1.7], faces)
    assert "body_height of 37" in tall and "merged with a neighbour?" in tall


def test_files_that_cannot_be_used(tmp_path, solid):
    empty = phantoms.save(tmp_path / "label" / "a.nii.gz", np.zeros((9, 9, 9), np.uint8))
    foreign = phantoms.save(tmp_path / "label" / "b.nii.gz", np.full((9, 9, 9), 200, np.uint8))
    damaged = tmp_path / "label" / "c.nii.gz"
    damaged.write_bytes(b"no image")
    neck = save_mesh(tmp_path / "d" / "C4.ply", *shapes.sphere(1200, 20.0))
    broken = tmp_path / "d" / "L1.ply"
    broken.write_bytes(b"no mesh")
    kept, rejected = load_all(tmp_path)
    assert not kept
    reasons = {one.source: (one.level, one.reason) for one in rejected}
    assert reasons[empty][0] == "" and "no vertebra label" in reasons[empty][1]
    assert reasons[foreign][0] == "" and "not VerSe labels" in reasons[foreign][1]
    assert reasons[damaged][0] == "" and "not a readable NIfTI" in reasons[damaged][1]
    assert reasons[neck] == ("C4", "cervical, the shape models cover T1 to L6")
    assert reasons[broken][0] == "L1" and "not a readable mesh" in reasons[broken][1]
