"""Poses of circles from their images, and the common tangents of two ellipses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._types import Matrix3, Pixels, Point, Scalar
from dartjax.robot.carm._ellipse import Ellipse

_NEWTON_STEPS = 8


def circle_poses(
    conic: Matrix3, K: Matrix3, radius: Scalar | float
) -> tuple[Float[Array, "2 3"], Float[Array, "2 3"]]:
    """Compute the two circles of a given radius whose image is a conic: normals (n_z > 0) and
    centres, camera frame.

    With Q' = K^T Q K scaled to determinant -1 and eigenvalues w0 < 0 < w1 <= w2:
    n = +-sqrt((w2 - w1) / (w2 - w0)) v2 + sqrt((w1 - w0) / (w2 - w0)) v0, the plane at distance
    w1^(3/2) r, the centre along Q'^-1 n (Kanatani, Liu 1993). A conic that is not an ellipse
    gives NaN.
    """
    Q = K.T @ conic @ K
    Q = Q / jnp.cbrt(-jnp.linalg.det(Q))
    w, v = jnp.linalg.eigh(Q)
    wide = jnp.sqrt(jnp.maximum(w[2] - w[1], 0.0) / (w[2] - w[0]))
    flat = jnp.sqrt((w[1] - w[0]) / (w[2] - w[0]))
    distance = w[1] ** 1.5 * radius

    def one(sign: Array) -> tuple[Point, Point]:
        n = sign * wide * v[:, 2] + flat * v[:, 0]
        n = n * jnp.sign(n[2])
        m = jnp.linalg.solve(Q, n)
        return n, distance * m / jnp.dot(n, m)

    return jax.vmap(one)(jnp.array([1.0, -1.0]))


def agreeing_circles(
    first: tuple[Float[Array, "2 3"], Float[Array, "2 3"]],
    second: tuple[Float[Array, "2 3"], Float[Array, "2 3"]],
) -> tuple[Point, Float[Array, "2 3"]]:
    """Select the poses of two parallel circles: the pair, of four, whose normals agree best.

    `first` and `second` are results of `circle_poses`. Returns the mean normal and both centres.
    """
    agreement = first[0] @ second[0].T
    best = jnp.argmax(agreement)
    i, j = best // 2, best % 2
    normal = first[0][i] + second[0][j]
    return normal / jnp.linalg.norm(normal), jnp.stack([first[1][i], second[1][j]])


def bitangents(one: Ellipse, other: Ellipse) -> tuple[Pixels, Pixels]:
    """Compute the contact points (4, 2) of the four common tangents on two separate ellipses.

    The order is outer left, outer right, inner left, inner right, as seen from the first ellipse
    toward the second ("left" of the first contact: counter-clockwise with x right, y up).

    A tangent with unit normal n(a) touches where n.x = n.c + s(n), s = sqrt(n^T shape n). So
    n.(c1 - c2) + s1 -+ s2 = 0 for outer and inner ones, solved by Newton's method from the two
    circles of the mean radii. Ellipses that touch or overlap give NaN.
    """
    gap = other.center - one.center
    length = jnp.linalg.norm(gap)
    heading = jnp.arctan2(gap[1], gap[0])
    radius_1, radius_2 = (jnp.sqrt(jnp.sqrt(jnp.linalg.det(e.shape))) for e in (one, other))

    def contact(e: Ellipse, n: Float[Array, "2"]) -> Float[Array, "2"]:
        return e.center + e.shape @ n / jnp.sqrt(n @ e.shape @ n)

    def tangent(side: Array, kind: Array) -> tuple[Array, Array]:
        def gap_at(a: Scalar) -> Scalar:
            n = jnp.array([jnp.cos(a), jnp.sin(a)])
            s1, s2 = jnp.sqrt(n @ one.shape @ n), jnp.sqrt(n @ other.shape @ n)
            return n @ -gap + s1 - kind * s2

        cosine = (radius_1 - kind * radius_2) / length
        start = heading + side * jnp.arccos(jnp.where(jnp.abs(cosine) < 1.0, cosine, jnp.nan))

        def newton(a: Scalar, _):
            value, slope = jax.value_and_grad(gap_at)(a)
            return a - value / slope, None

        a, _ = jax.lax.scan(newton, start, length=_NEWTON_STEPS)
        n = jnp.array([jnp.cos(a), jnp.sin(a)])
        return contact(one, n), contact(other, kind * n)

    return jax.vmap(tangent)(jnp.array([1.0, -1.0, 1.0, -1.0]), jnp.array([1.0, 1.0, -1.0, -1.0]))


def crossing(
    a: tuple[Float[Array, "2"], Float[Array, "2"]], b: tuple[Float[Array, "2"], Float[Array, "2"]]
) -> Float[Array, "2"]:
    """Intersect two lines, each given by two points; infinite for parallel lines."""
    (p, q), (r, s) = a, b
    d, e = q - p, s - r
    share = ((r - p)[0] * e[1] - (r - p)[1] * e[0]) / (d[0] * e[1] - d[1] * e[0])
    return p + share * d


def tangent_points(
    centers: Float[Array, "2 2"], contacts: tuple[Pixels, Pixels]
) -> Float[Array, "15 2"]:
    """Compute the 15 points of two ellipses that a homography maps to those of two circles.

    8 contacts, 5 intersections of their tangents (without the outer pair, which is parallel in the
    world), and the projected centres of the circles, which are not the centres of the ellipses.
    """
    on_one, on_other = contacts
    outer_left, outer_right, inner_left, inner_right = ((on_one[i], on_other[i]) for i in range(4))
    pairs = (
        (inner_left, inner_right),
        (outer_left, inner_left),
        (outer_left, inner_right),
        (outer_right, inner_left),
        (outer_right, inner_right),
    )
    crossings = jnp.stack([crossing(a, b) for a, b in pairs])
    return jnp.concatenate([on_one, on_other, crossings, centers])
