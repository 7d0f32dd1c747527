"""Describe folders: a run, a cohort of CTs, a folder with a card, meshes or X-rays."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from dartjax._documents import read_json, truth_of
from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL
from dartjax.cli.facts._assets import CARD, card_facts
from dartjax.cli.facts._documents import document_facts
from dartjax.cli.facts._facts import FileFacts

SPINE = "spine.json"
MESHES, XRAYS = (".ply", ".stl", ".obj"), (".png", ".tif", ".tiff", ".npy")
_MASK_NAME = re.compile(r"_(seg|msk|mask)[._-]")
_MASK_FOLDERS = {"labels", "label", "masks", "mask", "derivatives"}
_MANY_FILES = 200_000


def folder_facts(path: Path) -> FileFacts:
    """Describe a folder. DataError if it has nothing that dartjax reads."""
    try:
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
    except OSError as error:
        raise DataError(f"{path}: the folder cannot be read ({error.strerror})") from error
    if {"config.json", "metrics.json", "error.log"} & names:
        return _run_facts(path, names)
    if SPINE in names:
        return document_facts(path / SPINE)
    if CARD in names:
        return card_facts(path, _object(path / CARD))
    volumes = _volumes(path)
    if volumes:
        return _cohort_facts(path, volumes)
    suffixes = Counter(Path(name).suffix.lower() for name in names)
    if any(suffixes[suffix] for suffix in MESHES):
        return _mesh_folder_facts(path, names)
    if any(suffixes[suffix] for suffix in XRAYS):
        count = sum(suffixes[suffix] for suffix in XRAYS)
        return FileFacts(
            str(path), "folder of images", {"images": count, "files": sorted(names)[:12]}
        )
    raise DataError(
        f"{path}: the folder has nothing that dartjax reads: no run (config.json), no CTs "
        "(.nii.gz), no weights or shape models (card.json), no meshes, no X-rays"
    )


def _run_facts(path: Path, names: set[str]) -> FileFacts:
    config = _object(path / "config.json") if "config.json" in names else {}
    results = _object(path / "metrics.json") if "metrics.json" in names else {}
    record = results.get("record") or {}
    facts: dict[str, Any] = {
        "run_of": config.get("experiment"),
        "started": config.get("started"),
        "commit": config.get("commit"),
        "dataset": record.get("dataset"),
        "dataset_kind": record.get("dataset_kind"),
        "num_cases": len(results.get("cases") or ()),
        "has_report": "report.html" in names,
        "has_spine": SPINE in names,
        "meshes": len(list((path / "meshes").glob("*.ply"))),
        "files": sorted(names),
    }
    warnings = []
    if "error.log" in names:
        text = (path / "error.log").read_text(encoding="utf-8", errors="replace")
        lines = text.strip().splitlines()
        warnings.append(f"the run failed: {lines[-1] if lines else 'error.log is empty'}")
    elif ".partial" in path.name:
        warnings.append("the run is still active, or was killed: it is not complete")
    elif not results:
        warnings.append("no metrics.json: the run has no results")
    return FileFacts(str(path), "run folder", facts, warnings)


def _volumes(path: Path) -> list[Path]:
    found = []
    for number, (folder, _, names) in enumerate(os.walk(path)):
        found += [Path(folder, name) for name in names if _is_volume(name)]
        if number > _MANY_FILES or len(found) > _MANY_FILES:
            break
    return found


def _is_volume(name: str) -> bool:
    return name.endswith((".nii", ".nii.gz")) and not name.startswith(".")


def _is_mask(root: Path, file: Path) -> bool:
    folders = set(file.relative_to(root).parts[:-1])
    return bool(_MASK_NAME.search(file.name)) or bool(_MASK_FOLDERS & folders)


def _cohort_facts(path: Path, volumes: list[Path]) -> FileFacts:
    masks = [file for file in volumes if _is_mask(path, file)]
    cts = sorted(set(volumes) - set(masks))
    description = path / "dataset_description.json"
    about = _object(description) if description.is_file() else {}
    facts = {
        "name": about.get("Name"),
        "synthetic": truth_of(f'{description}: "Synthetic"', about.get("Synthetic"))
        if about
        else None,
        "cts": len(cts),
        "masks": len(masks),
        "has_participants": (path / "participants.tsv").is_file(),
        "example": str(min(cts or masks).relative_to(path)),
    }
    warnings = []
    if len(cts) != len(masks):
        warnings.append(f"{len(cts)} CTs and {len(masks)} masks: a CT without a mask is skipped")
    notes = ["counted by name; only a CT with its mask is used (docs/input_formats.md: layouts)"]
    return FileFacts(str(path), "folder of CTs", facts, warnings, notes)


def _mesh_folder_facts(path: Path, names: set[str]) -> FileFacts:
    meshes = sorted(name for name in names if Path(name).suffix.lower() in MESHES)
    stems = {Path(name).stem.upper() for name in meshes}
    levels = [level for level in LABEL_OF_LEVEL if level in stems]
    facts = {"meshes": len(meshes), "levels_by_name": levels, "files": meshes[:12]}
    warnings = [] if levels else ["no mesh is named by its level, such as L1.ply or T12.stl"]
    return FileFacts(str(path), "folder of meshes", facts, warnings)


def _object(path: Path) -> dict[str, Any]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: the file must hold a JSON object")
    return document
