"""Splatting against closed forms, finite differences and itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from scipy import ndimage

from dartjax import camera, render, transforms
from dartjax.render import (
    SplatOptions,
    line_integral_of_gaussian,
    project_gaussians,
    ray_geometry,
    suggest_window,
    surface_patches,
)
from tests.shapes import box, sphere, torus

# One program for a call instead of one for every operation.
splat, splat_alpha, splat_scene = (
    jax.jit(function, static_argnames="options")
    for function in (render.splat, render.splat_alpha, render.splat_scene)
)
RADIUS = 20.0
CENTER = np.array([5.0, 3.0, -8.0])


def oblique_camera(num_pixels=128, width_mm=84.0, **kwargs):
    view = camera.from_carm(
        transforms.carm_rotation(0.4, 0.1),
        jnp.zeros(3),
        sdd=1020.0,
        source_to_isocenter=600.0,
        **kwargs,
    )
    return camera.region_around(view, jnp.zeros(3), width_mm=width_mm, num_pixels=num_pixels)


def sphere_thickness(view, center, radius):
    """Chord lengths and distances of rays to the centre, in closed form."""
    offset = center - np.asarray(view.source, np.float64)
    along = np.asarray(camera.ray_directions(view), np.float64) @ offset
    squared = offset @ offset - along**2
    return 2.0 * np.sqrt(np.maximum(radius**2 - squared, 0.0)), np.sqrt(squared)


def rendered_sphere(options):
    vertices, faces = sphere(2048, RADIUS, CENTER)
    view = oblique_camera()
    render = jax.jit(lambda v: splat(v, jnp.asarray(faces), view, options))
    return view, render(jnp.asarray(vertices, jnp.float32))


@pytest.mark.parametrize("backend", ["dense", "windowed", "separable"])
def test_thickness_of_a_sphere_is_its_chord(backend):
    view, channels = rendered_sphere(SplatOptions(backend=backend, window=21))
    truth, distance = sphere_thickness(view, CENTER, RADIUS)
    error = np.asarray(channels.thickness) - truth
    inner = distance < 0.8 * RADIUS
    assert np.abs(error[inner]).mean() < 0.3
    assert np.asarray(channels.thickness).sum() == pytest.approx(truth.sum(), rel=0.006)


def test_thickness_is_free_of_grain():
    # On a uniform mesh what is left after the smooth error is below 0.1 mm rms on 40 mm.
    surface = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    view = oblique_camera()
    thickness = splat(
        jnp.asarray(surface.vertices, jnp.float32), jnp.asarray(surface.faces), view
    ).thickness
    truth, distance = sphere_thickness(view, np.zeros(3), RADIUS)
    error = np.asarray(thickness) - truth
    fine = error - ndimage.gaussian_filter(error, 4.0)
    assert np.sqrt(np.mean(fine[distance < 0.6 * RADIUS] ** 2)) < 0.1


def test_shell_of_a_sphere_is_two_crossings():
    view, channels = rendered_sphere(SplatOptions(window=21))
    _, distance = sphere_thickness(view, CENTER, RADIUS)
    crossing = 0.5 / np.sqrt(1.0 - (distance / RADIUS) ** 2, where=distance < RADIUS)
    inner = distance < 0.7 * RADIUS
    np.testing.assert_allclose(np.asarray(channels.shell)[inner], 2 * crossing[inner], rtol=0.05)


def test_silhouette_is_the_mask():
    view, channels = rendered_sphere(SplatOptions(window=21))
    _, distance = sphere_thickness(view, CENTER, RADIUS)
    silhouette = np.asarray(channels.silhouette)
    assert silhouette[distance < 0.9 * RADIUS].min() > 0.95
    assert silhouette[distance > 1.15 * RADIUS].max() < 0.05


def test_thickness_of_a_box_face_on():
    vertices, faces = box([15.0, 10.0, 12.0], subdivisions=5)
    view = camera.from_carm(
        transforms.view_rotation("AP"),
        jnp.zeros(3),
        sdd=1020.0,
        source_to_isocenter=600.0,
        pixel_spacing=1.2,
        image_size=(96, 96),
    )
    channels = splat(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), view)
    directions = np.asarray(camera.ray_directions(view))
    middle = np.asarray(channels.thickness)[44:52, 44:52]
    np.testing.assert_allclose(middle, 20.0 / np.abs(directions[44:52, 44:52, 1]), atol=0.15)


def test_two_crossings_of_a_torus_add_up():
    vertices, faces = torus(24.0, 10.0, sections=(96, 64))
    view = camera.from_carm(
        transforms.view_rotation("AP"),
        jnp.zeros(3),
        sdd=1020.0,
        source_to_isocenter=600.0,
        pixel_spacing=1.2,
        image_size=(96, 96),
    )
    channels = splat(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), view)
    # Through the middle, along y, the ray crosses the ring twice: 4 minor radii of bone.
    assert float(channels.thickness[47:49, 47:49].mean()) == pytest.approx(40.0, abs=0.4)


def test_backends_agree():
    vertices, faces = torus(18.0, 7.0)
    view = oblique_camera()
    images = {
        backend: np.stack(
            jax.tree.leaves(
                splat(
                    jnp.asarray(vertices, jnp.float32),
                    jnp.asarray(faces),
                    view,
                    SplatOptions(backend=backend, window=31, rank=16),
                )
            )
        )
        for backend in ("dense", "windowed", "separable")
    }
    peak = np.abs(images["dense"]).max((1, 2), keepdims=True)
    np.testing.assert_allclose(images["windowed"] / peak, images["dense"] / peak, atol=2e-3)
    np.testing.assert_allclose(images["separable"] / peak, images["dense"] / peak, atol=5e-3)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("dense", marks=pytest.mark.slow),
        pytest.param("windowed", marks=pytest.mark.slow),
        "separable",
    ],
)
def test_gradients_against_finite_differences(x64, backend):
    vertices, faces = torus(18.0, 7.0, sections=(16, 10))
    options = SplatOptions(backend=backend, window=32, rank=4)
    target = jnp.asarray(np.random.default_rng(0).normal(size=(32, 32)))

    def losses(x):
        """One number per channel, as a function of pose, intrinsics and size."""
        motion, focal, center, stretch = x[:6], x[6:8], x[8:10], x[10]
        view = oblique_camera(32)
        view = dataclasses.replace(
            view,
            camera_from_world=transforms.SE3.exp(motion) @ view.camera_from_world,
            focal_length=view.focal_length + focal,
            principal_point=view.principal_point + center,
        )
        channels = splat(jnp.asarray(vertices) * (1.0 + stretch), jnp.asarray(faces), view, options)
        return jnp.stack([jnp.mean(target * image) for image in jax.tree.leaves(channels)])

    start = jnp.array([0.3, -0.2, 0.5, 0.02, -0.01, 0.03, 1.0, -2.0, 0.3, 0.1, 0.02])
    gradient = np.asarray(jax.jit(jax.jacrev(losses))(start))
    steps = np.array([1e-4] * 3 + [1e-6] * 3 + [1e-3] * 4 + [1e-6])
    evaluate = jax.jit(jax.vmap(losses))
    ahead, behind = (evaluate(start[None] + sign * jnp.diag(steps)) for sign in (1, -1))
    slopes = (np.asarray(ahead) - np.asarray(behind)).T / (2 * steps)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_vertex_gradient_against_finite_differences(x64):
    vertices, faces = torus(18.0, 7.0, sections=(16, 10))
    view = oblique_camera(48)
    target = jnp.asarray(np.random.default_rng(1).normal(size=(48, 48)))

    @jax.jit
    def loss(v):
        channels = splat(v, jnp.asarray(faces), view, SplatOptions(window=48))
        return sum(jnp.mean(target * image) for image in jax.tree.leaves(channels))

    start = jnp.asarray(vertices)
    direction = jnp.asarray(np.random.default_rng(2).normal(size=start.shape))
    slope = (loss(start + 1e-5 * direction) - loss(start - 1e-5 * direction)) / 2e-5
    along = jnp.vdot(jax.jit(jax.grad(loss))(start), direction)
    assert float(along) == pytest.approx(float(slope), rel=1e-6)


def test_projection_against_the_exact_line_integral(x64):
    view = oblique_camera(64)
    covariance = np.diag([2.0, 0.5, 4.0]) ** 2
    turn = np.asarray(transforms.SO3.exp(jnp.array([0.4, 0.2, -0.7])).as_matrix())
    covariance = jnp.asarray(turn @ covariance @ turn.T)
    mean = jnp.array([12.0, -9.0, 7.0])
    gaussian = project_gaussians(view, mean[None], covariance[None], antialias=0.0)
    density = ray_geometry(view, mean[None]).density[0]
    uu, uv, vv = gaussian.covariance[0]
    precision = jnp.linalg.inv(jnp.array([[uu, uv], [uv, vv]]))
    offset = camera.pixel_centers(view) - gaussian.mean[:1, None]
    exponent = jnp.einsum("hwi,ij,hwj->hw", offset, precision, offset)
    splatted = density * jnp.exp(-0.5 * exponent) * jnp.sqrt(jnp.linalg.det(precision))
    exact = jax.vmap(
        jax.vmap(lambda d: line_integral_of_gaussian(mean, covariance, view.source, d))
    )(camera.ray_directions(view))
    splatted = splatted / (2 * jnp.pi)
    assert float(jnp.abs(splatted - exact).max() / exact.max()) < 5e-3
    assert float(splatted.sum() / exact.sum()) == pytest.approx(1.0, abs=1e-3)


def test_line_integral_of_gaussian_against_quadrature(x64):
    covariance = jnp.array([[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.7]])
    mean, source = jnp.array([1.0, 2.0, 30.0]), jnp.array([0.3, -0.1, 0.0])
    direction = jnp.array([0.05, 0.04, 1.0])
    direction = direction / jnp.linalg.norm(direction)
    tau = jnp.linspace(0.0, 60.0, 6001)
    points = source[None] + tau[:, None] * direction[None] - mean[None]
    inverse = jnp.linalg.inv(covariance)
    density = jnp.exp(-0.5 * jnp.einsum("ni,ij,nj->n", points, inverse, points))
    density = density / jnp.sqrt((2 * jnp.pi) ** 3 * jnp.linalg.det(covariance))
    expected = float(jnp.sum(density) * (tau[1] - tau[0]))
    exact = line_integral_of_gaussian(mean, covariance, source, direction)
    assert float(exact) == pytest.approx(expected, rel=1e-6)


def test_patches_tile_the_surface():
    vertices, faces = torus(18.0, 7.0)
    patches = surface_patches(
        jnp.asarray(vertices, jnp.float32),
        jnp.asarray(faces),
        smoothing=0.0,
        shell_thickness=0.0,
    )
    surface = trimesh.Trimesh(vertices, faces, process=False)
    assert float(patches.area.sum()) == pytest.approx(surface.area, rel=1e-5)
    np.testing.assert_allclose(patches.area_vector.sum(0), 0.0, atol=1e-2)
    outward = np.einsum("ni,ni->n", patches.area_vector, surface.vertex_normals)
    assert (outward > 0).all()
    assert np.linalg.eigvalsh(np.asarray(patches.covariance)).min() > -1e-4


@pytest.mark.slow
def test_patch_moments_against_quadrature(x64):
    vertices, faces = torus(18.0, 7.0, sections=(12, 8))
    patches = surface_patches(
        jnp.asarray(vertices), jnp.asarray(faces), smoothing=0.0, shell_thickness=0.0
    )
    # Integrate the hat function of vertex 0 over its faces by a fine midpoint rule.
    grid = (np.arange(60) + 0.5) / 60
    u, v = (g.reshape(-1) for g in np.meshgrid(grid, grid))
    l1, l2 = u * (1 - v), u * v  # Duffy transform, Jacobian 2 area u
    points, weights = [], []
    for face in faces[(faces == 0).any(1)]:
        corner = list(face).index(0)
        a, b, c = (vertices[face[(corner + i) % 3]] for i in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a))
        points.append(a + np.outer(l1, b - a) + np.outer(l2, c - a))
        weights.append(2 * area * u * (1 - u) / 3600)
    points, weights = np.concatenate(points), np.concatenate(weights)
    mean = weights @ points / weights.sum()
    covariance = (weights[:, None] * (points - mean)).T @ (points - mean) / weights.sum()
    assert float(patches.area[0]) == pytest.approx(weights.sum(), rel=1e-3)
    np.testing.assert_allclose(patches.mean[0], mean, atol=1e-2)
    np.testing.assert_allclose(patches.covariance[0], covariance, atol=5e-3 * covariance.max())


def test_scene_adds_path_lengths():
    first, faces = torus(18.0, 7.0)
    second = first + np.array([15.0, 5.0, 20.0])
    view, faces = oblique_camera(), jnp.asarray(faces)
    both = jnp.asarray(np.stack([first, second]), jnp.float32)
    scene = splat_scene(both, jnp.stack([faces, faces]), view)
    alone = [splat(v, faces, view) for v in both]
    np.testing.assert_allclose(scene.thickness, alone[0].thickness + alone[1].thickness, atol=1e-3)
    union = 1 - (1 - alone[0].silhouette) * (1 - alone[1].silhouette)
    np.testing.assert_allclose(scene.silhouette, union, atol=1e-4)


def test_vmap_over_views_equals_a_loop():
    vertices, faces = torus(18.0, 7.0)
    vertices, faces = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
    views = [
        camera.region_around(
            camera.from_carm(transforms.carm_rotation(a, 0.1), jnp.zeros(3)),
            jnp.zeros(3),
            width_mm=80.0,
            num_pixels=64,
        )
        for a in (0.0, 1.0)
    ]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *views)
    batch = jax.vmap(lambda c: splat(vertices, faces, c))(stacked)
    for i, view in enumerate(views):
        np.testing.assert_allclose(
            batch.thickness[i], splat(vertices, faces, view).thickness, atol=2e-3
        )


def test_left_right_and_up_down():
    # A ball to the patient's left and superior: on the right of an AP image, in its upper half.
    vertices, faces = sphere(512, 5.0, (-30.0, 0.0, 40.0))
    vertices, faces = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces)
    expected = {"AP": (True, True), "PA": (False, True)}
    for name, (right, up) in expected.items():
        view = camera.from_carm(
            transforms.view_rotation(name), jnp.zeros(3), pixel_spacing=2.0, image_size=(128, 128)
        )
        mask = np.asarray(splat(vertices, faces, view, SplatOptions(window=31)).silhouette)
        rows, columns = np.nonzero(mask > 0.5)
        assert (columns.mean() > 64) == right
        assert (rows.mean() < 64) == up


def test_splats_off_the_image_draw_nothing():
    vertices, faces = sphere(512, 5.0, (500.0, 0.0, 0.0))
    channels = splat(jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), oblique_camera())
    assert float(jnp.abs(channels.thickness).max()) < 1e-6
    assert bool(jnp.isfinite(channels.thickness).all())


@pytest.mark.slow
def test_alpha_mode_hides_what_is_behind():
    # Two spheres in line with the beam: the far one changes the X-ray, not the alpha image.
    near, faces = sphere(1024, 12.0, (0.0, 60.0, 0.0))
    far, _ = sphere(1024, 6.0, (0.0, -60.0, 0.0))
    view = camera.from_carm(
        transforms.view_rotation("AP"), jnp.zeros(3), pixel_spacing=1.5, image_size=(64, 64)
    )
    both_faces = jnp.asarray(np.concatenate([faces, faces + len(near)]))
    both = jnp.asarray(np.concatenate([near, far]), jnp.float32)
    near = jnp.asarray(near, jnp.float32)
    one = splat_alpha(near, jnp.asarray(faces), view, opacity=0.95)
    two = splat_alpha(both, both_faces, view, opacity=0.95)
    assert float(jnp.abs(one - two)[30:34, 30:34].max()) < 0.02
    added = (
        splat(both, both_faces, view).thickness - splat(near, jnp.asarray(faces), view).thickness
    )
    assert float(added[30:34, 30:34].mean()) == pytest.approx(12.0, abs=1.0)


def test_suggested_window_holds_the_splats():
    view = oblique_camera()
    wide, narrow = (
        splat(
            jnp.asarray(sphere(2048, RADIUS)[0], jnp.float32),
            jnp.asarray(sphere(2048, RADIUS)[1]),
            view,
            SplatOptions(window=window),
        )
        for window in (41, suggest_window(view, 600.0))
    )
    assert float(jnp.abs(wide.thickness - narrow.thickness).max()) < 0.05


def test_a_surface_inside_out_is_turned():
    vertices, faces = sphere(2048, RADIUS, CENTER)
    vertices, faces, view = jnp.asarray(vertices, jnp.float32), jnp.asarray(faces), oblique_camera()
    outward, inward = (splat(vertices, f, view).thickness for f in (faces, faces[:, ::-1]))
    np.testing.assert_allclose(inward, outward, atol=1e-3)


@pytest.mark.slow
def test_derivatives_of_the_windowed_splat(x64):
    """Forward and second derivatives as its docstring says, with a window as wide as the image
    against the plain derivatives of "dense"."""
    vertices, faces = (jnp.asarray(x) for x in sphere(30, RADIUS))
    view = oblique_camera(num_pixels=12)
    probe = jnp.asarray(np.random.default_rng(0).normal(size=(12, 12)))

    def image_of(backend):
        options = SplatOptions(backend=backend, window=12)
        return lambda w: render.splat(vertices + w[None], faces, view, options).thickness

    def value_of(backend):
        return lambda w: jnp.sum(probe * image_of(backend)(w))

    windowed, dense = image_of("windowed"), image_of("dense")
    place = jnp.array([0.3, -0.2, 0.4])

    @jax.jit
    def forward(place):
        image, pull = jax.vjp(windowed, place)
        push = jax.linear_transpose(pull, image)
        return jax.vmap(lambda d: push((d,))[0], out_axes=-1)(jnp.eye(3))

    np.testing.assert_allclose(forward(place), jax.jit(jax.jacfwd(dense))(place), atol=1e-8)
    second = jax.jit(jax.jacrev(jax.jacrev(value_of("windowed"))))(place)
    np.testing.assert_allclose(second, jax.jit(jax.hessian(value_of("dense")))(place), atol=1e-7)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.eval_shape(jax.jacfwd(windowed), place)
