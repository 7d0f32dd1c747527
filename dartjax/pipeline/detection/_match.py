"""Matching of the vertebrae found in several views, by geometry, size and level.

Every pair of detections of two views is a possible vertebra where their rays are nearest. The best
column of them is kept (`best_chain`). Further views are matched to its points.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras
from dartjax import registration, ssm
from dartjax.camera import Camera
from dartjax.pipeline.detection._chain import Candidates, best_chain
from dartjax.pipeline.detection._detect import ViewDetections

_GAP_SIGMA_MM = 4.0  # of the distance between the rays to one vertebra's body
_WIDEST_GAP = 3.0  # standard deviations
_EACH = 0.5  # log odds that a detection gains from being one of two that agree
_SIZE_SIGMA = 0.2  # of the log ratio of the heights that two views give
_UNMATCHED = 4.5  # cost of a vertebra without a partner: a gap of 3 sigma
_FARTHEST = 6.0  # mm, rms: largest residual of a matched vertebra


@dataclasses.dataclass(frozen=True)
class MatchedVertebra:
    """One vertebra in several views: its index in the detections of each view (-1 = not found),
    the centre of its body (world mm), and the residual of the rays to it."""

    index: tuple[int, ...]
    center: Float[np.ndarray, "3"]
    residual_mm: float

    @property
    def num_views(self) -> int:
        """Return the number of views that show it."""
        return sum(i >= 0 for i in self.index)


def match(
    detections: Sequence[ViewDetections], views: Sequence[Camera], prior: ssm.SpinePrior
) -> list[MatchedVertebra]:
    """Match the detections of K views: the vertebrae seen in two or more, from head to foot.

    Detections may be doubtful ones (`detect` with a low `least_score`): a column of vertebrae must
    look like a spine of the population. The two views that agree best come first; each other view
    is matched to their points. Fewer than two views with detections give no vertebra. Cameras in
    one world frame, whose axes are about the patient's.
    """
    pairs = _pairs_of_views(detections)
    if not pairs:
        return []
    best = [_match_two(detections, views, a, b, prior) for a, b in pairs]
    first = max(best, key=lambda found: found[1])
    chosen = [list(index) for index in first[0]]
    rest = [k for k in range(len(views)) if len(detections[k]) and k not in first[2]]
    for k in rest if chosen else ():
        _add_view(chosen, detections, views, k)
    matched = [_vertebra(tuple(index), detections, views) for index in chosen]
    return [each for each in matched if each.residual_mm <= _FARTHEST]


def _pairs_of_views(detections: Sequence[ViewDetections]) -> list[tuple[int, int]]:
    seen = [k for k, found in enumerate(detections) if len(found)]
    return [(a, b) for i, a in enumerate(seen) for b in seen[i + 1 :]]


def _match_two(
    detections: Sequence[ViewDetections],
    views: Sequence[Camera],
    a: int,
    b: int,
    prior: ssm.SpinePrior,
) -> tuple[list[tuple[int, ...]], float, tuple[int, int]]:
    """Match two views: the indices of each vertebra, the total gain, and the views."""
    first, second = detections[a], detections[b]
    gaps, points = _gaps(views[a], first.center, views[b], second.center)
    cost = 0.5 * (gaps / _GAP_SIGMA_MM) ** 2
    heights = [
        _height_mm(views[k], found, points_of)
        for k, found, points_of in ((a, first, points), (b, second, points.swapaxes(0, 1)))
    ]
    ratio = np.log(heights[0]) - np.log(heights[1].T)
    cost += 0.5 * np.minimum((ratio / _SIZE_SIGMA) ** 2, 9.0)
    gain = _log_odds(first.score)[:, None] + _log_odds(second.score)[None] - cost
    i, j = np.nonzero(gaps <= _WIDEST_GAP * _GAP_SIGMA_MM)
    candidates = Candidates(points[i, j], gain[i, j], first.log_level[i] + second.log_level[j])
    chain = best_chain(candidates, prior)
    index = []
    for place in chain:
        own = [-1] * len(views)
        own[a], own[b] = int(i[place]), int(j[place])
        index.append(tuple(own))
    return index, float(gain[i[chain], j[chain]].sum()), (a, b)


def _log_odds(score: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    bounded = np.clip(score, 0.02, 0.98)
    return np.log(bounded / (1.0 - bounded)) + _EACH


def ordered_assignment(cost: Float[np.ndarray, "n m"], unmatched: float) -> list[tuple[int, int]]:
    """Find the pairs (i, j), increasing in both, of the least total cost, where an element without
    a partner costs `unmatched`."""
    n, m = cost.shape
    total = np.zeros((n + 1, m + 1))
    total[:, 0], total[0] = unmatched * np.arange(n + 1), unmatched * np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            total[i, j] = min(
                total[i - 1, j - 1] + cost[i - 1, j - 1],
                total[i - 1, j] + unmatched,
                total[i, j - 1] + unmatched,
            )
    pairs, i, j = [], n, m
    while i and j:
        if np.isclose(total[i, j], total[i - 1, j - 1] + cost[i - 1, j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif np.isclose(total[i, j], total[i - 1, j] + unmatched):
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _gaps(
    first: Camera,
    own: Float[np.ndarray, "n 2"],
    second: Camera,
    other: Float[np.ndarray, "m 2"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m 3"]]:
    """Triangulate all pairs of centres: the distance of their rays (mm) and their point (world
    mm)."""
    n, m = len(own), len(other)
    pixels = np.stack([np.repeat(own, m, axis=0), np.tile(other, (n, 1))])
    found = _triangulate((first, second), pixels)
    # Half the distance is the error in either view; the residual is the rms of both along u and v.
    distance = np.sqrt(8.0) * np.asarray(found.residual_mm)
    return distance.reshape(n, m), np.asarray(found.points).reshape(n, m, 3)


def _triangulate(
    views: Sequence[Camera], pixels: Float[np.ndarray, "view n 2"]
) -> registration.Triangulated:
    """Triangulate points; a pixel that is NaN is not seen."""
    # Rays do not depend on the image size, which is a static field: cameras with one size stack.
    same = [dataclasses.replace(view, image_size=views[0].image_size) for view in views]
    count = pixels.shape[1]
    padded = np.full((len(views), -(-max(count, 1) // 64) * 64, 2), np.nan)
    padded[:, :count] = pixels
    seen = np.isfinite(padded).all(-1)
    sigma = jnp.asarray(np.where(seen, 1.0, np.inf), jnp.float32)
    points = jnp.asarray(np.nan_to_num(padded), jnp.float32)
    found = _program()(registration.stack(same), points, sigma)
    return jax.tree.map(lambda leaf: leaf[:count], found)


@functools.cache
def _program() -> Callable[..., registration.Triangulated]:
    return jax.jit(registration.triangulate)


def _height_mm(
    view: Camera, found: ViewDetections, points: Float[np.ndarray, "n m 3"]
) -> Float[np.ndarray, "n m"]:
    """Height of each detection's body at the depth of its point with every partner, mm."""
    sides = found.body_box[:, 3] - found.body_box[:, 1]
    depth = np.asarray(cameras.depth(view, jnp.asarray(points.reshape(-1, 3), jnp.float32)))
    per_mm = float(view.focal_length[1]) / np.maximum(depth.reshape(points.shape[:2]), 1.0)
    return np.maximum(sides, 1.0)[:, None] / per_mm


