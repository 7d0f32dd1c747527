"""Candidates for a third view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.pipeline import candidate_views


def test_candidates_stand_around_the_patient():
    center = np.array([5.0, -10.0, 30.0])
    view = camera.from_carm(
        transforms.carm_rotation(0.3, 0.1), jnp.asarray(center, jnp.float32), pixel_spacing=0.5
    )
    ring = candidate_views(center, view, 6)
    assert ring.sdd.shape == (6,)
    sources = jax.vmap(lambda v: v.source)(ring)
    distance = jnp.linalg.norm(sources - jnp.asarray(center, jnp.float32)[None], axis=1)
    np.testing.assert_allclose(distance, jnp.linalg.norm(view.source - center), rtol=1e-5)
    beams = np.asarray(jax.vmap(lambda v: v.beam)(ring))
    np.testing.assert_allclose(beams[:, 2], 0.0, atol=1e-6)
    lines = np.abs(beams @ beams.T) - np.eye(6)
    assert lines.max() == pytest.approx(np.cos(np.pi / 6.0), abs=1e-4)
    spacing = jax.vmap(lambda v: v.pixel_spacing)(ring)
    np.testing.assert_allclose(spacing, np.tile(np.asarray(view.pixel_spacing), (6, 1)), rtol=1e-5)
