"""Generation of one synthetic subject from (seed, number, family): CT, labels and facts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float, Int16, UInt8

from dartjax._errors import DataError
from dartjax.anatomy import label_of
from dartjax.data import present_labels
from dartjax.synthverse._bones import (
    FAR,
    Placed,
    add_pelvis,
    add_ribs,
    add_shoulder_and_sternum,
    place_vertebrae,
)
from dartjax.synthverse._ct import Bone, Scan, draw_bone, lay_bone, scan
from dartjax.synthverse._grid import Grid
from dartjax.synthverse._shape import (
    KINDS,
    LOSS_OF_GRADE,
    Fracture,
    VertebraShape,
    parametric_shape,
)
from dartjax.synthverse._sizes import LEVELS, Person, draw_person
from dartjax.synthverse._soft import Patient, SoftTissue, draw_patient
from dartjax.synthverse._spine import Alignment, draw_alignment, poses, spine_rotation
from dartjax.synthverse._trunk import Trunk, make_trunk
from dartjax.synthverse._warp import Warp, random_warp
from dartjax.synthverse._warped import draw_parents, find_parents, load_parent, warped_shape

Family = Literal["parametric", "warped"]
FAMILIES: tuple[Family, ...] = ("parametric", "warped")
View = Literal["mixed", "whole", "thorax", "lumbar"]
VERSION = "3"

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
    person, frames = anatomy.person, anatomy.frames
    view, low, high = _field_of_view(streams[4], frames, anatomy.shapes, options)
    spinous = {level: -shape.bounds.back for level, shape in anatomy.shapes.items()}
    trunk = make_trunk(streams[4], frames, spinous, person.sex, (low - 80.0, high + 80.0))
    body = _Body(trunk, draw_patient(streams[5], person.age), draw_bone(streams[5], person.age))
    settings = _draw_scan(streams[6], options)
    grid = _grid_of_trunk(trunk, low, high, options.spacing_mm)
    hu, labels, affine = _image(grid, anatomy, body, settings, (streams[5], streams[6]))
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


class _Anatomy(NamedTuple):
    """The skeleton of one person."""

    person: Person
    alignment: Alignment
    shapes: dict[str, VertebraShape]
    frames: dict[str, Float[np.ndarray, "4 4"]]  # patient_from_vertebra by level and of the sacrum
    warps: dict[str, Warp]


class _Body(NamedTuple):
    """Trunk, soft tissue and bone density of one person."""

    trunk: Trunk
    patient: Patient
    bone: Bone


def _draw_anatomy(
    streams: Sequence[np.random.Generator], family: Family, options: Options
) -> _Anatomy:
    """Draw person, alignment, vertebra shapes and warps, each from its own stream."""
    person = draw_person(streams[0])
    alignment = draw_alignment(streams[1], person.sex, person.age)
    shapes = _make_shapes(streams[2], person, family, options)
    heights = {level: shape.heights() for level, shape in shapes.items()}
    wedges = {level: shape.wedge_deg() for level, shape in shapes.items() if shape.wedge_deg()}
    frames = poses(alignment, heights, wedges)
    warps = {level: random_warp(streams[3], WARPS[family]) for level in LEVELS}
    return _Anatomy(person, alignment, shapes, frames, warps)


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
    sources = {level: shapes[level].source for level in LEVELS[1:]}
    real = [level for level, source in sources.items() if source != "parametric"]
    top = z["C7"] + 20.0 + jitter[0]
    if real and real[0] != "T1":  # through the body above the first level with a parent
        top = z[LEVELS[LEVELS.index(real[0]) - 1]] + 5.0 + 0.3 * jitter[0]
    high = z["T9"] + 5.0 + jitter[0] if view == "lumbar" else top
    low = z["L2"] + jitter[1] if view == "thorax" else z["S1"] - 62.0 + jitter[1]
    if real and real[-1] != "L5":
        low = max(low, z[LEVELS[LEVELS.index(real[-1]) + 1]])
    return view, low, high


def _grid_of_trunk(trunk: Trunk, low: float, high: float, spacing: float) -> Grid:
    """Make the grid of the trunk between two heights, at most 420 mm wide."""
    inside = (trunk.z > low) & (trunk.z < high)
    half = min(float(trunk.outer_half_width[inside].max()) + 8.0, 210.0)
    front = float((trunk.spine_y + trunk.outer_front)[inside].max()) + 8.0
    back = float((trunk.spine_y - trunk.outer_back)[inside].min()) - 16.0
    size = np.array([2 * half, front - back, high - low])
    nx, ny, nz = (int(n) for n in np.ceil(size / spacing))
    return Grid((-0.5 * spacing * (nx - 1), back, low), (nx, ny, nz), spacing)


def _image(
    grid: Grid,
    anatomy: _Anatomy,
    body: _Body,
    settings: Scan,
    streams: tuple[np.random.Generator, np.random.Generator],
) -> tuple[Int16[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]]:
    """Make HU, labels and affine on the patient's own axes; `streams` are those of the tissue and
    of the scanner."""
    person, _, shapes, frames, warps = anatomy
    trunk, patient, bone = body
    vertebrae, labels = place_vertebrae(grid, shapes, frames, warps)
    other_bones = np.full(grid.shape, FAR, np.float32)
    ribs = add_ribs(other_bones, grid, shapes, frames, trunk, streams[0])
    add_shoulder_and_sternum(other_bones, grid, trunk, frames)
    size = (1.0 if person.sex == "male" else 0.95) * person.forms["L5"].body_width / 51.0
    add_pelvis(other_bones, grid, frames["S1"], float(np.clip(size, 0.9, 1.08)))
    other_bones = np.maximum(other_bones, 1.2 - vertebrae)
    hu = SoftTissue(grid, trunk, patient, streams[0]).paint(shapes, frames, ribs)
    lay_bone(hu, Placed(vertebrae, labels, other_bones), grid, bone, streams[0])
    return scan(hu, labels, grid, settings, streams[1])


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


def _present(anatomy: _Anatomy, labels: Sequence[int]) -> list[VertebraShape]:
    """List the vertebrae in the image."""
    return [shape for level, shape in anatomy.shapes.items() if label_of(level) in labels]


def _facts_of_person(anatomy: _Anatomy, labels: Sequence[int], view: str) -> dict[str, Any]:
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


def _facts_of_body(body: _Body) -> dict[str, Any]:
    return {
        "bone": _rounded(dataclasses.asdict(body.bone)),
        "patient": _rounded(dataclasses.asdict(body.patient)),
        "fat_mm": round(body.trunk.fat_mm, 1),
    }


def _facts_of_scan(settings: Scan, affine: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    return _rounded(dataclasses.asdict(settings)) | {
        "spacing_mm": [round(float(s), 4) for s in np.linalg.norm(affine[:3, :3], axis=0)],
        "orientation": "".join(nib.aff2axcodes(affine)),
    }


def _facts_of_vertebrae(
    anatomy: _Anatomy, frames: Mapping[str, Float[np.ndarray, "4 4"]], labels: Sequence[int]
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
