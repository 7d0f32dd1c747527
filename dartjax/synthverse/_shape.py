"""Signed distance of one vertebra in its own frame, with fracture and osteophytes."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from dartjax.synthverse._solids import Coordinates, Field
from dartjax.synthverse._vertebra import VertebraForm, pedicle_center, vertebra

Kind = Literal["wedge", "biconcave", "crush"]
KINDS: tuple[Kind, ...] = ("wedge", "biconcave", "crush")
# Loss of height by Genant's grade (Genant 1993, J Bone Miner Res 8:1137): 20-25, 25-40, > 40 %.
LOSS_OF_GRADE = {1: (0.20, 0.25), 2: (0.26, 0.39), 3: (0.41, 0.55)}


class Fracture(NamedTuple):
    """A compression fracture: kind, grade and relative loss of height."""

    kind: Kind
    grade: int
    loss: float


class Bounds(NamedTuple):
    """Dimensions of a vertebra for its discs, fractures and ribs, vertebra frame, mm."""

    half_width: float
    front: float  # y
    wall: float  # y
    upper: float  # z of the end plate
    lower: float
    pedicle: tuple[float, float]  # (x, half width)
    tp_tip: tuple[float, float, float]  # right
    back: float  # y of the spinous tip


@dataclasses.dataclass(frozen=True)
class VertebraShape:
    """Signed distance (negative inside, mm) of one vertebra and its dimensions.

    `source` is "parametric", or "PARENT LEVEL" of a warped mesh.
    """

    level: str
    distance: Callable[[Field, Field, Field], Field]
    bounds: Bounds
    source: str
    fracture: Fracture | None = None
    spurs: tuple[Float[np.ndarray, " sector"], ...] = ()  # mm, at the upper and the lower rim

    def __call__(self, x: Field, y: Field, z: Field) -> Field:
        if self.fracture is not None:
            z = _height_before_fracture(self.fracture, self.bounds, x, y, z)
        value = self.distance(x, y, z)
        return value - _spur_height(self, x, y, z) if self.spurs else value

    def heights(self) -> tuple[float, float]:
        """Compute the body height above and below the frame's origin, to the adjacent discs."""
        upper, lower = self.bounds.upper, -self.bounds.lower
        loss = self.fracture.loss if self.fracture else 0.0
        if self.fracture and self.fracture.kind == "wedge":
            return upper - 0.5 * loss * (upper + lower), lower
        # The arch keeps its height, so the neighbours sink by only half of the loss.
        keep = 1.0 - (0.5 * loss if self.fracture and self.fracture.kind == "crush" else 0.0)
        return keep * upper, keep * lower

    def wedge_deg(self) -> float:
        """Compute the angle between the end plates added by a wedge fracture."""
        if self.fracture is None or self.fracture.kind != "wedge":
            return 0.0
        drop = self.fracture.loss * (self.bounds.upper - self.bounds.lower)
        return float(np.degrees(np.arctan2(drop, self.bounds.front - self.bounds.wall)))


def parametric_shape(level: str, form: VertebraForm) -> VertebraShape:
    """Make the parametric vertebra of a form."""
    pedicle = pedicle_center(form)
    half = 0.25 * (form.body_height + form.body_height_post)
    bounds = Bounds(
        half_width=0.5 * form.body_width,
        front=form.wall + form.body_depth,
        wall=form.wall,
        upper=half,
        lower=-half,
        pedicle=(pedicle[0], 0.5 * form.pedicle_width),
        tp_tip=(0.5 * form.tp_span, form.wall - form.tp_back, form.tp_up),
        back=form.wall - form.canal_depth - form.spinous_back,
    )
    return VertebraShape(
        level, lambda x, y, z: vertebra(form, x, y, z), bounds, source="parametric"
    )


def _height_before_fracture(
    fracture: Fracture, bounds: Bounds, x: Field, y: Field, z: Field
) -> Field:
    """Compute z before the collapse of the bone at (x, y, z) after it.

    Columns are shortened along z only, so the map has no folds for losses below 1. Columns under
    the pedicles and behind the posterior wall keep their height.
    """
    forward = np.clip((y - bounds.wall) / (bounds.front - bounds.wall), 0.0, 1.0)
    middle = 0.5 * (bounds.front + bounds.wall)
    radius = np.hypot(x / bounds.half_width, (y - middle) / (bounds.front - middle))
    share = {
        "wedge": forward,
        "biconcave": 1.0 - _smoothstep((radius - 0.15) / 0.85),
        "crush": np.ones_like(forward),
    }[fracture.kind]
    if fracture.kind != "wedge":
        center, half = bounds.pedicle
        aside = np.maximum(np.abs(np.abs(x) - center) - half, 0.0)
        behind = np.maximum(y - (bounds.wall + 1.0), 0.0)
        share = share * _smoothstep(np.hypot(aside, behind) / 5.0)
        share = share * _smoothstep((y - (bounds.wall - 4.0)) / 3.0)
    fixed = bounds.lower if fracture.kind == "wedge" else 0.5 * (bounds.upper + bounds.lower)
    keep = (1.0 - fracture.loss * share).astype(np.float32)
    return np.float32(fixed) + (z - np.float32(fixed)) / keep


def _spur_height(shape: VertebraShape, x: Field, y: Field, z: Field) -> Field:
    """Compute the height of osteophytes at the rims, by sector of the body's outline."""
    bounds = shape.bounds
    middle = 0.5 * (bounds.front + bounds.wall)
    angle = np.arctan2(y - np.float32(middle), x)
    sector = (angle / (2.0 * np.pi) * len(shape.spurs[0])) % len(shape.spurs[0])
    low = np.floor(sector).astype(np.int32) % len(shape.spurs[0])
    part = _smoothstep(sector - np.floor(sector))
    in_front = _smoothstep((y - np.float32(bounds.wall + 2.0)) / 5.0)
    total = np.float32(0.0)
    for rim, sizes in zip((bounds.upper, bounds.lower), shape.spurs, strict=True):
        size = sizes[low] * (1.0 - part) + sizes[(low + 1) % len(sizes)] * part
        near = np.exp(-0.5 * ((z - np.float32(rim * 0.9)) / 2.2) ** 2)
        total = total + size.astype(np.float32) * near
    return (total * in_front).astype(np.float32)


def _smoothstep(t: Field) -> Field:
    t = np.clip(t, 0.0, 1.0).astype(np.float32)
    return t * t * (3.0 - 2.0 * t)


def frame_coordinates(pose: Float[np.ndarray, "4 4"], x: Field, y: Field, z: Field) -> Coordinates:
    """Transform world coordinates into the frame of a pose."""
    r, t = pose[:3, :3].astype(np.float32), pose[:3, 3].astype(np.float32)
    x, y, z = x - t[0], y - t[1], z - t[2]
    u, v, w = (r[0, i] * x + r[1, i] * y + r[2, i] * z for i in range(3))
    return u, v, w
