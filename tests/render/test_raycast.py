import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from dartjax import camera, render, transforms
from dartjax.image import Volume
from dartjax.render import label_volume, line_integral
from dartjax.transforms import SE3

# One program for a call instead of one for every operation.
drr = jax.jit(render.drr, static_argnames=("num_samples", "rays_per_chunk"))
OBLIQUE = Rotation.from_euler("xyz", [20.0, -35.0, 50.0], degrees=True).as_matrix()
SPACING = np.array([0.7, 1.1, 2.5])


def make_volume(values, spacing=(1.0, 1.0, 1.0), rotation=None, center=(0.0, 0.0, 0.0)):
    """Volume whose grid centre lies at `center` in world."""
    axes = (np.eye(3) if rotation is None else rotation) * np.asarray(spacing)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.asarray(center) - axes @ ((np.array(values.shape) - 1) / 2)
    return Volume(jnp.asarray(values, float), jnp.asarray(affine, float))


def make_camera(rotation=None, size=(24, 20), pixel=4.0, isocenter=(0.0, 0.0, 0.0)):
    rotation = transforms.view_rotation("AP") if rotation is None else rotation
    return camera.from_carm(
        rotation,
        jnp.asarray(isocenter, float),
        sdd=1000.0,
        source_to_isocenter=600.0,
        pixel_spacing=pixel,
        image_size=size,
    )


def ray_of(cam, row, column):
    """Source and unit direction of one pixel's ray, in float64 numpy, from the camera's own
    numbers but not from its methods."""
    world_from_camera = np.linalg.inv(np.asarray(cam.camera_from_world.as_matrix(), np.float64))
    pixel = np.array([column + 0.5, row + 0.5])
    tangent = (pixel - np.asarray(cam.principal_point)) / np.asarray(cam.focal_length)
    direction = world_from_camera[:3, :3] @ np.array([*tangent, 1.0])
    return world_from_camera[:3, 3], direction / np.linalg.norm(direction)


def along_axis(values, start, end, length, num_samples=1000):
    as_point = lambda p: jnp.asarray(p, float)  # noqa: E731
    return float(
        line_integral(values, as_point(start), as_point(end), jnp.asarray(length), num_samples)
    )


@pytest.mark.parametrize("rotation", [None, OBLIQUE])
def test_box_gives_its_chord(rotation):
    # With faces midway between voxel centres the interpolated edge is odd about the face, so
    # a ray through two opposite faces, away from the edges, sees the chord of the sharp box.
    half = np.array([11.5, 9.5, 8.5]) * SPACING
    values = np.zeros((31, 27, 25))
    values[4:-4, 4:-4, 4:-4] = 0.02
    view = transforms.SO3.from_matrix(jnp.asarray(transforms.VIEW_AXES["AP"]))
    if rotation is not None:
        view = transforms.SO3.from_matrix(jnp.asarray(rotation, float)) @ view
    cam = make_camera(view, size=(10, 4), pixel=1.5)
    with jax.enable_x64(True):
        image = drr(make_volume(values, SPACING, rotation), cam, num_samples=4000)
    to_box = np.eye(3) if rotation is None else rotation.T
    for row, column in [(0, 0), (4, 2), (9, 3)]:
        source, direction = ray_of(cam, row, column)
        source, direction = to_box @ source, to_box @ direction
        exits = np.stack([(-half - source) / direction, (half - source) / direction])
        chord = exits.max(0).min() - exits.min(0).max()
        assert image[row, column] == pytest.approx(0.02 * chord, rel=2e-6)


def test_smooth_ball_gives_its_closed_form():
    # (1 - r^2 / R^2)^2 integrates to 16/15 c^5 / R^4 with c^2 = R^2 - d^2. Linear interpolation
    # adds h^2 / 12 times the Laplacian on average, at most 8/9 h^2 / R along a ray.
    radius, h = 16.0, 1.0
    grid = np.arange(40) - 19.5
    squared = grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid**2
    values = np.maximum(0.0, 1.0 - squared / radius**2) ** 2
    cam = make_camera(transforms.carm_rotation(0.6, 0.3), size=(12, 12), pixel=6.0)
    image = np.asarray(drr(make_volume(values, (h, h, h)), cam, num_samples=800))
    for row, column in np.ndindex(12, 12):
        source, direction = ray_of(cam, row, column)
        half_chord = np.sqrt(max(0.0, radius**2 - np.sum(np.cross(source, direction) ** 2)))
        expected = 16.0 / 15.0 * half_chord**5 / radius**4
        assert image[row, column] == pytest.approx(expected, abs=h**2 / radius)
    assert image.max() > 15.0 and image.min() < 1e-3


