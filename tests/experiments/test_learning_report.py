"""Tables of the evaluation of networks, from hand-made rows."""

import numpy as np
import pytest

from dartjax.pipeline import LEARNED_SIMILARITY as LEARNED
from experiments.evaluate_learning import report as learning_report

NAMES = (LEARNED, "local gradient NCC", "xvr")


def predicted(true, said, std=0.5):
    cosines = {f"cosine {name}": 0.5 for name in NAMES}
    cosines |= {f"cosine of the pose, {name}": 0.25 for name in NAMES}
    return {"predicted_mm": said, "predicted_log_std": std, "true_mm": true} | cosines


def captured(name, start, masd):
    row = {"similarity": name, "start_mm": start, "masd_mm": masd, "oracle_masd_mm": 0.5}
    return row | {"shift_mm": masd, "turn_deg": 2.0 * masd}


ROWS = [predicted(t, s) for t, s in ((1.0, 1.5), (2.0, 2.0), (4.0, 3.0))]
ENDS = [captured(n, s, 1.0 + i + 0.2 * s) for i, n in enumerate(NAMES) for s in (0.0, 3.0)]
ENDS += [captured(LEARNED, 3.0, 2.4)]
SHOTS = [
    {"one_shot": shot, "steps": n, "masd_mm": 2.0 - 0.05 * n - shot, "milliseconds": 10.0 + n}
    for shot in (False, True)
    for n in (0, 5)
]


def test_predictions_are_summed_up():
    found = learning_report.prediction_summary(ROWS)
    assert found["masd_error_mm"] == pytest.approx(0.5)
    assert found["masd_error_of_the_median_mm"] == pytest.approx(1.0)
    assert found["rank_correlation"] == pytest.approx(1.0)
    assert found["within_predicted_std"] == 1.0
    assert found["cosine of the pose, xvr"] == 0.25


def test_captures_are_counted_by_similarity_and_start():
    table = learning_report.capture_table(ENDS)
    assert len(table) == 6 and [row["n"] for row in table] == [1, 2, 1, 1, 1, 1]
    own = next(r for r in table if (r["similarity"], r["start [mm]"]) == (LEARNED, 3.0))
    assert own["within 2 mm"] == 0.5 and own["MASD [mm]"] == pytest.approx(2.0)


def test_starts_in_one_step_are_told_apart():
    table = learning_report.surrogate_table(SHOTS)
    assert [(row["start"], row["steps"]) for row in table] == [
        ("landmarks", 0),
        ("landmarks", 5),
        ("network's step", 0),
        ("network's step", 5),
    ]
    assert table[-1]["MASD, median [mm]"] == pytest.approx(0.75)


def test_pictures_are_drawn(tmp_path):
    learning_report.draw_similarity(tmp_path / "a.png", ROWS, ENDS)
    learning_report.draw_surrogate(tmp_path / "b.png", SHOTS)
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("a.png", "b.png"))
    assert np.isnan(learning_report.median([{"x": np.nan}], "x"))
