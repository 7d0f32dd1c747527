"""Show the scans of a cohort as tables: on the console, in table.md, in metrics.json."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dartjax import data

COLUMNS: tuple[str, ...] = ("scan", "split", "spacing_mm", "axes", "complete", "rejected")


def print_table(
    manifest: data.Manifest,
    chosen: Sequence[data.Inspected],
    bad: Sequence[tuple[data.Subject, str]],
    found: Sequence[data.Leak],
) -> None:
    """Print the scans, with the unusable ones, the leaks and the totals."""
    console = Console()
    table = Table(title=manifest.name)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for scan in chosen:
        table.add_row(*row_of(scan))
    console.print(table)
    for subject, reason in bad:
        console.print(f"not usable: {subject.id}: {reason}", style="yellow", markup=False)
    for leak in found:
        console.print(f"LEAK: {leak.first} and {leak.second}: {leak.reason}", style="red")
    count = sum(map(len, manifest.levels.values()))
    console.print(f"{len(chosen)} scans, {count} complete vertebrae: {manifest.name}", markup=False)


def summary_of(
    manifest: data.Manifest,
    chosen: Sequence[data.Inspected],
    bad: Sequence[tuple[data.Subject, str]],
    found: Sequence[data.Leak],
) -> dict[str, int]:
    """Count scans, people, vertebrae, rejected levels, unusable scans and leaks."""
    return {
        "num_scans": len(manifest.subjects),
        "num_patients": len({subject.patient for subject in manifest.subjects}),
        "num_vertebrae": sum(map(len, manifest.levels.values())),
        "num_rejected": sum(len(scan.rejected) for scan in chosen),
        "num_unusable_scans": len(bad),
        "num_leaks": len(found),
    }


def case_of(scan: data.Inspected) -> dict[str, Any]:
    """Make the case of one scan for metrics.json."""
    subject = scan.subject
    return {
        "subject": subject.id,
        "patient": subject.patient,
        "split": subject.split,
        "layout": subject.layout,
        "dataset": subject.dataset,
        "parents": list(subject.parents),
        "spacing_mm": list(scan.spacing_mm),
        "orientation": scan.orientation,
        "oblique_deg": scan.oblique_deg,
        "levels": list(scan.levels),
        "rejected": dict(scan.rejected),
        "centroid_source": scan.centroid_source,
        "centroid_error_mm": scan.centroid_error_mm,
    }


def row_of(scan: data.Inspected) -> tuple[str, ...]:
    """Make the row of one scan, in the order of `COLUMNS`."""
    spacing = " x ".join(f"{length:.2f}" for length in scan.spacing_mm)
    axes = scan.orientation
    if scan.oblique_deg > 0.5:
        axes += f", {scan.oblique_deg:.0f} deg oblique"
    by_reason: dict[str, list[str]] = {}
    for level, reason in scan.rejected.items():
        by_reason.setdefault(reason, []).append(level)
    reasons = [f"{' '.join(levels)}: {reason}" for reason, levels in by_reason.items()]
    if scan.centroid_error_mm > 10.0:
        reasons.append(f"centroids up to {scan.centroid_error_mm:.0f} mm from their vertebrae")
    split = scan.subject.split or "-"
    return scan.subject.id, split, spacing, axes, " ".join(scan.levels) or "-", "; ".join(reasons)
