"""Boxes: overlap, encoding, duplicates, pooling and peaks, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from dartjax import models
from tests.gradients import assert_gradient


def random_boxes(rng, count, size=64.0):
    corners = rng.uniform(0.0, 0.6 * size, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(4.0, 0.4 * size, (count, 2))], axis=1)


def overlap_of_two(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def test_overlaps_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    first, second = random_boxes(rng, 7), random_boxes(rng, 5)
    found = models.box_overlaps(jnp.asarray(first), jnp.asarray(second))
    expected = [[overlap_of_two(a, b) for b in second] for a in first]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_empty_box_overlaps_nothing():
    boxes = jnp.array([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 5.0, 5.0]])
    assert not np.asarray(models.box_overlaps(boxes, boxes))[0].any()


def test_generalized_overlap_at_known_values():
    a = jnp.array([[0.0, 0.0, 2.0, 2.0]] * 3)
    b = jnp.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    # equal; half shared of a hull without gaps; disjoint, a third of the hull is empty
    np.testing.assert_allclose(models.generalized_overlap(a, b), [1.0, 1 / 3, -1 / 3], atol=1e-6)


def test_generalized_overlap_has_a_slope_for_disjoint_boxes(x64):
    target = jnp.array([[10.0, 10.0, 14.0, 15.0]])

    def loss(box):
        return models.generalized_overlap(box[None], target)[0]

    assert_gradient(loss, [1.0, 2.0, 4.0, 6.0])
    assert float(jax.grad(loss)(jnp.array([1.0, 2.0, 4.0, 6.0]))[2]) > 0.0


def test_a_code_decodes_to_its_box():
    rng = np.random.default_rng(1)
    boxes, proposals = (jnp.asarray(random_boxes(rng, 9)) for _ in range(2))
    codes = models.encode_boxes(boxes, proposals)
    np.testing.assert_allclose(models.decode_boxes(codes, proposals), boxes, atol=1e-4)
    still = models.decode_boxes(jnp.zeros((9, 4)), proposals)
    np.testing.assert_allclose(still, proposals, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 20, 40.0), rng.random(20)
    valid = rng.random(20) < 0.8
    kept = []
    for i in np.argsort(-scores):
        if valid[i] and all(overlap_of_two(boxes[i], boxes[j]) <= 0.3 for j in kept):
            kept.append(i)
    found = models.suppress_duplicates(
        jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(valid), 0.3
    )
    assert sorted(kept) == np.flatnonzero(found).tolist()


def test_pooling_is_that_of_a_loop_over_samples():
    rng = np.random.default_rng(2)
    features = rng.random((12, 16, 3))
    boxes = np.concatenate([random_boxes(rng, 4), [[-9.0, -5.0, 30.0, 90.0]]])
    stride, size = 4.0, 3
    found = models.roi_align(jnp.asarray(features), jnp.asarray(boxes), size, stride)
    steps = (np.arange(2 * size) + 0.5) / (2 * size)
    for box, pooled in zip(boxes, found, strict=True):
        u, v = (box[k] + steps * (box[k + 2] - box[k]) for k in (0, 1))
        rows, columns = np.meshgrid(v / stride - 0.5, u / stride - 0.5, indexing="ij")
        for channel in range(3):
            samples = ndimage.map_coordinates(
                features[..., channel], [rows, columns], order=1, mode="nearest"
            )
            expected = samples.reshape(size, 2, size, 2).mean((1, 3))
            np.testing.assert_allclose(pooled[..., channel], expected, atol=1e-5)


def test_pooling_has_the_derivatives_of_finite_differences(x64):
    features = jax.random.normal(jax.random.key(0), (8, 8, 2))
    boxes = jnp.array([[3.3, 5.1, 20.7, 25.2]])
    assert_gradient(lambda x: jnp.sum(models.roi_align(x, boxes, 3, 4.0) ** 2), features)


def test_peaks_are_local_maxima_from_high_to_low():
    heat = jnp.zeros((8, 9)).at[2, 3].set(5.0).at[2, 4].set(4.0).at[6, 1].set(3.0)
    values, cells = models.local_peaks(heat, 2)
    np.testing.assert_array_equal(cells, [[2, 3], [6, 1]])
    np.testing.assert_array_equal(values, [5.0, 3.0])
