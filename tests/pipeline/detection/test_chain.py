"""The best column among possible vertebrae: what does not look like a spine is left out."""

import numpy as np

from dartjax import data
from dartjax.models import DETECTED_LEVELS
from dartjax.pipeline.detection._chain import Candidates, best_chain
from tests.pipeline.detection.test_match import column, told

PRIOR = data.load_spine_prior()
UNKNOWN = np.full(len(DETECTED_LEVELS), -np.log(len(DETECTED_LEVELS)))


def candidates(places, gain=2.0, log_level=None):
    count = len(places)
    return Candidates(
        np.asarray(places, float),
        np.full(count, gain) if np.isscalar(gain) else np.asarray(gain, float),
        np.stack([UNKNOWN] * count) if log_level is None else np.stack(log_level),
    )


def spine():
    levels, matrices = column("T6", "L2")
    return levels, matrices[:, :3, 3]


def test_a_column_is_found_whatever_the_order_of_the_candidates():
    _, centers = spine()
    shuffled = np.random.default_rng(0).permutation(len(centers))
    chain = best_chain(candidates(centers[shuffled]), PRIOR)
    assert shuffled[chain].tolist() == list(range(len(centers)))


def test_vertebrae_between_two_others_and_beside_the_spine_are_left_out():
    _, centers = spine()
    between = 0.5 * (centers[2] + centers[3])
    beside = centers[5] + [45.0, 0.0, 0.0]
    chain = best_chain(candidates([*centers, between, beside]), PRIOR)
    assert chain == list(range(len(centers)))


def test_a_doubtful_vertebra_counts_within_a_column_only():
    _, centers = spine()
    gain = np.full(len(centers), 2.0)
    gain[4] = -0.5
    assert 4 in best_chain(candidates(centers, gain), PRIOR)
    assert best_chain(candidates(centers[4:5], [-0.5]), PRIOR) == []


def test_vertebrae_that_were_not_found_are_skipped():
    _, centers = spine()
    kept = [0, 1, 2, 5, 6, 7]
    assert best_chain(candidates(centers[kept], 4.0), PRIOR) == list(range(len(kept)))


def test_the_levels_choose_between_two_columns():
    levels, centers = spine()
    moved = centers + np.array([60.0, 0.0, 0.0])
    right = [told(level) for level in levels]
    found = best_chain(
        candidates([*moved, *centers], log_level=[*([UNKNOWN] * len(levels)), *right]), PRIOR
    )
    assert found == list(range(len(levels), 2 * len(levels)))


def test_nothing_gives_nothing():
    nothing = Candidates(np.zeros((0, 3)), np.zeros(0), np.zeros((0, len(DETECTED_LEVELS))))
    assert best_chain(nothing, PRIOR) == []
