"""A lumbar vertebra as an implicit function: negative inside, approximately mm.

It uses no mesh or scan: bodies, pedicles, laminae, facets and processes are simple
solids of published average sizes, joined smoothly around an open canal (genus 1). Sizes after
Panjabi 1992 (Spine 17:299), Griffith 2016 (canal) and Zindrick 1987 (pedicles), rounded.
Frame: origin at the body centre, +x right, +y anterior, +z superior, mm.
"""

import dataclasses

import numpy as np

from dartjax.synthverse._solids import Field, capsule, smooth_max, smooth_min


@dataclasses.dataclass(frozen=True)
class VertebraSize:
    """Sizes of one vertebra in mm; `left` and `right` scale its lateral parts."""

    width: float  # of the body
    depth: float
    height: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    transverse_span: float
    spinous_length: float
    right: float = 1.0
    left: float = 1.0

    def scaled(self, factor: float, *, right: float = 1.0, left: float = 1.0) -> "VertebraSize":
        """Scale the vertebra by a factor, and its lateral parts by side."""
        sizes = {name: factor * value for name, value in dataclasses.asdict(self).items()}
        return VertebraSize(**(sizes | {"right": right, "left": left}))


SIZES: dict[str, VertebraSize] = {
    "T12": VertebraSize(39.0, 30.0, 25.0, 22.0, 18.0, 8.5, 16.0, 50.0, 25.0),
    "L1": VertebraSize(41.0, 31.0, 26.5, 23.0, 18.0, 8.6, 15.5, 72.0, 27.0),
    "L2": VertebraSize(42.5, 32.5, 27.0, 23.5, 18.0, 9.0, 15.0, 78.0, 28.0),
    "L3": VertebraSize(44.0, 34.0, 27.5, 24.5, 17.5, 10.2, 15.0, 86.0, 29.0),
    "L4": VertebraSize(46.5, 34.5, 27.5, 25.5, 18.0, 13.0, 15.0, 84.0, 27.0),
    "L5": VertebraSize(48.0, 35.0, 27.5, 27.0, 19.0, 17.0, 14.5, 88.0, 22.0),
}


def vertebra(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    """Evaluate the implicit function of a whole vertebra at points of its own frame."""
    side_scale = np.where(x > 0.0, size.right, size.left).astype(np.float32)
    lateral = np.abs(x) / side_scale  # one set of formulas for both sides
    arch = smooth_min(_pedicle(size, lateral, y, z), _facets(size, lateral, y, z), 3.0)
    arch = smooth_min(arch, _lamina_and_spinous(size, lateral, y, z), 3.0)
    arch = smooth_min(arch, _transverse(size, lateral, y, z), 3.0)
    arch = smooth_max(arch, -_canal(size, x, y), 1.5)
    return smooth_min(_body(size, x, y, z), arch, 2.5)


def _body(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    """Superelliptic cylinder with a waist, concave end plates and a flat posterior wall."""
    waist = 1.0 - 0.1 * np.clip(1.0 - (2.0 * z / size.height) ** 2, 0.0, 1.0)
    depth = np.where(y > 0.0, 0.52 * size.depth, 0.48 * size.depth)
    squareness = np.where(y > 0.0, 2.2, 3.0)  # of the front and of the posterior wall
    lateral, forward = np.abs(x) / (0.5 * size.width * waist), np.abs(y) / (depth * waist)
    radius = (lateral**squareness + forward**squareness) ** (1.0 / squareness)
    half_height = 0.5 * size.height - 1.5 * np.clip(1.0 - radius**2, 0.0, 1.0)
    side = (radius - 1.0) * (0.45 * size.depth)
    return smooth_max(side, np.abs(z) - half_height, 2.0)


def _canal(size: VertebraSize, x: Field, y: Field) -> Field:
    center = -0.48 * size.depth - 0.5 * size.canal_depth
    half_width, half_depth = 0.5 * size.canal_width, 0.5 * size.canal_depth
    radius = np.sqrt((x / half_width) ** 2 + ((y - center) / half_depth) ** 2)
    return (radius - 1.0) * half_depth


def _pedicle(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    """Elliptic rod from the upper body backward."""
    wall = -0.48 * size.depth
    half_width, half_height = 0.5 * size.pedicle_width, 0.5 * size.pedicle_height
    center_x, center_z = 0.5 * size.canal_width + 0.8 * half_width, 0.18 * size.height
    radius = np.hypot((x - center_x) / half_width, (z - center_z) / half_height)
    return smooth_max((radius - 1.0) * half_width, np.abs(y - (wall - 2.0)) - 9.0, 2.0)


def _facets(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    """Superior process lateral and in front, inferior process medial and behind, and the
    isthmus between them."""
    wall, edge, half = -0.48 * size.depth, 0.5 * size.canal_width, 0.5 * size.height
    middle = (edge + 4.0, wall - 13.0, 0.0)
    upper = (edge + 6.5, wall - 11.5, half + 5.0)
    lower = (edge - 1.0, wall - 19.0, -half - 8.0)
    up = capsule((x, y, z), middle, upper, (5.0, 4.0))
    return smooth_min(up, capsule((x, y, z), middle, lower, (5.0, 4.5)), 3.0)


def _lamina_and_spinous(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    back = -0.48 * size.depth - size.canal_depth
    outer = (0.5 * size.canal_width + 3.0, back + 4.0, -2.0)
    root, tip = (0.0, back - 3.5, -5.0), (0.0, back - 3.5 - size.spinous_length, -9.0)
    lamina = capsule((x, y, z), outer, root, (3.6, 3.4), flat=(1.0, 1.0, 2.4))
    return smooth_min(lamina, capsule((x, y, z), root, tip, (3.2, 3.6), flat=(1.0, 1.0, 2.5)), 3.0)


def _transverse(size: VertebraSize, x: Field, y: Field, z: Field) -> Field:
    wall, edge = -0.48 * size.depth, 0.5 * size.canal_width
    root = (edge + 0.5 * size.pedicle_width, wall - 9.0, 2.0)
    tip = (max(0.5 * size.transverse_span, root[0] + 4.0), wall - 14.0, 4.0)
    return capsule((x, y, z), root, tip, (5.0, 3.0), flat=(1.0, 1.0, 1.3))
