"""Lengths as linear functions of a shape, and calibration of models to published lengths."""

import numpy as np
import pytest

from dartjax.ssm.build._calibrate import LinearLengths, amplitudes, shift_toward


@pytest.fixture
def lengths():
    """Two lengths of four points: 0 to 1 along x, 2 to 3 along z."""
    ends = np.array([[[0.0, 0, 0], [10.0, 0, 0]], [[0.0, 0, 0], [0.0, 0, 5.0]]])
    vertices = np.array([[[0], [1]], [[2], [3]]])
    return LinearLengths(ends, vertices, np.ones((2, 2, 1)))


def test_lengths_of_a_surface_and_of_a_field(lengths):
    points = np.array([[0.0, 0, 0], [12.0, 3, 1], [0.0, 0, -1], [4.0, 0, 6]])
    np.testing.assert_allclose(lengths(points), [12.0, 7.0])
    fields = np.stack([points, 2.0 * points], axis=2)
    np.testing.assert_allclose(lengths(fields), [[12.0, 24.0], [7.0, 14.0]])


def test_amplitudes_bring_the_spread_to_the_published_one():
    """Two modes, each alone in one length: standard deviations 2 and 1 become 1.5 and 1."""
    response = np.array([[2.0, 0.0], [0.0, 1.0]])
    scales = amplitudes(response, np.array([1.5, 1.0]))
    np.testing.assert_allclose(scales * [2.0, 1.0], [1.5, 1.0], rtol=0.02)
    # No mode is changed beyond the stated range.
    assert amplitudes(response, np.array([0.01, 1.0]))[0] == pytest.approx(np.sqrt(0.35))


def test_shift_gives_the_wanted_lengths_the_most_probable_way(lengths):
    rng = np.random.default_rng(0)
    modes, surface = rng.normal(size=(6, 4, 3)), 10.0 * rng.normal(size=(4, 3))
    wanted = lengths(surface) + np.array([1.0, -0.5])
    moved = shift_toward(modes, lengths, surface, wanted)
    basis = modes.reshape(6, -1).T
    found = np.linalg.lstsq(basis, (moved - surface).ravel(), rcond=None)[0]

    def unlikely(coefficients):
        shape = surface + np.tensordot(coefficients, modes, axes=1)
        gap = (lengths(shape) - wanted) / 0.3
        return coefficients @ coefficients + gap @ gap

    # The most probable coefficients: any small change is less so.
    for step in 1e-3 * rng.normal(size=(20, 6)):
        assert unlikely(found) < unlikely(found + step)
    assert np.abs(lengths(moved) - wanted).max() < 0.2


def test_equal_lengths_with_different_targets_are_averaged():
    """The same length twice with different targets: the result is their mean and stays finite."""
    ends = np.array([[[0.0, 0, 0], [10.0, 0, 0]]] * 2)
    lengths = LinearLengths(ends, np.array([[[0], [1]]] * 2), np.ones((2, 2, 1)))
    modes = np.array([[[0.0, 0, 0], [5.0, 0, 0]], [[0.0, 0, 0], [0.0, 1.0, 0.0]]])
    surface = np.array([[0.0, 0, 0], [10.0, 0, 0]])
    moved = shift_toward(modes, lengths, surface, np.array([11.0, 10.0]))
    np.testing.assert_allclose(moved[1], [10.5, 0.0, 0.0], atol=0.01)
