"""Tables of reconstruction runs, which account for failures."""

import numpy as np
import pytest

from dartjax.report import _reconstruction_tables as reconstruct_tables


def graded(*dice, fine=None):
    keys = ("nsd_1mm", "hd95_mm", "masd_mm")
    fine = fine or [True] * len(dice)
    return [
        {"dice": value, **dict.fromkeys(keys, value), "succeeded": ok}
        for value, ok in zip(dice, fine, strict=True)
    ]


def test_failures_count_as_zero():
    rows = reconstruct_tables.by_group(
        ["b", "a", "a", "a"],
        ["a", "b"],
        "group",
        graded(0.9, 0.8, 0.3, np.nan, fine=[True, True, False, False]),
        graded(0.95, 0.9, 0.9, 0.9),
    )
    assert [row["group"] for row in rows] == ["a", "b"]
    first = rows[0]
    assert first["n"] == 3
    assert first["coverage"] == pytest.approx(1 / 3)
    assert first["dice"] == pytest.approx(0.8)
    assert first["dice_failures_zero"] == pytest.approx(0.8 / 3)
    assert first["oracle_dice"] == pytest.approx(0.9)


def test_a_group_without_any_success():
    (row,) = reconstruct_tables.by_group(
        ["a"], ["a"], "group", graded(np.nan, fine=[False]), graded(0.9)
    )
    assert row["coverage"] == row["dice_failures_zero"] == 0.0
    assert np.isnan(row["dice"])


def cases(num_failed, agreement_of_failed):
    failed = np.arange(60) < num_failed
    return [
        {
            "masd_mm": 3.0 if bad else 1.0,
            "mask_agreement": agreement_of_failed if bad else 0.9,
        }
        for bad in failed
    ]


def test_visible_failures_are_ranked_by_disagreement():
    assert reconstruct_tables.failure_auroc(cases(30, 0.6))["failure_auroc"] == 1.0
    assert reconstruct_tables.failure_auroc(cases(30, 0.9))["failure_auroc"] == 0.5


def test_assessed_answers_are_ranked_by_their_failure_probability():
    assessed = cases(30, 0.9)
    for case in assessed:
        case["failure_probability"] = case["masd_mm"] / 4.0
    assert reconstruct_tables.failure_auroc(assessed)["failure_auroc"] == 1.0


def seen(tier, common, masks):
    return {"tier": tier, "common_landmarks": common, "mask_in_every_view": masks}


def test_the_rules_of_the_papers_are_rows_of_the_table():
    cases = [seen("a", 3, False), seen("a", 2, True), seen("a", 2, False)]
    grades = {"start": graded(0.1, 0.1, 0.1), "ours": graded(0.9, 0.8, 0.7)}
    rows = {row["method"]: row for row in reconstruct_tables.by_method(cases, grades, "ours")}
    assert rows["start"]["coverage"] == rows["ours"]["coverage"] == 1.0
    assert rows["ours, 3 common landmarks"]["coverage"] == pytest.approx(1 / 3)
    assert rows["ours, 3 common landmarks"]["dice"] == pytest.approx(0.9)
    assert rows["ours, 3 common or all masks"]["dice_failures_zero"] == pytest.approx(1.7 / 3)
    disturbed = [{"tier": "disturbed"}] * 3
    assert len(reconstruct_tables.by_method(disturbed, grades, "ours")) == 2


@pytest.mark.parametrize("num_failed", [0, 29, 60])
def test_too_few_failures_say_nothing(num_failed):
    found = reconstruct_tables.failure_auroc(cases(num_failed, 0.6))
    assert np.isnan(found["failure_auroc"])
    assert f"{num_failed} of 60" in found["failure_auroc_reason"]
