"""Packaged shape models: loading, cards, leaks, damaged files."""

import json

import numpy as np
import pytest

from dartjax import ssm
from dartjax.data import _assets
from dartjax.data._errors import DataError


def test_every_level_of_the_card_loads():
    card = _assets.shape_model_card()
    levels = _assets.shape_model_levels()
    assert levels == (*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)))
    for level in (*levels, "T13", "L6"):
        assert _assets.load_shape_model(level).num_modes == 15
    for entry in card["levels"].values():
        assert entry["distance_to_source_mm"] < 0.3
        assert abs(entry["volume_error_percent"]) < 1.5
        assert entry["flipped_pairs"] == 0
        assert entry["smallest_angle_deg"] > 5


def test_more_modes_start_with_the_stored_ones():
    stored, more = _assets.load_shape_model("T5"), _assets.load_shape_model("T5", num_modes=20)
    assert more.num_modes == 20
    np.testing.assert_allclose(more.modes[:5], stored.modes[:5], atol=0.01)
    assert _assets.load_shape_model("T5", num_modes=3).num_modes == 3


def test_leaking_subjects_are_refused():
    card = _assets.shape_model_card()
    assert _assets.includes_subject(card, "sub-CTACardio")
    assert not _assets.includes_subject(card, "sub-lidc0001")
    _assets.load_shape_model("T5", exclude_subject="sub-lidc0001")
    with pytest.raises(DataError, match=r"ctacardio.*leak"):
        _assets.load_shape_model("T5", exclude_subject="ctacardio")


def test_unknown_level_and_missing_folder(tmp_path):
    with pytest.raises(DataError, match="unknown level 'C3'"):
        _assets.load_shape_model("C3")
    with pytest.raises(DataError, match=r"no templates\.npz"):
        _assets.load_shape_model("L1", path=tmp_path)


def test_damaged_files(tmp_path):
    model = _assets.load_shape_model("L1", num_modes=2)
    card = {"name": "x", "subjects_included": [], "sources": {}, "levels": {"L1": {}}}
    _assets.save_shape_models(tmp_path, {"L1": model}, card)
    again = _assets.load_shape_model("L1", path=tmp_path, num_modes=2)
    np.testing.assert_allclose(again.modes, model.modes, atol=0.005)
    np.testing.assert_array_equal(again.mean_shape, model.mean_shape)
    np.testing.assert_array_equal(again.faces, model.faces)
    np.testing.assert_array_equal(ssm.landmarks(again, again.mean_shape).shape, (10, 3))
    whole = (tmp_path / "templates.npz").read_bytes()
    (tmp_path / "templates.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"templates\.npz is damaged"):
        _assets.load_shape_model("L1", path=tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(DataError, match=r"card\.json is damaged"):
        _assets.shape_model_card(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match="lacks levels"):
        _assets.shape_model_card(tmp_path)
