"""One scan of a data set: find its truth, take what radiographs are missing, write them."""

import hashlib
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dartjax import data
from dartjax.simulation.dataset._files import name_of, write_unit
from dartjax.simulation.dataset._plan import Settings, Shot, pairs_of, shots_of_block
from dartjax.simulation.dataset._render import Body, body_of, program_of, take
from dartjax.simulation.dataset._scene import Scene, load_or_find, read, true_scene

_TRUTH = "truth.json"
_compiled: set[Any] = set()  # what this process has taken a radiograph of before


class Written(NamedTuple):
    """What became of one scan."""

    subject: str
    cases: list[dict[str, Any]]  # one per radiograph, by view
    num_timed: int  # radiographs taken now by a program that was compiled before
    timed_seconds: float  # for taking and writing these


def write_scan(
    root: pathlib.Path,
    subject: data.Subject,
    settings: Settings,
    note: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write what is missing of one scan; what is there is not read again.

    `note` is told of every step. DataError for a scan that cannot be used, one that another
    process is writing, a changed CT and a full disk.
    """
    folder = root / "scans" / subject.id
    with data.only_writer(folder):
        missing = [b for b in settings.blocks() if not _unit(folder, b).exists()]
        taken = _write_blocks(folder, subject, settings, missing, note) if missing else (0, 0.0)
    now = {view for block in missing for view in block}
    cases = [_case(file, int(file.stem) in now) for file in entries_of(folder)]
    return Written(subject.id, cases, *taken)


def entries_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The JSON files of a scan's radiographs, by view."""
    return sorted(folder.glob("views-*/[0-9]*.json"))


def scan_entries(root: pathlib.Path, subjects: Sequence[str]) -> list[dict[str, Any]]:
    """What the manifest of a finished data set says of its scans."""
    return [_scan_entry(root, subject) for subject in subjects]


def _write_blocks(
    folder: pathlib.Path,
    subject: data.Subject,
    settings: Settings,
    blocks: Sequence[range],
    note: Callable[[str], None],
) -> tuple[int, float]:
    """Find the truth of a scan unless it is known, then take and write blocks of it; number and
    seconds of the radiographs as `Written` has them."""
    case = data.load_case(subject)

    def find() -> Scene:
        return true_scene(
            case,
            dense_fit=settings.dense_fit,
            step=lambda level: note(f"{subject.id}: truth of {level}"),
        )

    scene = load_or_find(folder / _TRUTH, case, find)
    body = body_of(case, scene)
    num_timed, seconds = 0, 0.0
    for block in blocks:
        shots = shots_of_block(scene, settings, block)
        timed = _write_block(_unit(folder, block), scene, body, shots, settings)
        num_timed, seconds = num_timed + timed[0], seconds + timed[1]
        note(f"{subject.id}: {block.stop} of {settings.num_views} radiographs")
    return num_timed, seconds


def _write_block(
    folder: pathlib.Path,
    scene: Scene,
    body: Body,
    shots: Sequence[Shot],
    settings: Settings,
) -> tuple[int, float]:
    """Take and write a block; number and seconds of the radiographs that compiled nothing."""
    taken, seconds = [], 0.0
    num_timed = 0
    for shot in shots:
        started = time.perf_counter()
        taken.append(take(body, scene, shot))
        program = program_of(body, taken[-1])
        if program in _compiled:
            num_timed, seconds = num_timed + 1, seconds + time.perf_counter() - started
        _compiled.add(program)
    started = time.perf_counter()
    pairs = pairs_of(shots, settings, scene.subject)
    data.publish_folder(folder, lambda partial: write_unit(partial, scene, taken, pairs))
    writing = time.perf_counter() - started
    return num_timed, seconds + writing * num_timed / len(shots)


def _unit(folder: pathlib.Path, block: range) -> pathlib.Path:
    return folder / f"views-{name_of(block.start)}-{name_of(block.stop - 1)}"


def _case(file: pathlib.Path, written_now: bool) -> dict[str, Any]:
    """The case of one radiograph in metrics.json, from its own JSON."""
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


def _scan_entry(root: pathlib.Path, subject: str) -> dict[str, Any]:
    folder = root / "scans" / subject
    scene = read(folder / _TRUTH)
    packed = sorted(folder.glob(f"views-*/{data.PACKED}"))
    return {
        "subject": subject,
        "split": scene.split,
        "parents": list(scene.parents),
        "ct_hash": scene.ct_hash,
        "levels": list(scene.levels),
        "levels_whole": [v.level for v in scene.vertebrae if v.whole],
        "levels_with_landmarks": [v.level for v in scene.vertebrae if not v.reason],
        "units": [
            {
                "folder": path.parent.relative_to(root).as_posix(),
                "num_radiographs": len(list(path.parent.glob("*.png"))),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in packed
        ],
    }
