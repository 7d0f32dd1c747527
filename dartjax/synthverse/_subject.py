"""Generation of one synthetic subject from (seed, number, family): CT, labels and facts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int16, UInt8

from dartjax._errors import DataError
from dartjax.anatomy import label_of
from dartjax.data import present_labels
from dartjax.synthverse._body import Anatomy, Body, draw_body, paint_body, trunk_around
from dartjax.synthverse._ct import Scan, scan
from dartjax.synthverse._grid import Grid
from dartjax.synthverse._shape import (
    KINDS,
    LOSS_OF_GRADE,
    Fracture,
    VertebraShape,
    parametric_shape,
)
from dartjax.synthverse._shoulder import arm_reach
from dartjax.synthverse._sizes import LEVELS, Person, draw_person
from dartjax.synthverse._spine import draw_alignment, poses, spine_rotation
from dartjax.synthverse._warp import random_warp
from dartjax.synthverse._warped import draw_parents, find_parents, load_parent, warped_shape

Family = Literal["parametric", "warped"]
FAMILIES: tuple[Family, ...] = ("parametric", "warped")
View = Literal["mixed", "whole", "thorax", "lumbar"]
VERSION = "4"

# Length scale and root mean square displacement per axis of the random warps, mm.
WARPS: dict[Family, tuple[tuple[float, float], ...]] = {
    "parametric": ((30.0, 0.6), (14.0, 0.3)),
    "warped": ((40.0, 1.4), (20.0, 0.9), (11.0, 0.35)),
}
_FRACTURE_WEIGHT = {
    "T6": 1, "T7": 2, "T8": 2, "T9": 1, "T10": 1, "T11": 2, "T12": 4, "L1": 4, "L2": 2, "L3": 2,
    "L4": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a cohort, the same for all its subjects."""

    spacing_mm: float = 1.0
    view: View = "mixed"
    meshes: Path | None = None
    thick_slices: bool = True  # in one subject of four, 2 or 3 voxels thick
    orientations: bool = True  # PIR, LPS and oblique grids among the RAS ones
    narrow_fields: bool = True  # in one subject of four, sides and front are outside the field


