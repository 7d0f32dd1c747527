"""Weights on disk: saving, loading, and rejected files."""

import json

import numpy as np
import pytest

from dartjax.data import DataError, load_weights, save_weights
from dartjax.data.packaged import _stored

PARAMS = {"stem": {"kernel": np.linspace(-1, 1, 12).reshape(3, 4)}, "head": {"bias": np.ones(2)}}
CARD = {
    "name": "isolation",
    "preset": "smoke",
    "subjects_included": ["synth0000"],
    "never_seen": ["lidc0001"],
    "command": [],
    "quality": {},
}


@pytest.fixture
def folder(tmp_path):
    save_weights(tmp_path, PARAMS, CARD)
    return tmp_path


def test_weights_are_restored_at_half_precision(folder):
    found, card = load_weights(folder, PARAMS)
    assert card == CARD
    assert found["stem"]["kernel"].dtype == np.float32
    np.testing.assert_allclose(found["stem"]["kernel"], PARAMS["stem"]["kernel"], atol=5e-4)
    np.testing.assert_array_equal(found["head"]["bias"], PARAMS["head"]["bias"])


def test_weights_of_another_network_are_rejected(folder):
    other = {"stem": {"kernel": np.zeros((3, 5))}, "head": {"bias": np.ones(2)}}
    with pytest.raises(
        DataError, match=r"does not fit the network of preset smoke \(at stem/kernel\)"
    ):
        load_weights(folder, other)
    with pytest.raises(DataError, match="does not fit the network"):
        load_weights(folder, {"stem": PARAMS["stem"]})


def test_missing_and_damaged_files_are_named(folder, tmp_path_factory):
    with pytest.raises(DataError, match=r"no weights.npz in"):
        load_weights(tmp_path_factory.mktemp("empty"), PARAMS)
    (folder / "weights.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match="damaged"):
        load_weights(folder, PARAMS)


def test_an_incomplete_card_is_rejected(folder):
    (folder / "card.json").write_text(json.dumps({"name": "isolation"}))
    with pytest.raises(DataError, match=r"lacks .*never_seen"):
        load_weights(folder, PARAMS)
    (folder / "card.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        load_weights(folder, PARAMS)


def test_numbers_that_are_not_finite_are_rejected(tmp_path):
    save_weights(tmp_path, {"w": np.array([1.0, np.nan])}, CARD)
    with pytest.raises(DataError, match="NaN or infinite"):
        load_weights(tmp_path, {"w": np.zeros(2)})


def test_a_kill_between_weights_and_card_leaves_no_card_of_other_weights(folder, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_stored, "publish_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_weights(folder, PARAMS, CARD | {"subjects_included": ["synth0001"]})
    with pytest.raises(DataError, match=r"no card\.json"):
        load_weights(folder, PARAMS)
