"""Alignment of one person's spine: kyphosis, lordosis, scoliosis, discs.

Angles supine and rounded: thoracic kyphosis T1 to T12 45 +- 9 deg and lordosis L1 to S1
55 +- 9 deg (Roussouly 2005, Spine 30:346, standing 46 and 61), central disc heights T12 to S1 by
sex from Bach 2019 (240 CT), thoracic ones 3 to 5 mm. Cobb angle 0 to 8 deg, in one person of
eight 12 to 40 deg (Cobb 10 deg defines scoliosis).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from dartjax.anatomy import tilts_deg
from dartjax.synthverse._sizes import LEVELS

SACRUM = "S1"
_ORDER = (*LEVELS, SACRUM)
_DISC_MM = {
    "male": (3.2, 2.8, 2.8, 3.0, 3.2, 3.4, 3.6, 3.8, 4.0, 4.4, 4.8, 5.2, 5.6,
             6.9, 8.1, 8.7, 9.2, 8.8),
    "female": (2.9, 2.6, 2.6, 2.7, 2.9, 3.1, 3.3, 3.5, 3.7, 4.0, 4.3, 4.6, 4.8,
               5.8, 6.9, 7.6, 8.5, 8.6),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Alignment of a spine. `disc_mm` and `degenerated` refer to the disc below each level."""

    kyphosis_deg: float  # T1 to T12
    lordosis_deg: float  # L1 to S1
    pelvic_tilt_deg: float  # of the whole spine, + head forward
    cobb_deg: float  # + convex to the right
    apex: str
    disc_mm: dict[str, float]
    degenerated: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return the rounded values for the subject's JSON."""
        return {k: _rounded(v) for k, v in dataclasses.asdict(self).items()}


def draw_alignment(rng: np.random.Generator, sex: str, age: float) -> Alignment:
    """Draw curvature and discs of one person; old spines are more kyphotic, with thinner discs."""
    kyphosis = float(np.clip(45.0 + 0.12 * (age - 55.0) + 9.0 * rng.standard_normal(), 24.0, 66.0))
    lordosis = float(np.clip(53.0 + 0.35 * (kyphosis - 45.0) + 8.0 * rng.standard_normal(), 30, 78))
    scoliotic = rng.random() < 0.125
    cobb = rng.uniform(12.0, 40.0) if scoliotic else rng.uniform(0.0, 8.0)
    cobb *= 1.0 if rng.random() < 0.75 else -1.0  # thoracic curves are mostly right convex
    discs = dict(zip(LEVELS, _DISC_MM[sex], strict=True))
    bad = []
    for level in discs:
        discs[level] *= float(np.clip(1.0 + 0.1 * rng.standard_normal(), 0.75, 1.25))
        risk = (0.25 if level[0] == "L" else 0.06) * np.clip((age - 30.0) / 40.0, 0.0, 1.2)
        if rng.random() < risk:
            discs[level] *= float(rng.uniform(0.4, 0.7))
            bad.append(level)
    return Alignment(
        kyphosis_deg=kyphosis,
        lordosis_deg=lordosis,
        pelvic_tilt_deg=float(2.0 * rng.standard_normal()),
        cobb_deg=float(cobb),
        apex=str(rng.choice(["T7", "T8", "T9", "T10", "L1", "L2"])),
        disc_mm=discs,
        degenerated=tuple(bad),
    )


def poses(
    alignment: Alignment,
    heights: Mapping[str, tuple[float, float]],
    wedges_deg: Mapping[str, float] | None = None,
) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Compute world_from_vertebra of C7 to L5 and of S1 (origin at the middle of its end plate).

    `heights` are those of each body above and below its centre, mm; `wedges_deg` bend the spine
    forward above a wedge fracture. L3's centre is the world's origin.
    """
    pitch = tilts_deg(alignment.kyphosis_deg, alignment.lordosis_deg, alignment.pelvic_tilt_deg)
    for level, angle in (wedges_deg or {}).items():
        above = _ORDER.index(level) - 1 - np.arange(len(_ORDER))
        pitch += np.where(above >= 0, 0.7 * angle * np.exp(-above / 4.0), 0.0)
    roll, turn = _scoliosis(alignment)
    frames: dict[str, Float[np.ndarray, "4 4"]] = {}
    center = np.zeros(3)
    for i, level in enumerate(_ORDER):
        rotation = spine_rotation(pitch[i], roll[i], turn[i])
        if i:
            above = frames[_ORDER[i - 1]]
            disc_axis = above[:3, 2] + rotation[:, 2]
            disc_axis = disc_axis / np.linalg.norm(disc_axis)
            half = heights[level][0] if level in heights else 0.0
            center = (
                above[:3, 3]
                - heights[_ORDER[i - 1]][1] * above[:3, 2]
                - alignment.disc_mm[_ORDER[i - 1]] * disc_axis
                - half * rotation[:, 2]
            )
        frames[level] = _pose(rotation, center)
    origin = frames["L3"][:3, 3].copy()
    for frame in frames.values():
        frame[:3, 3] -= origin
    return frames


def _scoliosis(alignment: Alignment) -> tuple[Float[np.ndarray, " level"], ...]:
    """Compute lateral tilt and axial rotation of each level, deg.

    The two end vertebrae of the curve are three to four levels from the apex; bodies rotate toward
    the convex side."""
    step = np.arange(len(_ORDER)) - _ORDER.index(alignment.apex)
    lean = step * np.exp(0.5 - 0.5 * (step / 3.5) ** 2) / 3.5  # peaks of -+1, at -+3.5 levels
    roll = 0.5 * alignment.cobb_deg * lean
    turn = -0.45 * alignment.cobb_deg * np.exp(-0.5 * (step / 3.0) ** 2)
    return roll, turn


def spine_rotation(pitch: float, roll: float, turn: float) -> Float[np.ndarray, "3 3"]:
    """Compute R_z(turn) R_y(roll) R_x(-pitch), deg: + pitch tilts z forward, + roll right."""
    (cx, cy, cz), (sx, sy, sz) = (f(np.radians([-pitch, roll, turn])) for f in (np.cos, np.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _pose(
    rotation: Float[np.ndarray, "3 3"], center: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "4 4"]:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, center
    return pose


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
