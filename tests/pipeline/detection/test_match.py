"""Matching of views and naming of levels, with detections made from known positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera as cameras
from dartjax import data, simulation, ssm
from dartjax.models import DETECTED_LEVELS
from dartjax.pipeline.detection import ViewDetections, curve_poses, match, name_levels
from dartjax.pipeline.detection._match import ordered_assignment, sums_of_levels

PRIOR = data.load_spine_prior()


def column(first, last):
    """Levels and centres of the mean spine, upright in the patient's axes, world mm."""
    frames = jax.vmap(lambda a, b: a @ b.inverse())(
        ssm.spine_frames(PRIOR.mean), PRIOR.T_vertebra_frame
    )
    matrices = np.asarray(jax.vmap(lambda frame: frame.as_matrix())(frames), float)
    levels = ssm.SPINE_LEVELS
    chosen = slice(levels.index(first), levels.index(last) + 1)
    up = matrices[chosen.start, :3, 3] - matrices[chosen.stop - 1, :3, 3]
    up = up / np.linalg.norm(up)
    across = matrices[chosen.start, :3, 0] - (matrices[chosen.start, :3, 0] @ up) * up
    across /= np.linalg.norm(across)
    to_patient = np.stack([across, np.cross(up, across), up])
    matrices = matrices.copy()
    matrices[:, :3] = to_patient @ matrices[:, :3]
    return list(levels[chosen]), matrices[chosen]


def told(level, sure=0.6):
    """Log probabilities of a detector that takes a level for its neighbours now and then."""
    values = np.full(len(DETECTED_LEVELS), 0.01)
    place = DETECTED_LEVELS.index(level)
    values[max(place - 1, 0)] = values[min(place + 1, len(values) - 1)] = 0.5 * (1.0 - sure)
    values[place] = sure
    return np.log(values / values.sum())


def seen_by(view, levels, centers, rng, kept, noise_px=1.5):
    pixels = np.asarray(cameras.project(view, jnp.asarray(centers, jnp.float32)))
    pixels = pixels + rng.normal(0.0, noise_px, pixels.shape)
    half = 0.5 * 25.0 * 1.41 / 0.56
    boxes = np.concatenate([pixels - half, pixels + half], axis=1)
    chosen = np.flatnonzero(kept)
    return ViewDetections(
        score=np.ones(len(chosen)),
        box=boxes[chosen],
        body_box=boxes[chosen],
        center=pixels[chosen],
        log_level=np.stack([told(levels[i]) for i in chosen]),
        masks=np.ones((len(chosen), 28, 28)),
        sacrum=0.0,
    )


def angled_views(rng, middle, degrees, count=2):
    setup = simulation.CarmSetup()
    while True:
        views = simulation.random_views(rng, middle, setup, num_views=count)
        angles = simulation.pair_angles_deg(views)
        if degrees[0] <= min(angles) and max(angles) <= degrees[1]:
            return views


def everything_seen(seed, count=2):
    """Levels T8 to L3, random views of them, and detections of all of them in every view."""
    rng = np.random.default_rng(seed)
    levels, matrices = column("T8", "L3")
    centers = matrices[:, :3, 3]
    views = angled_views(rng, centers.mean(0), (30.0, 150.0), count=count)
    found = [seen_by(view, levels, centers, rng, np.ones(len(levels), bool)) for view in views]
    return levels, views, found


@pytest.mark.parametrize("seed", range(8))
def test_every_vertebra_that_two_views_show_is_matched_to_itself(seed):
    rng = np.random.default_rng(seed)
    levels, matrices = column("T5", "L2")
    centers = matrices[:, :3, 3]
    views = angled_views(rng, centers.mean(0), (30.0, 150.0))
    kept = rng.random((2, len(levels))) > 0.1
    found = [seen_by(v, levels, centers, rng, k) for v, k in zip(views, kept, strict=True)]
    matched = match(found, views, PRIOR)
    true = [np.flatnonzero(each) for each in kept]
    pairs = {(true[0][m.index[0]], true[1][m.index[1]]) for m in matched}
    both = np.flatnonzero(kept.all(0))
    assert pairs == {(i, i) for i in both}
    off = [np.linalg.norm(m.center - centers[i]) for m, i in zip(matched, both, strict=True)]
    assert np.median(off) < 4.0


def test_a_third_view_adds_to_the_first_two():
    levels, views, found = everything_seen(3, count=3)
    matched = match(found, views, PRIOR)
    assert [m.index for m in matched] == [(i, i, i) for i in range(len(levels))]
    assert all(m.num_views == 3 and m.residual_mm < 4.0 for m in matched)


