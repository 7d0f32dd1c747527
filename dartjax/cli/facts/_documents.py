"""Describe JSON files: initial estimates, centroids, manifests, results of runs."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dartjax._documents import read_json
from dartjax._errors import DataError
from dartjax.anatomy import LABEL_OF_LEVEL, LANDMARK_NAMES, LEVEL_OF_LABEL, SACRUM_LABELS
from dartjax.cli.facts._assets import card_facts
from dartjax.cli.facts._facts import FileFacts, numbers, rounded
from dartjax.cli.facts._geometry import are_cameras, camera_facts

_START_KEYS = ("center_world", "landmarks_world", "axes_world", "rotation_deg", "level")


def document_facts(path: Path) -> FileFacts:
    """Describe a JSON file of any kind that dartjax reads or writes. DataError for others."""
    document = read_json(path)
    for is_kind, facts_of in _KINDS:
        if is_kind(document):
            try:
                return facts_of(path, document)
            except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
                raise DataError(
                    f"{path}: values of another type than expected ({error})"
                ) from error
    keys = ", ".join(map(str, list(document)[:6])) if isinstance(document, dict) else "no object"
    raise DataError(
        f"{path}: not a JSON file that dartjax reads (found: {keys or 'nothing'}); it reads "
        "cameras, initial estimates, centroids, manifests of cohorts, and files of a run"
    )


def has(*keys: str) -> Callable[[Any], bool]:
    """Return a test for an object with all of these keys."""
    return lambda document: isinstance(document, dict) and all(key in document for key in keys)


def are_starts(document: Any) -> bool:
    """Return whether a JSON document holds initial estimates of vertebrae."""
    entries = document if isinstance(document, list) else [document]
    keys = {"center_world", "landmarks_world"}
    return bool(entries) and all(isinstance(e, dict) and keys & e.keys() for e in entries)


def are_centroids(document: Any) -> bool:
    """Return whether a JSON document is a list of centroids in VerSe's format."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(entry, dict) for entry in document)
        and any({"label", "X", "Y", "Z"} <= entry.keys() for entry in document)
    )


def start_facts(path: Path, document: Any) -> FileFacts:
    """Describe initial estimates of vertebrae."""
    entries = document if isinstance(document, list) else [document]
    rows, warnings = [], []
    for number, entry in enumerate(entries, 1):
        row, problems = _start(entry)
        rows.append(row)
        warnings += [f"start {number}: {problem}" for problem in problems]
    counts = Counter(row["level"] for row in rows)
    repeated = [level for level, count in counts.items() if count > 1 and level]
    warnings += [f"level {level} occurs more than once" for level in repeated]
    notes = ["world mm, RAS+; the centre is the middle of the vertebral body"]
    return FileFacts(str(path), "initial estimates", {"starts": rows}, warnings, notes)


