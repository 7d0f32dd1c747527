"""What is masked, not seen or without weight may be NaN, infinite or huge: the result and its
gradient are those without it, for every public function that takes such values."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, data, models, registration, render, ssm, transforms
from dartjax.observations import Observations, without_ignored
from dartjax.robot import carm
from tests.properties.masked import BAD, assert_ignored, filled
from tests.registration import scenes
from tests.shapes import sphere

RNG = np.random.default_rng(0)


def random(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.float32)


def hidden(*index, shape):
    return jnp.zeros(shape, bool).at[index].set(True)


def test_points_without_weight():
    ignored = hidden(2, shape=(7,))
    source = random(7, 3)
    arguments = {"source": source, "target": source + 0.1 * random(7, 3)}
    arguments["weights"] = jnp.where(ignored, 0.0, 1.0)
    pose = lambda **k: transforms.align_points(**k).as_matrix()  # noqa: E731
    assert_ignored(pose, arguments, {"source": ignored, "target": ignored})


def test_pixels_without_weight():
    """All similarities in one program."""
    names = ("ncc", "gray_dice", "patch_ncc", "gradient_ncc", "local_gradient_ncc")
    names += ("xvr_similarity", "mutual_information")
    ignored = hidden(slice(3, 5), slice(0, 9), shape=(16, 16))
    arguments = {"rendered": random(16, 16), "observed": random(16, 16)}
    arguments["weights"] = jnp.where(ignored, 0.0, 1.0 + jnp.abs(random(16, 16)))

    def all_of_them(**images):
        return [getattr(render, name)(**images) for name in names]

    assert_ignored(all_of_them, arguments, {"rendered": ignored, "observed": ignored})


def test_a_vertex_without_faces():
    vertices, faces = sphere(40, 20.0)
    view = camera.region_around(scenes.views(20.0)[0], jnp.zeros(3), width_mm=60.0, num_pixels=16)
    vertices = jnp.concatenate([jnp.asarray(vertices, jnp.float32), jnp.zeros((1, 3))])
    options = render.SplatOptions(window=9)
    image = lambda vertices: render.splat(vertices, jnp.asarray(faces), view, options)  # noqa: E731
    assert_ignored(image, {"vertices": vertices}, {"vertices": hidden(40, shape=(41,))})


@pytest.fixture(scope="module")
def three_views():
    """Three views of the ten landmarks, of which the last is not valid; in the others one landmark
    each was not seen, and one landmark was seen in no view."""
    views = registration.stack(scenes.views(0.0, 70.0, 40.0))
    points = ssm.landmarks(
        scenes.model(), ssm.posed(scenes.model(), scenes.TRUE_POSE, 0.5 * jnp.ones(15))
    )
    pixels = jax.vmap(lambda view: camera.project(view, points))(views) + random(3, 10, 2)
    sigma = jnp.full((3, 10), 2.0).at[0, 1].set(jnp.inf).at[1, 4].set(jnp.inf)
    sigma = sigma.at[:, 7].set(jnp.inf)
    return views, pixels, sigma


def test_landmarks_not_seen(three_views):
    views, pixels, sigma = three_views

    def found(**seen):
        return registration.triangulate(views, **seen)

    assert_ignored(
        found, {"pixels": pixels, "sigma_mm": sigma}, {"pixels": jnp.isinf(sigma)}, atol=1e-4
    )
    unknown = filled({"sigma_mm": sigma}, {"sigma_mm": jnp.isinf(sigma)}, jnp.nan)
    count = jax.jit(lambda sigma: found(pixels=pixels, sigma_mm=sigma).num_views)
    np.testing.assert_array_equal(count(unknown["sigma_mm"]), jnp.sum(jnp.isfinite(sigma), axis=0))


@pytest.fixture(scope="module")
def seen(three_views):
    """The fields of observations of noise in crops of these views; where they are ignored."""
    views, pixels, sigma = three_views
    crop = partial(camera.region_around, center=scenes.TRUE_POSE.translation(), width_mm=110.0)
    crops = jax.vmap(partial(crop, num_pixels=16))(views)
    valid = jnp.array([True, True, False])
    exposed = jnp.ones((3, 16, 16)).at[0, :, 12:].set(0.0)
    fields = {
        "cameras": crops,
        "images": random(3, 16, 16),
        "exposed": exposed,
        "masks": jnp.broadcast_to(blob(), (3, 16, 16)),
        "landmarks": jax.vmap(to_crop)(pixels, views, crops),
        "landmark_sigma": sigma,
        "view_valid": valid,
    }
    of_view = {name: ~valid for name in ("cameras", "images", "exposed", "masks", "landmark_sigma")}
    ignored = {**of_view, "landmarks": jnp.isinf(sigma) | ~valid[:, None]}
    return fields, {**ignored, "images": (exposed == 0.0) | ~valid[:, None, None]}


def to_crop(pixels, view, crop):
    ray = (pixels - view.principal_point[None]) / view.focal_length[None]
    return ray * crop.focal_length[None] + crop.principal_point[None]


def blob():
    square = (jnp.arange(16) - 7.5) ** 2
    return jnp.exp(-(square[None] + square[:, None]) / 18.0)


def test_residuals_of_landmarks_not_seen(seen):
    fields, _ = seen
    points = ssm.landmarks(scenes.model(), scenes.model().mean_shape)
    points = transforms.apply(scenes.TRUE_POSE, points)

    def residuals(points, landmarks):
        return registration.landmark_residuals(
            points, Observations(**{**fields, "landmarks": landmarks})
        )

    arguments = {"points": points, "landmarks": fields["landmarks"]}
    assert_ignored(residuals, arguments, {"landmarks": jnp.isinf(fields["landmark_sigma"])})


@pytest.mark.parametrize("gradient", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fit_of_landmarks(seen, gradient):
    model = scenes.model()

    def fitted(**fields):
        observations = Observations(**fields)
        return registration.fit_landmarks(model, observations, scenes.TRUE_POSE, num_steps=3)

    assert_ignored(fitted, *seen, gradient=gradient, rtol=1e-3, atol=1e-3)


QUICK = dataclasses.replace(scenes.QUICK, scales=(registration.Scale(16, 1.2, 2, 0.05),))


@pytest.mark.slow
def test_gradient_of_the_objective(seen):
    def direction(**fields):
        start, b = scenes.disturbed_start(), jnp.zeros(15)
        return registration.descent_direction(
            scenes.model(), Observations(**fields), start, b, QUICK
        )

    assert_ignored(direction, *seen, gradient=False)


@pytest.mark.slow
def test_fits(seen):
    """The fit by Adam, its uncertainty and its features; a vertebra that is absent in the beam."""
    fields, ignored = seen
    model, start = scenes.model(), scenes.disturbed_start()
    others = jnp.stack([model.mean_shape + 100.0, model.mean_shape + 60.0])
    hide = {"present": hidden(0, shape=(2,))}

    def results(vertices, **fields):
        observations = Observations(**fields)
        around = registration.Surroundings(vertices, ~hide["present"])
        found = registration.fit(model, observations, start, QUICK, around)
        spread = registration.laplace(model, observations, found, QUICK, around)
        features = registration.failure_features(model, observations, found, spread)
        view = jax.tree.map(lambda leaf: leaf[:2], scenes_views())
        further = registration.best_next_view(model, observations, found, QUICK, view, around)
        return found, spread.vertex_std, features, further

    arguments = {**fields, "vertices": others}
    assert_ignored(
        results, arguments, {**ignored, "vertices": hide["present"]}, gradient=False, rtol=1e-3
    )


def scenes_views():
    return registration.stack(scenes.views(30.0, 110.0))


@pytest.mark.slow
def test_gauss_newton(seen):
    def found(**fields):
        start = scenes.disturbed_start()
        return registration.fit_gauss_newton(
            scenes.model(), Observations(**fields), start, QUICK, num_steps=2
        )

    assert_ignored(found, *seen, gradient=False, rtol=1e-3)


@pytest.mark.slow
def test_initialisation(seen):
    """Also with a neighbour whose pose is not known."""
    fields, ignored = seen

    def found(translation, **fields):
        pose = transforms.SE3.from_translation(translation)
        expected = registration.ExpectedPose(pose, jnp.asarray(False))
        start = registration.initialise(scenes.model(), Observations(**fields), expected)
        return start.pose, start.tier, start.residual_mm

    arguments = {**fields, "translation": jnp.zeros(3)}
    ignored = {**ignored, "translation": jnp.ones(3, bool)}
    assert_ignored(found, arguments, ignored, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_refinement_of_cameras(seen):
    fields, ignored = seen
    models_of_two = registration.stack([scenes.model()] * 2)
    poses = registration.stack([scenes.TRUE_POSE, scenes.disturbed_start()])
    twice = {name: jax.tree.map(lambda x: jnp.stack([x, x]), each) for name, each in fields.items()}

    def found(**twice):
        fields = eqx.tree_at(lambda o: list(o.values()), twice, list(twice.values()))
        observations = jax.vmap(lambda f: Observations(**f))(fields)
        return registration.refine_cameras(models_of_two, observations, poses)

    assert_ignored(
        found,
        twice,
        {n: jnp.stack([m, m]) for n, m in ignored.items()},
        gradient=False,
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.slow
def test_joint_fit(seen):
    """A vertebra that is not present in the spine, and one whose fit is not finite, do not affect
    the others."""
    fields, _ = seen
    levels = registration.stack([scenes.model()] * 3)
    starts = registration.stack([scenes.disturbed_start()] * 3)
    observations = registration.stack([Observations(**fields)] * 3)

    spine = registration.order_of(("T8", "T9", "T10"), data.load_spine_prior())

    @jax.jit
    def found(images, place, translation, present):
        order = dataclasses.replace(spine, place=place, present=present)
        batch = eqx.tree_at(lambda o: o.images, observations, images)
        poses = transforms.SE3.from_rotation_and_translation(starts.rotation(), translation)
        two = dataclasses.replace(QUICK, scales=QUICK.scales * 2, similarity=QUICK.similarity * 2)
        return registration.fit_together(levels, batch, poses, order, two)

    given = observations.images, spine.place, starts.translation()
    expected = found(*given, jnp.array([True, True, False]))
    first = lambda result: jax.tree.map(lambda leaf: leaf[:2], result)  # noqa: E731
    for bad in BAD:
        moved = [leaf.at[2].set(jnp.asarray(bad).astype(leaf.dtype)) for leaf in given]
        jax.tree.map(
            np.testing.assert_allclose,
            *map(first, (found(*moved, jnp.array([True, True, False])), expected)),
        )
    diverged = found(given[0].at[2].set(jnp.nan), *given[1:], jnp.ones(3, bool))
    assert np.isfinite(jax.tree.leaves(first(diverged.pose))[0]).all()
    assert diverged.status[2] == 1 and not (diverged.status[:2] == 1).any()


def test_points_of_a_shape_that_are_not_observed():
    model = ssm.truncate(scenes.model(), 4)
    points = ssm.vertex_points(jnp.arange(0, 60, 10))
    given = ssm.carried(points, model.mean_shape) + random(6, 3)
    noise = jnp.ones(6).at[2].set(jnp.inf)

    def shape(observed):
        conditioned = ssm.posterior(model, points, observed, noise)
        return conditioned.mean_shape, conditioned.modes

    assert_ignored(shape, {"observed": given}, {"observed": jnp.isinf(noise)})


@pytest.fixture(scope="module")
def network():
    net = models.MultiViewSimilarity(models.SIMILARITY_PRESETS["smoke"])
    images = {name: random(3, 32, 32) for name in ("observed", "mask", "rendered", "silhouette")}
    arguments = {**images, "code": random(3, 7)}
    params = jax.jit(net.init)(jax.random.key(1), models.ViewPair(**arguments), jnp.ones(3, bool))
    return net, params, arguments


def test_views_of_a_network(network):
    net, params, arguments = network
    valid = jnp.array([True, True, False])

    def predicted(**views):
        return net.apply(params, models.ViewPair(**views), valid)

    assert_ignored(predicted, arguments, dict.fromkeys(arguments, ~valid))


def test_a_constant_image_has_a_gradient(network):
    """A vertebra beyond the crop renders as a constant image."""
    net, params, arguments = network

    @jax.jit
    def slope(rendered):
        def error(rendered):
            views = models.ViewPair(**{**arguments, "rendered": rendered})
            return net.apply(params, views, jnp.ones(3, bool)).log_masd

        return jax.grad(error)(rendered)

    assert np.isfinite(slope(jnp.zeros((3, 32, 32)))).all()


def square(n=4):
    """Points of a square lattice: their normal matrix has equal eigenvalues."""
    return jnp.stack(jnp.meshgrid(*2 * [30.0 * jnp.arange(n)]), -1).reshape(-1, 2) + 100.0


def test_points_of_a_homography():
    ignored = hidden(5, shape=(16,))
    source = square()

    def maps(source, target):
        H, status = carm.homography_dlt(source, target, ~ignored)
        return H, status, carm.homography_refine(H, source, target, ~ignored)

    arguments = {"source": source, "target": 1.1 * source + random(16, 2)}
    assert_ignored(maps, arguments, {"source": ignored, "target": ignored}, rtol=1e-3, atol=1e-3)


def test_points_of_an_ellipse():
    angle = jnp.linspace(0.0, 6.0, 24)
    points = jnp.stack([60.0 * jnp.cos(angle), 40.0 * jnp.sin(angle)], 1) + 0.1 * random(24, 2)
    ignored = hidden(jnp.array([3, 10]), shape=(24,))

    def ellipses(points):
        weighted = carm.fit_ellipse(points, (~ignored).astype(points.dtype))
        return weighted, carm.hull_ellipse(points, ~ignored)

    assert_ignored(ellipses, {"points": points}, {"points": ignored}, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_points_of_a_consensus_ellipse():
    angle = jnp.linspace(0.0, 6.0, 24)
    points = jnp.stack([60.0 * jnp.cos(angle), 40.0 * jnp.sin(angle)], 1) + 0.1 * random(24, 2)
    ignored = hidden(jnp.array([3, 10]), shape=(24,))
    ellipse = lambda points: carm.consensus_ellipse(points, ~ignored)  # noqa: E731
    assert_ignored(ellipse, {"points": points}, {"points": ignored}, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_pose_from_balls():
    guide, K = carm.drill_guide(), carm.intrinsics(2480.0, jnp.array([384.0, 288.0]))
    turn = transforms.SO3.from_rpy_radians(0.1, 0.2, 0.3) @ transforms.SO3.from_x_radians(jnp.pi)
    pose = transforms.SE3.from_rotation_and_translation(turn, jnp.array([3.0, 5.0, 620.0]))
    pixels = carm.project_points(K, pose, guide.balls) + 0.1 * random(28, 2)
    ignored = hidden(jnp.array([3, 10]), shape=(28,))

    def found(pixels):
        fit, status = carm.estimate_pose(pixels, guide.balls, ~ignored, K)
        return fit.T_camera_object, fit.rms_px, status

    assert_ignored(found, {"pixels": pixels}, {"pixels": ignored}, rtol=1e-3, atol=1e-2)


def test_cleaning_leaves_what_counts(seen):
    fields, _ = seen
    clean = without_ignored(Observations(**fields))
    for name in fields:
        kept, given = (
            jax.tree.map(lambda leaf: leaf[:2], each)
            for each in (getattr(clean, name), fields[name])
        )
        if name != "landmarks":
            jax.tree.map(np.testing.assert_array_equal, kept, given)