@pytest.mark.parametrize(
    ("direction", "expected"),
    # Integral of (1 - |t|)^m over [-1, 1], times the length of the direction.
    [((0, 0, 1), 1.0), ((1, 1, 0), np.sqrt(2.0) * 2 / 3), ((1, 1, 1), np.sqrt(3.0) / 2)],
)
def test_impulse_voxel(direction, expected):
    values = jnp.zeros((5, 6, 7)).at[2, 3, 4].set(1.0)
    offset = 1.2 * np.array(direction, float)
    center = np.array([2.0, 3.0, 4.0])
    length = 2.0 * np.linalg.norm(offset)
    found = along_axis(values, center - offset, center + offset, length)
    assert found == pytest.approx(expected, rel=1e-5)


def test_border_fades_over_one_voxel_and_is_zero_beyond():
    values = jnp.full((1, 4, 5), 3.0)  # one slice thin: still a field that fades on both sides
    whole = along_axis(values, (0.0, -3.0, 2.0), (0.0, 6.0, 2.0), 9.0)
    assert whole == pytest.approx(3.0 * 4, rel=1e-5)
    across = along_axis(values, (-2.0, 1.0, 2.0), (2.0, 1.0, 2.0), 4.0)
    assert across == pytest.approx(3.0 * 1, rel=1e-5)
    assert along_axis(values, (0.0, -9.0, 2.0), (0.0, -1.0, 2.0), 8.0) == 0.0


def random_values(shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape)


def random_setup(seed=0, size=(9, 7)):
    """An oblique anisotropic grid that part of the rays miss, seen by an oblique camera."""
    volume = make_volume(random_values((9, 8, 7), seed), 3 * SPACING, OBLIQUE, (5.0, -8.0, 3.0))
    return volume, make_camera(transforms.carm_rotation(0.4, -0.3), size, pixel=10.0)


def reference_drr(volume, cam, num_samples=40000):
    """Dense unclipped sampling from source to detector with scipy's interpolation."""
    voxel_from_world = np.linalg.inv(np.asarray(volume.world_from_voxel, np.float64))
    height, width = cam.image_size
    image = np.zeros((height, width))
    beam = np.asarray(cam.beam, np.float64)
    for row, column in np.ndindex(height, width):
        source, direction = ray_of(cam, row, column)
        step = float(cam.sdd) / (beam @ direction) / num_samples
        points = source + (np.arange(num_samples) + 0.5)[:, None] * step * direction
        voxels = voxel_from_world[:3, :3] @ points.T + voxel_from_world[:3, 3:]
        samples = map_coordinates(np.asarray(volume.values), voxels, order=1, mode="grid-constant")
        image[row, column] = samples.sum() * step
    return image


def test_agrees_with_independent_implementation():
    with jax.enable_x64(True):
        volume, cam = random_setup()
        image = np.asarray(drr(volume, cam, num_samples=4000))
        expected = reference_drr(volume, cam)
    assert (expected == 0.0).any() and (expected > 5.0).any()
    np.testing.assert_allclose(image, expected, atol=1e-4 * expected.max())


def test_float32_and_float64_agree():
    volume, cam = random_setup()
    with jax.enable_x64(True):
        expected = np.asarray(drr(*random_setup()))
    np.testing.assert_allclose(drr(volume, cam), expected, atol=2e-5 * expected.max())


def test_image_does_not_depend_on_the_storage_of_the_volume():
    volume, cam = random_setup()
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1.0, volume.values.shape[0] - 1
    flipped = Volume(volume.values[::-1], volume.world_from_voxel @ flip)
    swap = np.eye(4)[[2, 0, 1, 3]]
    swapped = Volume(jnp.transpose(volume.values, (1, 2, 0)), volume.world_from_voxel @ swap)
    expected = drr(volume, cam)
    assert float(expected.max()) > 5.0
    np.testing.assert_allclose(drr(flipped, cam), expected, atol=2e-4)
    np.testing.assert_allclose(drr(swapped, cam), expected, atol=2e-4)


def test_moving_the_source_along_a_ray_changes_nothing():
    volume, cam = random_setup(size=(5, 5))  # the central ray is the beam
    for shift in (-60.0, 90.0):
        move = SE3.from_translation(jnp.array([0.0, 0.0, shift]))
        moved = dataclasses.replace(
            cam, camera_from_world=move @ cam.camera_from_world, sdd=cam.sdd + shift
        )
        assert drr(volume, moved)[2, 2] == pytest.approx(float(drr(volume, cam)[2, 2]), rel=1e-5)