def test_one_view_gives_no_vertebra():
    _, views, (one, other) = everything_seen(4)
    empty = ViewDetections(**{k: v if k == "sacrum" else v[:0] for k, v in vars(other).items()})
    assert match([one], views[:1], PRIOR) == [] and match([one, empty], views, PRIOR) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0.0, 6.0, (4, 5))
    unmatched = 1.7

    def best(i, j):
        if i == 4 or j == 5:
            return unmatched * (4 - i + 5 - j)
        return min(
            cost[i, j] + best(i + 1, j + 1), unmatched + best(i + 1, j), unmatched + best(i, j + 1)
        )

    pairs = ordered_assignment(cost, unmatched)
    total = sum(cost[i, j] for i, j in pairs) + unmatched * (9 - 2 * len(pairs))
    np.testing.assert_allclose(total, best(0, 0))
    assert pairs == sorted(pairs)


def test_levels_are_named_from_head_to_foot():
    levels, matrices = column("T6", "L4")
    names = name_levels(
        2.0 * np.stack([told(level) for level in levels]), matrices[:, :3, 3], PRIOR
    )
    assert names.levels == tuple(levels)
    assert names.reliable and (names.each > 0.9).all()


def test_one_detector_error_does_not_change_the_names():
    levels, matrices = column("T6", "L4")
    logs = 2.0 * np.stack([told(level) for level in levels])
    logs[4] = 2.0 * told("T8", 0.9)
    assert name_levels(logs, matrices[:, :3, 3], PRIOR).levels == tuple(levels)


def test_a_vertebra_that_was_not_detected_is_skipped():
    levels, matrices = column("T6", "L4")
    logs = 2.0 * np.stack([told(level) for level in levels])
    rest = [i for i in range(len(levels)) if i != 5]
    found = name_levels(logs[rest], matrices[rest, :3, 3], PRIOR)
    assert found.levels == tuple(levels[i] for i in rest)


def test_a_sixth_lumbar_vertebra_can_be_named():
    levels, matrices = column("L1", "L6")
    logs = 4.0 * np.stack([told(level, 0.9) for level in levels])
    assert name_levels(logs, matrices[:, :3, 3], PRIOR).levels == tuple(levels)


def test_an_uncertain_column_is_not_named():
    levels, matrices = column("T5", "T8")
    logs = np.zeros((len(levels), len(DETECTED_LEVELS))) - np.log(len(DETECTED_LEVELS))
    assert not name_levels(logs, matrices[:, :3, 3], PRIOR).reliable


def test_the_allowed_levels_fix_the_names():
    levels, matrices = column("T6", "T9")
    logs = np.stack([told("L1") for _ in levels])
    found = name_levels(logs, matrices[:, :3, 3], PRIOR, allowed=levels)
    assert found.levels == tuple(levels) and found.probability > 0.99
    with pytest.raises(ValueError, match="cannot be named"):
        name_levels(logs, matrices[:, :3, 3], PRIOR, allowed=["T6", "T7"])


def test_names_do_not_depend_on_the_unit_of_the_sums():
    """A constant added to all levels of a vertebra changes nothing."""
    levels, matrices = column("T6", "T9")
    logs = np.stack([told(level) for level in levels])
    a = name_levels(logs, matrices[:, :3, 3], PRIOR)
    b = name_levels(logs - 7.0, matrices[:, :3, 3], PRIOR)
    assert a.levels == b.levels
    np.testing.assert_allclose(a.probability, b.probability, rtol=1e-6)


def test_the_mean_spine_gets_its_own_poses():
    levels, matrices = column("T4", "L4")
    poses = curve_poses(levels, matrices[:, :3, 3], PRIOR)
    for pose, true in zip(poses[1:-1], matrices[1:-1], strict=True):
        found = np.asarray(pose.as_matrix(), float)
        turn = found[:3, :3].T @ true[:3, :3]
        degrees = np.degrees(np.arccos(np.clip((np.trace(turn) - 1.0) / 2.0, -1.0, 1.0)))
        assert degrees < 5.0
        np.testing.assert_allclose(found[:3, 3], true[:3, 3], atol=1e-3)


def test_sums_are_over_the_views_that_show_a_vertebra():
    levels, views, found = everything_seen(5)
    sums = sums_of_levels(match(found, views, PRIOR), found)
    np.testing.assert_allclose(sums, 2.0 * np.stack([told(level) for level in levels]))
