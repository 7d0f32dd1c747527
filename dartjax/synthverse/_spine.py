"""Alignment of one person's spine: curve, scoliosis, discs.

The curve is a draw from the prior of the spine (`data.load_spine_prior`, people lying on their
backs), without the part of it that neighbours do not share, which is mostly the error of the marks
in the scans. Kyphosis grows with age by 0.12 deg a year. Cobb angle 12 to 40 deg in one person of
eight (Cobb 10 deg defines scoliosis). Central disc heights T12 to S1 by sex from Bach 2019 (240
CT), thoracic ones 3 to 5 mm.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from dartjax import data, ssm
from dartjax.anatomy import MEAN_KYPHOSIS_DEG, MEAN_LORDOSIS_DEG, tilts_deg
from dartjax.synthverse._sizes import LEVELS
from dartjax.transforms import SE3

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
    curve_deg: dict[str, tuple[float, float, float]]  # forward tilt, lean to the right, turn
    cobb_deg: float  # + convex to the right
    apex: str
    disc_mm: dict[str, float]
    degenerated: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return the rounded values for the subject's JSON."""
        return {k: _rounded(v) for k, v in dataclasses.asdict(self).items()}


def draw_alignment(rng: np.random.Generator, sex: str, age: float) -> Alignment:
    """Draw curvature and discs of one person; old spines are more kyphotic, with thinner discs."""
    curve = _draw_curve(rng) + np.array([1.0, 0.0, 0.0]) * _of_age(age)[:, None]
    tilt = float(2.0 * rng.standard_normal())
    pitch = dict(zip(_ORDER, curve[:, 0], strict=True))
    scoliotic = rng.random() < 0.125
    cobb = rng.uniform(12.0, 40.0) if scoliotic else 0.0
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
        kyphosis_deg=float(pitch["T1"] - pitch["T12"]),
        lordosis_deg=float(pitch[SACRUM] - pitch["L1"]),
        pelvic_tilt_deg=tilt,
        curve_deg={
            level: (float(forward), float(lean), float(turn))
            for level, (forward, lean, turn) in zip(_ORDER, curve, strict=True)
        },
        cobb_deg=float(cobb),
        apex=str(rng.choice(["T7", "T8", "T9", "T10", "L1", "L2"])),
        disc_mm=discs,
        degenerated=tuple(bad),
    )


def _draw_curve(rng: np.random.Generator) -> Float[np.ndarray, "level 3"]:
    """Draw forward tilt, lean and turn of C7 to L5 and S1, deg, with T1 above L5.

    C7 continues the curve of T1 as in the mean spine, S1 that of L1 to L5."""
    prior = _prior()
    values = prior.mean + prior.loadings @ rng.standard_normal(prior.loadings.shape[1])
    frames = np.asarray(jax.vmap(SE3.as_matrix)(ssm.spine_frames(values)))
    own = np.asarray(jax.vmap(SE3.as_matrix)(prior.T_vertebra_frame))
    axes = (frames @ np.linalg.inv(own))[: len(LEVELS) - 1, :3, :3]
    z = frames[0, :3, 3] - frames[len(axes) - 1, :3, 3]
    z = z / np.linalg.norm(z)
    y = np.cross(z, axes[:, :, 0].mean(0))
    y = y / np.linalg.norm(y)
    axes = np.stack([np.cross(y, z), y, z]) @ axes
    lean = np.arcsin(-axes[:, 2, 0])
    forward = -np.arctan2(axes[:, 2, 1], axes[:, 2, 2])
    turn = np.arctan2(axes[:, 1, 0], axes[:, 0, 0])
    drawn = np.degrees(np.stack([forward, lean, turn], axis=1))
    usual = tilts_deg(MEAN_KYPHOSIS_DEG, MEAN_LORDOSIS_DEG)
    above, below = np.zeros(3), np.zeros(3)
    above[0] = usual[0] - usual[1]
    below[0] = (usual[-1] - usual[-2]) / (usual[-2] - usual[-6]) * (drawn[-1, 0] - drawn[-5, 0])
    return np.concatenate([[drawn[0] + above], drawn, [drawn[-1] + below]])


def _of_age(age: float) -> Float[np.ndarray, " level"]:
    """Compute the forward tilt that age adds to the mean, deg."""
    kyphosis = MEAN_KYPHOSIS_DEG + 0.12 * (age - 55.0)
    return tilts_deg(kyphosis, MEAN_LORDOSIS_DEG) - tilts_deg(MEAN_KYPHOSIS_DEG, MEAN_LORDOSIS_DEG)


@functools.cache
def _prior() -> ssm.SpinePrior:
    return data.load_spine_prior()


def poses(
    alignment: Alignment,
    heights: Mapping[str, tuple[float, float]],
    wedges_deg: Mapping[str, float] | None = None,
) -> dict[str, Float[np.ndarray, "4 4"]]:
    """Compute world_from_vertebra of C7 to L5 and of S1 (origin at the middle of its end plate).

    `heights` are those of each body above and below its centre, mm; `wedges_deg` bend the spine
    forward above a wedge fracture. L3's centre is the world's origin.
    """
    curve = np.array([alignment.curve_deg[level] for level in _ORDER])
    pitch = curve[:, 0] + alignment.pelvic_tilt_deg
    for level, angle in (wedges_deg or {}).items():
        above = _ORDER.index(level) - 1 - np.arange(len(_ORDER))
        pitch += np.where(above >= 0, 0.7 * angle * np.exp(-above / 4.0), 0.0)
    roll, turn = curve.T[1:] + np.stack(_scoliosis(alignment))
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
    if isinstance(value, tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return value