def _start(entry: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    level, landmarks = entry.get("level"), entry.get("landmarks_world")
    names = list(landmarks) if isinstance(landmarks, dict) else []
    row = {
        "level": level,
        "center_mm": entry.get("center_world"),
        "turned_by": next((k for k in ("axes_world", "rotation_deg") if k in entry), None),
        "landmarks": len(names),
    }
    problems = [f"unknown key {key!r}" for key in entry if key not in _START_KEYS]
    problems += [f"unknown landmark {name!r}" for name in names if name not in LANDMARK_NAMES]
    if level is None:
        problems.append("no level: `dartjax reconstruct` needs one")
    elif level not in LABEL_OF_LEVEL:
        problems.append(f"{level!r} is not a level (C1 to L6)")
    if "center_world" in entry and numbers(entry["center_world"], (3,)) is None:
        problems.append("center_world is not three numbers")
    if 0 < len(names) < 3:
        problems.append("at least three landmarks are needed")
    return row, problems


def centroid_facts(path: Path, document: Any) -> FileFacts:
    """Describe centroids in VerSe's format."""
    direction = next((entry["direction"] for entry in document if "direction" in entry), None)
    rows, foreign, empty = [], [], 0
    for entry in (entry for entry in document if "label" in entry):
        label, point = entry["label"], numbers([entry.get(axis) for axis in "XYZ"], (3,))
        if point is None:
            empty += 1
        elif label in LEVEL_OF_LABEL:
            rows.append({"level": LEVEL_OF_LABEL[label], "point": rounded(point, 1)})
        elif label not in SACRUM_LABELS:
            foreign.append(label)
    units = (
        "voxels of the image reoriented to its direction"
        if direction
        else "mm from the first voxel"
    )
    facts = {"direction": direction, "num_levels": len(rows), "centroids": rows}
    warnings = [f"{foreign[:8]} are not VerSe numbers"] if foreign else []
    warnings += [f"{empty} entries without coordinates are skipped"] if empty else []
    return FileFacts(str(path), "centroids (VerSe)", facts, warnings, [f"points are {units}"])


def spine_facts(path: Path, document: Any) -> FileFacts:
    """Describe a reconstructed spine, spine.json."""
    vertebrae = [entry for entry in document["vertebrae"] if isinstance(entry, dict)]
    rows = [_vertebra(entry) for entry in vertebrae]
    facts = {
        "frame": document.get("frame"),
        "version": document.get("version"),
        "views": _count(document.get("views")),
        "models": document.get("models"),
        "weights": document.get("weights"),
        "num_vertebrae": len(rows),
        "vertebrae": rows,
    }
    missing = [
        str(m) for m in (e.get("mesh") for e in vertebrae) if m and not (path.parent / m).is_file()
    ]
    warnings = [f"mesh {name} is not next to the file" for name in missing[:3]]
    warnings += [str(warning) for warning in document.get("warnings") or ()]
    abstained = [str(row["level"]) for row in rows if row["abstained"]]
    warnings += [f"no answer for {', '.join(abstained)}: see status"] if abstained else []
    return FileFacts(
        str(path), "reconstructed spine", facts, warnings, ["p_failure: of MASD > 2 mm"]
    )


def _vertebra(entry: Mapping[str, Any]) -> dict[str, Any]:
    paths = entry.get("paths") or {}
    feasible = [
        side for side, path in paths.items() if isinstance(path, dict) and path.get("feasible")
    ]
    return {
        "level": entry.get("level"),
        "status": entry.get("status"),
        "abstained": bool(entry.get("abstained")),
        "p_failure": _short(entry.get("p_failure")),
        "paths": list(paths),
        "feasible": feasible,
        "mesh": entry.get("mesh"),
    }


def path_facts(path: Path, document: Any) -> FileFacts:
    """Describe planned needle paths, paths.json."""
    rows = [
        {"vertebra": name, "length_mm": [_length(end) for end in ends.values()]}
        for name, ends in document["paths"].items()
        if isinstance(ends, dict)
    ]
    facts = {"frame": document.get("frame"), "unit": document.get("unit"), "num": len(rows)}
    return FileFacts(str(path), "needle paths", {**facts, "paths": rows})


def _length(ends: Any) -> float | None:
    if not isinstance(ends, dict):
        return None
    points = numbers([ends.get("entry_point"), ends.get("target_point")], (2, 3))
    return None if points is None else rounded(np.linalg.norm(points[1] - points[0]), 1)


def metrics_facts(path: Path, document: Any) -> FileFacts:
    """Describe the results of a run, metrics.json."""
    plain = {k: _short(v) for k, v in document["summary"].items() if not isinstance(v, list | dict)}
    cases = _count(document.get("cases"))
    facts = {"record": document["record"], "summary": plain, "num_cases": cases}
    return FileFacts(str(path), "results of a run", facts)


def config_facts(path: Path, document: Any) -> FileFacts:
    """Describe the settings of a run, config.json."""
    command = document.get("command") or []
    facts = {
        "run_of": document["experiment"],
        "command": " ".join(map(str, command)),
        "started": document.get("started"),
        "commit": document.get("commit"),
        "flags": {k: v for k, v in document["flags"].items() if v not in (None, [])},
        "versions": document.get("versions"),
    }
    return FileFacts(str(path), "settings of a run", facts, (), ["--config=FILE repeats the run"])


def manifest_facts(path: Path, document: Any) -> FileFacts:
    """Describe the manifest of a cohort."""
    subjects = [subject for subject in document["subjects"] if isinstance(subject, dict)]
    splits = Counter(str(subject.get("split") or "none") for subject in subjects)
    missing = [
        str(file)
        for subject in subjects
        for file in (subject.get("ct"), subject.get("mask"))
        if file and not (path.parent / file).is_file()
    ]
    facts = {"name": document.get("name"), "num_scans": len(subjects), "splits": dict(splits)}
    warnings = [f"{len(missing)} files are missing, such as {missing[0]}"] if missing else []
    return FileFacts(str(path), "manifest of a cohort", facts, warnings)


def _count(value: Any) -> int | None:
    return len(value) if isinstance(value, list | dict) else value


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) and math.isfinite(value) else value


def _is_spine(document: Any) -> bool:
    """Return whether a document is a spine.json.

    Ground truth of simulated X-rays has vertebrae too, but no status.
    """
    if not has("vertebrae", "frame")(document) or not isinstance(document["vertebrae"], list):
        return False
    return all(has("level", "status")(entry) for entry in document["vertebrae"])


def _is_card(document: Any) -> bool:
    return has("name")(document) and bool({"subjects_included", "sources"} & document.keys())


def _is_mapping_of(*keys: str) -> Callable[[Any], bool]:
    """Return a test for an object whose values under these keys are objects."""
    return lambda doc: has(*keys)(doc) and all(isinstance(doc[key], dict) for key in keys)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Path, Any], FileFacts]], ...] = (
    (_is_spine, spine_facts),
    (_is_mapping_of("record", "summary"), metrics_facts),
    (lambda doc: has("experiment")(doc) and _is_mapping_of("flags")(doc), config_facts),
    (_is_mapping_of("paths"), path_facts),
    (lambda doc: has("format")(doc) and isinstance(doc.get("subjects"), list), manifest_facts),
    (_is_card, lambda path, document: card_facts(path.parent, document)),
    (are_starts, start_facts),
    (are_centroids, centroid_facts),
    (are_cameras, camera_facts),
)
