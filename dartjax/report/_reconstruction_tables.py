"""Make the tables of a reconstruction run by method, initialisation tier and level.

Every row accounts for failures: it has the coverage, the mean over successes, and the mean with
failures at 0. A success is an answer that is not flagged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table
from scipy import stats

from dartjax import pipeline
from dartjax.data import MODELLED_LEVELS
from dartjax.registration import TIERS

MIN_COMMON = 3  # landmarks that Spine-DART needs in both views
_MEANS = ("nsd_1mm", "hd95_mm", "masd_mm")
_HEADINGS = {
    "n": "n",
    "coverage": "Coverage",
    "dice": "Dice",
    "dice_failures_zero": "Dice, failures 0",
    "dice_min": "Dice min",
    "nsd_1mm": "NSD 1 mm",
    "hd95_mm": "HD95 [mm]",
    "masd_mm": "MASD [mm]",
    "oracle_dice": "Oracle Dice",
}
Grades = Mapping[str, Sequence[Mapping[str, Any]]]
Row = dict[str, Any]


def by_method(cases: Sequence[Row], grades: Grades, headline: str) -> list[Row]:
    """Make a row per method, and rows of the headline under the starting rules of Spine-DART.

    The rules are: three landmarks seen in both views; or, for AP and lateral views, landmarks
    taken from the masks instead.
    """
    rows = [{"method": name, **_row(graded)} for name, graded in grades.items()]
    if cases[0]["tier"] == "disturbed":
        return rows
    for rule, allows in PAPER_RULES.items():
        under_rule = [
            {**graded, "succeeded": graded["succeeded"] and allows(case)}
            for case, graded in zip(cases, grades[headline], strict=True)
        ]
        rows.append({"method": f"{headline}, {rule}", **_row(under_rule)})
    return rows


PAPER_RULES: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "3 common landmarks": lambda case: case["common_landmarks"] >= MIN_COMMON,
    "3 common or all masks": lambda case: (
        case["common_landmarks"] >= MIN_COMMON or case["mask_in_every_view"]
    ),
}


def by_group(
    groups: Sequence[str],
    order: Sequence[str],
    heading: str,
    graded: Sequence[Mapping[str, Any]],
    oracle: Sequence[Mapping[str, Any]],
) -> list[Row]:
    """Make a row per group of cases, in the given order; groups not in it come last."""
    names = sorted(set(groups), key=lambda g: (order.index(g) if g in order else len(order), g))
    rows = []
    for name in names:
        chosen = [i for i, group in enumerate(groups) if group == name]
        best = pipeline.finite_mean([oracle[i] for i in chosen], "dice")
        rows.append({heading: name, **_row([graded[i] for i in chosen]), "oracle_dice": best})
    return rows


def by_tier(cases: Sequence[Row], grades: Grades, headline: str) -> list[Row]:
    """Make a row per initialisation tier, the best first."""
    tiers = [case["tier"] for case in cases]
    return by_group(tiers, list(TIERS.values()), "tier", grades[headline], grades["oracle"])


def by_level(cases: Sequence[Row], grades: Grades, headline: str) -> list[Row]:
    """Make a row per level, from head to foot."""
    levels = [case["level"] for case in cases]
    return by_group(levels, list(MODELLED_LEVELS), "level", grades[headline], grades["oracle"])


def _row(graded: Sequence[Mapping[str, Any]]) -> Row:
    successes = [row for row in graded if row["succeeded"]]
    dice = np.array([row["dice"] for row in successes], float)
    return {
        "n": len(graded),
        "coverage": len(successes) / len(graded),
        "dice": pipeline.finite_mean(successes, "dice"),
        "dice_failures_zero": float(np.sum(dice)) / len(graded),
        "dice_min": float(dice.min()) if len(dice) else np.nan,
        **{key: pipeline.finite_mean(successes, key) for key in _MEANS},
    }


def failure_auroc(cases: Sequence[Mapping[str, Any]]) -> Row:
    """Compute the AUROC of predicting failures (MASD above 2 mm) without the ground truth.

    The score is the failure probability if all answers were assessed; else the mean rank of the
    disagreement with the masks and of the landmark residual. The value is NaN with a reason if
    there are fewer than 30 failures or no successes.
    """
    answered = [case for case in cases if np.isfinite(case["masd_mm"])]
    failed = np.array([case["masd_mm"] > pipeline.FAILURE_MM for case in answered], bool)
    return pipeline.failure_auroc(_failure_scores(answered), failed)


def _failure_scores(cases: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, " case"]:
    if all("failure_probability" in case for case in cases):
        return np.array([case["failure_probability"] for case in cases], float)
    scores = (
        [1.0 - case["mask_agreement"] for case in cases],
        [case.get("landmark_residual_mm", 0.0) for case in cases],
    )
    return np.mean([stats.rankdata(score) for score in scores], axis=0)


def as_table(rows: Sequence[Row], title: str) -> Table:
    """Make a table for the terminal."""
    table = Table(title=title)
    for key in rows[0]:
        left = isinstance(rows[0][key], str)
        table.add_column(_HEADINGS.get(key, key.capitalize()), justify="left" if left else "right")
    for row in rows:
        table.add_row(*[_cell(key, value) for key, value in row.items()])
    return table


def _cell(key: str, value: Any) -> str:
    if isinstance(value, str | int):
        return str(value)
    digits = 2 if key.endswith("_mm") else 3
    return f"{value:.{digits}f}" if np.isfinite(value) else "n/a"
