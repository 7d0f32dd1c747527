import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dartjax import camera, transforms
from dartjax.image import Volume
from dartjax.render import (
    Tool,
    detected_signal,
    drr,
    kirschner_wire,
    linear_attenuation,
    place_along,
    simulate_radiograph,
    transmission,
    tube_spectrum,
    xray_body,
    xray_settings,
)
from dartjax.transforms import SE3

KEY = jax.random.key(3)
WATER = 0.0192


def slab_volume(thickness=200, per_mm=WATER):
    """Water between two planes across the AP beam: voxels of 1 mm along it and 10 mm across."""
    values = np.zeros((14, 220, 14))
    values[:, 110 - thickness // 2 : 110 + thickness // 2] = per_mm
    affine = np.diag([20.0, 1.0, 20.0, 1.0])
    affine[:3, 3] = -affine.diagonal()[:3] * (np.array(values.shape) - 1) / 2.0
    return Volume(jnp.asarray(values, jnp.float32), jnp.asarray(affine, jnp.float32))


def make_camera(size=(32, 32), pixel=0.5):
    return camera.from_carm(
        transforms.view_rotation("AP"),
        jnp.zeros(3),
        sdd=1000.0,
        source_to_isocenter=600.0,
        pixel_spacing=pixel,
        image_size=size,
    )


@pytest.fixture(scope="module")
def simulate():
    """Compiled once for each kind of settings: bodies and images here are of one size."""
    return jax.jit(
        lambda body, cam, settings, key: simulate_radiograph(body, cam, settings, key=key)
    )


def test_ideal_preset_of_water_is_its_line_integral(simulate):
    settings = xray_settings("ideal")
    image = simulate(xray_body(slab_volume()), make_camera(), settings, KEY).image
    energy = np.asarray(settings.spectrum.energies_kev)
    expected = 200.0 * float(linear_attenuation("water", energy)[0])
    np.testing.assert_allclose(image, expected, rtol=0.01)  # rays a little longer, CT scale


@pytest.mark.parametrize("num_bins", [3, 500])
def test_beam_hardening_of_slabs(simulate, num_bins):
    settings = xray_settings("ideal", num_bins=num_bins)
    effective = []
    for thickness in (40, 200):
        image = simulate(xray_body(slab_volume(thickness)), make_camera(), settings, KEY).image
        effective.append(float(image[16, 16]) / thickness)
    assert effective[1] < 0.97 * effective[0]
    spectrum = tube_spectrum(80.0)
    mu = np.asarray(linear_attenuation("water", spectrum.energies_kev), float)
    weights = np.asarray(spectrum.weights, float)
    expected = [-np.log(np.exp(-mu * t) @ weights) / t for t in (40.0, 200.0)]
    np.testing.assert_allclose(effective, expected, rtol=0.006)


def test_energy_is_conserved():
    # What is not transmitted is taken out of the beam: with nothing in the way all energy is
    # detected, and a part's transmissions multiply at each energy.
    spectrum = xray_settings(kvp=100.0).spectrum
    none = jnp.zeros((3, 4, 4))
    thickness = jnp.stack([jnp.full((4, 4), 120.0), jnp.full((4, 4), 8.0)])
    open_beam = transmission(0.0 * thickness, none, spectrum)
    assert float(jnp.einsum("b,bhw->hw", spectrum.weights, open_beam)[0, 0]) == pytest.approx(1.0)
    parts = [transmission(0.5 * thickness, none, spectrum) for _ in range(2)]
    whole = transmission(thickness, none, spectrum)
    np.testing.assert_allclose(parts[0] * parts[1], whole, rtol=1e-5)
    assert np.all(np.diff(np.asarray(whole[:, 0, 0])) > 0.0)
    # Less than nothing in the way does not make light.
    assert float(transmission(-thickness, none, spectrum).max()) == 1.0


def test_mean_image_and_noise_of_a_slab(simulate):
    settings = xray_settings("standard", scatter_to_primary=0.0, blur_mm=0.0, electronic_noise=0.0)
    cam, body = make_camera(), xray_body(slab_volume())
    clean = xray_settings("ideal", num_bins=3)
    expected = np.asarray(simulate(body, cam, clean, KEY).image)
    photons = 2e5
    variances = []
    for factor in (1.0, 10.0):
        count = jnp.asarray(photons * factor, jnp.float32)
        gain = jnp.asarray(45000.0, jnp.float32) / count
        noisy = dataclasses.replace(settings, photons_per_pixel=count, gain=gain)
        image = np.asarray(simulate(body, cam, noisy, KEY).image)
        assert image.mean() == pytest.approx(expected.mean(), abs=0.01)
        variances.append((image - expected).var())
    assert variances[0] / variances[1] == pytest.approx(10.0, rel=0.2)
    quanta = photons * np.exp(-expected.mean())
    # Fewer, larger quanta behind the slab: up to a quarter more noise than their mean energy.
    assert 1.0 < variances[0] * quanta < 1.35


@pytest.mark.slow
def test_scatter_lowers_contrast(simulate):
    body, cam = xray_body(slab_volume()), make_camera((32, 32), 8.0)
    clear = xray_settings("ideal", num_bins=3)
    foggy = dataclasses.replace(clear, scatter_to_primary=jnp.asarray(2.0))
    images = [simulate(body, cam, settings, KEY).image for settings in (clear, foggy)]
    assert float(images[1][16, 16]) < float(images[0][16, 16]) - 0.2
    signal = detected_signal(jnp.ones((3, 32, 32)), foggy, cam)
    np.testing.assert_allclose(signal, 1.0, rtol=1e-5)


def test_tool_in_the_scene():
    body, cam = xray_body(slab_volume()), make_camera((32, 32))
    settings = xray_settings("ideal", num_bins=3)
    wire = kirschner_wire(3.0)
    across = jnp.array([1.0, 0.0, 0.0])

    @jax.jit
    def render(x):
        tool = Tool(wire, place_along(jnp.array([100.0, 0.0, x]), across), "steel")
        return simulate_radiograph(body, cam, settings, key=KEY, tools=[tool]).image

    with_tool, away = render(0.0), render(300.0)
    added = np.asarray(with_tool - away)[:, 16]
    mu = np.asarray(linear_attenuation("steel", np.array([50.0, 70.0]))) * 3.0
    assert mu[1] < added.max() < mu[0]
    assert (added > 0.5 * added.max()).sum() == pytest.approx(3.0 * 0.87 / 0.3, abs=2)
    assert np.abs(added[[0, -1]]).max() < 1e-4


def test_gradient_in_the_pose_without_noise():
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.uniform(0.0, 0.04, (12, 12, 12)), jnp.float32)
    affine = jnp.diag(jnp.array([9.0, 9.0, 9.0, 1.0])).at[:3, 3].set(-49.5)
    body, cam = xray_body(Volume(values, affine)), make_camera((6, 6), 9.0)
    settings = xray_settings("ideal", num_bins=2, scatter_to_primary=0.5, num_samples=60)

    @jax.jit
    def loss(x):
        moved = dataclasses.replace(cam, camera_from_world=SE3.exp(x) @ cam.camera_from_world)
        return jnp.sum(simulate_radiograph(body, moved, settings, key=KEY).image ** 2)

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.zeros(6)))
    assert np.isfinite(gradient).all()
    steps = 0.05 * jnp.eye(6)[:2]
    numeric = [float(loss(step) - loss(-step)) / 0.1 for step in steps]
    np.testing.assert_allclose(gradient[:2], numeric, rtol=0.05, atol=0.02)


