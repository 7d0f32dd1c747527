"""Correspondence between detected balls and the balls of the drill guide, and the guide's pose.

[Y] section IV assigns lines of balls to lines of the target and fits one homography to each of its
two planes. Here the lines give only the direction of the lattice. The position follows from trying
every ball of one plane on every detected ball, the tilt from trying shifts of the other plane. The
best hypotheses are refined by two homographies and a pose; the pose with most balls is selected.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dartjax._types import Matrix3, Pixels, Points, Scalar
from dartjax.robot._errors import Status, StatusCode, first_status
from dartjax.robot.carm import (
    GUIDE_PITCH,
    Balls,
    DrillGuide,
    PoseFit,
    apply_homography,
    pnp_lm,
    project_points,
    to_slopes,
)
from dartjax.transforms import SE3, SO3, apply

MIN_BALLS, MIN_PER_PLANE = 12, 4
MAX_RMS_PX = 0.5
INLIER_PX = 1.0
_NEIGHBOURHOOD = 0.8  # pitches around the target in which foreign balls count
_MAX_FOREIGN = 0.4  # largest ratio of foreign balls to matched ones
_NUM_DIRECTIONS = 90
_NUM_SHIFTS, _NUM_PLACES, _NUM_HYPOTHESES = 160, 12, 10
_MAX_TILT = 0.35  # rad
_TILT_STEPS = 9
_COARSE, _FINE = 0.28, 0.14  # of the pitch: largest distance of a matched ball


class GuideMatch(eqx.Module):
    """Drill guide matched in an image.

    `pixels` are those of the target's balls; `seen` marks the balls detected within 1 px of the
    fit. `runner_up` is the number of balls that the best other pose matches.
    """

    pixels: Float[Array, "ball 2"]
    seen: Bool[Array, " ball"]
    pose: PoseFit
    runner_up: Int[Array, ""]


class _Hypothesis(eqx.Module):
    """Scaled parallel projection of both planes: p -> scale R(angle) (x, -y) + shift, px."""

    angle: Float[Array, "*batch"]
    scale: Float[Array, "*batch 2"]  # px / mm of each plane
    shift: Float[Array, "*batch 2 2"]  # of each plane


def match_guide(found: Balls, guide: DrillGuide, K: Matrix3) -> tuple[GuideMatch, Status]:
    """Match detected balls (`centers` in ideal pixels) to the drill guide and estimate its pose.

    Status: TOO_FEW_FIDUCIALS if fewer than 12 balls, or 4 of a plane, match; CORRESPONDENCE_FAILED
    if the rms exceeds 0.5 px, if another pose matches at most one ball less, or if many balls
    within the target's area do not match.
    """
    centers = jnp.where(found.valid[:, None], found.centers, 0.0)  # others may be NaN
    found = dataclasses.replace(found, centers=centers)
    weight = found.valid.astype(found.centers.dtype)
    radius = jnp.nanmedian(jnp.where(found.valid, found.radius, jnp.nan))
    scale = jnp.nan_to_num(radius / guide.radius, nan=1.0)
    angles = _lattice_directions(found.centers, weight, scale)
    hypotheses = _hypotheses(found, guide, angles, scale, K)
    tried = jax.vmap(lambda h: _pose_of(h, found, guide, K))(hypotheses)
    _, seen, poses = tried
    count = jnp.sum(seen, axis=1)
    score = count - jnp.minimum(poses.rms_px, 5.0) * 0.1
    best = jnp.argmax(jnp.where(jnp.isfinite(score), score, -1.0))
    chosen = jax.tree.map(lambda leaf: leaf[best], tried)
    projected = jax.vmap(lambda T: project_points(K, T, guide.balls))(poses.T_camera_object)
    other = jnp.mean(jnp.linalg.norm(projected - projected[best][None], axis=-1), axis=1) > 2.0
    runner_up = jnp.max(jnp.where(other & (poses.rms_px < MAX_RMS_PX), count, 0))
    match = GuideMatch(*chosen, runner_up=runner_up)
    T = match.pose.T_camera_object
    behind = ~jnp.all(apply(T, guide.balls)[:, 2] > 0.0)
    # Unmatched balls within the target's area indicate a mirrored or another target.
    gap = jnp.linalg.norm(found.centers[:, None] - projected[best][None], axis=-1)
    inside = found.valid & jnp.any(gap < _NEIGHBOURHOOD * GUIDE_PITCH * scale, axis=1)
    foreign = jnp.sum(inside) - count[best] > _MAX_FOREIGN * count[best]
    in_far = jnp.sum(match.seen & guide.plane)
    in_near = jnp.sum(match.seen & ~guide.plane)
    status = first_status(
        (StatusCode.TOO_FEW_FIDUCIALS, count[best] < MIN_BALLS),
        (StatusCode.TOO_FEW_FIDUCIALS, jnp.minimum(in_far, in_near) < MIN_PER_PLANE),
        (StatusCode.CORRESPONDENCE_FAILED, ~(match.pose.rms_px < MAX_RMS_PX)),
        (StatusCode.CORRESPONDENCE_FAILED, runner_up >= count[best] - 1),
        (StatusCode.CORRESPONDENCE_FAILED, behind | foreign),
    )
    return match, status


def _lattice_directions(
    centers: Pixels, weight: Float[Array, " n"], scale: Scalar | float
) -> Float[Array, "2"]:
    """Two directions of the lattice in [0, pi/2): those in which, with their perpendiculars, most
    pairs of balls lie on a common line."""
    offset = (centers[:, None] - centers[None]) / scale  # mm
    length = jnp.linalg.norm(offset, axis=-1)
    pair = weight[:, None] * weight[None] * ((length > 0.6 * GUIDE_PITCH) & (length < 50.0))
    angles = jnp.linspace(0.0, 0.5 * jnp.pi, _NUM_DIRECTIONS // 2, endpoint=False)

    def votes(angle: Scalar) -> Scalar:
        c, s = jnp.cos(angle), jnp.sin(angle)
        along = offset[..., 0] * c + offset[..., 1] * s
        across = -offset[..., 0] * s + offset[..., 1] * c
        off = jnp.minimum(jnp.abs(along), jnp.abs(across))
        return jnp.sum(pair * jnp.exp(-((off / 0.5) ** 2)))

    score = jax.vmap(votes)(angles)
    best = jnp.argmax(score)
    # Diagonals of the lattice also contain lines, so the second best direction is tried as well.
    away = jnp.abs(jnp.arange(len(angles)) - best)
    away = jnp.minimum(away, len(angles) - away)
    second = jnp.argmax(jnp.where(away > 3, score, -1.0))

    def refined(coarse: Scalar) -> Scalar:
        # Mean angular deviation of the pairs on common lines, modulo 90 degrees.
        turn = jnp.arctan2(offset[..., 1], offset[..., 0]) - coarse
        turn = turn - 0.5 * jnp.pi * jnp.round(turn / (0.5 * jnp.pi))
        near = pair * length**2 * (jnp.abs(turn * length) < 0.8)
        return coarse + jnp.sum(near * turn) / jnp.maximum(jnp.sum(near), 1e-6)

    return jax.vmap(refined)(angles[jnp.stack([best, second])])


def _project_plane(points: Points, angle: Scalar, scale: Scalar) -> Pixels:
    """Points of a plane rotated and scaled as in an image taken along -z."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    x, y = points[:, 0], -points[:, 1]
    return scale * jnp.stack([c * x - s * y, s * x + c * y], axis=1)


