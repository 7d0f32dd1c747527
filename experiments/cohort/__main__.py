"""Look at a cohort of CTs: what is in it, what may be used, and whether it leaks into another.

  python -m experiments.cohort --cohort=FOLDER --out=OUT
      FOLDER: VerSe (either layout), CTSpine1K, pairs X.nii.gz and X_seg.nii.gz, or a manifest.
      OUT receives manifest.json (give it to --cohort anywhere), table.md and sheet.png.
  python -m experiments.cohort --cohort=FOLDER --against=TRAINING/manifest.json,MODELS/
      Also every scan, person, CT, mask or parent shared with another manifest, or seen by a set
      of shape models; exit code 1 if there is one.
  python -m experiments.cohort --cohort=VERSE --verse_small=rule
      Only the scans the rule for the papers' test set keeps (or those of a file of ids).

About a second per scan of 100 MB. A scan that cannot be used stops the run at its end, with the
reasons of all of them; --skip_bad goes on without them.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from dartjax import cli, data, report
from experiments.cohort import report as cohort_report

_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with masks, or a manifest.json.")
_AGAINST = flags.DEFINE_list(
    "against", [], "Manifests, or folders of shape models, that no scan may leak into."
)
_VERSE_SMALL = flags.DEFINE_string(
    "verse_small", None, 'Keep the scans of "rule" (VerSe\'19), or of a file with one id per line.'
)
_CENTROIDS = flags.DEFINE_enum(
    "centroids",
    "auto",
    ["auto", "file", "mask"],
    "Centroids from the cohort's files, from the masks, or from files where there are any.",
)
_DROP_FOREIGN = flags.DEFINE_bool(
    "drop_foreign_material", False, "Leave out vertebrae with metal or cement (above 2000 HU)."
)
_SKIP_BAD = flags.DEFINE_bool("skip_bad", False, "Go on without scans that cannot be used.")

_COLUMNS: tuple[str, ...] = ("scan", "split", "spacing_mm", "axes", "whole", "left out")


@dataclasses.dataclass(frozen=True)
class Inspected:
    """What was found in one scan."""

    subject: data.Subject
    levels: tuple[str, ...]
    rejected: Mapping[str, str]
    spacing_mm: tuple[float, float, float]
    orientation: str  # of the closest axes, such as "PIR"
    oblique_deg: float  # largest angle between a voxel axis and the closest axis of the world
    centroid_source: str
    centroid_error_mm: float  # largest distance of a centroid from its vertebra
    tile: cohort_report.Tile


def main(ctx: cli.RunContext) -> int:
    """Inspect, select, compare, write."""
    if _COHORT.value is None:
        raise data.DataError("--cohort is needed: a folder of CTs with masks, or a manifest.json")
    subjects = data.find_subjects(_COHORT.value)
    kinds = sorted({subject.dataset_kind for subject in subjects})
    if len(kinds) > 1:
        raise data.DataError(f"the cohort mixes {' and '.join(kinds)} data: give them one by one")
    others = [_read_other(path) for path in _AGAINST.value]
    inspected, bad = _inspect_all(subjects)
    manifest = _select(inspected)
    chosen = [scan for scan in inspected if scan.subject.id in manifest.levels]
    found = [leak for other in others for leak in _leaks(manifest, other)]
    _print(manifest, chosen, bad, found)
    data.save_manifest(ctx.out / "manifest.json", manifest, final_folder=ctx.final_out)
    cohort_report.write_sheets(ctx.out, [scan.tile for scan in chosen], manifest.name)
    _write_metrics(ctx, manifest, chosen, bad, found)
    if found:
        print(f"error: {len(found)} leaks into {', '.join(_AGAINST.value)}", file=sys.stderr)
    return 1 if found else 0


def _inspect_all(
    subjects: Sequence[data.Subject],
) -> tuple[list[Inspected], list[tuple[data.Subject, str]]]:
    """Every scan that can be read, and the reason against each other one."""
    inspected, bad = [], []
    with cli.progress("scans", len(subjects)) as step:
        for subject in subjects:
            try:
                inspected.append(_inspect(subject))
                step(f"{subject.id}: {len(inspected[-1].levels)} whole vertebrae")
            except data.DataError as error:
                bad.append((subject, str(error)))
                step(f"{subject.id}: cannot be used")
    if bad and not (_SKIP_BAD.value and inspected):
        reasons = "\n  ".join(f"{subject.id}: {reason}" for subject, reason in bad)
        raise data.DataError(
            f"{len(bad)} of {len(subjects)} scans cannot be used (--skip_bad goes on without "
            f"them):\n  {reasons}"
        )
    return inspected, bad


def _inspect(subject: data.Subject) -> Inspected:
    scan = data.read_scan(subject)
    levels, rejected = data.judge_levels(scan.labels, scan.affine)
    if _DROP_FOREIGN.value:
        foreign = data.foreign_material(scan.hu, scan.labels)
        rejected = {**rejected, **{x: "foreign material" for x in foreign if x in levels}}
        levels = tuple(level for level in levels if level not in foreign)
    use_file = _CENTROIDS.value == "file" or (
        _CENTROIDS.value == "auto" and subject.centroids_path is not None
    )
    from_mask = data.mask_centroids(scan.labels, scan.affine)
    centroids = data.load_centroids(subject) if use_file else from_mask
    axes = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    return Inspected(
        subject=dataclasses.replace(subject, ct_hash=scan.ct_hash, mask_hash=scan.mask_hash),
        levels=levels,
        rejected=rejected,
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        orientation="".join(nib.aff2axcodes(scan.affine)),
        oblique_deg=float(np.degrees(np.arccos(np.clip(np.abs(axes).max(0).min(), 0.0, 1.0)))),
        centroid_source="file" if use_file else "mask",
        centroid_error_mm=cohort_report.centroid_error_mm(scan, centroids) if use_file else 0.0,
        tile=cohort_report.tile_of(subject.id, scan, levels, centroids),
    )


def _select(inspected: Sequence[Inspected]) -> data.Manifest:
    """All scans, or those of --verse_small under a true name."""
    subjects = [scan.subject for scan in inspected]
    levels = {scan.subject.id: scan.levels for scan in inspected}
    if _VERSE_SMALL.value is None:
        names = sorted({subject.dataset for subject in subjects})
        return data.Manifest(" + ".join(names), tuple(subjects), levels)
    ids = None if _VERSE_SMALL.value == "rule" else data.read_ids(_VERSE_SMALL.value)
    return data.verse_small(subjects, levels, ids)


def _read_other(path: str) -> data.Manifest | dict[str, Any]:
    """A manifest, or the card of a set of shape models."""
    if pathlib.Path(path).is_dir():
        return data.shape_model_card(path)
    return data.load_manifest(path)


def _leaks(manifest: data.Manifest, other: data.Manifest | dict[str, Any]) -> list[data.Leak]:
    if isinstance(other, data.Manifest):
        return data.leaks(manifest, other)
    return data.leaks_into_model(manifest, other)


def _print(
    manifest: data.Manifest,
    chosen: Sequence[Inspected],
    bad: Sequence[tuple[data.Subject, str]],
    found: Sequence[data.Leak],
) -> None:
    console = Console()
    table = Table(title=manifest.name)
    for name in _COLUMNS:
        table.add_column(name, overflow="fold")
    for scan in chosen:
        table.add_row(*_row(scan))
    console.print(table)
    for subject, reason in bad:
        console.print(f"left out: {subject.id}: {reason}", style="yellow", markup=False)
    for leak in found:
        console.print(f"LEAK: {leak.first} and {leak.second}: {leak.reason}", style="red")
    count = sum(map(len, manifest.levels.values()))
    console.print(f"{len(chosen)} scans, {count} whole vertebrae: {manifest.name}", markup=False)


def _row(scan: Inspected) -> tuple[str, ...]:
    spacing = " x ".join(f"{length:.2f}" for length in scan.spacing_mm)
    axes = scan.orientation
    if scan.oblique_deg > 0.5:
        axes += f", {scan.oblique_deg:.0f} deg oblique"
    by_reason: dict[str, list[str]] = {}
    for level, reason in scan.rejected.items():
        by_reason.setdefault(reason, []).append(level)
    reasons = [f"{' '.join(levels)}: {reason}" for reason, levels in by_reason.items()]
    if scan.centroid_error_mm > 10.0:
        reasons.append(f"centroids up to {scan.centroid_error_mm:.0f} mm off their vertebrae")
    split = scan.subject.split or "-"
    return scan.subject.id, split, spacing, axes, " ".join(scan.levels) or "-", "; ".join(reasons)


def _write_metrics(
    ctx: cli.RunContext,
    manifest: data.Manifest,
    chosen: Sequence[Inspected],
    bad: Sequence[tuple[data.Subject, str]],
    found: Sequence[data.Leak],
) -> None:
    ids = [subject.id for subject in manifest.subjects]
    num_vertebrae = sum(map(len, manifest.levels.values()))
    is_named = data.is_verse_small(manifest.subjects, num_vertebrae)
    known_hash = manifest.ids_hash if is_named and _VERSE_SMALL.value else None
    record = ctx.record(
        dataset=manifest.name,
        dataset_kind=manifest.subjects[0].dataset_kind,
        subjects=ids,
        n_vertebrae=num_vertebrae,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    summary = {
        "num_scans": len(ids),
        "num_patients": len({subject.patient for subject in manifest.subjects}),
        "num_vertebrae": num_vertebrae,
        "num_rejected": sum(len(scan.rejected) for scan in chosen),
        "num_unusable_scans": len(bad),
        "num_leaks": len(found),
    }
    cases = [_case(scan) for scan in chosen]
    extra = {
        "unusable": [{"subject": subject.id, "reason": reason} for subject, reason in bad],
        "leaks": [leak._asdict() for leak in found],
    }
    ctx.save_metrics({**record, **extra}, summary, cases, verse_small_ids_hash=known_hash)
    rows = [dict(zip(_COLUMNS, row, strict=True)) for row in map(_row, chosen)]
    table = report.markdown_table(record, rows, verse_small_ids_hash=known_hash)
    (ctx.out / "table.md").write_text(table, encoding="utf-8")


def _case(scan: Inspected) -> dict[str, Any]:
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


if __name__ == "__main__":
    cli.run(main)
