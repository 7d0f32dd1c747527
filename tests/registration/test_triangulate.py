"""Triangulation: exact rays, noise against theory, one view, parallel views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, registration, transforms

# One program for a call instead of one for every operation.
triangulate = jax.jit(registration.triangulate)
CENTER = jnp.array([10.0, -20.0, 300.0])


def views(*primary_deg):
    made = [
        camera.from_carm(transforms.carm_rotation(np.deg2rad(a), 0.1), CENTER) for a in primary_deg
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made)


@jax.jit
def pixels_of(cameras, points):
    return jax.vmap(lambda view: camera.project(view, points))(cameras)


@pytest.fixture
def points():
    return CENTER[None] + 20.0 * jax.random.normal(jax.random.key(0), (6, 3))


def test_exact_rays_give_the_points(points):
    both = views(0.0, 80.0, 40.0)
    found = triangulate(both, pixels_of(both, points), jnp.ones((3, 6)))
    assert np.abs(found.points - points).max() < 0.02
    assert (found.num_views == 3).all()
    assert found.residual_mm.max() < 0.02


def test_a_landmark_not_seen_is_ignored(points):
    both = views(0.0, 80.0, 40.0)
    pixels = pixels_of(both, points).at[2].add(300.0).at[0, 0].set(jnp.nan)
    sigma = jnp.ones((3, 6)).at[2].set(jnp.inf).at[0, 0].set(jnp.inf)
    found = triangulate(both, jnp.nan_to_num(pixels), sigma)
    assert np.abs(found.points[1:] - points[1:]).max() < 0.02
    assert found.num_views.tolist() == [1, 2, 2, 2, 2, 2]
    # Seen once: on its ray, at a plausible depth.
    view = jax.tree.map(lambda leaf: leaf[1], both)
    assert np.abs(camera.project(view, found.points[:1])[0] - pixels[1, 0]).max() < 0.5
    depth = float(camera.depth(view, found.points[:1])[0])
    assert 0.4 < depth / float(view.sdd) < 0.8


def test_error_is_that_of_least_squares():
    """Orthogonal views with sigma s each: the shared axis has variance s^2 / 2, the others s^2."""
    both, count, sigma = views(0.0, 90.0), 4000, 2.0
    points = jnp.broadcast_to(CENTER[None], (count, 3))
    scale = both.focal_length[0, 0] / 530.0
    noise = sigma * scale * jax.random.normal(jax.random.key(1), (2, count, 2))
    found = triangulate(both, pixels_of(both, points) + noise, jnp.full((2, count), sigma))
    spread = jnp.sort(jnp.std(found.points, axis=0))
    np.testing.assert_allclose(spread, [sigma / np.sqrt(2.0), sigma, sigma], rtol=0.06)


def test_weights_favour_the_more_certain_view():
    both = views(0.0, 90.0)
    pixels = pixels_of(both, CENTER[None]).at[1, 0, 1].add(20.0)
    sure_first = triangulate(both, pixels, jnp.array([[1.0], [10.0]]))
    sure_second = triangulate(both, pixels, jnp.array([[10.0], [1.0]]))
    off = 20.0 * 530.0 / float(both.focal_length[0, 0])
    moved = (sure_first.points[0, 2] - CENTER[2], sure_second.points[0, 2] - CENTER[2])
    assert abs(moved[0]) < 0.05 * off < 0.9 * off < abs(moved[1])


def test_parallel_views_stay_finite():
    both = views(0.0, 0.0)
    found = triangulate(both, pixels_of(both, CENTER[None]), jnp.ones((2, 1)))
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_pixel_that_is_not_finite_is_not_seen(points, bad):
    three = views(0.0, 80.0, 40.0)
    pixels = pixels_of(three, points)
    expected = triangulate(three, pixels, jnp.ones((3, 6)).at[2].set(jnp.inf))
    for sigma in (1.0, jnp.inf):
        marked = jnp.ones((3, 6)).at[2].set(sigma)
        found = triangulate(three, pixels.at[2].set(bad), marked)
        np.testing.assert_allclose(found.points, expected.points, atol=1e-3)
        np.testing.assert_array_equal(found.num_views, 2)
        assert np.isfinite(found.residual_mm).all()
