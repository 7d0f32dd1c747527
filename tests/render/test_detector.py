import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dartjax import render
from dartjax.render import Spectrum

collimation = jax.jit(render.collimation, static_argnums=0)
detector_blur = jax.jit(render.detector_blur)
display_window = jax.jit(render.display_window, static_argnames=("percentiles", "bits"))
equivalent_quanta = jax.jit(render.equivalent_quanta)
log_transform = jax.jit(render.log_transform)
poisson = jax.jit(render.poisson)
quantum_noise = jax.jit(render.quantum_noise)
read_out = jax.jit(render.read_out)
scatter = jax.jit(render.scatter)

KEY = jax.random.key(0)
PIXEL = jnp.array([1.2, 1.2])
OPEN = jnp.array([0.0, 0.0, 1.0, 1.0])


def number(value):
    return jnp.asarray(value, jnp.float32)


def flat(value, size=(200, 200)):
    return jnp.full(size, value, jnp.float32)


@pytest.mark.parametrize("mean", [0.3, 5.0, 59.0, 61.0, 400.0, 1e6])
def test_poisson_numbers_have_poissons_moments(mean):
    counts = np.asarray(poisson(flat(mean), key=KEY), np.float64)
    error = np.sqrt(mean / counts.size)
    assert abs(counts.mean() - mean) < 5.0 * error
    assert counts.var() == pytest.approx(mean, rel=0.04)
    assert np.all(counts == np.round(counts)) and counts.min() >= 0.0


def test_few_quanta_are_distributed_as_poisson():
    counts = np.asarray(poisson(flat(4.0), key=KEY), int).ravel()
    observed = np.bincount(np.minimum(counts, 12), minlength=13)
    expected = stats.poisson.pmf(np.arange(13), 4.0) * counts.size
    expected[12] = stats.poisson.sf(11, 4.0) * counts.size
    assert stats.chisquare(observed, expected * counts.size / expected.sum()).pvalue > 1e-3


def test_relative_noise_falls_with_the_root_of_the_photons():
    signal, one = flat(0.05), flat(1.0)
    variances = []
    photons = np.array([3e3, 3e4, 3e5, 3e6])
    for count in photons:
        noisy = quantum_noise(signal, one, number(count), key=KEY)
        assert float(noisy.mean()) == pytest.approx(0.05, rel=0.01)
        variances.append(float(noisy.var()))
    np.testing.assert_allclose(np.array(variances) * photons, 0.05, rtol=0.05)
    slope = np.polyfit(np.log(photons), np.log(variances), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.02)


def test_quanta_of_many_energies_are_noisier():
    # Compound Poisson: the sum of energies of Poisson numbers at each energy, drawn one by one.
    spectrum = Spectrum(jnp.array([30.0, 60.0]), jnp.array([0.4, 0.6]))
    transmitted = jnp.stack([flat(0.02), flat(0.2)])
    photons = 5000.0
    quanta = equivalent_quanta(spectrum, transmitted)
    signal = jnp.einsum("b,bhw->hw", spectrum.weights, transmitted)
    found = np.asarray(quantum_noise(signal, quanta, number(photons), key=KEY))
    share = np.array([0.4, 0.6]) / np.array([30.0, 60.0])
    mean_energy = 1.0 / share.sum()
    rng = np.random.default_rng(0)
    numbers = photons * share / share.sum() * np.array([0.02, 0.2])
    energy = rng.poisson(numbers, (40000, 2)) @ np.array([30.0, 60.0])
    reference = energy / (photons * mean_energy)
    assert found.mean() == pytest.approx(reference.mean(), rel=3e-3)
    assert found.var() == pytest.approx(reference.var(), rel=0.04)
    assert float(quanta[0, 0]) > 1.2
    one = Spectrum(jnp.array([60.0]), jnp.array([1.0]))
    np.testing.assert_allclose(equivalent_quanta(one, transmitted[1:]), 1.0, rtol=1e-5)
    assert np.isfinite(np.asarray(equivalent_quanta(one, 0.0 * transmitted[1:]))).all()


@pytest.mark.parametrize("blur_mm", [0.0, 0.4, 3.0])
def test_blur_keeps_a_uniform_image_and_the_energy_of_a_point(blur_mm):
    blurred = detector_blur(flat(0.7, (40, 50)), number(blur_mm), PIXEL)
    np.testing.assert_allclose(blurred, 0.7, rtol=1e-5)
    point = jnp.zeros((41, 51)).at[20, 25].set(1.0)
    spread = np.asarray(detector_blur(point, number(blur_mm), PIXEL), np.float64)
    assert spread.sum() == pytest.approx(1.0, rel=1e-4)
    columns = np.arange(51) - 25
    width = np.sqrt((spread.sum(0) * columns**2).sum())
    edges = (np.arange(52) - 25.5) * 1.2
    shares = np.diff(stats.norm.cdf(edges, scale=max(blur_mm, 1e-9)))
    expected = np.sqrt((shares * columns**2).sum())
    assert width == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_blur_correlates_noise_by_its_mtf():
    white = 0.1 * jax.random.normal(KEY, (256, 256))
    blurred = np.asarray(detector_blur(white, number(1.2), PIXEL), np.float64)
    spectrum = (np.abs(np.fft.fft2(blurred)) ** 2).mean(0) / 256**2
    frequency = np.fft.fftfreq(256, 1.2)
    mtf = np.exp(-2.0 * (np.pi * frequency * 1.2) ** 2) * np.sinc(frequency * 1.2)
    expected = mtf**2 * spectrum[0]
    chosen = np.abs(frequency) < 0.25
    smooth = np.convolve(spectrum / expected, np.ones(9) / 9, mode="same")[chosen]
    np.testing.assert_allclose(smooth[8:-8], smooth.mean(), rtol=0.35)


