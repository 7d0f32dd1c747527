"""Views drawn for a C-arm: ranges, named views, visible anatomy, pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.render import (
    ViewRanges,
    angles_between,
    orthogonal_views,
    random_view,
    sample_pairs,
    usable_pairs,
)

ISOCENTER = jnp.array([12.0, -40.0, 310.0])
EXACT = ViewRanges(isocenter_shift=0.0, jitter_deg=0.0, tilt_deg=0.0)


@pytest.fixture(scope="module")
def views():
    keys = jax.random.split(jax.random.key(3), 500)
    return jax.vmap(lambda key: random_view(ISOCENTER, key=key))(keys)


@pytest.mark.slow
def test_random_views_fill_their_ranges_and_nothing_more(views):
    sdd, beams = np.asarray(views.sdd), np.asarray(jax.vmap(lambda v: v.beam)(views))
    assert sdd.min() >= 900 and sdd.max() <= 1100 and np.ptp(sdd) > 190
    # The beam of C-arm angles (p, s) is (-sin p cos s, cos p cos s, sin s).
    secondary = np.degrees(np.arcsin(beams[:, 2]))
    assert np.abs(secondary).max() <= 15.0 and np.ptp(secondary) > 28
    primary = np.degrees(np.arctan2(-beams[:, 0], beams[:, 1]))
    quarters, _ = np.histogram(primary, bins=4, range=(-180, 180))
    assert quarters.min() > 90  # of 500, 125 expected in each
    # Depth of the nominal isocenter: its distance, less the shift of at most 20 mm per axis.
    depth = np.asarray(jax.vmap(lambda v: camera.depth(v, ISOCENTER[None])[0])(views))
    assert depth.min() > 530 - 35 and depth.max() < 700 + 35
    assert (sdd - depth).min() > 300 - 35


def test_the_isocenter_is_shifted_by_at_most_20_mm_per_axis(views):
    sources = np.asarray(jax.vmap(lambda v: v.source)(views))
    beams = np.asarray(jax.vmap(lambda v: v.beam)(views))
    to_isocenter = np.asarray(ISOCENTER) - sources
    off_axis = to_isocenter - (to_isocenter * beams).sum(1, keepdims=True) * beams
    distance = np.linalg.norm(off_axis, axis=1)
    assert 15.0 < distance.max() <= 20.0 * np.sqrt(3.0) + 1e-3


def test_pixels_share_the_detector(views):
    spacing = np.asarray(jax.vmap(lambda v: v.pixel_spacing)(views))
    np.testing.assert_allclose(spacing, 300.0 / 256.0, rtol=1e-5)
    wide = random_view(ISOCENTER, key=jax.random.key(0), detector_mm=720.0, image_size=(120, 240))
    np.testing.assert_allclose(wide.pixel_spacing, 3.0, rtol=1e-5)
    np.testing.assert_allclose(wide.principal_point, [120.0, 60.0])


def test_without_jitter_the_orthogonal_views_are_ap_and_left_lateral():
    ap, lateral = orthogonal_views(ISOCENTER, key=jax.random.key(1), ranges=EXACT)
    for view, name in ((ap, "AP"), (lateral, "LAT_L")):
        rotation = view.world_from_camera.rotation().as_matrix()
        np.testing.assert_allclose(rotation, transforms.VIEW_AXES[name], atol=1e-6)
        center = camera.project(view, ISOCENTER[None])[0]
        np.testing.assert_allclose(center, [128.0, 128.0], atol=0.02)


@pytest.mark.slow
def test_jitter_keeps_orthogonal_views_nearly_so():
    keys = jax.random.split(jax.random.key(5), 100)
    ap, lateral = jax.vmap(lambda key: orthogonal_views(ISOCENTER, key=key))(keys)
    beams = np.stack([np.asarray(jax.vmap(lambda v: v.beam)(v)) for v in (ap, lateral)], 1)
    angles = np.degrees(np.arccos((beams[:, 0] * beams[:, 1]).sum(1)))
    assert np.abs(angles - 90.0).max() <= 10.1 and angles.std() > 2.0


def test_same_key_same_view_and_vmap_changes_nothing(views):
    key = jax.random.split(jax.random.key(3), 500)[7]
    again = random_view(ISOCENTER, key=key)
    source = np.asarray(jax.vmap(lambda v: v.source)(views))[7]
    np.testing.assert_allclose(again.source, source, atol=1e-3)


def test_pairs_have_the_angles_they_say_within_the_bounds(views):
    beams = jax.vmap(lambda v: v.beam)(views)[:40]
    pairs, angles = sample_pairs(beams, 200, key=jax.random.key(0))
    first, second = np.asarray(beams)[np.asarray(pairs).T]
    expected = np.degrees(np.arccos(np.clip((first * second).sum(1), -1, 1)))
    np.testing.assert_allclose(angles, expected, atol=0.05)
    assert (np.asarray(pairs)[:, 0] < np.asarray(pairs)[:, 1]).all()
    assert angles.min() >= 20.0 and angles.max() <= 160.0
    assert len({tuple(pair) for pair in np.asarray(pairs).tolist()}) > 150
    narrow, narrow_angles = sample_pairs(
        beams, 5, key=jax.random.key(0), min_deg=80.0, max_deg=100.0
    )
    assert narrow.shape == (5, 2) and 80.0 <= narrow_angles.min() <= narrow_angles.max() <= 100.0


def test_every_usable_pair_is_drawn_as_often():
    turns = jnp.radians(jnp.array([0.0, 10.0, 60.0, 170.0]))
    beams = jnp.stack([jnp.sin(turns), jnp.cos(turns), jnp.zeros(4)], axis=1)
    usable = np.argwhere(np.asarray(usable_pairs(beams)))
    assert usable.tolist() == [[0, 2], [1, 2], [1, 3], [2, 3]]  # 0-1: 10 deg, 0-3: 170 deg
    pairs, _ = sample_pairs(beams, 4000, key=jax.random.key(2))
    drawn, counts = np.unique(np.asarray(pairs), axis=0, return_counts=True)
    assert drawn.tolist() == usable.tolist()
    assert counts.min() > 900


def test_no_usable_pair_says_so():
    beams = jnp.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    pairs, angles = sample_pairs(beams, 3, key=jax.random.key(0))
    assert (np.asarray(pairs) == -1).all() and np.isnan(np.asarray(angles)).all()
    np.testing.assert_allclose(angles_between(beams), [[0, 180], [180, 0]], atol=1e-3)