@pytest.mark.slow
def test_settings_may_be_randomised_in_a_batch(simulate):
    body, cam = xray_body(slab_volume(100)), make_camera()
    options = [xray_settings("low_dose", kvp=kvp) for kvp in (60.0, 120.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *options)
    keys = jax.random.split(KEY, 2)
    batch = jax.jit(jax.vmap(simulate, (None, None, 0, 0)))(body, cam, stacked, keys).image
    for image, settings, key in zip(batch, options, keys, strict=True):
        np.testing.assert_allclose(image, simulate(body, cam, settings, key).image, atol=0.02)
    assert float(batch[0].mean()) > float(batch[1].mean()) + 0.2


def test_same_key_same_image_and_other_key_other_noise(simulate):
    body, cam, settings = xray_body(slab_volume(50)), make_camera(), xray_settings()
    first, again, other = (
        np.asarray(simulate(body, cam, settings, key).image)
        for key in (KEY, KEY, jax.random.key(9))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


def test_radiograph_without_physics_is_the_drr_at_the_energy_of_the_ct(simulate):
    volume, settings = slab_volume(40), xray_settings("ideal")
    at_70 = dataclasses.replace(settings.spectrum, energies_kev=jnp.array([70.0]))
    settings = dataclasses.replace(settings, spectrum=at_70)
    image = simulate(xray_body(volume), make_camera(), settings, KEY).image
    scale = 0.0192853 / WATER  # the tables' water at 70 keV
    expected = scale * drr(volume, make_camera(), num_samples=350)
    np.testing.assert_allclose(image, expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "fancy"}, "unknown preset 'fancy'"),
        ({"kvp": 40.0}, "kvp is 40"),
        ({"photons_per_pixel": 0.0}, "photons_per_pixel is 0"),
        ({"scatter_to_primary": -1.0}, "scatter_to_primary is -1"),
        ({"scatter_widths_mm": (10.0,)}, "equally many positive widths"),
        ({"scatter_shares": (0.0, 0.0)}, "shares sum to 0"),
        ({"shutters": (0.6, 0.0, 0.5, 1.0)}, "close the field"),
        ({"iris_radius": 0.0}, "iris_radius is 0"),
        ({"bit_depth": 4}, "bit_depth is 4"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"num_bins": 0}, "num_bins is 0"),
        ({"leakage": 2.0}, "leakage is 2"),
    ],
)
def test_bad_settings_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        xray_settings(**wrong)
