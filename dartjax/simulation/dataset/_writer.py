"""Writer of one scan of a data set: ground truth and missing radiographs."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from dartjax import data
from dartjax._progress import Step, no_step
from dartjax.simulation.dataset._files import file_name, write_unit
from dartjax.simulation.dataset._plan import Settings, Shot, plan_pairs, plan_shots
from dartjax.simulation.dataset._render import (
    ScanBody,
    compiled_program,
    prepare_body,
    take_radiograph,
)
from dartjax.simulation.dataset._truth import TRUTH_FILE, ScanTruth, find_truth, load_or_find_truth

_compiled: set[Any] = set()  # keys of the programs that this process has compiled


class WrittenScan(NamedTuple):
    """Result of writing one scan."""

    subject: str
    cases: list[dict[str, Any]]  # one per radiograph, by view
    num_timed: int  # radiographs simulated now with a program compiled before
    timed_seconds: float  # for simulating and writing these


def write_scan(
    root: pathlib.Path,
    subject: data.Subject,
    settings: Settings,
    step: Step = no_step,
) -> WrittenScan:
    """Write the missing radiographs of one scan; existing ones are kept.

    `step` is called after every step. Raises DataError for a scan that cannot be used, a scan that
    another process is writing, a changed CT, and a full disk.
    """
    folder = root / "scans" / subject.id
    with data.only_writer(folder):
        missing = [b for b in settings.blocks() if not _unit(folder, b).exists()]
        taken = _write_blocks(folder, subject, settings, missing, step) if missing else (0, 0.0)
    now = {view for block in missing for view in block}
    cases = [_case(file, int(file.stem) in now) for file in radiograph_files(folder)]
    return WrittenScan(subject.id, cases, *taken)


def radiograph_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """List the JSON files of a scan's radiographs, by view."""
    return sorted(folder.glob("views-*/[0-9]*.json"))


def _write_blocks(
    folder: pathlib.Path,
    subject: data.Subject,
    settings: Settings,
    blocks: Sequence[range],
    step: Step,
) -> tuple[int, float]:
    """Load or compute the ground truth of a scan, then simulate and write blocks; number and
    seconds of radiographs as in `WrittenScan`."""
    case = data.load_case(subject)

    def find() -> ScanTruth:
        return find_truth(
            case,
            dense_fit=settings.dense_fit,
            step=lambda level: step(f"{subject.id}: ground truth of {level}"),
        )

    truth = load_or_find_truth(folder / TRUTH_FILE, case, find)
    body = prepare_body(case, truth)
    num_timed, seconds = 0, 0.0
    for block in blocks:
        shots = plan_shots(truth, settings, block)
        timed = _write_block(_unit(folder, block), truth, body, shots, settings)
        num_timed, seconds = num_timed + timed[0], seconds + timed[1]
        step(f"{subject.id}: {block.stop} of {settings.num_views} radiographs")
    return num_timed, seconds


def _write_block(
    folder: pathlib.Path,
    truth: ScanTruth,
    body: ScanBody,
    shots: Sequence[Shot],
    settings: Settings,
) -> tuple[int, float]:
    """Simulate and write a block; number and seconds of radiographs without compilation."""
    taken, seconds = [], 0.0
    num_timed = 0
    for shot in shots:
        started = time.perf_counter()
        taken.append(take_radiograph(body, truth, shot))
        program = compiled_program(body, taken[-1])
        if program in _compiled:
            num_timed, seconds = num_timed + 1, seconds + time.perf_counter() - started
        _compiled.add(program)
    started = time.perf_counter()
    pairs = plan_pairs(shots, settings, truth.subject)
    data.publish_folder(folder, lambda partial: write_unit(partial, truth, taken, pairs))
    writing = time.perf_counter() - started
    return num_timed, seconds + writing * num_timed / len(shots)


def _unit(folder: pathlib.Path, block: range) -> pathlib.Path:
    return folder / f"views-{file_name(block.start)}-{file_name(block.stop - 1)}"


def _case(file: pathlib.Path, written_now: bool) -> dict[str, Any]:
    """Entry of one radiograph in metrics.json, from its JSON."""
    entry = data.read_json(file)
    vertebrae = entry["vertebrae"]
    landmarks = [point for v in vertebrae for point in (v["landmarks"] or {}).values()]
    return {
        "subject": entry["subject"],
        "view": entry["view"],
        "name": entry["name"],
        "target": entry["target"],
        "variants": "+".join(entry["variants"]) or "none",
        "kvp": entry["physics"]["kvp"],
        "primary_deg": entry["primary_deg"],
        "secondary_deg": entry["secondary_deg"],
        "levels_in_view": [v["level"] for v in vertebrae if v["mask_area_px"]],
        "landmarks_visible": sum(point["visible"] for point in landmarks),
        "written_now": written_now,
    }
