"""Tables of the evaluation of the detector."""

from collections.abc import Mapping, Sequence
from typing import Any

from dartjax import pipeline
from dartjax.pipeline import DetectorRows
from dartjax.report import markdown_table

_COLUMNS = {
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "mask_dice": "Mask Dice",
    "mask_iou": "Mask IoU",
    "body_overlap": "Body IoU",
    "matched_right": "Matched right",
    "matched_of_shown": "Matched of those that all views show",
    "level_right_one_view": "Level right, one view",
    "level_right": "Level right",
    "named": "Named",
    "level_right_of_named": "Right of named",
    "frontal_landmarks_mm": "Landmarks AP, mm",
    "lateral_landmarks_mm": "Landmarks lateral, mm",
    "landmarks_kept": "Landmarks kept",
}
_FEW = ("precision", "recall", "mask_dice", "body_overlap", "level_right_one_view")


def cohort_tables(record: Mapping[str, Any], found: Mapping[str, DetectorRows]) -> str:
    """Make the table by subject, and that by the number of vertebrae in view."""
    joined = pipeline.joined_rows(list(found.values()))
    summaries = {name: pipeline.detector_summary(rows) for name, rows in found.items()}
    summaries["all"] = pipeline.detector_summary(joined)
    lines = [
        {"figure": title, **{name: each[key] for name, each in summaries.items()}}
        for key, title in _COLUMNS.items()
    ]
    text = f"## Detection by subject\n\n{markdown_table(record, lines)}"
    text += "\n## One view, by the number of vertebrae in it\n\n"
    return text + markdown_table(record, _by_number(joined))


def _by_number(rows: DetectorRows) -> list[dict[str, Any]]:
    groups = {"1 to 5": (1, 5), "6 to 9": (6, 9), "10 or more": (10, 99)}
    found = []
    for name, (least, most) in groups.items():
        own = [row for row in rows.views if least <= row["in_view"] <= most]
        if own:
            summary = pipeline.detector_summary(DetectorRows(own, [], []))
            found.append({"vertebrae in view": name, **{_COLUMNS[k]: summary[k] for k in _FEW}})
    return found


def image_table(
    record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], summary: Mapping[str, float]
) -> str:
    """Make the table of the real radiographs."""
    text = "## Real radiographs\n\n" + markdown_table(record, rows)
    if summary:
        text += (
            f"\nRecall of bodies {summary['body_recall']:.2f}, precision "
            f"{summary['body_precision']:.2f}, at most {summary['most_boxes']:.0f} boxes.\n"
        )
    return text
