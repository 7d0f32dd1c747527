"""Packaged shape models: loading, cards, choice of a set, damaged files."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

from dartjax import DataError, ssm
from dartjax.data.packaged import _shape_models as _assets

REPORTED = ("lidc0001", "tptct", "verse005", "verse006", "verse007")


def test_every_level_of_every_set_loads():
    sets = _assets._packaged_sets()
    names = {folder.name for folder in sets}
    assert {"all", "permissive", "without_lidc0001", "without_reported"} <= names
    for folder in sets:
        card = _assets.shape_model_card(folder)
        levels = _assets.shape_model_levels(folder)
        assert levels == (*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)))
        assert card["num_modes"] >= 40
        assert not set(card["subjects_excluded"]) & set(card["subjects_included"])
        for subject in card["subjects_included"]:
            assert card["sources"][subject]["licence"]
        for level in levels:
            model = _assets.load_shape_model(level, path=folder, num_modes=40)
            assert model.modes.shape == (40, 2048, 3)


def test_models_of_all_levels_stack():
    """One triangulation: what is the same for all levels is equal, and vmap goes over levels."""
    models = [_assets.load_shape_model(level) for level in ("T1", "T8", "T12", "L5", "T13", "L6")]
    for model in models:
        np.testing.assert_array_equal(model.faces, models[0].faces)
        np.testing.assert_array_equal(model.parts, models[0].parts)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *models)
    drawn = jax.vmap(ssm.sample)(stacked, jax.random.split(jax.random.key(0), 6))
    assert drawn.shape == (6, 2048, 3)
    np.testing.assert_array_equal(models[2].mean_shape, models[4].mean_shape)


@pytest.mark.parametrize("excluded", [(), ("lidc0001",), ("sub-TPTCT",), ("verse006",), REPORTED])
def test_the_largest_set_without_a_subject_is_chosen(excluded):
    folder = _assets.shape_model_set(excluded)
    card = _assets.shape_model_card(folder)
    for subject in excluded:
        assert not _assets.includes_subject(card, subject)
    kept = [s for s in REPORTED if not _assets.same_subject(s, excluded)]
    assert all(_assets.includes_subject(card, subject) for subject in kept)


def test_sets_without_share_alike_and_sets_by_name():
    card = _assets.shape_model_card(_assets.shape_model_set(permissive=True))
    assert card["name"] == "permissive"
    assert not any(subject.startswith("verse") for subject in card["subjects_included"])
    assert not any("BY-SA" in source["licence"] for source in card["sources"].values())
    named = _assets.load_shape_model("L3", path="permissive")
    chosen = _assets.load_shape_model("L3", permissive=True)
    np.testing.assert_array_equal(named.modes, chosen.modes)
    assert not np.array_equal(named.modes, _assets.load_shape_model("L3").modes)
    with pytest.raises(DataError, match=r"no models\.npz in nosuchset"):
        _assets.load_shape_model("L3", path="nosuchset")


def test_rounding_of_modes_moves_no_vertex_by_a_hundredth(tmp_path):
    model = _assets.load_shape_model("L1", num_modes=40)
    noise = 1e-3 * jax.random.uniform(jax.random.key(0), model.modes.shape)
    fine = eqx.tree_at(lambda m: m.modes, model, model.modes + noise)
    card = {"name": "x", "subjects_included": [], "sources": {}, "levels": {"L1": {}}}
    _assets.save_shape_models(tmp_path, {"L1": fine}, card)
    stored = _assets.load_shape_model("L1", path=tmp_path, num_modes=40)
    drawn = [ssm.sample(each, jax.random.key(1)) for each in (fine, stored)]
    moved = np.linalg.norm(np.asarray(drawn[0] - drawn[1]), axis=1)
    assert 1e-4 < moved.max() < 0.01
    wide = eqx.tree_at(lambda m: m.modes, model, 40.0 * model.modes / model.modes.max())
    with pytest.raises(DataError, match="over 32 mm"):
        _assets.save_shape_models(tmp_path, {"L1": wide}, card)


def test_leaking_subjects_are_rejected():
    with pytest.raises(DataError, match=r"ctacardio.*leak"):
        _assets.load_shape_model("T5", exclude=["ctacardio", "lidc0001"])
    with pytest.raises(DataError, match="leak"):
        _assets.shape_model_set(["lidc0001"], path=_assets.SHAPE_MODELS / "all")
    card = {"subjects_included": ["x"], "ct_hashes": ["abc"]}
    assert _assets.includes_subject(card, "renamed", "abc")
    assert not _assets.includes_subject(card, "renamed", "abd")


def test_unknown_level_too_many_modes_and_missing_folder(tmp_path):
    with pytest.raises(DataError, match="unknown level 'C3'"):
        _assets.load_shape_model("C3")
    with pytest.raises(DataError, match=r"holds 40 modes.*not 900.*request fewer"):
        _assets.load_shape_model("L1", num_modes=900)
    with pytest.raises(DataError, match=r"no models\.npz"):
        _assets.load_shape_model("L1", path=tmp_path)


def test_round_trip_and_damaged_files(tmp_path):
    model = _assets.load_shape_model("L1", num_modes=2)
    card = {"name": "x", "subjects_included": [], "sources": {}, "levels": {"L1": {}}}
    _assets.save_shape_models(tmp_path, {"L1": model}, card)
    again = _assets.load_shape_model("L1", path=tmp_path, num_modes=2)
    for old, new in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(new, old, atol=3e-5)
    whole = (tmp_path / "models.npz").read_bytes()
    (tmp_path / "models.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"models\.npz is damaged"):
        _assets.load_shape_model("L1", path=tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(DataError, match=r"card\.json is damaged"):
        _assets.shape_model_card(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(DataError, match="lacks levels"):
        _assets.shape_model_card(tmp_path)


def test_template_round_trip(tmp_path):
    template = _assets.load_template()
    file = tmp_path / "template.npz"
    _assets.save_template(file, template)
    again = _assets.load_template(file)
    np.testing.assert_array_equal(again.topology.faces, template.topology.faces)
    for level, shape in template.level_shapes.items():
        np.testing.assert_allclose(again.level_shapes[level], shape, atol=3e-5)
    file.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a template, or damaged"):
        _assets.load_template(file)


def test_arrays_that_do_not_fit_together(tmp_path):
    model = _assets.load_shape_model("L1", num_modes=2)
    card = {"name": "x", "subjects_included": [], "sources": {}, "levels": {"L1": {}}}
    _assets.save_shape_models(tmp_path, {"L1": model}, card)
    whole = dict(np.load(tmp_path / "models.npz"))
    changes = {
        "faces": whole["faces"] + 5000,
        "L1/mean_shape": whole["L1/mean_shape"][:-1],
        "L1/landmark_points/weights": whole["L1/landmark_points/weights"] * np.nan,
    }
    for name, array in changes.items():
        np.savez(tmp_path / "models.npz", **{**whole, name: array})
        with pytest.raises(DataError, match=r"models\.npz is damaged"):
            _assets.load_shape_model("L1", path=tmp_path, num_modes=2)
    (tmp_path / "card.json").write_text(json.dumps({**card, "subjects_included": "p1"}))
    with pytest.raises(DataError, match="subjects_included: a list of texts"):
        _assets.shape_model_card(tmp_path)


def test_a_model_is_loaded_inside_a_jitted_function():
    def extent():
        return _assets.load_shape_model("L3").mean_shape.max()

    assert float(jax.jit(extent)()) == float(extent())
