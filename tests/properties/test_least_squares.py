"""Every least-squares estimate: the order of the data does not matter, and data that do not
determine the answer give finite numbers or a status."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, registration, ssm, transforms
from dartjax.robot import StatusCode, carm
from tests.registration import scenes

RNG = np.random.default_rng(1)
MODEL = ssm.truncate(scenes.model(), 4)


def random(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def turned(points):
    pose = transforms.SE3.exp(jnp.array([5.0, -3.0, 8.0, 0.3, -0.5, 0.2]))
    return transforms.apply(pose, points)


def align(source, target):
    return transforms.align_points(source, target).as_matrix()


def homography(source, target):
    valid = jnp.ones(len(source), bool)
    H, status = carm.homography_dlt(source, target, valid)
    return *carm.homography_refine(H, source, target, valid), status


def ellipse(points):
    found, status = carm.hull_ellipse(points, jnp.ones(len(points), bool))
    return found.center, found.shape, carm.fit_ellipse(points, jnp.ones(len(points))), status


def triangulated(angles, pixels, sigma):
    """The views are named by their angles, so that they can be exchanged with their pixels."""
    turns = jax.vmap(lambda a: transforms.carm_rotation(a, jnp.asarray(0.1)))(angles)
    views = jax.vmap(lambda turn: camera.from_carm(turn, jnp.zeros(3)))(turns)
    return registration.triangulate(views, pixels, sigma)


def failure_model(features, failed):
    return registration.fit_failure_model(features, failed)


def conditioned(indices, observed):
    return ssm.posterior(MODEL, ssm.vertex_points(indices), observed, 1.0).mean_shape


def projected(vertices):
    return ssm.project(MODEL, vertices)


class Estimate(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple
    degenerate: dict[str, tuple]  # data that do not determine the answer, by kind
    atol: float


LINE = jnp.arange(8.0)[:, None]
PLANE = random(8, 2, scale=80.0) + 200.0
ANGLES = jnp.linspace(0.1, 6.0, 16)
ROUND = jnp.stack([60.0 * jnp.cos(ANGLES), 40.0 * jnp.sin(ANGLES)], axis=1) + 300.0
MARKS = 384.0 + random(3, 4, 2, scale=30.0)
ONE = jnp.ones((3, 4))
ESTIMATES = {
    "align_points": Estimate(
        align,
        (cloud := random(8, 3, scale=20.0), turned(cloud) + random(8, 3)),
        {
            "a line": (LINE * jnp.ones((1, 3)), turned(LINE * jnp.ones((1, 3)))),
            "one place": (jnp.ones((8, 3)), jnp.ones((8, 3))),
            "a plane": (cloud.at[:, 2].set(0.0), turned(cloud.at[:, 2].set(0.0))),
        },
        1e-3,
    ),
    "homography": Estimate(
        homography,
        (PLANE, 1.2 * PLANE + random(8, 2)),
        {
            "a line": (LINE * jnp.ones((1, 2)), LINE * jnp.ones((1, 2))),
            "one place": (jnp.ones((8, 2)), jnp.ones((8, 2))),
        },
        2e-2,
    ),
    "ellipse": Estimate(
        ellipse,
        (ROUND + random(16, 2, scale=0.1),),
        {
            "a line": (jnp.arange(16.0)[:, None] * jnp.ones((1, 2)),),
            "one place": (jnp.ones((16, 2)),),
        },
        0.5,
    ),
    "triangulate, views": Estimate(
        triangulated,
        (jnp.array([0.0, 1.2, 0.6]), MARKS, ONE),
        {"one direction": (jnp.zeros(3), jnp.broadcast_to(MARKS[:1], MARKS.shape), ONE)},
        1e-2,
    ),
    "failure model": Estimate(
        failure_model,
        (random(12, 3), random(12) > 0.0),
        {
            "one class": (random(12, 3), jnp.zeros(12, bool)),
            "equal columns": (jnp.broadcast_to(random(12, 1), (12, 3)), random(12) > 0.0),
            "constant": (jnp.ones((12, 3)), random(12) > 0.0),
            "no finite case": (jnp.full((12, 3), jnp.nan), random(12) > 0.0),
        },
        1e-3,
    ),
    "posterior": Estimate(
        conditioned,
        (jnp.arange(0, 60, 10), random(6, 3, scale=20.0)),
        {"one vertex, two places": (jnp.zeros(6, jnp.int32), random(6, 3))},
        1e-2,
    ),
}
# Statuses that say that the data do not determine the answer.
NOT_OK = {"homography": StatusCode.DEGENERATE_GEOMETRY, "ellipse": StatusCode.DETECTION_FAILED}
compiled = {name: jax.jit(each.function) for name, each in ESTIMATES.items()}


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_order_does_not_matter(name):
    estimate, function = ESTIMATES[name], compiled[name]
    expected = jax.tree.leaves(function(*estimate.arguments))
    assert all(np.isfinite(leaf).all() for leaf in expected)
    for seed in range(3):
        count = len(estimate.arguments[0])
        order = np.random.default_rng(seed).permutation(count)
        found = function(*(each[order] for each in estimate.arguments))
        for leaf, other in zip(jax.tree.leaves(found), expected, strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=estimate.atol)


@pytest.mark.parametrize("name", ESTIMATES)
def test_data_that_do_not_determine_the_answer(name):
    estimate, function = ESTIMATES[name], compiled[name]
    for kind, arguments in estimate.degenerate.items():
        found = function(*arguments)
        if name in NOT_OK:
            assert found[-1] == NOT_OK[name], kind
        else:
            leaves = [x for x in jax.tree.leaves(found) if eqx.is_inexact_array(x)]
            finite = [np.isfinite(x).all() for x in leaves]
            # A constant feature has the scale inf.
            assert all(finite) or (
                name == "failure model" and not np.isnan(np.asarray(leaves[1])).any()
            ), kind


def test_alignment_is_a_rotation_that_fits_what_is_determined():
    """Of a line and of a plane the map of the points is determined, even if the rotation is not."""
    for kind in ("a line", "a plane"):
        source, target = ESTIMATES["align_points"].degenerate[kind]
        matrix = compiled["align_points"](source, target)
        np.testing.assert_allclose(
            source @ matrix[:3, :3].T + matrix[None, :3, 3], target, atol=1e-3
        )
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-4)
        np.testing.assert_allclose(jnp.linalg.det(matrix[:3, :3]), 1.0, atol=1e-4)


def test_alignment_of_nothing_is_the_identity():
    none = jnp.full((3, 3), jnp.nan)
    T = transforms.align_points(none, none, jnp.zeros(3))
    np.testing.assert_array_equal(T.as_matrix(), np.eye(4))


def test_a_surface_in_one_place_gives_finite_numbers():
    vertices = jnp.ones_like(MODEL.mean_shape)
    pose, coefficients = jax.jit(projected)(vertices)
    assert np.isfinite(pose.as_matrix()).all() and np.isfinite(coefficients).all()