@dataclasses.dataclass(frozen=True)
class SyntheticSubject:
    """A synthetic subject: CT (HU) and labels on one grid, body centres (voxels), facts (JSON)."""

    id: str
    hu: Int16[np.ndarray, "i j k"]
    labels: UInt8[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    centroids: dict[int, Float[np.ndarray, "3"]]
    facts: dict[str, Any]


def subject_id(number: int) -> str:
    """Format the id of a subject: 7 -> "synth0007"."""
    return f"synth{number:04d}"


def make_subject(
    seed: int, number: int, family: Family, options: Options | None = None
) -> SyntheticSubject:
    """Generate a subject; the same arguments give the same arrays on one machine.

    DataError for an unknown family, a voxel size outside 0.5 to 4 mm, and missing or forbidden
    meshes.
    """
    options = options or Options()
    _check(family, options)
    streams = np.random.default_rng([seed, number, FAMILIES.index(family)]).spawn(7)
    anatomy = _draw_anatomy(streams[:4], family, options)
    frames = anatomy.frames
    view, low, high = _field_of_view(streams[4], frames, anatomy.shapes, options)
    body = draw_body(streams[5], anatomy, trunk_around(streams[4], anatomy, low, high))
    settings = _draw_scan(streams[6], options)
    grid = _grid_of_trunk(streams[4], body, low, high, options)
    hu, labels = paint_body(grid, anatomy, body, streams[5])
    hu, labels, affine = scan(hu, labels, grid, settings, streams[6])
    hu, labels, affine, turn = _reorient(streams[6], hu, labels, affine, options)
    frames = {level: turn @ frame for level, frame in frames.items()}
    facts = {
        "family": family,
        "seed": seed,
        "number": number,
        "generator_version": VERSION,
        **_facts_of_person(anatomy, present_labels(labels), view),
        **_facts_of_body(body),
        "scan": _facts_of_scan(settings, affine),
        "warps_mm": [list(scale) for scale in WARPS[family]],
        "vertebrae": _facts_of_vertebrae(anatomy, frames, present_labels(labels)),
    }
    centroids = _centroids(frames, labels, affine)
    return SyntheticSubject(subject_id(number), hu, labels, affine, centroids, facts)


def _check(family: str, options: Options) -> None:
    if family not in FAMILIES:
        raise DataError(f"unknown family {family!r}: use one of {', '.join(FAMILIES)}")
    if not 0.5 <= options.spacing_mm <= 4.0:
        raise DataError(f"spacing_mm={options.spacing_mm}: give 0.5 to 4 mm")
    if family == "warped" and options.meshes is None:
        raise DataError(
            "the warped family needs meshes: give a folder of SUBJECT/LEVEL.ply (Options.meshes)"
        )


def _draw_anatomy(
    streams: Sequence[np.random.Generator], family: Family, options: Options
) -> Anatomy:
    """Draw person, alignment, vertebra shapes and warps, each from its own stream."""
    person = draw_person(streams[0])
    alignment = draw_alignment(streams[1], person.sex, person.age)
    shapes = _make_shapes(streams[2], person, family, options)
    heights = {level: shape.heights() for level, shape in shapes.items()}
    wedges = {level: shape.wedge_deg() for level, shape in shapes.items() if shape.wedge_deg()}
    frames = poses(alignment, heights, wedges)
    warps = {level: random_warp(streams[3], WARPS[family]) for level in LEVELS}
    return Anatomy(person, alignment, shapes, frames, warps)


def _make_shapes(
    rng: np.random.Generator, person: Person, family: Family, options: Options
) -> dict[str, VertebraShape]:
    """Make the vertebra of every level with its fracture and osteophytes."""
    shapes = {level: parametric_shape(level, person.forms[level]) for level in LEVELS}
    if family == "warped":
        available = find_parents(Path(str(options.meshes)))
        for level, (subject, path) in draw_parents(rng, available).items():
            parent = load_parent(subject, level, path)
            shapes[level] = warped_shape(level, parent, person.forms[level])
    for level, fracture in _draw_fractures(rng, person.age).items():
        shapes[level] = dataclasses.replace(shapes[level], fracture=fracture)
    for level in LEVELS[1:]:
        sizes = rng.gamma(0.6, 1.0, (2, 10)) * np.clip((person.age - 45.0) / 25.0, 0.0, 1.6)
        if rng.random() < 0.45 and sizes.max() > 0.4:
            spurs = tuple(np.clip(0.9 * sizes, 0.0, 4.5).astype(np.float32))
            shapes[level] = dataclasses.replace(shapes[level], spurs=spurs)
    return shapes


def _draw_fractures(rng: np.random.Generator, age: float) -> dict[str, Fracture]:
    """Draw fractures: rare in young people, one to three levels in four of ten old people."""
    kinds, levels = rng.integers(len(KINDS), size=3), list(_FRACTURE_WEIGHT)
    weights = np.array(list(_FRACTURE_WEIGHT.values()), float)
    chosen = rng.choice(levels, 3, replace=False, p=weights / weights.sum())
    grades, spread = rng.integers(1, 4, 3), rng.random(3)
    if rng.random() > 0.12 + 0.3 * np.clip((age - 50.0) / 25.0, 0.0, 1.0):
        return {}
    fractures = {}
    for i in range(int(rng.integers(1, 4))):
        low, high = LOSS_OF_GRADE[int(grades[i])]
        loss = float(low + (high - low) * spread[i])
        fractures[str(chosen[i])] = Fracture(KINDS[int(kinds[i])], int(grades[i]), loss)
    return fractures


def _field_of_view(
    rng: np.random.Generator, frames, shapes: dict[str, VertebraShape], options: Options
) -> tuple[str, float, float]:
    """Draw the field of view: name, lowest and highest z. Levels of the warped family without a
    parent are cut."""
    z = {level: float(frame[2, 3]) for level, frame in frames.items()}
    drawn = str(rng.choice(["whole", "thorax", "lumbar"], p=[0.5, 0.25, 0.25]))
    view = drawn if options.view == "mixed" else options.view
    jitter = rng.uniform(-6.0, 6.0, 2)
    below = rng.uniform(62.0, 140.0)
    sources = {level: shapes[level].source for level in LEVELS[1:]}
    real = [level for level, source in sources.items() if source != "parametric"]
    top = z["C7"] + 20.0 + jitter[0]
    if real and real[0] != "T1":  # through the body above the first level with a parent
        top = z[LEVELS[LEVELS.index(real[0]) - 1]] + 5.0 + 0.3 * jitter[0]
    high = z["T9"] + 5.0 + jitter[0] if view == "lumbar" else top
    low = z["L2"] + jitter[1] if view == "thorax" else z["S1"] - below + jitter[1]
    if real and real[-1] != "L5":
        low = max(low, z[LEVELS[LEVELS.index(real[-1]) + 1]])
    return view, low, high


def _grid_of_trunk(
    rng: np.random.Generator, body: Body, low: float, high: float, options: Options
) -> Grid:
    """Make the grid of the trunk between two heights, at most 500 mm wide
    (430 with raised arms). A narrow field cuts the
    sides and the front, as in one subject of four."""
    trunk = body.trunk
    inside = (trunk.z > low) & (trunk.z < high)
    half = float(trunk.outer_half_width[inside].max()) + 8.0
    widest = 250.0 if body.patient.arms == "down" else 215.0
    half = min(max(half, arm_reach(trunk, body.patient.arms) + 8.0), widest)
    front = float((trunk.spine_y + trunk.outer_front)[inside].max()) + 10.0
    front += body.patient.breast_mm
    back = float((trunk.spine_y - trunk.outer_back)[inside].min()) - 16.0
    chance, cut = rng.random(), rng.random(2)
    if options.narrow_fields and chance < 0.25:
        half = min(half, 85.0 + 75.0 * cut[0])
        front = min(front, float(trunk.spine_y[inside].max()) + 70.0 + 90.0 * cut[1])
    size = np.array([2 * half, front - back, high - low])
    nx, ny, nz = (int(n) for n in np.ceil(size / options.spacing_mm))
    return Grid((-0.5 * options.spacing_mm * (nx - 1), back, low), (nx, ny, nz), options.spacing_mm)


def _draw_scan(rng: np.random.Generator, options: Options) -> Scan:
    thick = rng.random() < 0.25
    slices = int(rng.integers(2, 4)) if thick else 1
    return Scan(
        slices=slices if options.thick_slices else 1,
        noise_hu=float(rng.uniform(8.0, 26.0)),
        kernel_mm=float(rng.uniform(0.45, 0.75)),
    )


def _reorient(rng, hu, labels, affine, options: Options):
    """Draw another axis order, or an oblique patient position; also returns the rigid motion of the
    world."""
    kind = str(rng.choice(["RAS", "PIR", "LPS", "oblique"], p=[0.4, 0.3, 0.15, 0.15]))
    angles = np.radians(rng.uniform(-7.0, 7.0, 3))
    turn = np.eye(4)
    if not options.orientations or kind == "RAS":
        return hu, labels, affine, turn
    if kind == "oblique":
        turn[:3, :3] = spine_rotation(*np.degrees(angles))
        return hu, labels, turn @ affine, turn
    target = nib.orientations.axcodes2ornt(tuple(kind))
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), target)
    moved = affine @ nib.orientations.inv_ornt_aff(change, hu.shape)
    hu, labels = (
        np.ascontiguousarray(nib.orientations.apply_orientation(a, change)) for a in (hu, labels)
    )
    return hu, labels, moved, turn