def _add_view(
    chosen: list[list[int]],
    detections: Sequence[ViewDetections],
    views: Sequence[Camera],
    k: int,
) -> None:
    """Match one more view to the vertebrae found so far, in place."""
    points = [_vertebra(tuple(index), detections, views).center for index in chosen]
    where = jnp.asarray(np.array(points), jnp.float32)
    pixels = np.asarray(cameras.project(views[k], where))
    depth = np.asarray(cameras.depth(views[k], where))
    per_mm = np.asarray(views[k].focal_length) / depth[:, None]
    off = (detections[k].center[None] - pixels[:, None]) / per_mm[:, None]
    cost = 0.5 * (np.linalg.norm(off, axis=-1) / _GAP_SIGMA_MM) ** 2
    for i, j in ordered_assignment(cost, _UNMATCHED):
        chosen[i][k] = j


def _vertebra(
    index: tuple[int, ...], detections: Sequence[ViewDetections], views: Sequence[Camera]
) -> MatchedVertebra:
    pixels = np.full((len(views), 1, 2), np.nan)
    for k, i in enumerate(index):
        if i >= 0:
            pixels[k, 0] = detections[k].center[i]
    found = _triangulate(views, pixels)
    return MatchedVertebra(
        index, np.asarray(found.points[0], float), float(np.asarray(found.residual_mm)[0])
    )


def sums_of_levels(
    matched: Sequence[MatchedVertebra], detections: Sequence[ViewDetections]
) -> Float[np.ndarray, "n level"]:
    """Sum the log probabilities of the levels over the views of each vertebra."""
    return np.stack(
        [
            sum(detections[k].log_level[i] for k, i in enumerate(each.index) if i >= 0)
            for each in matched
        ]
    )
