"""Describe cameras (JSON): source, beam direction, C-arm angles, angles between views."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dartjax.anatomy import unknown_name
from dartjax.cli.facts._facts import FileFacts, numbers, rounded

MATRIX_KEYS = ("K", "camera_from_world", "sdd", "image_size")
CARM_KEYS = ("sdd", "source_to_isocenter", "isocenter", "pixel_spacing", "image_size")
ANGLE_KEYS = ("primary_deg", "secondary_deg")
OPTIONAL_KEYS = ("in_plane_deg", "name")
ALL_KEYS = tuple(dict.fromkeys((*MATRIX_KEYS, *CARM_KEYS, *ANGLE_KEYS, "view", *OPTIONAL_KEYS)))
MIN_ANGLE_DEG = 20.0
BEAMS = {"AP": (0, -1, 0), "PA": (0, 1, 0), "LAT_L": (-1, 0, 0), "LAT_R": (1, 0, 0)}
_SIDES = (("right", "left"), ("anterior", "posterior"), ("superior", "inferior"))
_NOTABLE = 0.2  # least component of a beam along an axis that is named
_SDD_MM, _PIXEL_MM = (300.0, 3000.0), (0.05, 3.0)


class _Ray(NamedTuple):
    source: np.ndarray  # world mm
    beam: np.ndarray  # unit vector from source to detector


def are_cameras(document: Any) -> bool:
    """Return whether a JSON document holds cameras."""
    entries = _entries(document)
    strong = {"camera_from_world", "primary_deg", "view", "sdd", "source_to_isocenter", "K"}
    return bool(entries) and all(isinstance(e, dict) and strong & e.keys() for e in entries)


def camera_facts(path: Path, document: Any) -> FileFacts:
    """Describe a JSON file of cameras, one row per view."""
    views, rays, warnings = [], [], []
    for number, entry in enumerate(_entries(document), 1):
        row, ray, problems = _view(number, entry)
        views.append(row)
        rays.append(ray)
        warnings += [f"view {number}: {problem}" for problem in problems]
    pairs, angles = _pairs(rays)
    if len(views) == 1:
        angles.append("only one view: the position along its beam is nearly unknown")
    notes = [
        "world mm, RAS+ (+x right, +y anterior, +z superior); image_size is [height, width]",
        "the beam runs from the source to the detector; primary + is LAO, secondary + is CRA",
    ]
    facts = {"num_views": len(views), "views": views, "pairs": pairs}
    return FileFacts(str(path), "cameras", facts, [*warnings, *angles], notes)


def _entries(document: Any) -> Sequence[Any]:
    if isinstance(document, dict) and isinstance(document.get("cameras"), list):
        return document["cameras"]
    return document if isinstance(document, list) else [document]


def _view(number: int, entry: Mapping[str, Any]) -> tuple[dict[str, Any], _Ray | None, list[str]]:
    """Return the row of one view, its central ray if known, and its problems."""
    form, needed = _form(entry)
    problems = [f"missing {key}" for key in needed if key not in entry]
    problems += [unknown_name("key", str(k), list(ALL_KEYS)) for k in entry if k not in ALL_KEYS]
    ray = _matrix_ray(entry) if form == "matrix" else _carm_ray(entry)
    spacing = _pixel_spacing(entry, form)
    problems += _out_of_bounds(entry, spacing)
    if ray is None and not problems:
        problems.append(
            "the pose is invalid: check the shapes of its numbers, and that it is rigid"
        )
    row = {
        "view": number,
        "form": form,
        "image_size": entry.get("image_size"),
        "sdd_mm": entry.get("sdd"),
        "pixel_mm": spacing,
        "source_mm": None,
    }
    return row | (_described(ray) if ray else {}), ray, problems


def _form(entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    if "K" in entry or "camera_from_world" in entry:
        return "matrix", MATRIX_KEYS
    if "view" in entry:
        return "named view", ("view", *CARM_KEYS)
    return "C-arm angles", (*ANGLE_KEYS, *CARM_KEYS)


def _matrix_ray(entry: Mapping[str, Any]) -> _Ray | None:
    pose = numbers(entry.get("camera_from_world"), (4, 4))
    if pose is None or np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() > 1e-3:
        return None
    if np.linalg.det(pose[:3, :3]) < 0.0:
        return None
    return _Ray(-pose[:3, :3].T @ pose[:3, 3], pose[2, :3])


def _carm_ray(entry: Mapping[str, Any]) -> _Ray | None:
    isocenter = numbers(entry.get("isocenter"), (3,))
    distance = numbers(entry.get("source_to_isocenter"), ())
    beam = _named_beam(entry["view"]) if "view" in entry else _angled_beam(entry)
    if isocenter is None or distance is None or beam is None:
        return None
    return _Ray(isocenter - distance * beam, beam)


def _named_beam(view: Any) -> np.ndarray | None:
    return np.array(BEAMS[view], float) if isinstance(view, str) and view in BEAMS else None


def _angled_beam(entry: Mapping[str, Any]) -> np.ndarray | None:
    angles = numbers([entry.get(key) for key in ANGLE_KEYS], (2,))
    if angles is None:
        return None
    primary, secondary = np.radians(angles)
    across = np.cos(secondary)
    return np.array([-np.sin(primary) * across, np.cos(primary) * across, np.sin(secondary)])


def _pixel_spacing(entry: Mapping[str, Any], form: str) -> list[float] | None:
    """Return the pixel spacing of the detector [along u, along v], mm."""
    if form != "matrix":
        given = entry.get("pixel_spacing")
        pair = numbers(given if isinstance(given, list) else [given, given], (2,))
        return None if pair is None else rounded(pair, 4)
    K, sdd = numbers(entry.get("K"), (3, 3)), numbers(entry.get("sdd"), ())
    if K is None or sdd is None or not (K[0, 0] > 0.0 and K[1, 1] > 0.0):
        return None
    return rounded([sdd / K[0, 0], sdd / K[1, 1]], 4)


def _out_of_bounds(entry: Mapping[str, Any], spacing: list[float] | None) -> list[str]:
    found = []
    sdd = numbers(entry.get("sdd"), ())
    if "sdd" in entry and (sdd is None or not _SDD_MM[0] <= sdd <= _SDD_MM[1]):
        found.append(f"sdd {entry['sdd']} is not from 300 to 3000 mm: check its unit")
    if spacing and not (_PIXEL_MM[0] <= min(spacing) and max(spacing) <= _PIXEL_MM[1]):
        found.append(f"pixels of {spacing} mm are not from 0.05 to 3 mm: check their unit")
    if "image_size" in entry and numbers(entry["image_size"], (2,)) is None:
        found.append("image_size is not [height, width]")
    if "view" in entry and entry["view"] not in BEAMS:
        found.append(unknown_name("view", str(entry["view"]), list(BEAMS)))
    return found


def _described(ray: _Ray) -> dict[str, Any]:
    x, y, z = ray.beam
    primary = float(np.degrees(np.arctan2(-x, y)))
    secondary = float(np.degrees(np.arcsin(np.clip(z, -1.0, 1.0))))
    nearest, angle_deg = _nearest_view(ray.beam)
    return {
        "source_mm": rounded(ray.source, 1),
        "beam": _words(ray.beam),
        "nearest_view": f"{nearest}, {angle_deg:.0f} deg off",
        "primary_deg": rounded(primary, 1),
        "secondary_deg": rounded(secondary, 1),
    }


def _words(beam: np.ndarray) -> str:
    """Name the anatomical direction of a beam, main component first: "to posterior and left"."""
    order = [axis for axis in np.argsort(-np.abs(beam)) if abs(beam[axis]) > _NOTABLE]
    names = [_SIDES[axis][0 if beam[axis] > 0 else 1] for axis in order]
    return "to " + " and ".join(names)


def _nearest_view(beam: np.ndarray) -> tuple[str, float]:
    cosines = {name: float(np.dot(direction, beam)) for name, direction in BEAMS.items()}
    name = max(cosines, key=lambda view: cosines[view])
    return name, float(np.degrees(np.arccos(np.clip(cosines[name], -1.0, 1.0))))


def _pairs(rays: Sequence[_Ray | None]) -> tuple[list[dict[str, Any]], list[str]]:
    """Compute the angle and gap between the beams of every two views; also return warnings."""
    rows, warnings = [], []
    known = [(number, ray) for number, ray in enumerate(rays, 1) if ray is not None]
    for (i, first), (j, second) in itertools.combinations(known, 2):
        angle = float(np.degrees(np.arccos(np.clip(first.beam @ second.beam, -1.0, 1.0))))
        rows.append({"views": f"{i} and {j}", "angle_deg": rounded(angle, 1)})
        rows[-1]["beams_pass_within_mm"] = rounded(_gap(first, second), 1)
        if min(angle, 180.0 - angle) < MIN_ANGLE_DEG:
            warnings.append(
                f"views {i} and {j} are {angle:.0f} deg apart, nearly parallel: depth is poorly "
                "known (use 20 to 160 deg)"
            )
    return rows, warnings


def _gap(first: _Ray, second: _Ray) -> float:
    """Compute the shortest distance between two central beams, mm."""
    between = second.source - first.source
    normal = np.cross(first.beam, second.beam)
    size = float(np.linalg.norm(normal))
    if size < 1e-6:
        return float(np.linalg.norm(between - (between @ first.beam) * first.beam))
    return abs(float(between @ normal)) / size
