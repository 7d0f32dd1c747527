"""Reading simulated radiographs: the packed format, and a loader that can be resumed."""

import importlib
import json

import numpy as np
import pytest
from PIL import Image as PillowImage

from dartjax import data
from dartjax.data import DataError

SIZE = (24, 20)


def write_set(root, *, finished=True, num_vertebrae=(2, 3), rows_per_unit=5):
    """Two scans of two units each, with pixels that tell where they come from."""
    rng = np.random.default_rng(0)
    scans = []
    for scan, (count, split) in enumerate(zip(num_vertebrae, ("training", "test"), strict=True)):
        units = []
        for unit in range(2):
            records = np.zeros(rows_per_unit, data.radiograph_record(SIZE, count))
            records["view"] = rows_per_unit * unit + np.arange(rows_per_unit)
            records["image"] = (100 * scan + records["view"])[:, None, None]
            records["labels"] = 20 + np.arange(count)
            masks = rng.random((rows_per_unit, count, *SIZE)) < 0.5
            records["masks"] = [data.pack_masks(each) for each in masks]
            records["landmarks"] = np.nan
            records["K"], records["camera_from_world"] = np.eye(3), np.eye(4)
            records["sdd"] = 1000.0
            folder = f"scans/{scan}/views-{unit}"
            (root / folder).mkdir(parents=True)
            np.save(root / folder / data.PACKED, records, allow_pickle=False)
            views = records["view"][[0, 3]].tolist()
            pairs = {"pairs": [{"views": views, "angle_deg": 90.0 + unit}]}
            (root / folder / "pairs.json").write_text(json.dumps(pairs))
            units.append({"folder": folder, "num_radiographs": rows_per_unit})
        levels = ["L1", "L2", "L3"][:count]
        scans.append({"subject": f"s{scan}", "split": split, "levels": levels, "units": units})
    manifest = {"format": data.XRAY_FORMAT, "scans": scans, "finished": finished}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def folder(tmp_path):
    return write_set(tmp_path)


def test_pixels_come_back_within_half_a_step(tmp_path):
    image = np.random.default_rng(1).uniform(-0.1, 8.1, (32, 32)).astype(np.float32)
    pixels = data.encode_radiograph(image)
    assert pixels.dtype == np.uint16
    clipped = np.clip(image, 0.0, 8.0)
    np.testing.assert_allclose(data.decode_radiograph(pixels), clipped, atol=0.51 * 8.0 / 65535)
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    read = np.asarray(data.load_radiograph(tmp_path / "a.png"))
    np.testing.assert_allclose(read, data.decode_radiograph(pixels), atol=1e-6)


def test_masks_may_overlap_and_come_back(tmp_path):
    masks = np.random.default_rng(2).random((4, 7, 13)) < 0.5
    packed = data.pack_masks(masks)
    assert packed.shape == (4, 7, 2)
    np.testing.assert_array_equal(data.unpack_masks(packed, 13), masks)


def test_rows_are_padded_to_the_most_vertebrae(folder):
    dataset = data.open_xrays(folder)
    assert len(dataset) == 20 and dataset.subjects == ("s0", "s1") and dataset.num_vertebrae == 3
    first, last = dataset[0], dataset[19]
    assert first["image"].shape == SIZE and first["image"].dtype == np.float32
    assert first["masks"].shape == last["masks"].shape == (3, *SIZE)
    assert first["labels"].tolist() == [20, 21, 0] and last["labels"].tolist() == [20, 21, 22]
    assert not first["masks"][2].any() and first["masks"][1].any()
    assert np.isnan(first["landmarks"][2]).all()
    assert (first["scan"], first["view"], last["scan"], last["view"]) == (0, 0, 1, 9)
    np.testing.assert_allclose(last["image"], 109 * 8.0 / 65535, rtol=1e-5)
    assert float(dataset.camera(3).sdd) == 1000.0 and dataset.camera(3).image_size == SIZE


def test_pairs_are_rows_of_the_same_unit(folder):
    pairs = data.open_xrays(folder).pairs()
    assert pairs == [(0, 3, 90.0), (5, 8, 91.0), (10, 13, 90.0), (15, 18, 91.0)]
    assert data.open_xrays(folder, subjects=["s1"]).pairs() == [(0, 3, 90.0), (5, 8, 91.0)]


def test_subjects_and_splits_are_chosen(folder):
    assert data.open_xrays(folder, subjects=["s1"]).subjects == ("s1",)
    assert data.open_xrays(folder, split="training").subjects == ("s0",)
    assert data.open_xrays(folder, split="training").num_vertebrae == 2
    with pytest.raises(DataError, match="did you mean 's1'"):
        data.open_xrays(folder, subjects=["s11"])
    with pytest.raises(DataError, match="test, training"):
        data.open_xrays(folder, split="validation")
    with pytest.raises(DataError, match="subjects is selected"):
        data.open_xrays(folder, subjects=["s1"], split="training")