def open_scatter(primary, field, ratio=1.0, widths=(20.0,), shares=(1.0,), pixel=PIXEL):
    return scatter(
        primary, field, number(ratio), number(4.0), jnp.array(widths), jnp.array(shares), pixel
    )


def test_wide_slab_has_the_stated_scatter_to_primary_ratio():
    # A field of 960 mm for a kernel of 20 mm; p is 4, the reference, and then half of it.
    wide = jnp.array([6.0, 6.0])
    for depth, expected in ((4.0, 0.8), (2.0, 0.8 * 0.5**1.5)):
        primary = flat(np.exp(-depth), (160, 160))
        scattered = open_scatter(primary, flat(1.0, (160, 160)), 0.8, pixel=wide)
        middle = float(scattered[80, 80] / primary[80, 80])
        assert middle == pytest.approx(expected, rel=0.01)
        assert 0.2 < float(scattered[0, 0] / scattered[80, 80]) < 0.5  # a quarter at the corner


def test_scatter_is_conserved_and_is_zero_without_a_body():
    field = flat(1.0, (128, 96))
    assert not np.any(open_scatter(field, field))
    primary = field.at[50:70, 40:60].set(0.02)
    potential = float((0.7 * (np.log(50.0) / 4.0) ** 1.5 * 0.02) * 400)
    for widths, shares in (((6.0,), (1.0,)), ((5.0, 9.0), (3.0, 1.0))):
        scattered = open_scatter(primary, field, 0.7, widths, shares)
        assert float(scattered.min()) >= 0.0
        assert float(scattered.sum()) == pytest.approx(potential, rel=0.02)


def test_scatter_does_not_start_behind_the_collimator():
    field = flat(0.002, (64, 64)).at[:, 32:].set(1.0)
    primary = field * 0.02
    scattered = np.asarray(open_scatter(primary, field, 1.0, (5.0,)))
    assert scattered[32, 2] < 0.01 * scattered[32, 60]


def test_collimation_of_shutters_and_iris():
    mask = np.asarray(
        collimation(
            (100, 200), jnp.array([0.1, 0.2, 0.9, 0.7]), number(1.0), number(1.0), number(0.01)
        )
    )
    inside = mask > 0.5
    assert inside.any(0).nonzero()[0][[0, -1]].tolist() == [20, 179]
    assert inside.any(1).nonzero()[0][[0, -1]].tolist() == [20, 69]
    assert mask[0, 0] == pytest.approx(0.01, abs=1e-4) and mask[50, 100] == pytest.approx(1.0)
    open_field = collimation((30, 40), OPEN, number(1.0), number(2.0), number(0.01))
    np.testing.assert_array_equal(open_field, 1.0)
    iris = np.asarray(collimation((100, 100), OPEN, number(0.5), number(0.5), number(0.0)))
    assert iris.sum() == pytest.approx(np.pi * (0.5 * 50.0 * np.sqrt(2.0)) ** 2, rel=0.01)


def test_read_out_adds_white_noise_rounds_and_saturates():
    reading = read_out(flat(0.1), number(1000.0), number(7.0), number(2.0), number(4095.0), key=KEY)
    values = np.asarray(reading)
    assert values.mean() == pytest.approx(200.0, abs=0.5)
    assert values.std() == pytest.approx(14.0, rel=0.03)
    assert np.all(values == np.round(values))
    bright = read_out(flat(9.0), number(1000.0), number(7.0), number(2.0), number(4095.0), key=KEY)
    assert np.all(np.asarray(bright) == 4095.0)


def test_log_transform():
    image = log_transform(jnp.array([[1000.0, 500.0, 0.0]]), number(1000.0))
    np.testing.assert_allclose(image[0], [0.0, np.log(2.0), np.log(2000.0)], rtol=1e-6)


def test_display_window_uses_all_grey_levels():
    ramp = jnp.linspace(0.0, 5.0, 10000).reshape(100, 100)
    shown = np.asarray(display_window(ramp, percentiles=(10.0, 90.0)))
    assert shown.min() == 0.0 and shown.max() == 255.0
    assert (shown == 0.0).mean() == pytest.approx(0.1, abs=0.01)
    assert not np.any(display_window(flat(2.0)))
    assert float(display_window(ramp, bits=16).max()) == 65535.0
