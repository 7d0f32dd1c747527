"""Landmarks, needle paths, isthmus and parts of one vertebra by geometric rules, on the host.

All input is in the vertebra frame (`_frame.vertebra_frame`). The rules are anatomical and use no
shape model:
- end-plate centres, anterior wall, waists: where the axes through the body centroid leave the body;
- isthmus centre: centroid of the smallest section across the pedicle next to the canal;
- spinous tip: the most posterior point; transverse tips: the most lateral points posterior to the
  isthmus;
- path: the straight axis near the isthmus centre, into the anterior third of the body at
  mid-height, with the largest least distance to the outer cortex between entry and target;
- isthmus contour: where rays from the isthmus centre leave the bone in its smallest section;
- parts: boxes around the posterior wall, the isthmus and the canal (see `vertebra_parts`).
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, spatial

from dartjax.observations import LANDMARK_NAMES, SIDES
from dartjax.ssm._frame import midline_body, posterior_wall
from dartjax.ssm._model import PART_NAMES
from dartjax.ssm._voxels import Solid, inner_distance, label_parts, solid_of

SIGN_OF_SIDE = {"left": -1.0, "right": 1.0}
_FRONT_MARGIN = 5.0  # mm kept between the target and the anterior wall
_ENTRY_SKIP = 4.5  # mm from the entry where the wall is ignored
_PEDICLE_BACK = -6.0  # mm from the isthmus: anterior to it the wall always counts
_SMALLEST_SHARE = 0.15  # of the coronal section, which at T1 is four times the pedicle
_LONGEST_BACK, _STEP = 40.0, 0.75  # mm, search for the entry posterior to the isthmus


class Annotation(NamedTuple):
    """Landmarks and needle paths of one vertebra, vertebra frame, mm."""

    landmarks: Float[np.ndarray, "10 3"]
    paths: Float[np.ndarray, "2 2 3"]  # (left, right) x (entry, target)
    isthmus_contours: Float[np.ndarray, "2 24 3"]  # closed, around (left, right)
    isthmus_width: Float[np.ndarray, "2"]  # mm, largest circle in the smallest section
    clearance: Float[np.ndarray, "2"]  # mm, least distance from path to cortex


def annotate(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Annotation:
    """Annotate one closed surface in its vertebra frame by the rules of this module.

    ValueError when no canal or no pedicle next to it is found.
    """
    solid = solid_of(vertices, faces)
    depth = _depth(solid)
    isthmus = {side: isthmus_section(solid, side) for side in SIDES}
    points = dict(_body_landmarks(solid))
    points["spinous_tip"] = _spinous_tip(vertices)
    for side in SIDES:
        center = isthmus[side].center
        points[f"{side}_isthmus"] = center
        points[f"{side}_transverse_tip"] = _transverse_tip(vertices, center, side)
    paths = [_path(solid, depth, isthmus[side].center, side) for side in SIDES]
    return Annotation(
        np.stack([points[name] for name in LANDMARK_NAMES]),
        np.stack([path for path, _ in paths]),
        np.stack([_contour(solid, isthmus[side]) for side in SIDES]),
        np.array([isthmus[side].width for side in SIDES]),
        np.array([clearance for _, clearance in paths]),
    )


def attach(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    point: Float[np.ndarray, "3"],
    *,
    surface_tolerance: float = 1.5,
) -> tuple[Int[np.ndarray, "8"], Float[np.ndarray, "8"]]:
    """Attach a point to a surface: eight vertices and weights (sum 1) that reproduce it.

    A point within `surface_tolerance` mm of the surface is attached to the nearest triangle, so it
    stays on the surface. A deeper point is attached to the nearest vertex in each octant around
    it, with the most even weights that reproduce it.
    """
    index, weight, distance = _nearest_on_triangles(vertices, faces, point)
    if distance <= surface_tolerance:
        return np.pad(index, (0, 5), mode="edge"), np.pad(weight, (0, 5))
    index = _octant_vertices(vertices, point)
    system = np.vstack([vertices[index].T, np.ones(8)])
    even = np.full(8, 0.125)
    correction = np.linalg.lstsq(system, np.append(point, 1.0) - system @ even, rcond=None)[0]
    return index, even + correction


def _depth(solid: Solid) -> Float[np.ndarray, "i j k"]:
    """Compute the signed distance to the surface at the voxel centres, mm, positive inside."""
    inside, outside = inner_distance(solid.occupancy), inner_distance(~solid.occupancy)
    distance = np.where(solid.occupancy, inside - 0.5, 0.5 - outside)
    return solid.spacing * distance.astype(np.float32)


def _sample(
    field: Float[np.ndarray, "i j k"], solid: Solid, points: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n"]:
    index = np.moveaxis((points - solid.origin) / solid.spacing, -1, 0)
    return ndimage.map_coordinates(field, index, order=1, mode="nearest")


def _body_landmarks(solid: Solid) -> list[tuple[str, Float[np.ndarray, "3"]]]:
    body = midline_body(solid)
    y, z = solid.axis(1), solid.axis(2)
    column = np.flatnonzero(body[np.argmin(np.abs(y))])
    row = np.flatnonzero(body[:, np.argmin(np.abs(z))])
    half = solid.spacing / 2.0
    waist = [exit_point(solid, np.array([SIGN_OF_SIDE[side], 0.0, 0.0])) for side in SIDES]
    return [
        ("superior_endplate_center", np.array([0.0, 0.0, z[column[-1]] + half])),
        ("inferior_endplate_center", np.array([0.0, 0.0, z[column[0]] - half])),
        ("anterior_wall_center", np.array([0.0, y[row[-1]] + half, 0.0])),
        ("left_waist", waist[0]),
        ("right_waist", waist[1]),
    ]


def exit_point(
    solid: Solid,
    direction: Float[np.ndarray, "3"],
    start: Float[np.ndarray, "3"] | None = None,
) -> Float[np.ndarray, "3"]:
    """Find the point where a ray from inside the bone first leaves it."""
    step = 0.1
    origin = np.zeros(3) if start is None else start
    points = origin + np.arange(0.0, 120.0, step)[:, None] * direction
    outside = _sample(solid.occupancy.astype(np.float32), solid, points) < 0.5
    return points[int(np.argmax(outside))]


class Section(NamedTuple):
    """A plane section of a pedicle."""

    area: float  # mm^2
    center: Float[np.ndarray, "3"]  # mm, centroid
    width: float  # mm, largest circle in it
    forward: Float[np.ndarray, "3"]  # unit normal of the plane, along the pedicle, anterior
    outward: Float[np.ndarray, "3"]  # unit vector in the plane, horizontal, away from the midline


def isthmus_section(solid: Solid, side: str) -> Section:
    """Find the smallest section across the pedicle of one side.

    First the smallest coronal section next to the front half of the open canal, then the smallest
    among planes near it that face the converging axis of the pedicle (rotated by 0 to 40 degrees
    about z). Sections under `_SMALLEST_SHARE` of the coronal one are slivers that a plane cuts off
    elsewhere. ValueError if no plane cuts a pedicle.
    """
    start, coronal_area = _coronal_isthmus(solid, side)
    sections = [
        _section(solid, side, start, np.radians(angle), offset)
        for angle in range(0, 45, 10)
        for offset in np.arange(-5.0, 5.1, 1.0)
    ]
    smallest = _SMALLEST_SHARE * coronal_area
    whole = [s for s in sections if s is not None and s.area >= smallest]
    if not whole:
        raise ValueError(f"no {side} pedicle next to the canal: is the mesh in its vertebra frame?")
    return min(whole, key=lambda s: s.area)


def _contour(solid: Solid, section: Section, count: int = 24) -> Float[np.ndarray, "k 3"]:
    """Trace where rays from the centre leave the bone in the plane, starting outward, then up."""
    up = np.array([0.0, 0.0, 1.0])
    angles = 2.0 * np.pi * np.arange(count) / count
    rays = np.cos(angles)[:, None] * section.outward + np.sin(angles)[:, None] * up
    return np.stack([exit_point(solid, ray, section.center) for ray in rays])


def _coronal_isthmus(solid: Solid, side: str) -> tuple[Float[np.ndarray, "3"], float]:
    """Find the smallest coronal section next to the front half of the open canal: its centre, and
    its area, mm^2."""
    x, y = solid.axis(0), solid.axis(1)
    lateral = solid.occupancy & (x * SIGN_OF_SIDE[side] > 0)[:, None, None]
    closed = solid.occupancy[np.abs(x) < 1.0].any((0, 2)) | ~lateral.any((0, 2))
    rows = np.flatnonzero(~closed & (y < posterior_wall(solid)))
    # The run of open slices nearest to the body is the canal; others are next to a bent tip.
    canal = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)[-1]
    centers, areas = [], []
    # Farther back are the laminae: at T1, where the transverse process is beside the pedicle, their
    # sections are the smaller ones.
    for j in canal[len(canal) // 2 :]:
        labels = label_parts(lateral[:, j])[0]
        size = np.bincount(labels.ravel())[1:]
        index = np.argwhere(labels == 1 + int(np.argmax(size))).mean(0)
        centers.append(solid.origin + solid.spacing * np.array([index[0], j, index[1]]))
        areas.append(size.max())
    if not areas:
        raise ValueError(f"no {side} pedicle next to the canal: is the mesh in its vertebra frame?")
    thinnest = int(np.argmin(areas))
    return centers[thinnest], float(areas[thinnest]) * solid.spacing**2


def _section(
    solid: Solid, side: str, start: Float[np.ndarray, "3"], angle: float, offset: float
) -> Section | None:
    """Cut the part near `start` by one oblique plane; None where the plane meets no bone or the
    part crosses the midline."""
    sign, step = SIGN_OF_SIDE[side], 0.25
    forward = np.array([-sign * np.sin(angle), np.cos(angle), 0.0])
    outward = np.array([sign * np.cos(angle), np.sin(angle), 0.0])
    u, w = np.meshgrid(np.arange(-20.0, 25.0, step), np.arange(-18.0, 18.0, step), indexing="ij")
    points = start + offset * forward + u[..., None] * outward
    points[..., 2] += w
    bone = _sample(solid.occupancy.astype(np.float32), solid, points) > 0.5
    labels, count = label_parts(bone & (points[..., 0] * sign > 0))
    if count == 0:
        return None
    parts = [points[labels == i] for i in range(1, count + 1)]
    nearest = int(np.argmin([np.linalg.norm(part - start, axis=1).min() for part in parts]))
    part = parts[nearest]
    if np.abs(part[:, 0]).min() < 1.0:
        return None
    radius = step * (inner_distance(labels == nearest + 1).max() - 0.5)
    area = len(part) * step**2
    return Section(area, part.mean(0), 2.0 * float(radius), forward, outward)


def _spinous_tip(vertices: Float[np.ndarray, "vertex 3"]) -> Float[np.ndarray, "3"]:
    """Find the vertex nearest to the centre of the most posterior 1.5 mm."""
    tip = vertices[vertices[:, 1] < vertices[:, 1].min() + 1.5]
    return tip[int(np.argmin(np.linalg.norm(tip - tip.mean(0), axis=1)))]


def _transverse_tip(
    vertices: Float[np.ndarray, "vertex 3"], isthmus: Float[np.ndarray, "3"], side: str
) -> Float[np.ndarray, "3"]:
    """Find the vertex nearest to the centre of the most lateral 1.5 mm behind the isthmus."""
    behind = vertices[vertices[:, 1] < isthmus[1] - 4.0]
    lateral = behind[:, 0] * SIGN_OF_SIDE[side]
    tip = behind[lateral > lateral.max() - 1.5]
    return tip[int(np.argmin(np.linalg.norm(tip - tip.mean(0), axis=1)))]


def _path(
    solid: Solid, depth: Float[np.ndarray, "i j k"], isthmus: Float[np.ndarray, "3"], side: str
) -> tuple[Float[np.ndarray, "2 3"], float]:
    """Find entry and target of the axis with the largest clearance along its way in the bone.

    The first 4.5 mm from the entry are ignored as far as they are over 6 mm behind the isthmus,
    since a 5 mm needle still crosses the cortex there. Clearance counts up to 4.5 mm; among axes
    above it the one nearest to the isthmus centre and to the middle of the target region is
    chosen.
    """
    targets = _targets(solid, side)
    offsets = np.array(list(product((-1.5, -0.75, 0.0, 0.75, 1.5), (-3, -1.5, 0.0, 1.5, 3))))
    centers = isthmus + np.insert(offsets, 1, 0.0, axis=1)
    start, end = centers[:, None, None], targets[None, :, None]
    length = np.linalg.norm(end - start, axis=-1)
    direction = (end - start) / length[..., None]
    # The entry of each axis: the first sample outside the bone in posterior direction.
    back = np.arange(0.0, _LONGEST_BACK, _STEP)
    behind = _sample(depth, solid, start - back[None, None, :, None] * direction)
    entry = back[np.argmax(behind < 0.0, axis=-1)]
    along = np.arange(-_LONGEST_BACK, length.max(), _STEP)
    depth_along = _sample(depth, solid, start + along[None, None, :, None] * direction)
    first = np.minimum(_ENTRY_SKIP - entry, _PEDICLE_BACK)[..., None]
    counted = (along >= first) & (along <= length)
    clearance = np.where(counted, depth_along, np.inf).min(-1)
    score = (
        np.minimum(clearance, 4.5)
        - 0.02 * np.sum(offsets**2, axis=1)[:, None]
        - 0.01 * np.sum((targets - targets.mean(0)) ** 2, axis=1)
    )
    best = np.unravel_index(int(np.argmax(score)), score.shape)
    center, target = centers[best[0]], targets[best[1]]
    backward = (center - target) / np.linalg.norm(center - target)
    return np.stack([exit_point(solid, backward, center), target]), float(clearance[best])


def _targets(solid: Solid, side: str) -> Float[np.ndarray, "n 3"]:
    """List candidate targets: anterior third of the body, paramedian, near mid-height."""
    body = midline_body(solid)
    rows = np.flatnonzero(body[:, np.argmin(np.abs(solid.axis(2)))])
    front, wall = solid.axis(1)[rows[-1]], posterior_wall(solid)
    third = wall + (front - wall) * 2.0 / 3.0
    y = min(front - _FRONT_MARGIN, max(third + 0.5, front - _FRONT_MARGIN - 2.0))
    half_width = abs(exit_point(solid, np.array([SIGN_OF_SIDE[side], 0.0, 0.0]))[0])
    x = SIGN_OF_SIDE[side] * half_width * np.linspace(0.15, 0.5, 8)
    height = (front - wall) * 0.1
    z = np.linspace(-height, height, 7)
    return np.array([(a, y, c) for a, c in product(x, z)])


def vertebra_parts(
    vertices: Float[np.ndarray, "vertex 3"], faces: Int[np.ndarray, "face 3"]
) -> Int[np.ndarray, " vertex"]:
    """Assign every vertex to a part (index into `PART_NAMES`) by boxes in the vertebra frame.

    A vertex belongs to the first part of this list whose box contains it:

    - body: anterior to the posterior wall, with its rim and back wall up to the isthmus;
    - pedicle: from the body to 4 mm behind the isthmus, between the isthmus' upper and lower wall;
    - spinous process: behind the canal, nearer to the midline than 40 % of the canal's half width;
    - superior facet: above the isthmus;
    - transverse process: lateral to the isthmus;
    - inferior facet: below the isthmus;
    - lamina: the rest.
    """
    solid = solid_of(vertices, faces)
    wall = posterior_wall(solid)
    sections = [isthmus_section(solid, side) for side in SIDES]
    contours = np.stack([_contour(solid, section) for section in sections])
    middle = np.mean([section.center[1] for section in sections])
    inner, outer = np.abs(contours[:, :, 0]).min(1).mean(), np.abs(contours[:, :, 0]).max(1).mean()
    low, high = contours[:, :, 2].min(1).mean(), contours[:, :, 2].max(1).mean()
    lateral, y, z = np.abs(vertices[:, 0]), vertices[:, 1], vertices[:, 2]
    pedicle = (y > middle - 4.0) & (z > low - 1.5) & (z < high + 1.5)
    back_of_body = (y > middle) & ((z < low - 1.5) | (lateral < 0.8 * inner))
    conditions = [
        ("body", (y > wall - 0.5) | back_of_body),
        ("pedicle", pedicle),
        ("spinous_process", (lateral < 0.4 * inner) & (y < canal_back(solid))),
        ("superior_facet", (z > high + 1.0) & (lateral < outer + 6.0)),
        ("transverse_process", (lateral > outer) & (z > low - 3.0)),
        ("inferior_facet", z < low - 3.0),
    ]
    numbers = [PART_NAMES.index(name) for name, _ in conditions]
    return np.select([c for _, c in conditions], numbers, PART_NAMES.index("lamina"))


def canal_back(solid: Solid) -> float:
    """Find y of the back wall of the canal on the midline, mm."""
    near = np.abs(solid.axis(0)) < 1.0
    rows = np.asarray(solid.occupancy[near].any((0, 2)))
    open_rows = np.flatnonzero(~rows & (solid.axis(1) < posterior_wall(solid)))
    inside = [j for j in open_rows if rows[:j].any()]
    return float(solid.axis(1)[inside[0]]) if inside else posterior_wall(solid) - 15.0


def _octant_vertices(
    vertices: Float[np.ndarray, "vertex 3"], point: Float[np.ndarray, "3"]
) -> Int[np.ndarray, "8"]:
    """Find the nearest vertex in each octant around a point (any nearest vertex if it is empty)."""
    offset = vertices - point
    distance = np.linalg.norm(offset, axis=1)
    octant = (offset > 0) @ np.array([4, 2, 1])
    order = np.argsort(distance)
    chosen = []
    for i in range(8):
        inside = order[octant[order] == i]
        spare = [j for j in order if j not in chosen]
        chosen.append(inside[0] if len(inside) else spare[0])
    return np.array(chosen)


def _nearest_on_triangles(
    vertices: Float[np.ndarray, "vertex 3"],
    faces: Int[np.ndarray, "face 3"],
    point: Float[np.ndarray, "3"],
) -> tuple[Int[np.ndarray, "3"], Float[np.ndarray, "3"], float]:
    """Find the closest surface point: vertices, barycentric weights and distance."""
    import trimesh  # noqa: PLC0415  (slow to import, offline use)

    near = np.unique(spatial.KDTree(vertices).query(point, 12)[1])
    candidates = faces[np.isin(faces, near).any(1)]
    triangles = vertices[candidates]
    closest = trimesh.triangles.closest_point(triangles, np.tile(point, (len(candidates), 1)))
    distance = np.linalg.norm(closest - point, axis=1)
    best = int(np.argmin(distance))
    weight = trimesh.triangles.points_to_barycentric(triangles[[best]], closest[[best]])[0]
    return candidates[best], weight, float(distance[best])
