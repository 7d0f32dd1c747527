"""The stored failure model: saving, loading, and messages for damaged files."""

import json

import numpy as np
import pytest

from dartjax import data

CARD = {
    "name": "failure",
    "subjects_included": ["synth0001"],
    "max_risk": 0.1,
    "command": ["fit"],
    "quality": {},
}


def stored(**changes):
    parts = {
        "features": ("a", "b"),
        "mean": np.array([1.0, -2.0]),
        "scale": np.array([0.5, np.inf]),  # a feature of one value
        "weights": np.array([0.25, 0.0]),
        "bias": -1.5,
        "threshold": 0.25,
        "inflation": np.array([1.75, 4.0]),
        "path_inflation": np.array([2.0, 3.5]),
        "card": CARD,
    }
    return data.StoredFailureModel(**{**parts, **changes})


def test_written_and_read(tmp_path):
    data.save_failure_model(tmp_path, stored())
    found = data.load_failure_model(tmp_path)
    assert found.features == ("a", "b")
    for name in ("mean", "scale", "weights", "bias", "threshold", "inflation", "path_inflation"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stored(), name))
    assert found.card["subjects_included"] == ["synth0001"]
    assert found.card["features"] == ["a", "b"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.npz").unlink(), "no model.npz"),
        (lambda f: (f / "card.json").unlink(), "no card.json"),
        (lambda f: (f / "model.npz").write_bytes(b"PK\x03\x04 cut off"), "damaged"),
        (lambda f: (f / "model.npz").write_bytes(b""), "damaged"),
        (lambda f: (f / "card.json").write_text("{"), "damaged"),
        (lambda f: (f / "card.json").write_text("[1]"), "not the card"),
        (lambda f: (f / "card.json").write_text(json.dumps({"name": "x"})), "lacks"),
        (lambda f: np.savez(f / "model.npz", mean=np.zeros(2)), "damaged"),
    ],
)
def test_damage_gives_one_message(tmp_path, damage, message):
    data.save_failure_model(tmp_path, stored())
    damage(tmp_path)
    with pytest.raises(data.DataError, match=message):
        data.load_failure_model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": np.array([np.nan, 0.0])},
        {"scale": np.array([0.0, 1.0])},
        {"inflation": np.array([1.0, 0.0])},
        {"bias": np.inf},
        {"mean": np.zeros(3)},
    ],
)
def test_invalid_numbers_are_rejected(tmp_path, changes):
    data.save_failure_model(tmp_path, stored(**changes))
    with pytest.raises(
        data.DataError, match=r"not hold a valid failure model|does not have the 2 features"
    ):
        data.load_failure_model(tmp_path)


def test_no_code_is_run(tmp_path):
    data.save_failure_model(tmp_path, stored())
    np.savez(tmp_path / "model.npz", mean=np.array([print], dtype=object))
    with pytest.raises(data.DataError, match="damaged"):
        data.load_failure_model(tmp_path)
