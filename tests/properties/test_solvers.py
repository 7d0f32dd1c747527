"""Every solver under the transformations of JAX: a batch is the single cases, derivatives are
finite, float64 stays float64, and no operation makes a NaN that is masked afterwards."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

from dartjax import camera, planning, registration, ssm, transforms
from dartjax.observations import NeedlePath, Observations
from dartjax.registration import levenberg_marquardt
from dartjax.robot import arms, carm, navigation
from tests.properties.masked import probe
from tests.registration import scenes

MODEL = ssm.truncate(scenes.model(), 4)
RNG = np.random.default_rng(2)


def random(*shape, scale=1.0):
    return scale * RNG.normal(size=shape)


def view(angle):
    return camera.from_carm(transforms.carm_rotation(angle, 0.1), jnp.zeros(3))


def triangulated(pixels, sigma):
    views = jax.vmap(view)(jnp.array([0.0, 1.2]).astype(pixels.dtype))
    return registration.triangulate(views, pixels, sigma)


def aligned(source, target, weights):
    return transforms.align_points(source, target, weights)


def homography(source, target):
    valid = jnp.arange(len(source)) > 0
    H, status = carm.homography_dlt(source, target, valid)
    return carm.homography_refine(H, source, target, valid), status


def ellipse(points):
    return carm.hull_ellipse(points, jnp.arange(len(points)) > 0)


def curve(target):
    """A parameter without effect is among the unknowns."""
    x = jnp.arange(5.0, dtype=target.dtype)
    residual = lambda p: p[0] * jnp.exp(-p[1] * x) - target + 0.0 * p[2]  # noqa: E731
    return levenberg_marquardt(residual, jnp.array([1.0, 0.1, 2.0], target.dtype)).x


def clear_corridor(entry, values):
    field = planning.DistanceField(values, jnp.diag(jnp.array([4.0, 4.0, 4.0, 1.0])))
    path = NeedlePath(entry, entry + jnp.array([16.0, 1.0, 2.0]), jnp.asarray(2.5))
    return planning.best_corridor(path, field)


def conditioned(observed):
    points = ssm.vertex_points(jnp.arange(0, 60, 10))
    return ssm.posterior(MODEL, points, observed, 1.0).mean_shape


class Solver(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple  # of one case, as NumPy arrays
    rtol: float = 2e-3
    is_quick: bool = False


def pose_from_balls(noise):
    K, guide = carm.intrinsics(2480.0, jnp.array([384.0, 288.0])), carm.drill_guide()
    turn = transforms.SO3.from_rpy_radians(0.1, 0.2, 0.3) @ transforms.SO3.from_x_radians(jnp.pi)
    place = transforms.SE3.from_rotation_and_translation(turn, jnp.array([3.0, 5.0, 620.0]))
    pixels = carm.project_points(K, place, guide.balls) + noise
    return carm.estimate_pose(pixels, guide.balls, jnp.arange(28) > 0, K)


def joints_of_hybrid(joints):
    robot = arms.spine_hybrid()
    q = 0.5 * (robot.lower + robot.upper)[:5] + joints
    return arms.hybrid_inverse(arms.hybrid_forward(q, robot)[0], robot)


def legs_of_guide(twist):
    robot = arms.bone_mounted_guide()
    return arms.guide_inverse(arms.neutral_pose(robot) @ transforms.from_twist(twist), robot)


def hand_eye(twists):
    flange = jax.vmap(transforms.from_twist)(twists)
    mounted, base = (transforms.from_twist(jnp.array(x)) for x in MOUNTED)
    return navigation.hand_eye(flange, jax.vmap(lambda T: base.inverse() @ T @ mounted)(flange))


FEW_STEPS = dataclasses.replace(scenes.QUICK, scales=(registration.Scale(16, 1.2, 2, 0.05),))


def crops():
    """Crops of two views of the true vertebra, 16 pixels wide."""
    views = registration.stack(scenes.views(0.0, 70.0))
    crop = functools.partial(
        camera.region_around, center=scenes.TRUE_POSE.translation(), width_mm=110.0, num_pixels=16
    )
    return jax.vmap(crop)(views)


def seen(images, landmarks):
    """Observations in which one landmark is seen in no view and part of a view is not exposed."""
    sigma = jnp.full((2, 10), 2.0, images.dtype).at[:, 7].set(jnp.inf)
    exposed = jnp.ones_like(images).at[0, :, 12:].set(0.0)
    masks = jnp.zeros_like(images).at[:, 4:12, 4:12].set(1.0)
    views = jax.tree.map(lambda leaf: leaf.astype(images.dtype), crops())
    return Observations(views, images, exposed, masks, landmarks, sigma, jnp.ones(2, bool))


def landmarks_of_crops():
    points = ssm.landmarks(MODEL, ssm.posed(MODEL, scenes.TRUE_POSE, jnp.zeros(4)))
    pixels = jax.vmap(lambda view: camera.project(view, points))(crops())
    return np.asarray(pixels).astype(float) + random(2, 10, 2, scale=0.2)


def fit_of_landmarks(images, landmarks):
    observed = seen(images, landmarks)
    return registration.fit_landmarks(MODEL, observed, scenes.TRUE_POSE, num_steps=3)


def start(images, landmarks):
    found = registration.initialise(MODEL, seen(images, landmarks))
    return found.pose, found.residual_mm


def fit_and_spread(images, landmarks):
    observed = seen(images, landmarks)
    found = registration.fit(MODEL, observed, scenes.disturbed_start(), FEW_STEPS)
    return found, registration.laplace(MODEL, observed, found, FEW_STEPS)


def fit_by_gauss_newton(images, landmarks):
    return registration.fit_gauss_newton(
        MODEL, seen(images, landmarks), scenes.disturbed_start(), FEW_STEPS, num_steps=2
    )


def cameras(images, landmarks):
    levels = registration.stack([MODEL] * 2)
    poses = registration.stack([scenes.TRUE_POSE, scenes.disturbed_start()])
    return registration.refine_cameras(
        levels, registration.stack([seen(images, landmarks)] * 2), poses
    )


MOUNTED = ([10.0, 20.0, 30.0, 0.2, -0.1, 0.3], [500.0, 100.0, -50.0, 0.5, 0.4, -0.2])


def ball_field():
    grid = 4.0 * np.stack(np.meshgrid(*3 * [np.arange(12.0)], indexing="ij"), -1)
    return np.linalg.norm(grid - 22.0, axis=-1) - 14.0


OBSERVED = (random(2, 16, 16), landmarks_of_crops())
SOURCE, ANGLES = random(8, 3, scale=20.0), np.linspace(0.1, 6.0, 16)
ROUND = np.stack([60.0 * np.cos(ANGLES), 40.0 * np.sin(ANGLES)], axis=1) + 300.0
LATTICE = np.stack(np.meshgrid([0.0, 30, 60], [0.0, 30, 60]), -1).reshape(-1, 2) + 100.0
NOT_SEEN = np.ones((2, 3))
NOT_SEEN[:, 1] = np.inf  # in no view: its position is that of the prior
SOLVERS = {
    "align_points": Solver(aligned, (SOURCE, SOURCE + random(8, 3), np.ones(8)), is_quick=True),
    "triangulate": Solver(triangulated, (384.0 + random(2, 3, 2, scale=20.0), NOT_SEEN)),
    "homography": Solver(homography, (LATTICE, 1.2 * LATTICE + random(9, 2)), rtol=2e-2),
    "homography of a square": Solver(homography, (LATTICE, LATTICE.copy()), rtol=2e-2),
    "ellipse": Solver(ellipse, (ROUND + random(16, 2, scale=0.1),), rtol=2e-2),
    "levenberg_marquardt": Solver(curve, (3.0 * np.exp(-0.4 * np.arange(5.0)),), is_quick=True),
    "posterior": Solver(conditioned, (random(6, 3, scale=20.0),), is_quick=True),
    "failure model": Solver(
        lambda x: registration.fit_failure_model(x, x[:, 0] > 0.0), (random(12, 3),)
    ),
    "best_corridor": Solver(clear_corridor, (np.array([10.0, 20, 20]), ball_field()), rtol=2e-2),
}


# Large programs, for the test of single operations only.
LARGE = {
    "project": Solver(
        lambda vertices: ssm.project(MODEL, vertices), (np.asarray(MODEL.mean_shape) + 50.0,)
    ),
    "estimate_pose": Solver(pose_from_balls, (random(28, 2, scale=0.1),)),
    "hybrid_inverse": Solver(joints_of_hybrid, (np.zeros(5),)),
    "guide_inverse": Solver(legs_of_guide, (np.array([1.0, 2.0, 3.0, 0.02, 0.01, -0.02]),)),
    "hand_eye": Solver(hand_eye, (random(6, 6) * np.array([100.0, 100, 100, 0.6, 0.6, 0.6]),)),
}
# Too large even for that: their results are checked.
WHOLE = {
    "fit_landmarks": Solver(fit_of_landmarks, OBSERVED),
    "initialise": Solver(start, OBSERVED),
    "fit": Solver(fit_and_spread, OBSERVED),
    "fit_gauss_newton": Solver(fit_by_gauss_newton, OBSERVED),
    "refine_cameras": Solver(cameras, OBSERVED),
}


def cast(arguments, dtype):
    return tuple(jnp.asarray(x, dtype) for x in arguments)


def each(solvers):
    """The names of solvers; those whose programs take long to compile are slow tests."""
    mark = {False: pytest.mark.slow, True: ()}
    return [pytest.param(name, marks=mark[solver.is_quick]) for name, solver in solvers.items()]


@pytest.mark.parametrize("name", each(SOLVERS))
def test_a_batch_with_derivatives_in_double_precision(name):
    """One program: jit of vmap of grad in float64, against single calls in float32."""
    solver = SOLVERS[name]

    def outputs_and_slope(*arguments):
        def value(arguments):
            outputs = solver.function(*arguments)
            return probe(outputs), outputs

        return jax.grad(value, has_aux=True)(arguments)

    single = jax.jit(solver.function)(*cast(solver.arguments, jnp.float32))
    with jax.enable_x64(True):
        batch = [jnp.stack([x, x]) for x in cast(solver.arguments, jnp.float64)]
        slope, outputs = jax.jit(jax.vmap(outputs_and_slope))(*batch)
        for leaf in jax.tree.leaves(slope):
            assert np.isfinite(leaf).all()
        for leaf, alone in zip(jax.tree.leaves(outputs), jax.tree.leaves(single), strict=True):
            if eqx.is_inexact_array(leaf):
                assert leaf.dtype == jnp.float64
            largest = np.abs(np.asarray(leaf)).max() + 1e-3
            for each in leaf:
                np.testing.assert_allclose(
                    alone, each, rtol=solver.rtol, atol=solver.rtol * largest
                )


@pytest.mark.parametrize("name", each(SOLVERS | LARGE))
def test_no_operation_makes_a_nan(name):
    """As `jax_debug_nans` would report in a function that is not compiled, loops included."""
    solver = (SOLVERS | LARGE)[name]
    checked = checkify.checkify(solver.function, errors=checkify.nan_checks)
    error, _ = jax.jit(checked)(*cast(solver.arguments, jnp.float32))
    assert error.get() is None, error.get()


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_no_result_holds_a_nan(name):
    """As `jax_debug_nans` reports in a compiled function."""
    solver = WHOLE[name]
    with jax.debug_nans(True):
        results = jax.jit(solver.function)(*cast(solver.arguments, jnp.float32))
        jax.block_until_ready(results)