def _count_near(expected: Pixels, found: Balls, reach: Scalar) -> Scalar:
    """Number of expected balls with a detected ball nearby, weighted by proximity."""
    square = (expected[:, None, 0] - found.centers[None, :, 0]) ** 2
    square = square + (expected[:, None, 1] - found.centers[None, :, 1]) ** 2
    nearest = jnp.min(jnp.where(found.valid[None], square, jnp.inf), axis=1)
    return jnp.sum(jnp.maximum(1.0 - nearest / reach**2, 0.0))


def _hypotheses(
    found: Balls, guide: DrillGuide, angles: Float[Array, "2"], scale: Scalar, K: Matrix3
) -> _Hypothesis:
    """Best hypotheses of the target's position, orientation and tilt in the image."""
    # Each plane has half of the balls.
    half = len(guide.plane) // 2
    _, far = jax.lax.top_k((~guide.plane).astype(scale.dtype), half)
    _, near = jax.lax.top_k(guide.plane.astype(scale.dtype), half)
    height = guide.balls[near[0], 2]
    # The measured radius is the mean of both planes; the near plane is magnified more.
    grow = 1.0 + height * scale / K[0, 0]
    scales = scale * jnp.stack([2.0 / (1.0 + grow), 2.0 * grow / (1.0 + grow)])
    reach = _COARSE * GUIDE_PITCH * scale
    turns = (angles[:, None] + 0.5 * jnp.pi * jnp.arange(4)[None]).reshape(-1)
    far_pixels = jax.vmap(lambda a: _project_plane(guide.balls[far], a, scales[0]))(turns)
    near_pixels = jax.vmap(lambda a: _project_plane(guide.balls[near], a, scales[1]))(turns)
    anchors = far_pixels[:, None, ::2]  # every other ball: the nail never hides all of these
    shifts = found.centers[None, :, None] - anchors
    flat = shifts.reshape(-1, 2)
    turn = jnp.repeat(jnp.arange(8), len(flat) // 8)

    def far_score(turn: Array, shift: Float[Array, "2"]) -> Scalar:
        return _count_near(far_pixels[turn] + shift[None], found, reach)

    usable = jnp.broadcast_to(found.valid[None, :, None], shifts.shape[:3]).reshape(-1)
    scores, best = jax.lax.top_k(usable * jax.vmap(far_score)(turn, flat), _NUM_SHIFTS)
    turn, flat = turn[best], flat[best]
    # Every detected ball yields the same place again: keep only the best of each place.
    square = jnp.sum((flat[:, None] - flat[None]) ** 2, axis=-1)
    same = (turn[:, None] == turn[None]) & (square < (0.3 * GUIDE_PITCH * scale) ** 2)
    repeated = jnp.any(jnp.tril(same, -1), axis=1)
    scores, best = jax.lax.top_k(jnp.where(repeated, -1.0, scores), _NUM_PLACES)
    turn, flat = turn[best], flat[best]
    sine = jnp.linspace(-1.0, 1.0, _TILT_STEPS) * jnp.sin(_MAX_TILT)
    tilts = jnp.stack(jnp.meshgrid(sine, sine), axis=-1).reshape(-1, 2)
    drift = tilts * height * scale
    # The near plane is magnified about the principal point, not about its own origin.
    center = K[:2, 2]
    near_origin = center[None] + (flat - center[None]) * (scales[1] / scales[0])

    def near_score(place: Array, tilt: Array) -> Scalar:
        shift = near_origin[place] + drift[tilt]
        return _count_near(near_pixels[turn[place]] + shift[None], found, reach)

    every = jax.vmap(jax.vmap(near_score, (None, 0)), (0, None))
    total = every(jnp.arange(_NUM_PLACES), jnp.arange(len(tilts))) + scores[:, None]
    grid = total.reshape(_NUM_PLACES, _TILT_STEPS, _TILT_STEPS)
    around = jax.lax.reduce_window(grid, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
    peaks = jnp.where(grid >= around, grid, -1.0).reshape(-1)
    _, best = jax.lax.top_k(peaks, _NUM_HYPOTHESES)
    tilt, best = best % len(tilts), best // len(tilts)
    near_shift = near_origin[best] + drift[tilt]
    return _Hypothesis(
        angle=turns[turn[best]],
        scale=jnp.broadcast_to(scales, (_NUM_HYPOTHESES, 2)),
        shift=jnp.stack([flat[best], near_shift], axis=1),
    )


def _nearest(
    expected: Pixels, found: Balls, reach: Scalar | float
) -> tuple[Pixels, Bool[Array, " m"]]:
    """Detected ball nearest to each expected one, and whether they are mutual nearest neighbours
    within reach."""
    square = jnp.sum((expected[:, None] - found.centers[None]) ** 2, axis=-1)
    square = jnp.where(found.valid[None], square, jnp.inf)
    nearest = jnp.argmin(square, axis=1)
    mutual = jnp.argmin(square, axis=0)[nearest] == jnp.arange(len(expected))
    smallest = jnp.take_along_axis(square, nearest[:, None], axis=1)[:, 0]
    return found.centers[nearest], mutual & (smallest < reach**2)


def _pose_of(
    hypothesis: _Hypothesis, found: Balls, guide: DrillGuide, K: Matrix3
) -> tuple[Pixels, Bool[Array, " ball"], PoseFit]:
    """Refine a hypothesis: homographies, then a pose, with decreasing matching distance."""
    scale = jnp.mean(hypothesis.scale)
    projected = jax.vmap(lambda s, t: _project_plane(guide.balls, hypothesis.angle, s) + t[None])(
        hypothesis.scale, hypothesis.shift
    )
    expected = jnp.where(guide.plane[:, None], projected[1], projected[0])
    for reach in (_COARSE, _FINE):
        pixels, seen = _nearest(expected, found, reach * GUIDE_PITCH * scale)
        mapped = [
            _soft_homography(projected[i], pixels, seen & (guide.plane == bool(i))) for i in (0, 1)
        ]
        expected = jnp.where(guide.plane[:, None], mapped[1], mapped[0])

    def refine(carry: tuple[SE3, Pixels], reach_and_spread: Float[Array, "2"]):
        T, expected = carry
        reach, spread = reach_and_spread
        pixels, seen = _nearest(expected, found, reach)
        # Cauchy weights: the centre of a ball half hidden by the nail is off by a pixel.
        weight = seen / (1.0 + jnp.sum((expected - pixels) ** 2, axis=1) / spread**2)
        fit, _ = pnp_lm(pixels, guide.balls, weight, K, T, num_steps=5)
        T = fit.T_camera_object
        return (T, project_points(K, T, guide.balls)), fit.covariance

    start = _start_pose(guide, hypothesis, K), expected
    reach = jnp.append(_FINE * GUIDE_PITCH * scale, jnp.array([4.0, 3.0, 2.0, INLIER_PX]))
    spread = jnp.array([10.0, 3.0, 1.0, 0.3, 0.3])  # px
    (T, expected), covariance = jax.lax.scan(refine, start, jnp.stack([reach, spread], axis=1))
    pixels, seen = _nearest(expected, found, INLIER_PX)
    square = jnp.sum((expected - pixels) ** 2, axis=1)
    rms = jnp.sqrt(jnp.sum(seen * square) / jnp.maximum(jnp.sum(seen), 1))
    return pixels, seen, PoseFit(T, covariance[-1], rms)


def _soft_homography(source: Pixels, target: Pixels, valid: Bool[Array, " n"]) -> Pixels:
    """Map `source` by the homography to `target`, regularised toward the identity."""
    size = 100.0
    center = jnp.mean(source, axis=0)
    a, b = (source - center[None]) / size, (target - center[None]) / size
    one, zero = jnp.ones(len(a)), jnp.zeros(len(a))
    x, y, u, v = a[:, 0], a[:, 1], b[:, 0], b[:, 1]
    rows_u = jnp.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1)
    rows_v = jnp.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1)
    weight = jnp.concatenate([valid, valid]).astype(source.dtype)
    design = jnp.concatenate([rows_u, rows_v]) * weight[:, None]
    identity = jnp.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    ridge = jnp.diag(jnp.array([0.01, 0.01, 1e-4, 0.01, 0.01, 1e-4, 0.3, 0.3]))
    right = design.T @ (weight * jnp.concatenate([u, v])) + ridge @ identity
    h = jnp.linalg.solve(design.T @ design + ridge, right)
    return apply_homography(jnp.append(h, 1.0).reshape(3, 3), a) * size + center[None]


