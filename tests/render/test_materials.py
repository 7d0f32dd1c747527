import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from dartjax import camera, transforms
from dartjax.image import Volume
from dartjax.render import (
    PiecewiseLinear,
    basis_attenuation,
    basis_thickness,
    drr,
    linear_attenuation,
    paired_drr,
    xray_body,
)
from dartjax.render._materials import WATER_PER_MM, anchors, basis_coefficients
from dartjax.transforms import SE3

ENERGIES = np.arange(40.0, 101.0, 2.0)
WATER_70 = 0.0192853  # mm^-1 at 70 keV, of the tables
TISSUES = ("air", "lung", "adipose", "water", "soft_tissue", "cortical_bone")


def make_volume(values, spacing=1.0):
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = -0.5 * spacing * (np.array(values.shape) - 1)
    return Volume(jnp.asarray(values, jnp.float32), jnp.asarray(affine, jnp.float32))


def make_camera(size=(6, 5), pixel=3.0):
    return camera.from_carm(
        transforms.carm_rotation(0.4, -0.3),
        jnp.zeros(3),
        sdd=1000.0,
        source_to_isocenter=600.0,
        pixel_spacing=pixel,
        image_size=size,
    )


def attenuation_of(material):
    """A material at its own density on the volume's scale (1/mm), and its energies' table."""
    at_70 = float(linear_attenuation(material, np.array([70.0]))[0])
    return WATER_PER_MM / WATER_70 * at_70, np.asarray(linear_attenuation(material, ENERGIES))


def by_basis(attenuation):
    """mu(E) of a voxel by the two basis materials."""
    body = xray_body(make_volume(np.full((2, 2, 2), attenuation)))
    bone = float(body.bone_fraction(jnp.asarray(attenuation, jnp.float32)))
    water = (attenuation - float(body.bone_per_mm) * bone) / WATER_PER_MM
    return np.asarray(basis_attenuation(jnp.asarray(ENERGIES, jnp.float32))) @ [water, bone]


@pytest.mark.parametrize("material", [*TISSUES, "titanium"])
def test_two_basis_materials_agree_with_each_material(material):
    attenuation, expected = attenuation_of(material)
    tolerance = 5e-3 if material == "titanium" else 1e-3
    np.testing.assert_allclose(by_basis(attenuation), expected, rtol=tolerance)


@pytest.mark.parametrize(("low", "high"), list(itertools.pairwise(TISSUES)))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_two_basis_materials_agree_with_mixtures_of_materials(low, high, share):
    (at_low, mu_low), (at_high, mu_high) = attenuation_of(low), attenuation_of(high)
    found = by_basis((1.0 - share) * at_low + share * at_high)
    np.testing.assert_allclose(found, (1.0 - share) * mu_low + share * mu_high, rtol=1e-3)


def test_steel_is_within_two_percent_of_its_basis():
    found = np.asarray(basis_attenuation(jnp.asarray(ENERGIES, jnp.float32)))
    found = found.astype(float) @ basis_coefficients("steel")
    np.testing.assert_allclose(found, linear_attenuation("steel", ENERGIES), rtol=0.02)


def test_every_voxel_keeps_its_attenuation_at_the_energy_of_the_ct():
    cam = make_camera()
    thickness_of = jax.jit(lambda body: basis_thickness(body, cam, num_samples=200))
    plain = jax.jit(lambda volume: drr(volume, cam, num_samples=200))
    for hounsfield in (-1000.0, -740.0, -100.0, 0.0, 50.0, 400.0, 1500.0, 9000.0):
        attenuation = WATER_PER_MM * (1.0 + hounsfield / 1000.0)
        body = xray_body(make_volume(np.full((21, 21, 21), attenuation)))
        thickness = thickness_of(body)
        found = WATER_PER_MM * thickness[0] + body.bone_per_mm * thickness[1]
        expected = np.asarray(plain(body.volume))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_slabs_give_their_thickness():
    # A plate of water and one of cortical bone, seen along an axis through both.
    bone, _ = attenuation_of("cortical_bone")
    values = np.zeros((31, 60, 31))
    values[:, 5:45] = WATER_PER_MM
    values[:, 45:55] = bone
    along = camera.from_carm(
        transforms.view_rotation("AP"),
        jnp.zeros(3),
        sdd=10000.0,
        source_to_isocenter=9000.0,
        pixel_spacing=1.0,
        image_size=(3, 3),
    )
    thickness = jax.jit(lambda body: basis_thickness(body, along, num_samples=1200))
    water, mineral = thickness(xray_body(make_volume(values)))
    # The same line in one dimension: the plates' edges are ramps one voxel long.
    x = np.linspace(-1.0, 60.0, 610001)
    line = np.interp(x, np.arange(60), values[15, :, 15])
    expected = np.interp(line, *anchors()).mean() * 61.0
    assert float(mineral[1, 1]) == pytest.approx(expected, rel=2e-3)
    assert 9.0 < expected < 10.0
    whole = WATER_PER_MM * water[1, 1] + bone * mineral[1, 1]
    assert float(whole) == pytest.approx(40.0 * WATER_PER_MM + 10.0 * bone, rel=2e-3)


