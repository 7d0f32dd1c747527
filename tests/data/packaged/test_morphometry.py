"""The packaged morphometry tables: known entries, sources, and plausible ranges."""

import math

import numpy as np
import pytest

from dartjax import data
from dartjax.data.packaged import _morphometry
from dartjax.ssm import build

LEVELS = [*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6))]


def test_known_entries():
    """Printed in the papers' abstracts and in the population table."""
    assert data.published("T4")["pedicle_width_left"][:2] == (4.5, 0.93)
    assert data.published("T12")["pedicle_width_right"][:2] == (8.31, 1.83)
    assert data.published("T5")["interpedicular_width"][:2] == (21.12, 1.23)
    assert data.published("L5")["pedicle_width_left"][:2] == (18.0, 4.1)
    assert data.published("L3")["tp_span"][:2] == (89.8, 10.08)
    assert data.published("T6")["pedicle_width_left"].sd is None
    assert "Zindrick" in data.published("L5")["pedicle_width_left"].source
    assert "Kaur" in data.published("T1")["body_height"].source


def test_sexes_differ_and_are_on_both_sides_of_all():
    for level in LEVELS[10:]:
        tables = [data.published(level, sex) for sex in ("female", "all", "male")]
        shared = set.intersection(*(set(table) for table in tables))
        assert len(shared) >= 5
        for measure in shared:
            female, both, male = (table[measure].mean for table in tables)
            assert female <= both <= male


@pytest.mark.parametrize("level", LEVELS)
def test_entries_are_measures_with_sources(level):
    table = data.published(level)
    assert {"body_height", "pedicle_width_left", "pedicle_width_right"} <= set(table)
    assert set(table) - {"interpedicular_width"} <= set(build.MEASURES)
    for entry in table.values():
        assert 3.0 < entry.mean < 120.0
        assert entry.sd is None or 0.02 < entry.sd / entry.mean < 0.3
        assert any(character.isdigit() for character in entry.source)


def test_levels_without_a_source():
    assert data.published("T13") == data.published("L6") == data.published("C3") == {}
    assert data.plausible_range("L6", "body_height") == (0.0, math.inf)
    with pytest.raises(data.DataError, match="unknown level"):
        data.published("L9")


def test_ranges_are_wide_but_not_double():
    assert data.plausible_range("T4", "pedicle_width_left") == pytest.approx((0.78, 8.22))
    low, high = data.plausible_range("T6", "body_height")
    assert (low, high) == pytest.approx((22.9 * 0.44, 22.9 * 1.56))
    for level in LEVELS:
        low, high = data.plausible_range(level, "body_height")
        mean = data.published(level)["body_height"].mean
        assert low < 0.75 * mean and 1.25 * mean < high < 1.6 * mean


@pytest.mark.parametrize("level", ["T3", "T12", "L4"])
def test_templates_are_plausible(level):
    model = data.load_shape_model(level)
    found = build.measure(np.asarray(model.mean_shape, float), np.asarray(model.faces))
    for name, caliper in found.items():
        low, high = data.plausible_range(level, name)
        assert low <= caliper.value <= high, name


def test_estimated_spreads_are_those_of_the_tables():
    entries = [(name, e) for level in LEVELS for name, e in data.published(level).items()]
    relative = {
        kind: max(
            e.sd / e.mean for name, e in entries if name.startswith("pedicle") == kind and e.sd
        )
        for kind in (True, False)
    }
    assert relative[True] == pytest.approx(_morphometry._SPREAD_OF_PEDICLES, abs=0.01)
    assert relative[False] == pytest.approx(_morphometry._SPREAD_OF_OTHERS, abs=0.01)
