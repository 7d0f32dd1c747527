"""Body of one person on a voxel grid: skeleton, trunk, soft tissue, bone density, devices."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from dartjax.synthverse._bones import FAR, Placed, add_pelvis, add_ribs, place_vertebrae
from dartjax.synthverse._ct import Bone, draw_bone, lay_bone
from dartjax.synthverse._devices import Devices, draw_devices, paint_devices
from dartjax.synthverse._grid import Grid
from dartjax.synthverse._shape import VertebraShape
from dartjax.synthverse._shoulder import add_shoulders
from dartjax.synthverse._sizes import Person
from dartjax.synthverse._soft import Patient, SoftTissue, draw_patient
from dartjax.synthverse._spine import Alignment
from dartjax.synthverse._trunk import Trunk, make_trunk
from dartjax.synthverse._warp import Warp


class Anatomy(NamedTuple):
    """The skeleton of one person."""

    person: Person
    alignment: Alignment
    shapes: dict[str, VertebraShape]
    frames: dict[str, Float[np.ndarray, "4 4"]]  # patient_from_vertebra by level and of the sacrum
    warps: dict[str, Warp]


class Body(NamedTuple):
    """Trunk, soft tissue, bone density and devices of one person."""

    trunk: Trunk
    patient: Patient
    bone: Bone
    devices: Devices


def trunk_around(
    rng: np.random.Generator, anatomy: Anatomy, low: float, high: float, deeper_mm: float = 0.0
) -> Trunk:
    """Make the trunk around a spine between two heights, mm, with a margin; `deeper_mm` is added
    to the length of the spinous processes."""
    spinous = {level: deeper_mm - shape.bounds.back for level, shape in anatomy.shapes.items()}
    reach = (low - 80.0, high + 80.0)
    return make_trunk(rng, anatomy.frames, spinous, anatomy.person.sex, reach)


def draw_body(rng: np.random.Generator, anatomy: Anatomy, trunk: Trunk) -> Body:
    """Draw soft tissue, bone density and devices of a person."""
    age, sex = anatomy.person.age, anatomy.person.sex
    fractured = tuple(level for level, shape in anatomy.shapes.items() if shape.fracture)
    patient, bone = draw_patient(rng, age, sex), draw_bone(rng, age)
    return Body(trunk, patient, bone, draw_devices(rng, age, fractured))


def paint_body(
    grid: Grid,
    anatomy: Anatomy,
    body: Body,
    rng: np.random.Generator,
    without: Collection[str] = (),
) -> tuple[Float[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Paint HU and labels on the patient's own axes. The vertebrae of the levels `without` are left
    out."""
    person, _, shapes, frames, warps = anatomy
    trunk, patient, bone, devices = body
    shown = {level: shape for level, shape in shapes.items() if level not in without}
    vertebrae, labels = place_vertebrae(grid, shown, frames, warps)
    other_bones = np.full(grid.shape, FAR, np.float32)
    ribs = add_ribs(other_bones, grid, shapes, frames, trunk, rng)
    add_shoulders(other_bones, grid, trunk, patient.arms)
    size = (1.0 if person.sex == "male" else 0.95) * person.forms["L5"].body_width / 51.0
    add_pelvis(other_bones, grid, frames["S1"], float(np.clip(size, 0.9, 1.08)))
    other_bones = np.maximum(other_bones, 1.2 - vertebrae)
    hu = SoftTissue(grid, trunk, patient, rng).paint(shapes, frames, ribs)
    lay_bone(hu, Placed(vertebrae, labels, other_bones), grid, bone, rng)
    paint_devices(hu, grid, trunk, devices, shapes, frames, rng)
    return hu, labels
