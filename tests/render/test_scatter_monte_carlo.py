import numpy as np
import pytest

from dartjax import render


def test_kernel_fit_finds_two_gaussians():
    radii = render.SCATTER_RADII_MM
    inside = [1.0 - np.exp(-0.5 * (radii / width) ** 2) for width in (30.0, 150.0)]
    spread = np.diff(0.4 * inside[0] + 0.6 * inside[1])
    widths, shares = render.fit_scatter_kernel(spread)
    np.testing.assert_allclose(widths, [30.0, 150.0], rtol=1e-3)
    np.testing.assert_allclose(shares, [0.4, 0.6], rtol=1e-3)


def test_monte_carlo_transmission_follows_beer_lambert():
    setup = render.ScatterSetup(num_photons=20000)
    slab = render.simulate_scatter(100.0, setup, np.random.default_rng(0))
    spectrum = render.tube_spectrum(80.0)
    mu = np.asarray(render.linear_attenuation("water", spectrum.energies_kev))
    expected = -np.log(np.exp(-100.0 * mu) @ np.asarray(spectrum.weights))
    assert slab.log_transmission == pytest.approx(float(expected), abs=0.08)
    assert slab.shares.sum() == pytest.approx(1.0)
    assert 0.1 < slab.scatter_to_primary < 0.4