def _start_pose(guide: DrillGuide, hypothesis: _Hypothesis, K: Matrix3) -> SE3:
    """Pose of a scaled parallel projection: depth from the scale, tilt from the shift between the
    planes."""
    height = guide.balls[jnp.argmax(guide.plane), 2]
    shift = hypothesis.shift[1] - (
        K[:2, 2] + (hypothesis.shift[0] - K[:2, 2]) * (hypothesis.scale[1] / hypothesis.scale[0])
    )
    lean = jnp.clip(shift / (height * hypothesis.scale[0]), -0.4, 0.4)
    z_axis = jnp.append(lean, -jnp.sqrt(1.0 - jnp.sum(lean**2)))
    x_axis = jnp.array([jnp.cos(hypothesis.angle), jnp.sin(hypothesis.angle), 0.0])
    x_axis = x_axis - jnp.dot(x_axis, z_axis) * z_axis
    x_axis = x_axis / jnp.linalg.norm(x_axis)
    rotation = jnp.stack([x_axis, jnp.cross(z_axis, x_axis), z_axis], axis=1)
    depth = K[0, 0] / hypothesis.scale[0]
    slopes = to_slopes(K, hypothesis.shift[:1])[0]
    position = depth * jnp.append(slopes, 1.0)
    return SE3.from_rotation_and_translation(SO3.from_matrix(rotation), position)
