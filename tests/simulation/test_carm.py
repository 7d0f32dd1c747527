"""C-arm views of a spine: AP and lateral views, and the levels in one image."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.simulation import _carm
from tests.pipeline.vertebrae import vertebra


def test_ap_and_lateral_views_show_the_same_point():
    center = np.array([5.0, -10.0, 200.0])
    setup = _carm.CarmSetup()
    views = _carm.ap_and_lateral(np.random.default_rng(0), center, setup)
    expected = transforms.VIEW_AXES["AP"], transforms.VIEW_AXES["LAT_L"]
    for view, axes in zip(views, expected, strict=True):
        assert float(np.asarray(view.beam) @ axes[:, 2]) > np.cos(np.deg2rad(7.1))
        shown = np.asarray(camera.project(view, jnp.asarray(center, jnp.float32)[None])[0])
        assert np.abs(shown - 384.0).max() < 0.1
        assert view.image_size == setup.image_size
        assert float(view.sdd) == pytest.approx(setup.sdd)
        assert np.asarray(view.pixel_spacing) == pytest.approx(setup.pixel_spacing, rel=1e-5)
    assert 80.0 < _carm.pair_angles_deg(views)[0] < 100.0
    again = _carm.ap_and_lateral(np.random.default_rng(1), center, setup)
    assert np.abs(np.asarray(again[0].beam - views[0].beam)).max() > 1e-3


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ((0.0,), [[0]]),
        ((300.0, 150.0, 0.0), [[0, 1, 2]]),  # as long as an image
        ((310.0, 200.0, 100.0, 0.0), [[0, 1], [2, 3]]),
    ],
)
def test_a_spine_longer_than_an_image_is_split_into_parts(heights, expected):
    places = [transforms.SE3.from_translation(jnp.array([0.0, 0.0, z])) for z in heights]
    known = [dataclasses.replace(vertebra(), pose=pose) for pose in places]
    parts = _carm.seen_at_once(known)
    index = {id(each): i for i, each in enumerate(known)}
    assert [[index[id(each)] for each in part] for part in parts] == expected
    assert _carm.CarmSetup().field_mm == pytest.approx(305.0, abs=1.0)
