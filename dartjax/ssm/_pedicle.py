"""Pedicles of a surface in correspondence with a model: isthmus and largest inscribed cylinder.

Both follow from the model's carried points and are differentiable in the vertices.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._numerics import normalize, safe_divide, safe_norm
from dartjax._types import Point, Points, Scalar, Vertices
from dartjax.ssm._model import ShapeModel, carried, paths

_BEHIND, _BEFORE, _STEP = 6.0, 11.0, 0.5  # mm, extent of the path about the isthmus, sampling


class Isthmus(eqx.Module):
    """The isthmus of the (left, right) pedicle: its narrowest cross-section; vertebra frame."""

    center: Float[Array, "2 3"]  # mm, centroid of the section
    normal: Float[Array, "2 3"]  # unit, anterior
    area: Float[Array, "2"]  # mm^2
    width: Float[Array, "2"]  # mm, chord through the centre, horizontal
    height: Float[Array, "2"]  # mm, chord through the centre, perpendicular to the width


def isthmus(model: ShapeModel, vertices: Vertices) -> Isthmus:
    """Compute the isthmus of both pedicles of a surface in correspondence, vertebra frame, mm.

    From the carried contour p_1..p_k: the area vector a = sum_i p_i x p_(i+1) / 2 (that of the
    polygon in its best plane) gives area |a| and normal a / |a|; centre and chords are those
    of the contour projected into that plane. The contour is the same anatomy on every instance;
    it is not necessarily the narrowest section of that instance.
    """
    return Isthmus(*jax.vmap(_section)(carried(model.isthmus_points, vertices)))


def corridor_radius(model: ShapeModel, vertices: Vertices) -> Float[Array, "2"]:
    """Compute the radius (mm) of the largest cylinder about each carried path (left, right) that
    stays inside the bone through the pedicle; negative where the axis is outside.

    The radius is the least signed distance to the surface of path points every 0.5 mm, from 6 mm
    behind to 11 mm before the point nearest to the isthmus' centre. Distances are exact
    point-to-triangle distances, positive where the generalised winding number (Jacobson et al.
    2013) exceeds one half. Any frame. The gradient is that of the one tightest point.
    """
    centers = isthmus(model, vertices).center
    triangles = vertices[model.faces]

    def radius(path: Float[Array, "2 3"], center: Point) -> Scalar:
        axis = normalize(path[1] - path[0])
        start = path[0] + jnp.dot(center - path[0], axis) * axis
        along = jnp.arange(-_BEHIND, _BEFORE + 0.5 * _STEP, _STEP)
        return _depth(start[None] + along[:, None] * axis[None], triangles)

    path = paths(model, vertices)
    return jnp.stack([radius(path[i], centers[i]) for i in range(2)])


def _section(contour: Points) -> tuple[Point, Point, Scalar, Scalar, Scalar]:
    """Compute the fields of `Isthmus` from one closed contour."""
    middle = jnp.mean(contour, axis=0)
    here = contour - middle[None]
    ahead = jnp.roll(here, -1, axis=0)
    doubled = jnp.cross(here, ahead)
    vector = 0.5 * jnp.sum(doubled, axis=0)
    area = safe_norm(vector)
    normal = normalize(vector)
    # Centroid of the fan of triangles about the middle, weighted by their signed areas.
    share = 0.5 * doubled @ normal / area
    center = middle + jnp.sum(share[:, None] * (here + ahead), axis=0) / 3.0
    normal = normal * jnp.where(normal[1] < 0.0, -1.0, 1.0)
    across = normalize(jnp.cross(normal, jnp.array([0.0, 0.0, 1.0])))
    up = jnp.cross(across, normal)
    local = (contour - center[None]) @ jnp.stack([across, up], axis=1)
    return center, normal, area, _chord(local), _chord(local[:, ::-1])


def _chord(contour: Float[Array, "k 2"]) -> Scalar:
    """Compute the length of the first axis inside a closed plane contour about the origin."""
    here, ahead = contour, jnp.roll(contour, -1, axis=0)
    crosses = (here[:, 1] < 0.0) != (ahead[:, 1] < 0.0)
    rise = jnp.where(crosses, here[:, 1] - ahead[:, 1], 1.0)
    at = here[:, 0] + here[:, 1] / rise * (ahead[:, 0] - here[:, 0])
    return jnp.max(jnp.where(crosses, at, -jnp.inf)) - jnp.min(jnp.where(crosses, at, jnp.inf))


def _depth(points: Points, triangles: Float[Array, "face 3 3"]) -> Scalar:
    """Compute the least signed distance of points to a closed surface, positive inside, mm."""
    # Only the nearest triangle of the tightest point has a gradient.
    fixed_points, fixed = jax.lax.stop_gradient((points, triangles))

    def search(point: Point):
        squared = _squared_distance(point[None], fixed)
        sign = jnp.where(_winding_number(point, fixed) > 0.5, 1.0, -1.0)
        return sign, jnp.min(squared), jnp.argmin(squared)

    # Point by point, to keep the memory of a batch small.
    sign, squared, nearest = jax.lax.map(search, fixed_points)
    tightest = jnp.argmin(sign * jnp.sqrt(squared))
    found = _squared_distance(points[tightest], triangles[nearest[tightest]])
    return sign[tightest] * jnp.sqrt(jnp.maximum(found, 1e-12))  # no NaN gradient on the surface


def _squared_distance(
    points: Float[Array, "*#batch 3"], triangles: Float[Array, "*#batch 3 3"]
) -> Float[Array, "*batch"]:
    """Compute squared distances of points to triangles: to the plane where the foot of the
    perpendicular is inside, else to the nearest edge."""
    corners = [triangles[..., i, :] for i in range(3)]
    normal = jnp.cross(corners[1] - corners[0], corners[2] - corners[0])
    proper = _dot(normal, normal) > 0.0
    inside, edges = proper, jnp.inf
    for i, start in enumerate(corners):
        edge, offset = corners[(i + 1) % 3] - start, points - start
        inside = inside & (_dot(jnp.cross(normal, edge), offset) >= 0.0)
        t = safe_divide(*jnp.broadcast_arrays(_dot(offset, edge), _dot(edge, edge)))
        gap = offset - jnp.clip(t, 0.0, 1.0)[..., None] * edge
        edges = jnp.minimum(edges, _dot(gap, gap))
    height = _dot(points - corners[0], normal)
    plane = safe_divide(*jnp.broadcast_arrays(height**2, _dot(normal, normal)))
    return jnp.where(inside, plane, edges)


def _winding_number(point: Point, triangles: Float[Array, "face 3 3"]) -> Scalar:
    """Sum the signed solid angles / (4 pi) (Van Oosterom and Strackee 1983): 1 inside."""
    a, b, c = (triangles[:, i] - point[None] for i in range(3))
    na, nb, nc = (safe_norm(corner) for corner in (a, b, c))
    volume = _dot(a, jnp.cross(b, c))
    flat = na * nb * nc + _dot(a, b) * nc + _dot(b, c) * na + _dot(c, a) * nb
    return jnp.sum(jnp.arctan2(volume, flat)) / (2.0 * jnp.pi)


def _dot(a: Float[Array, "*#batch 3"], b: Float[Array, "*#batch 3"]) -> Float[Array, "*batch"]:
    return jnp.sum(a * b, axis=-1)
