"""Outlines of a trunk by height: skin, and the inner wall of chest and abdomen.

Widths and depths are given per vertebral level, so that the trunk follows its spine. They are
rounded adult values, checked visually against a chest CT.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy import interpolate

from dartjax.synthverse._solids import Field

_LEVELS = ("C7", *(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)), "S1")
#            C7   T1   T2   T3   T4   T5   T6   T7   T8   T9   T10  T11  T12
#            L1   L2   L3   L4   L5   S1
_INNER_HALF_WIDTH = (20, 50, 76, 94, 106, 114, 119, 123, 126, 127, 127, 125, 122,
                     120, 119, 120, 122, 126, 128)  # fmt: skip
_INNER_FRONT = (38, 48, 60, 74, 87, 98, 107, 114, 120, 123, 124, 122, 118,
                113, 107, 101, 97, 95, 100)  # in front of the bodies' centres  # fmt: skip
_INNER_BACK = (28, 31, 36, 39, 41, 43, 44, 44, 43, 42, 41, 40, 38,
               36, 34, 33, 32, 34, 40)  # behind them  # fmt: skip
_OUTER_HALF_WIDTH = (78, 112, 140, 152, 155, 154, 152, 151, 150, 149, 148, 146, 143,
                     141, 139, 139, 142, 150, 160)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Outlines of a trunk: lengths in mm, arrays over height `z`, and values per person."""

    z: Float[np.ndarray, " slice"]
    spine_x: Float[np.ndarray, " slice"]
    spine_y: Float[np.ndarray, " slice"]
    half_width: Float[np.ndarray, " slice"]  # of the inner wall
    front: Float[np.ndarray, " slice"]
    back: Float[np.ndarray, " slice"]
    outer_half_width: Float[np.ndarray, " slice"]
    outer_front: Float[np.ndarray, " slice"]
    outer_back: Float[np.ndarray, " slice"]
    fat_mm: float
    level_z: dict[str, float]

    def value(self, name: str, z: float) -> float:
        """Interpolate one of the arrays at one height."""
        return float(np.interp(z, self.z, getattr(self, name)))

    def at(self, name: str, z: Field) -> Field:
        """Interpolate one of the arrays at many heights."""
        return np.asarray(np.interp(z, self.z, getattr(self, name)), np.float32)

    def inner_point(self, theta: Field, z: Field, outward_mm: float) -> Float[np.ndarray, "n 3"]:
        """Compute points `outward_mm` outside the inner wall; theta 0 is posterior, pi / 2 right,
        pi anterior."""
        a = self.at("half_width", z) + outward_mm
        middle = 0.5 * (self.at("front", z) - self.at("back", z))
        b = 0.5 * (self.at("front", z) + self.at("back", z)) + outward_mm
        sin, cos = np.sin(theta), -np.cos(theta)
        radius = (np.abs(sin) ** POWER + np.abs(cos) ** POWER) ** (-1.0 / POWER)
        center = self.at("spine_y", z) + middle
        return np.stack(
            [a * radius * sin + 0.5 * self.at("spine_x", z), center + b * radius * cos, z], 1
        )


POWER = 2.35


def make_trunk(
    rng: np.random.Generator,
    frames: Mapping[str, Float[np.ndarray, "4 4"]],
    spinous: Mapping[str, float],
    sex: str,
    reach: tuple[float, float],
) -> Trunk:
    """Make the trunk around a spine, from height reach[0] to reach[1]. `spinous` is the extent of
    each level's spinous process behind the body's centre, mm."""
    z = np.arange(reach[0], reach[1], 1.0)
    centers = np.array([frames[level][:3, 3] for level in _LEVELS])
    size = (1.03 if sex == "male" else 0.94) * float(
        np.clip(1 + 0.04 * rng.standard_normal(), 0.9, 1.1)
    )
    deep = size * float(np.clip(1.0 + 0.06 * rng.standard_normal(), 0.88, 1.15))
    fat = _draw_fat(rng, sex)
    wall = 13.0 * size
    # The kyphosis of the body centres is smoothed for the skin and the anterior wall only.
    x, y = (_along(centers[:, 2], centers[:, i], z) for i in (0, 1))
    soft_y = _along(centers[:, 2], 0.65 * centers[:, 1] + 0.35 * centers[:, 1].mean(), z)
    tables = {
        name: _along(centers[:, 2], np.array(values, float), z)
        for name, values in (
            ("width", _INNER_HALF_WIDTH), ("front", _INNER_FRONT), ("back", _INNER_BACK),
            ("outer", _OUTER_HALF_WIDTH),
        )
    }  # fmt: skip
    front = np.maximum(deep * tables["front"] + soft_y - y, 32.0)
    belly = np.exp(-0.5 * ((z - centers[_LEVELS.index("L3"), 2]) / 75.0) ** 2)
    front = front + (0.9 * fat - 8.0) * belly
    tips = _along(centers[:-1, 2], np.array([spinous[v] for v in _LEVELS[:-1]]), z)
    half_width = size * tables["width"] + (0.25 * fat - 3.0) * belly
    return Trunk(
        z=z,
        spine_x=x,
        spine_y=y,
        half_width=np.maximum(half_width, 15.0),  # the neck, beyond the tables
        front=front,
        back=np.maximum(tables["back"], 20.0),
        outer_half_width=np.maximum(
            size * tables["outer"] + fat - 6.0, half_width + wall + fat + 4.0
        ),
        outer_front=front + wall + 0.9 * fat + 0.5 * fat * belly,
        outer_back=np.maximum(tables["back"] + 24.0, tips) + 3.0 + 0.55 * fat,
        fat_mm=fat,
        level_z={level: float(c[2]) for level, c in zip(_LEVELS, centers, strict=True)},
    )


def _draw_fat(rng: np.random.Generator, sex: str) -> float:
    """Draw the thickness of the fat under the skin, mm: one person of four is obese (28 to 65)."""
    usual = rng.gamma(5.0, 3.2) + (3.0 if sex == "female" else 0.0)
    obese, much = rng.random() < 0.25, rng.uniform(28.0, 65.0)
    return float(much if obese else np.clip(usual, 4.0, 34.0))


def _along(heights: Field, values: Field, z: Field) -> Float[np.ndarray, " n"]:
    """Interpolate values at decreasing heights by a smooth curve, with bounded extrapolation."""
    order = np.argsort(heights)
    curve = interpolate.PchipInterpolator(heights[order], values[order])
    inside = np.clip(z, heights[order][0], heights[order][-1])
    slope = curve.derivative()(inside)
    return curve(inside) + 0.8 * slope * np.clip(z - inside, -60.0, 25.0)


def radial_distance(
    x: Field,
    y: Field,
    center: tuple[float, float],
    half: tuple[float, float, float],
    power: float = POWER,
) -> Field:
    """Approximate the distance (mm, negative inside) to a superellipse of half width half[0] that
    extends half[1] forward and half[2] backward from its centre."""
    u = np.abs(x - np.float32(center[0])) / np.float32(half[0])
    dy = y - np.float32(center[1])
    v = np.where(dy > 0, dy / np.float32(half[1]), -dy / np.float32(half[2]))
    rho = np.maximum((u**power + v**power) ** np.float32(1.0 / power), np.float32(1e-3))
    reach = np.hypot(x - np.float32(center[0]), dy)
    return reach - reach / rho
