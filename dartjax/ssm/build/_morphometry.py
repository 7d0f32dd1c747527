"""Morphometry of one vertebra by geometric rules, on the host.

All input is in the vertebra frame (`_frame.vertebra_frame`); the solid has 0.5 mm voxels. The
rules are those of the population table of CTSpinoPelvic1K (802 CT, script
`extract_level_gradients.py`), so that values are comparable. That table uses the slices of the
scanner and voxels of 0.8 mm; here slices are perpendicular to the axes of the bone.
- canal: the hole enclosed by bone in an axial slice (z constant), behind the body; its front wall
  (median over the closed slices) separates the body from everything behind. Where steep laminae
  leave every axial slice open, the slices are tilted backward by 15 or 30 degrees.
- canal_width, canal_depth: x extent and, on the midline, front-to-back extent of the canal in
  the slice with the median extent.
- tp_span: x extent of the whole bone, between the tips of the transverse processes (at T12
  sometimes between the rib facets of the body).
- endplate_width: median x extent of the body over the slices in the upper fifth of its volume that
  cross the midline. Each slice is eroded by 1.5 mm, which separates transverse processes, reduced
  to its largest part, and its extent is enlarged by the margin again.
- body_height (anterior), body_height_post: the tallest column of the anterior and of the
  posterior half of the body. A column is the z extent, at one y, of a mid-sagittal slab 10 mm
  wide.
- pedicle_width_SIDE, pedicle_height_SIDE: the chords, horizontal and along z, through the centre
  of the pedicle's smallest section (the isthmus; its plane faces the converging pedicle), the
  transverse and sagittal isthmus widths of Zindrick 1987 (Spine 12:160-166).

An extent is measured as with a caliper of parallel jaws: its two ends are opposite each other,
half-way between the points of contact.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, spatial

from dartjax.observations import SIDES
from dartjax.ssm._annotate import SIGN_OF_SIDE, exit_point, isthmus_section
from dartjax.ssm._frame import posterior_wall, rotation_about_x
from dartjax.ssm._voxels import Solid, label_parts, solid_of

MEASURES = (
    "body_height",
    "body_height_post",
    "endplate_width",
    "canal_width",
    "canal_depth",
    "tp_span",
    *(f"pedicle_{extent}_{side}" for extent in ("width", "height") for side in SIDES),
)

_MIN_CANAL_MM2 = 15.0
_SLAB_HALF_WIDTH = 5.0  # mm
_EROSION = 3  # voxels of 0.5 mm
_MIN_CORE = 0.35  # share of a slice: below it the erosion has removed the body itself
_UPPER_PART = 80.0  # percentile of the body's voxel heights above which the end-plate is

_Slices = list[tuple[int, Bool[np.ndarray, "i j"]]]  # index along z, mask in that axial slice


class Caliper(NamedTuple):
    """One measured length: its two ends in the order (left, right), (posterior, anterior) or
    (inferior, superior), vertebra frame, mm."""

    ends: Float[np.ndarray, "2 3"]

    @property
    def value(self) -> float:
        """Distance between the ends, mm."""
        return float(np.linalg.norm(self.ends[1] - self.ends[0]))


def measure(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> dict[str, Caliper]:
    """Measure all `MEASURES` on one closed surface in its vertebra frame, mm.

    ValueError when no slice encloses the canal, or no pedicle is found next to it.
    """
    solid = solid_of(vertices, faces)
    width, depth, front = _canal(vertices, faces)
    body = solid.occupancy & (solid.axis(1) > front)[None, :, None]
    posterior_height, anterior_height = _heights(solid, body)
    pedicles = {side: _pedicle(solid, side) for side in SIDES}
    return {
        "body_height": anterior_height,
        "body_height_post": posterior_height,
        "endplate_width": _endplate_width(solid, body),
        "canal_width": width,
        "canal_depth": depth,
        "tp_span": _transverse_span(vertices),
        **{f"pedicle_width_{side}": pedicles[side][0] for side in SIDES},
        **{f"pedicle_height_{side}": pedicles[side][1] for side in SIDES},
    }


def _canal(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> tuple[Caliper, Caliper, float]:
    """Measure width and depth of the canal, and y of its front wall."""
    for tilt in (0.0, -15.0, -30.0):
        rotation = rotation_about_x(np.radians(tilt))
        solid = solid_of(vertices @ rotation.T, faces)
        slices = _canal_slices(solid)
        if slices:
            width = _median_extent(solid, slices, 0)
            depth = _median_extent(solid, _on_midline(solid, slices), 1)
            fronts = [solid.axis(1)[np.flatnonzero(hole.any(0))[-1]] for _, hole in slices]
            front = float(np.median(fronts)) + solid.spacing / 2.0
            wall = front if tilt == 0.0 else posterior_wall(solid_of(vertices, faces))
            return Caliper(width.ends @ rotation), Caliper(depth.ends @ rotation), wall
    raise ValueError(
        "no slice encloses the canal: the mesh must be one whole vertebra with its arch, in its "
        "vertebra frame"
    )


def _transverse_span(vertices: Float[np.ndarray, "vertex 3"]) -> Caliper:
    """Measure the x extent, at the best opposed pair of points of the outermost millimetre."""
    x = vertices[:, 0]
    left, right = vertices[x < x.min() + 1.0], vertices[x > x.max() - 1.0]
    apart = spatial.distance.cdist(left[:, 1:], right[:, 1:])
    i, j = np.unravel_index(int(np.argmin(apart)), apart.shape)
    y, z = (left[i, 1:] + right[j, 1:]) / 2.0
    return Caliper(np.array([[x.min(), y, z], [x.max(), y, z]]))


def _canal_slices(solid: Solid) -> _Slices:
    """Segment the canal in each axial slice that encloses it: the hole centred behind the body and
    near the midline, which excludes concave end-plates."""
    wall = posterior_wall(solid)
    found = []
    for k in range(solid.occupancy.shape[2]):
        bone = solid.occupancy[:, :, k]
        hole = _largest_part(np.asarray(ndimage.binary_fill_holes(bone), bool) & ~bone)
        if hole.sum() * solid.spacing**2 < _MIN_CANAL_MM2:
            continue
        x, y = solid.origin[:2] + solid.spacing * np.argwhere(hole).mean(0)
        if y < wall and abs(x) < 5.0:
            found.append((k, hole))
    return found


def _on_midline(solid: Solid, slices: _Slices) -> _Slices:
    near = np.abs(solid.axis(0)) < 1.0
    cut = [(k, part & near[:, None]) for k, part in slices]
    return [(k, part) for k, part in cut if part.any()]


def _median_extent(solid: Solid, slices: _Slices, axis: int) -> Caliper:
    found = [_extent(solid, _voxels_of_slice(part, k), axis) for k, part in slices]
    return _median(found)


def _median(calipers: list[Caliper]) -> Caliper:
    return sorted(calipers, key=lambda caliper: caliper.value)[len(calipers) // 2]


def _voxels_of_slice(part: Bool[np.ndarray, "i j"], k: int) -> Int[np.ndarray, "n 3"]:
    voxels = np.argwhere(part)
    return np.column_stack([voxels, np.full(len(voxels), k)])


def _extent(
    solid: Solid, voxels: Int[np.ndarray, "n 3"], axis: int, margin: float = 0.0
) -> Caliper:
    """Measure the extent of voxels along an axis, from outer face to outer face, plus `margin` mm
    at both ends; the other two coordinates are half-way between the points of contact."""
    along = voxels[:, axis]
    low, high = (voxels[along == end].mean(0) for end in (along.min(), along.max()))
    ends = np.stack([(low + high) / 2.0] * 2)
    ends[:, axis] = [along.min() - 0.5, along.max() + 0.5]
    ends = solid.origin + solid.spacing * ends
    ends[:, axis] += [-margin, margin]
    return Caliper(ends)


def _endplate_width(solid: Solid, body: Bool[np.ndarray, "i j k"]) -> Caliper:
    height = np.nonzero(body)[2]
    midline = np.abs(solid.axis(0)) < solid.spacing
    upper = range(int(np.percentile(height, _UPPER_PART)), int(height.max()) + 1)
    slices = [(k, body[:, :, k]) for k in upper if body[midline, :, k].any()]
    return _median([_without_processes(solid, part, k) for k, part in slices])


def _without_processes(solid: Solid, part: Bool[np.ndarray, "i j"], k: int) -> Caliper:
    core = _largest_part(np.asarray(ndimage.binary_erosion(part, iterations=_EROSION), bool))
    margin = _EROSION * solid.spacing
    if core.sum() < _MIN_CORE * part.sum():
        core, margin = _largest_part(part), 0.0
    return _extent(solid, _voxels_of_slice(core, k), 0, margin)


def _heights(solid: Solid, body: Bool[np.ndarray, "i j k"]) -> tuple[Caliper, Caliper]:
    """Find the tallest columns of the posterior and of the anterior half of the body."""
    slab = body & (np.abs(solid.axis(0)) < _SLAB_HALF_WIDTH)[:, None, None]
    rows = np.flatnonzero(slab.any((0, 2)))
    columns = [_column(solid, slab, int(j)) for j in rows]
    middle = len(columns) // 2
    posterior, anterior = (
        max(half, key=lambda caliper: caliper.value)
        for half in (columns[:middle], columns[middle:])
    )
    return posterior, anterior


def _column(solid: Solid, slab: Bool[np.ndarray, "i j k"], j: int) -> Caliper:
    i, k = np.nonzero(slab[:, j])
    return _extent(solid, np.stack([i, np.full(len(i), j), k], axis=1), 2)


def _pedicle(solid: Solid, side: str) -> tuple[Caliper, Caliper]:
    """Measure horizontal and vertical chord of the smallest section across the pedicle."""
    section = isthmus_section(solid, side)
    center, right = section.center, SIGN_OF_SIDE[side] * section.outward
    width, height = (
        Caliper(np.stack([exit_point(solid, sign * axis, center) for sign in (-1.0, 1.0)]))
        for axis in (right, np.array([0.0, 0.0, 1.0]))
    )
    return width, height


def _largest_part(mask: Bool[np.ndarray, "i j"]) -> Bool[np.ndarray, "i j"]:
    labels, count = label_parts(mask)
    if count == 0:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
