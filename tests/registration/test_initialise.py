"""Initialisation: the tier for each kind of evidence, and the error of the start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import transforms
from dartjax.observations import PARTNER
from dartjax.registration import (
    ABSTAINED,
    TIERS,
    ExpectedPose,
    agreeing_landmarks,
    initialise,
    no_expected_pose,
)
from tests.registration import scenes


@pytest.fixture(scope="module")
def clean():
    return scenes.observations(0.0, 70.0)


@pytest.fixture(scope="module")
def run():
    model = scenes.model()
    return jax.jit(lambda observations, neighbour: initialise(model, observations, neighbour))


def with_landmarks(observations, seen, landmarks=None):
    return dataclasses.replace(
        observations,
        landmarks=observations.landmarks if landmarks is None else jnp.asarray(landmarks),
        landmark_sigma=jnp.where(jnp.asarray(seen), 3.0, jnp.inf),
    )


def without_masks(observations, *views):
    masks = observations.masks
    for view in views:
        masks = masks.at[view].set(0.0)
    return dataclasses.replace(observations, masks=masks)


def errors(pose):
    """Compute the error of a pose: distance of the vertebra's middle in mm, and angle in deg."""
    middle = jnp.mean(scenes.model().mean_shape, axis=0)
    apart = jnp.linalg.norm(pose.apply(middle) - scenes.TRUE_POSE.apply(middle))
    turn = transforms.rotation_angle(scenes.TRUE_POSE.rotation().inverse() @ pose.rotation())
    return float(apart), float(jnp.degrees(turn))


def everything(count=10):
    return np.arange(10)[None].repeat(2, 0) < count


def test_all_landmarks_give_the_first_tier(clean, run):
    found = run(with_landmarks(clean, everything()), no_expected_pose())
    apart, turn = errors(found.pose)
    assert int(found.tier) == 0 and int(found.num_inliers) == 20
    assert apart < 1.0 and turn < 3.0  # the true shape is not the mean


def test_no_landmark_need_be_seen_twice(clean, run):
    seen = np.zeros((2, 10), bool)
    seen[0, [0, 7, 8]] = seen[1, [1, 5, 9]] = True
    found = run(with_landmarks(clean, seen), no_expected_pose())
    apart, turn = errors(found.pose)
    assert int(found.tier) == 1
    assert apart < 4.0 and turn < 12.0


def test_outliers_and_swaps_are_tolerated(clean, run):
    landmarks = np.array(clean.landmarks)
    landmarks[1] = landmarks[1][list(PARTNER)]  # left/right swap in the second view
    landmarks[0, 0] += 25.0
    landmarks[1, 3] -= 30.0
    found = run(with_landmarks(clean, everything(), landmarks), no_expected_pose())
    apart, turn = errors(found.pose)
    assert int(found.tier) == 0
    assert int(found.num_inliers) == 18
    assert apart < 1.5 and turn < 4.0
    kept = agreeing_landmarks(with_landmarks(clean, everything(), landmarks), found)
    dropped = ~np.isfinite(np.asarray(kept.landmark_sigma))
    assert dropped.sum() == 2 and dropped[0, 0] and dropped[1, [3, 4]].any()
    right = np.abs(np.asarray(kept.landmarks - clean.landmarks)).max(-1) < 1e-3
    assert right[~dropped].all()


def test_masks_give_the_position_and_a_neighbour_the_orientation(clean, run):
    nothing = with_landmarks(clean, np.zeros((2, 10), bool))
    alone = run(nothing, no_expected_pose())
    assert TIERS[int(alone.tier)].startswith("masks")
    assert errors(alone.pose)[0] < 12.0
    near = transforms.perturb(
        scenes.TRUE_POSE, jnp.array([0.08, 0.0, 0.05]), jnp.array([3.0, -2.0, 4.0])
    )
    helped = run(nothing, ExpectedPose(near, jnp.asarray(True)))
    assert errors(helped.pose)[1] < 7.0 < errors(alone.pose)[1]


def test_too_little_evidence_leads_to_abstention(clean, run):
    seen = np.zeros((2, 10), bool)
    seen[0, 0] = True
    blind = without_masks(with_landmarks(clean, seen), 0, 1)
    assert int(run(blind, no_expected_pose()).tier) == ABSTAINED
    unreadable = np.full((2, 10, 2), np.nan, np.float32)
    blind = without_masks(with_landmarks(clean, everything(), unreadable), 0, 1)
    assert int(run(blind, no_expected_pose()).tier) == ABSTAINED


def test_detections_in_one_view_need_a_neighbour(clean, run):
    seen = np.zeros((2, 10), bool)
    seen[1, :6] = True
    one_sided = without_masks(with_landmarks(clean, seen), 0)
    assert int(run(one_sided, no_expected_pose()).tier) == ABSTAINED
    near = transforms.perturb(
        scenes.TRUE_POSE, jnp.array([0.08, 0.0, 0.05]), jnp.array([3.0, -2.0, 4.0])
    )
    helped = run(one_sided, ExpectedPose(near, jnp.asarray(True)))
    assert int(helped.tier) == 3 and errors(helped.pose)[0] < 10.0


@pytest.mark.slow
def test_one_case_is_the_same_in_a_batch(clean, run):
    cases = [with_landmarks(clean, everything(count)) for count in (10, 4)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    model = scenes.model()
    together = jax.jit(jax.vmap(lambda o: initialise(model, o)))(batch)
    for index, case in enumerate(cases):
        alone = run(case, no_expected_pose())
        assert int(alone.tier) == int(together.tier[index])
        other = jax.tree.map(lambda leaf, i=index: leaf[i], together.pose)
        apart = jnp.linalg.norm(alone.pose.translation() - other.translation())
        assert float(apart) < 0.05
