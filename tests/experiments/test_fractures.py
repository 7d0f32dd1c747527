"""Rows of the fracture study."""

import pytest

from dartjax.data import DataError
from dartjax.pipeline import MODES_OFF, MODES_ON
from experiments.fractures import report
from experiments.fractures.__main__ import _given


def test_rows_are_by_grade_and_arm():
    cases = [
        {
            "grade": grade,
            "arm": arm,
            "dice": 0.8,
            "masd_mm": 1.0,
            "anterior_height_error_mm": error,
            "middle_height_error_mm": -error,
        }
        for grade in (0, 3)
        for arm in (MODES_OFF, MODES_ON)
        for error in (-1.0, 2.0, 3.0)
    ]
    rows = report.rows_of(cases)
    assert [(row["grade"], row["arm"], row["n"]) for row in rows] == [
        (0, MODES_OFF, 3),
        (0, MODES_ON, 3),
        (3, MODES_OFF, 3),
        (3, MODES_ON, 3),
    ]
    assert rows[0]["anterior height error [mm]"] == pytest.approx(2.0)
    assert rows[0]["middle bias [mm]"] == pytest.approx(-4.0 / 3.0)


def test_given_fractures_are_parsed():
    found = _given(["verse007/T12/2", "verse007/L1/3", "verse009/T5/1"])
    assert [each["level"] for each in found["verse007"]] == ["T12", "L1"]
    assert found["verse009"] == [{"level": "T5", "kind": "real", "grade": 1}]


@pytest.mark.parametrize("text", ["verse007/T12", "verse007/T12/4", "T12/2"])
def test_a_fracture_without_subject_level_or_grade_is_an_error(text):
    with pytest.raises(DataError, match="write SUBJECT/LEVEL/GRADE"):
        _given([text])