def _centroids(frames, labels, affine) -> dict[int, Float[np.ndarray, "3"]]:
    """Compute body centres in voxels of the labels whose centre is inside the image."""
    voxel_from_world = np.linalg.inv(affine)
    found = {}
    for label in present_labels(labels):
        frame = next(
            frame for level, frame in frames.items() if level != "S1" and label_of(level) == label
        )
        point = voxel_from_world[:3, :3] @ frame[:3, 3] + voxel_from_world[:3, 3]
        if (point >= 0).all() and (point <= np.array(labels.shape) - 1).all():
            found[label] = point
    return found


def _present(anatomy: Anatomy, labels: Sequence[int]) -> list[VertebraShape]:
    """List the vertebrae in the image."""
    return [shape for level, shape in anatomy.shapes.items() if label_of(level) in labels]


def _facts_of_person(anatomy: Anatomy, labels: Sequence[int], view: str) -> dict[str, Any]:
    present = _present(anatomy, labels)
    return {
        "sex": anatomy.person.sex,
        "age_years": anatomy.person.age,
        "parents": {shape.level: shape.source for shape in present},
        "field_of_view": view,
        "alignment": anatomy.alignment.facts(),
        "fractures": [_fracture_facts(shape) for shape in present if shape.fracture],
        "osteophytes": [shape.level for shape in present if shape.spurs],
    }


def _facts_of_body(body: Body) -> dict[str, Any]:
    return {
        "bone": _rounded(dataclasses.asdict(body.bone)),
        "patient": _rounded(dataclasses.asdict(body.patient)),
        "devices": dataclasses.asdict(body.devices),
        "fat_mm": round(body.trunk.fat_mm, 1),
    }


def _facts_of_scan(settings: Scan, affine: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    return _rounded(dataclasses.asdict(settings)) | {
        "spacing_mm": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(nib.aff2axcodes(affine)),
    }


def _facts_of_vertebrae(
    anatomy: Anatomy, frames: Mapping[str, Float[np.ndarray, "4 4"]], labels: Sequence[int]
) -> dict[str, Any]:
    return {
        shape.level: {
            "source": shape.source,
            "drawn_mm": _rounded(dataclasses.asdict(anatomy.person.forms[shape.level])),
            "world_from_vertebra": [
                [round(float(v), 4) for v in row] for row in frames[shape.level]
            ],
        }
        for shape in _present(anatomy, labels)
    }


def _fracture_facts(shape: VertebraShape) -> dict[str, Any]:
    assert shape.fracture is not None
    return {"level": shape.level} | _rounded(shape.fracture._asdict())


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}
