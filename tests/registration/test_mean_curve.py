"""The mean curve of the spine: distances between levels."""

import pytest

from dartjax import data
from dartjax.registration import _mean_curve as spine


@pytest.fixture(scope="module")
def models():
    return {level: data.load_shape_model(level) for level in ("T8", "T9", "T10", "T12", "L1")}


def test_levels_are_a_body_and_a_disc_apart(models):
    along = spine.positions_mm(models)
    assert list(along) == ["T8", "T9", "T10", "T12", "L1"]
    assert 20.0 < along["T9"] - along["T8"] < 30.0
    assert 27.0 < along["L1"] - along["T12"] < 38.0
    # Two steps, T11 counted; bodies grow toward the feet.
    assert 2.0 < (along["T12"] - along["T10"]) / (along["T10"] - along["T9"]) < 2.4


def test_a_level_that_is_not_given_is_counted(models):
    fewer = {level: model for level, model in models.items() if level != "T9"}
    with_it, without = spine.positions_mm(models), spine.positions_mm(fewer)
    apart = [along["T10"] - along["T8"] for along in (with_it, without)]
    assert apart[0] == pytest.approx(apart[1], abs=1.0)
