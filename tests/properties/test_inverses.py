"""Every map with an inverse: there and back, for random arguments."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dartjax import camera, registration, transforms
from dartjax.robot import carm

seeds = st.integers(0, 2**20)
few = settings(max_examples=8, deadline=None)


def rng_of(seed):
    return np.random.default_rng(seed)


def single(x):
    return jnp.asarray(x, jnp.float32)


def vector(rng, longest):
    """A rotation vector of any direction, often very short or nearly `longest`."""
    direction = rng.normal(size=3)
    length = longest * rng.choice([1e-6, 1e-3, rng.random(), 0.999])
    return length * direction / np.linalg.norm(direction)


turn_and_back = jax.jit(lambda w: transforms.SO3.exp(w).log())
twist_and_back = jax.jit(lambda x: transforms.from_twist(x).log())


@given(seed=seeds)
@few
def test_exponential_and_logarithm(seed):
    rng = rng_of(seed)
    w = single(vector(rng, 3.1))
    np.testing.assert_allclose(turn_and_back(w), w, atol=2e-3)
    x = single(np.concatenate([rng.normal(size=3) * 50.0, vector(rng, 2.5)]))
    np.testing.assert_allclose(twist_and_back(x), x, atol=2e-2)


def test_a_half_turn_has_a_finite_logarithm_and_gradient():
    """Its axis has two signs, so only its length is compared."""
    for axis in np.eye(3):
        found, slope = jax.jit(jax.value_and_grad(lambda w: jnp.sum(transforms.SO3.exp(w).log())))(
            single(np.pi * axis)
        )
        assert np.isfinite(found) and np.isfinite(slope).all()
    half = transforms.SO3.from_matrix(jnp.diag(jnp.array([1.0, -1.0, -1.0])))
    np.testing.assert_allclose(transforms.rotation_angle(half), np.pi, atol=1e-3)


def view(rng, size):
    angles = rng.uniform(-1.2, 1.2, 3)
    turn = transforms.carm_rotation(*map(single, angles))
    full = camera.from_carm(turn, single(rng.normal(size=3) * 30.0))
    return camera.region_around(
        full, single(rng.normal(size=3) * 10.0), width_mm=90.0, num_pixels=size
    )


@jax.jit
def through_the_camera(view, points):
    pixels = camera.project(view, points)
    return camera.back_project(view, pixels, camera.depth(view, points)), pixels


@given(seed=seeds)
@few
def test_projection_and_back(seed):
    rng = rng_of(seed)
    own, points = view(rng, 64), single(rng.normal(size=(5, 3)) * 40.0)
    back, pixels = through_the_camera(own, points)
    np.testing.assert_allclose(back, points, atol=2e-3)
    part = camera.resize(camera.crop(own, single([3.5, -2.0]), (48, 40)), (96, 120))
    seen = camera.reproject(np.asarray(pixels), own, part)
    np.testing.assert_allclose(camera.reproject(seen, part, own), pixels, atol=2e-3)
    np.testing.assert_allclose(seen, camera.project(part, points), atol=5e-2)


@jax.jit
def moved_and_back(view, motion):
    views, there, back = jax.tree.map(lambda leaf: leaf[None], (view, motion, motion.inverse()))
    returned = registration.moved_cameras(registration.moved_cameras(views, there), back)
    return jax.tree.map(lambda leaf: leaf[0], returned).source


@given(seed=seeds)
@few
def test_a_moved_carm_and_back(seed):
    rng = rng_of(seed)
    own = view(rng, 64)
    motion = registration.carm_motion(*(single(rng.normal(size=3) * s) for s in (30.0, 0.2, 10.0)))
    np.testing.assert_allclose(moved_and_back(own, motion), own.source, atol=5e-3)


@given(seed=seeds)
@few
def test_a_homography_and_its_inverse(seed):
    rng = rng_of(seed)
    H = np.eye(3) + np.array([[0.1], [0.1], [1e-4]]) * rng.normal(size=(3, 3))
    points = single(rng.uniform(0, 500, (6, 2)))
    there = carm.apply_homography(single(H), points)
    np.testing.assert_allclose(
        carm.apply_homography(single(np.linalg.inv(H)), there), points, atol=5e-2
    )


@given(seed=seeds)
@few
def test_an_ellipse_and_its_conic(seed):
    """Points at (cos, sin) of the square root of the shape lie on the conic."""
    rng = rng_of(seed)
    root = rng.normal(size=(2, 2)) * 10.0 + 30.0 * np.eye(2)
    ellipse = carm.Ellipse(single(rng.normal(size=2) * 50.0), single(root @ root.T))
    angles = np.linspace(0.0, 6.0, 9)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) @ root.T + np.asarray(ellipse.center)
    ones = np.concatenate([points, np.ones((9, 1))], axis=1)
    values = np.einsum("ni,ij,nj->n", ones, np.asarray(ellipse.conic, np.float64), ones)
    np.testing.assert_allclose(values, 0.0, atol=2e-3)
