"""Rows of the fracture study."""

import pytest

from dartjax.pipeline import MODES_OFF, MODES_ON
from experiments.fractures import report


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