def random_setup():
    rng = np.random.default_rng(0)
    volume = make_volume(rng.uniform(0.0, 0.06, (9, 8, 7)), 3.0)
    function = PiecewiseLinear(jnp.array([0.01, 0.03]), jnp.array([2.0, -3.5]))
    return volume, function, make_camera((7, 6), 8.0)


def test_paired_drr_agrees_with_independent_sampling():
    volume, function, cam = random_setup()
    first, second = jax.jit(lambda v: paired_drr(v, function, cam, num_samples=4000))(volume)
    np.testing.assert_allclose(first, drr(volume, cam, num_samples=4000), rtol=2e-5, atol=1e-5)
    to_voxel = np.linalg.inv(np.asarray(volume.world_from_voxel, float))
    pose = np.linalg.inv(np.asarray(cam.camera_from_world.as_matrix(), float))
    rows, columns = cam.image_size
    for row, column in [(0, 0), (3, 2), (6, 5)]:
        pixel = np.array([column + 0.5, row + 0.5]) - np.array([columns, rows]) / 2.0
        direction = pose[:3, :3] @ np.array([*(pixel * 8.0 / 1000.0), 1.0])
        depths = np.linspace(500.0, 700.0, 80001)
        points = pose[:3, 3] + depths[:, None] * direction
        voxels = to_voxel[:3, :3] @ points.T + to_voxel[:3, 3:]
        field = map_coordinates(np.asarray(volume.values), voxels, order=1, mode="grid-constant")
        mapped = 2.0 * np.maximum(field - 0.01, 0.0) - 3.5 * np.maximum(field - 0.03, 0.0)
        expected = mapped.mean() * 200.0 * np.linalg.norm(direction)
        assert float(second[row, column]) == pytest.approx(expected, abs=2e-4)
    assert np.abs(np.asarray(second)).max() > 0.1


def test_gradient_in_the_pose_agrees_with_finite_differences():
    with jax.enable_x64(True):
        volume, function, cam = random_setup()
        volume = Volume(volume.values.astype(float), volume.world_from_voxel.astype(float))
        weights = jnp.asarray(np.random.default_rng(1).uniform(-1.0, 1.0, (2, 7, 6)))

        @jax.jit
        def loss(x):
            pose = SE3.exp(x) @ cam.camera_from_world
            moved = dataclasses.replace(cam, camera_from_world=pose)
            return jnp.vdot(weights, jnp.stack(paired_drr(volume, function, moved, num_samples=60)))

        x, h = (
            0.01 * jnp.asarray(np.random.default_rng(2).uniform(size=6)),
            1e-8,
        )  # seldom crosses a kink
        gradient = jax.jit(jax.grad(loss))(x)
        steps = h * jnp.eye(6)
        numeric = [float(loss(x + step) - loss(x - step)) / (2 * h) for step in steps]
    np.testing.assert_allclose(gradient, numeric, rtol=2e-5, atol=2e-5)


def test_gradient_of_values_and_function_is_zero_by_design():
    volume, function, cam = random_setup()

    def loss(values, function):
        moved = Volume(values, volume.world_from_voxel)
        return sum(image.sum() for image in paired_drr(moved, function, cam, num_samples=20))

    by_values, by_function = jax.jit(jax.grad(loss, (0, 1)))(volume.values, function)
    assert not np.any(by_values)
    assert not np.any(by_function.knots) and not np.any(by_function.slope_changes)


def test_vmap_over_cameras():
    volume, _, cam = random_setup()
    body = xray_body(volume)
    shifts = jnp.array([[0.0] * 6, [5.0, -3.0, 8.0, 0.1, 0.0, 0.2]])

    def image(x):
        pose = SE3.exp(x) @ cam.camera_from_world
        moved = dataclasses.replace(cam, camera_from_world=pose)
        return basis_thickness(body, moved, num_samples=40)

    batch, alone = jax.jit(jax.vmap(image))(shifts), jax.jit(image)
    for n in range(2):
        np.testing.assert_allclose(batch[n], alone(shifts[n]), rtol=1e-4, atol=1e-4)


def test_bad_volumes_are_rejected():
    with pytest.raises(ValueError, match="convert Hounsfield units"):
        xray_body(make_volume(np.full((3, 3, 3), -1000.0)))
    with pytest.raises(ValueError, match="not finite"):
        xray_body(make_volume(np.full((3, 3, 3), np.nan)))
    with pytest.raises(ValueError, match="num_samples is 0"):
        basis_thickness(xray_body(make_volume(np.zeros((3, 3, 3)))), make_camera(), num_samples=0)
