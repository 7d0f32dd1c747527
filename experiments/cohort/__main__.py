"""Inspect a cohort of CTs: its scans, its complete vertebrae, and leaks into other data.

  python -m experiments.cohort --cohort=FOLDER --out=OUT
      FOLDER: VerSe (either layout), CTSpine1K, pairs X.nii.gz and X_seg.nii.gz, or a manifest.
      Writes manifest.json (usable as --cohort everywhere), table.md and sheet.png to OUT.
  python -m experiments.cohort --cohort=FOLDER --against=TRAINING/manifest.json,MODELS/
      Also lists leaks: scans that share their id, person, CT, mask or parent with another
      manifest, or that a set of shape models has seen. The exit code is 1 if there is a leak.
  python -m experiments.cohort --cohort=VERSE --verse_small=rule
      Selects the scans by the rule for the papers' test set (or by a file of ids).

Takes about a second per scan of 100 MB. If scans cannot be used, the run fails after all scans were
read, with the reason for each of them; --skip_bad continues without them.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dartjax import data
from dartjax.cli import launch
from dartjax.report import markdown_table
from experiments.cohort import report, sheet
from experiments.cohort.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> int:
    """Inspect and select scans, find leaks, and write the results. Return 1 for a leak."""
    subjects = _subjects(settings.cohort, settings.labels)
    others = [_read_other(path) for path in settings.against]
    inspected, tiles, bad = _inspect_all(subjects, settings)
    manifest = _select(inspected, settings.verse_small)
    chosen = [scan for scan in inspected if scan.subject.id in manifest.levels]
    found = [leak for other in others for leak in _leaks(manifest, other)]
    report.print_table(manifest, chosen, bad, found)

    data.save_manifest(ctx.out / "manifest.json", manifest, final_folder=ctx.final_out)
    sheet.write_sheets(ctx.out, [tiles[scan.subject.id] for scan in chosen], manifest.name)
    num_vertebrae = sum(map(len, manifest.levels.values()))
    is_named = data.is_verse_small(manifest.subjects, num_vertebrae)
    known_hash = manifest.ids_hash if is_named and settings.verse_small else None
    record = ctx.record(
        dataset=manifest.name,
        dataset_kind=manifest.subjects[0].dataset_kind,
        subjects=[subject.id for subject in manifest.subjects],
        n_vertebrae=num_vertebrae,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    excluded = {
        "unusable": [{"subject": subject.id, "reason": reason} for subject, reason in bad],
        "leaks": [leak._asdict() for leak in found],
    }
    summary = report.summary_of(manifest, chosen, bad, found)
    cases = [report.case_of(scan) for scan in chosen]
    ctx.save_metrics({**record, **excluded}, summary, cases, verse_small_ids_hash=known_hash)
    rows = [dict(zip(report.COLUMNS, report.row_of(scan), strict=True)) for scan in chosen]
    table = markdown_table(record, rows, verse_small_ids_hash=known_hash)
    (ctx.out / "table.md").write_text(table, encoding="utf-8")

    if found:
        leaked_into = ", ".join(settings.against)
        print(f"error: {len(found)} leaks into {leaked_into}", file=sys.stderr)
    return 1 if found else 0


def _subjects(cohort: str | None, labels: str) -> list[data.Subject]:
    """Find the scans of --cohort. DataError if real and synthetic scans are mixed."""
    if cohort is None:
        raise data.DataError(
            "--cohort is required: give a folder of CTs with masks, or a manifest.json"
        )
    subjects = data.find_subjects(cohort, labels=cast(data.Numbering, labels))
    kinds = sorted({subject.dataset_kind for subject in subjects})
    if len(kinds) > 1:
        raise data.DataError(f"the cohort mixes {' and '.join(kinds)} data: give them separately")
    return subjects


def _read_other(path: str) -> data.Manifest | dict[str, Any]:
    """Read a manifest, or the card of a set of shape models."""
    if pathlib.Path(path).is_dir():
        return data.shape_model_card(path)
    return data.load_manifest(path)


def _inspect_all(
    subjects: Sequence[data.Subject], settings: Settings
) -> tuple[list[data.Inspected], Mapping[str, sheet.Tile], list[tuple[data.Subject, str]]]:
    """Inspect all scans: results, slices by id, and the scans that cannot be used with reasons."""
    inspected, tiles, bad = [], {}, []
    with launch.progress("scans", len(subjects)) as step:
        for subject in subjects:
            try:
                found, tiles[subject.id] = _inspect(subject, settings)
                inspected.append(found)
                step(f"{subject.id}: {len(found.levels)} complete vertebrae")
            except data.DataError as error:
                bad.append((subject, str(error)))
                step(f"{subject.id}: cannot be used")
    if bad and not (settings.skip_bad and inspected):
        reasons = "\n  ".join(f"{subject.id}: {reason}" for subject, reason in bad)
        raise data.DataError(
            f"{len(bad)} of {len(subjects)} scans cannot be used (--skip_bad continues without "
            f"them):\n  {reasons}"
        )
    return inspected, tiles, bad


def _inspect(subject: data.Subject, settings: Settings) -> tuple[data.Inspected, sheet.Tile]:
    """Inspect one scan and make its slices; the scan itself is not kept in memory."""
    scan = data.read_scan(subject)
    found = data.inspect_scan(
        subject,
        scan,
        centroids=cast(Any, settings.centroids),
        drop_foreign_material=settings.drop_foreign_material,
    )
    return found, sheet.tile_of(subject.id, scan, found.levels, found.centroids)


def _select(inspected: Sequence[data.Inspected], verse_small: str | None) -> data.Manifest:
    """Select all scans, or those of --verse_small, as a manifest with a true name."""
    subjects = [scan.subject for scan in inspected]
    levels = {scan.subject.id: scan.levels for scan in inspected}
    if verse_small is None:
        names = sorted({subject.dataset for subject in subjects})
        return data.Manifest(" + ".join(names), tuple(subjects), levels)
    ids = None if verse_small == "rule" else data.read_ids(verse_small)
    return data.verse_small(subjects, levels, ids)


def _leaks(manifest: data.Manifest, other: data.Manifest | dict[str, Any]) -> list[data.Leak]:
    if isinstance(other, data.Manifest):
        return data.leaks(manifest, other)
    return data.leaks_into_model(manifest, other)


if __name__ == "__main__":
    launch.run(main, Settings)