def test_field_behind_source_or_detector_is_not_seen():
    volume, cam = random_setup(size=(5, 5))
    assert float(drr(volume, cam).max()) > 5.0
    in_front = dataclasses.replace(cam, sdd=jnp.asarray(500.0))
    assert float(jnp.abs(drr(volume, in_front)).max()) == 0.0
    behind = SE3.from_translation(jnp.array([0.0, 0.0, -1200.0]))
    turned = dataclasses.replace(cam, camera_from_world=behind @ cam.camera_from_world)
    assert float(jnp.abs(drr(volume, turned)).max()) == 0.0


def disturbed_camera(cam, x):
    """Camera moved by 6 numbers of pose and changed by 5 of its intrinsics."""
    return dataclasses.replace(
        cam,
        camera_from_world=SE3.exp(x[:6]) @ cam.camera_from_world,
        focal_length=cam.focal_length + x[6:8],
        principal_point=cam.principal_point + x[8:10],
        sdd=cam.sdd + x[10],
    )


# At 600 the detector cuts through the volume.
@pytest.mark.parametrize("sdd", [1000.0, pytest.param(600.0, marks=pytest.mark.slow)])
def test_gradient_of_pose_and_intrinsics_agrees_with_finite_differences(sdd):
    with jax.enable_x64(True):
        volume, cam = random_setup()
        cam = dataclasses.replace(cam, sdd=jnp.asarray(sdd))
        weights = jnp.asarray(random_values((9, 7), seed=1)) - 0.3

        @jax.jit
        def loss(x):
            return jnp.vdot(weights, drr(volume, disturbed_camera(cam, x), num_samples=60))

        x = jnp.asarray(0.01 * random_values(11, seed=2))
        gradient, forward = jax.grad(loss)(x), jax.jacfwd(loss)(x)
        h = 1e-6  # the field is piecewise trilinear: a small step seldom crosses a kink
        numeric = [float(loss(x.at[i].add(h)) - loss(x.at[i].add(-h))) / (2 * h) for i in range(11)]
    assert np.abs(np.asarray(numeric[:10])).min() > 1e-3
    assert (abs(numeric[10]) > 1e-3) == (sdd == 600.0)
    np.testing.assert_allclose(gradient, numeric, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(forward, gradient, rtol=1e-9, atol=1e-12)


def test_gradient_of_segment_ends_in_the_fading_border():
    with jax.enable_x64(True):
        values = jnp.asarray(random_values((4, 3, 2)))
        length = jnp.asarray(7.0)

        @jax.jit
        def mean(ends):
            return line_integral(values, ends[:3], ends[3:], length, 37)

        ends = jnp.array([-0.7, 0.31, -0.4, 3.6, 2.45, 1.52])
        h = 1e-6
        numeric = [(mean(ends.at[i].add(h)) - mean(ends.at[i].add(-h))) / (2 * h) for i in range(6)]
        gradient = jax.grad(mean)(ends)
        by_length = jax.grad(lambda m: line_integral(values, ends[:3], ends[3:], m, 37))(length)
        expected = mean(ends) / length
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)
    np.testing.assert_allclose(by_length, expected, rtol=1e-12)


def test_parallel_and_missing_rays_have_finite_gradients():
    volume = make_volume(random_values((5, 5, 5)), SPACING)
    cam = make_camera(size=(5, 5), pixel=8.0)  # the central ray is parallel to two axes
    loss = jax.jit(lambda x: jnp.sum(drr(volume, disturbed_camera(cam, x)) ** 2))
    gradient = jax.jit(jax.grad(loss))(jnp.zeros(11))
    assert np.isfinite(gradient).all() and np.abs(gradient[3:6]).max() > 0.0


def test_gradient_of_values_is_zero_by_design():
    volume, cam = random_setup(size=(3, 3))
    gradient = jax.grad(lambda v: drr(Volume(v, volume.world_from_voxel), cam).sum())(volume.values)
    assert np.all(np.asarray(gradient) == 0.0)


@pytest.mark.slow
def test_chunks_and_vmap_do_not_change_the_image():
    volume, cam = random_setup()
    expected = np.asarray(drr(volume, cam))
    for rays_per_chunk in (1, 10, 63, 64):
        image = drr(volume, cam, rays_per_chunk=rays_per_chunk)
        np.testing.assert_allclose(image, expected, atol=1e-5 * expected.max())
    shifts = jnp.zeros((2, 11)).at[1, 3].set(6.0)
    batch = jax.vmap(lambda x: drr(volume, disturbed_camera(cam, x), rays_per_chunk=20))(shifts)
    np.testing.assert_allclose(batch[0], expected, atol=1e-5 * expected.max())
    other = drr(volume, disturbed_camera(cam, shifts[1]))
    assert np.abs(other - expected).max() > 0.1
    np.testing.assert_allclose(batch[1], other, atol=1e-5 * expected.max())