def test_folders_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json"):
        data.open_xrays(tmp_path)
    with pytest.raises(DataError, match="not finished"):
        data.open_xrays(write_set(tmp_path / "a", finished=False))
    root = write_set(tmp_path / "b")
    packed = root / "scans" / "0" / "views-0" / data.PACKED
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged"):
        data.open_xrays(root)[0]
    (root / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="format"):
        data.open_xrays(root)


def ids(batch):
    return list(zip(batch["scan"].tolist(), batch["view"].tolist(), strict=True))


def joined(lists):
    return [item for each in lists for item in each]


def batches(folder, count, **options):
    pytest.importorskip("grain")
    iterator = iter(data.xray_loader(folder, batch_size=4, **options))
    return [next(iterator) for _ in range(count)]


def test_an_epoch_has_every_radiograph_once_in_another_order(folder):
    everything = [(scan, view) for scan in range(2) for view in range(10)]
    seen = [ids(batch) for batch in batches(folder, 10, seed=1)]
    first, second = joined(seen[:5]), joined(seen[5:])
    assert sorted(first) == sorted(second) == everything
    assert first not in (everything, second)
    in_order = [ids(batch) for batch in batches(folder, 5, shuffle=False)]
    assert joined(in_order) == everything


def test_the_seed_decides_and_shapes_are_batches(folder):
    first, again, other = (batches(folder, 3, seed=seed) for seed in (1, 1, 2))
    assert [ids(b) for b in first] == [ids(b) for b in again] != [ids(b) for b in other]
    assert first[0]["image"].shape == (4, *SIZE)
    assert first[0]["masks"].shape == (4, 3, *SIZE) and first[0]["masks"].dtype == bool


@pytest.mark.parametrize("taken", [1, 7])
def test_the_same_batch_after_a_restart(folder, taken):
    pytest.importorskip("grain")
    iterator = iter(data.xray_loader(folder, batch_size=4, seed=3))
    for _ in range(taken):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))  # as a checkpoint keeps it
    expected = [next(iterator) for _ in range(4)]
    restarted = iter(data.xray_loader(folder, batch_size=4, seed=3))
    restarted.set_state(state)
    for batch, wanted in zip(restarted, expected, strict=False):
        assert batch.keys() == wanted.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], wanted[name])


def test_epochs_end_after_num_epochs(folder):
    pytest.importorskip("grain")
    loader = data.xray_loader(folder, batch_size=4, num_epochs=1, subjects=["s0"])
    assert len(list(loader)) == 2  # of 10 radiographs the last 2 make no batch


@pytest.mark.slow
def test_worker_processes_change_nothing(folder):
    alone = [ids(batch) for batch in batches(folder, 7, seed=5)]
    assert [ids(batch) for batch in batches(folder, 7, seed=5, num_workers=2)] == alone


def test_mistakes_of_the_loader(folder, monkeypatch):
    pytest.importorskip("grain")
    with pytest.raises(DataError, match="a batch of 21 is not possible"):
        data.xray_loader(folder, batch_size=21)

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(DataError, match=r"dartjax\[data\]"):
        data.xray_loader(folder, batch_size=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doc: doc.pop("scans"), "scans must be a list"),
        (lambda doc: doc["scans"].append(doc["scans"][0]), "listed twice"),
        (lambda doc: doc["scans"][0].update(levels="L1"), "scan 1: levels: a list of texts"),
        (lambda doc: doc["scans"][1]["units"].append({}), "scan 2: a unit needs"),
        (lambda doc: doc["scans"][0]["units"][0].update(num_radiographs=9), "says otherwise"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path, change, message):
    root = write_set(tmp_path)
    document = json.loads((root / "dataset.json").read_text())
    change(document)
    (root / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        data.open_xrays(root)[8]


def test_damaged_cameras_and_pairs(tmp_path):
    root = write_set(tmp_path)
    unit = root / "scans" / "0" / "views-0"
    records = np.load(unit / data.PACKED)
    records["camera_from_world"][1, 0, 0] = np.nan
    np.save(unit / data.PACKED, records)
    dataset = data.open_xrays(root)
    assert float(dataset.camera(0).sdd) == 1000.0
    for read in (dataset.camera, dataset.__getitem__):
        with pytest.raises(DataError, match="radiograph 1 has no valid camera"):
            read(1)
    (unit / "pairs.json").write_text('{"pairs": [{"views": [0, 77], "angle_deg": 5}]}')
    with pytest.raises(DataError, match="pair 1"):
        dataset.pairs()
