"""A cropped CT in a synthetic body: the vertebrae keep their place, a body is around them."""

import numpy as np
import pytest
from scipy import ndimage

from dartjax import data, synthverse
from dartjax.anatomy import label_of
from dartjax.synthverse import synthetic_case

LEVELS = ("L2", "L3")
SPACING = 4.0
WATER = float(data.hu_to_attenuation(np.zeros(1))[0])  # 1/mm


@pytest.fixture(scope="module")
def crop():
    """Two vertebrae of a torso, cropped to 6 mm around them, and their frames."""
    whole = synthetic_case(seed=2)
    wanted = np.isin(whole.labels, [label_of(level) for level in LEVELS])
    places = np.argwhere(wanted)
    low, high = places.min(0) - 5, places.max(0) + 6
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    affine = np.asarray(whole.ct.world_from_voxel, np.float64)
    affine[:3, 3] += affine[:3, :3] @ low
    labels = np.where(wanted, whole.labels, 0).astype(np.uint8)[box]
    hu = np.asarray(whole.ct.values)[box] / WATER * 1000.0 - 1000.0
    case = data.build_case(
        "verse999",
        np.rint(hu).astype(np.int16),
        labels,
        affine,
        dataset="test",
        kind="synthetic",
    )
    frames = {}
    for level in LEVELS:
        voxels = np.argwhere(labels == label_of(level))
        front = voxels[voxels[:, 1] > np.quantile(voxels[:, 1], 0.6)]
        frames[level] = np.eye(4)
        frames[level][:3, 3] = affine[:3, :3] @ front.mean(0) + affine[:3, 3]
    return case, frames


@pytest.fixture(scope="module")
def body(crop):
    return synthverse.body_around(*crop, seed=1, spacing_mm=SPACING)


def sampled(volume, points):
    """Interpolated values at world points (n, 3), 0 outside."""
    inverse = np.linalg.inv(np.asarray(volume.world_from_voxel, np.float64))
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    return ndimage.map_coordinates(np.asarray(volume.values), index.T, order=1)


def test_the_real_vertebrae_keep_place_and_density(crop, body):
    case, frames = crop
    affine = np.asarray(body.world_from_voxel, np.float64)
    # At voxel centres of the body the CT is interpolated, so that they can be compared.
    grid = np.argwhere(np.ones(body.values.shape, bool))
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    near = np.linalg.norm(world - frames["L3"][:3, 3], axis=1) < 10.0
    given, found = sampled(case.ct, world[near]), sampled(body, world[near])
    assert near.sum() > 40
    assert np.corrcoef(given, found)[0, 1] > 0.9
    assert abs(given.mean() - found.mean()) < 0.03 * given.mean()


def test_a_body_is_around_the_crop(crop, body):
    case, frames = crop
    middle = frames["L3"][:3, 3]
    ball = np.random.default_rng(0).normal(size=(300, 3)) * [6.0, 6.0, 25.0]
    for place in ([95.0, 0.0, 0.0], [-95.0, 0.0, 0.0], [0.0, 70.0, 30.0]):
        assert not sampled(case.ct, middle + place + ball).any()
        assert sampled(body, middle + place + ball).mean() > 0.6 * WATER
    assert not sampled(body, middle + np.array([[0.0, -200.0, 0.0]])).any()
    high = np.asarray(body.values) > 1.3 * WATER
    rows = np.flatnonzero(high.any((0, 1)))
    affine = np.asarray(body.world_from_voxel, np.float64)
    ends = affine[2, 3] + affine[2, 2] * rows[[0, -1]]
    assert ends[0] < middle[2] - 120.0 and ends[1] > middle[2] + 120.0  # sacrum and upper levels


def test_the_same_seed_gives_the_same_body(crop, body):
    again = synthverse.body_around(*crop, seed=1, spacing_mm=SPACING)
    np.testing.assert_array_equal(again.values, body.values)
    other = synthverse.body_around(*crop, seed=2, spacing_mm=SPACING)
    assert other.values.shape != body.values.shape or not np.array_equal(other.values, body.values)


def test_a_case_without_modelled_levels_is_an_error(crop):
    with pytest.raises(data.DataError, match="no complete level"):
        synthverse.body_around(crop[0], {"C7": np.eye(4)}, spacing_mm=SPACING)