def test_values_and_gradient_pass_agree_on_the_image():
    volume, cam = random_setup()
    image, _ = jax.jvp(lambda x: drr(volume, disturbed_camera(cam, x)), *[(jnp.zeros(11),)] * 2)
    np.testing.assert_allclose(image, drr(volume, cam), atol=1e-5 * float(image.max()))


def test_invalid_number_of_samples():
    volume, cam = random_setup()
    with pytest.raises(ValueError, match="num_samples is 0"):
        drr(volume, cam, num_samples=0)


def labelled_setup():
    volume, cam = random_setup()
    labels = np.zeros(volume.values.shape, np.uint8)
    labels[2:5, 1:4, 3:7] = 20  # reaches the border of the grid
    labels[4, 3, 5] = 21
    return volume, cam, labels


def test_structures_add_up_to_the_whole():
    volume, cam, labels = labelled_setup()
    parts = [jnp.where(labels == label, volume.values, 0.0) for label in (0, 20, 21)]
    total = sum(np.asarray(drr(Volume(part, volume.world_from_voxel), cam)) for part in parts)
    expected = np.asarray(drr(volume, cam))
    np.testing.assert_allclose(total, expected, atol=2e-6 * expected.max())


def test_label_volume_is_the_same_field_cropped():
    with jax.enable_x64(True):
        volume, cam, labels = labelled_setup()
        alone = label_volume(volume, labels, 20)
        masked = Volume(jnp.where(labels == 20, volume.values, 0.0), volume.world_from_voxel)
        found, expected = (np.asarray(drr(v, cam, num_samples=6000)) for v in (alone, masked))
    assert alone.values.shape == (3, 3, 4)
    assert expected.max() > 5.0
    np.testing.assert_allclose(
        found, expected, atol=1e-4 * expected.max()
    )  # the quadratures differ


def test_label_volume_rejects_bad_input():
    volume, _, labels = labelled_setup()
    with pytest.raises(ValueError, match="label 9 is not in"):
        label_volume(volume, labels, 9)
    with pytest.raises(ValueError, match="resample the labels"):
        label_volume(volume, labels[1:], 20)


def centroid_of(image):
    rows, columns = np.indices(image.shape)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


# A blob at the patient's left (-x), front (+y) and top (+z): where it appears, relative to the
# image centre, in columns (u, right) and rows (v, down).
GOLDEN = {
    "AP": (+1, -1),  # patient's left on image right: the radiological AP
    "PA": (-1, -1),  # seen from behind
    "LAT_L": (+1, -1),  # beam toward the left, front on image right
    "LAT_R": (-1, -1),
}


def blob_image(rotation, center=(-30.0, 30.0, 30.0)):
    values = np.zeros((9, 9, 9))
    values[3:6, 3:6, 3:6] = 1.0
    cam = make_camera(rotation, size=(64, 64), pixel=5.0)
    u, v = centroid_of(np.asarray(drr(make_volume(values, (2.0, 2.0, 2.0), None, center), cam)))
    return u - 31.5, v - 31.5


@pytest.mark.parametrize("view", list(GOLDEN))
def test_orientation_of_named_views(view):
    u, v = blob_image(transforms.view_rotation(view))
    assert (np.sign(u), np.sign(v)) == GOLDEN[view]
    assert abs(u) > 5.0 and abs(v) > 5.0


def test_orientation_of_oblique_views():
    # At (0, 0) a blob in front of the isocentre, toward the receptor, lies on the beam.
    in_front = (0.0, 40.0, 0.0)
    pa = blob_image(transforms.carm_rotation(0.0, 0.0), in_front)
    lao = blob_image(transforms.carm_rotation(np.deg2rad(30.0), 0.0), in_front)
    rao = blob_image(transforms.carm_rotation(np.deg2rad(-30.0), 0.0), in_front)
    cranial = blob_image(transforms.carm_rotation(0.0, np.deg2rad(30.0)), in_front)
    caudal = blob_image(transforms.carm_rotation(0.0, np.deg2rad(-30.0)), in_front)
    np.testing.assert_allclose(pa, 0.0, atol=0.05)
    # LAO: the receptor at the patient's left and front, so u points to the right and the front.
    assert lao[0] > 3.0 and rao[0] < -3.0
    # Cranial: the receptor toward the head, so v points to the feet and the front.
    assert cranial[1] > 3.0 and caudal[1] < -3.0


def test_lao_90_is_the_left_lateral():
    expected = blob_image(transforms.view_rotation("LAT_L"))
    found = blob_image(transforms.carm_rotation(np.pi / 2, 0.0))
    np.testing.assert_allclose(found, expected, atol=1e-3)
