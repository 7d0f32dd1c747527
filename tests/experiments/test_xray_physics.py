import sys

import numpy as np
import pytest
from absl import flags

from experiments.build_xray_tables import __main__ as build_xray_tables
from experiments.fit_xray_scatter import __main__ as fit_xray_scatter
from experiments.xray_realism import report as xray_realism_report
from experiments.xray_realism.report import Shot


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv[:1])


def test_tables_are_those_that_are_shipped():
    pytest.importorskip("xraydb")
    tables = xray_realism_report.physics_tables()
    names = [str(name) for name in tables["materials"]]
    assert names == list(build_xray_tables.MATERIALS)
    for material in ("lung", "steel"):
        density, fractions = build_xray_tables.MATERIALS[material]
        built = build_xray_tables.mass_attenuation(fractions)
        row = names.index(material)
        np.testing.assert_allclose(tables["mass_attenuation"][row], built, rtol=1e-5)
        assert tables["densities"][row] == pytest.approx(density)


def test_spectra_are_those_that_are_shipped():
    pytest.importorskip("spekpy")
    tables = xray_realism_report.physics_tables()
    built = build_xray_tables.tube_fluence(75.0, 12.0)
    np.testing.assert_allclose(tables["fluence"][15], built, rtol=1e-4, atol=1e-8)


def test_attenuation_table_is_within_a_percent():
    rows = xray_realism_report.attenuation_table()
    assert {row["material"] for row in rows} == {"water", "cortical_bone"}
    assert max(abs(row["difference_percent"]) for row in rows) < 1.0
    for row in rows:
        assert row["shipped_cm2_per_g"] == pytest.approx(row["nist_cm2_per_g"], rel=0.01)
    assert "| water | 60 | 0.2059 |" in xray_realism_report.table_text(rows)


def test_noise_power_of_white_noise_is_flat_and_adds_up():
    rng = np.random.default_rng(0)
    images = 0.2 * rng.standard_normal((2, 128, 128))
    shot = Shot("AP", "white", images[0], images[1], 0.5)
    assert shot.noise_std == pytest.approx(0.2, rel=0.05)
    _, power = xray_realism_report.noise_power(shot.noise, shot.pixel_mm)
    np.testing.assert_allclose(power[3:], 0.2**2 * 0.5**2, rtol=0.35)
    assert power[3:].mean() == pytest.approx(0.2**2 * 0.5**2, rel=0.05)


def test_kernel_fit_finds_two_gaussians():
    radii = fit_xray_scatter._RADII_MM
    inside = [1.0 - np.exp(-0.5 * (radii / width) ** 2) for width in (30.0, 150.0)]
    spread = np.diff(0.4 * inside[0] + 0.6 * inside[1])
    widths, shares = fit_xray_scatter.fit_gaussians(spread)
    np.testing.assert_allclose(widths, [30.0, 150.0], rtol=1e-3)
    np.testing.assert_allclose(shares, [0.4, 0.6], rtol=1e-3)


def test_monte_carlo_transmits_what_beer_and_lambert_say():
    flags.FLAGS.num_photons = 20000
    rng = np.random.default_rng(0)
    spread, ratio, depth = fit_xray_scatter.pencil_beam(rng, 100.0)
    from dartjax.render import linear_attenuation, tube_spectrum

    spectrum = tube_spectrum(80.0)
    mu = np.asarray(linear_attenuation("water", spectrum.energies_kev))
    expected = -np.log(np.exp(-100.0 * mu) @ np.asarray(spectrum.weights))
    assert depth == pytest.approx(float(expected), abs=0.08)
    assert spread.sum() == pytest.approx(1.0)
    assert 0.1 < ratio < 0.4
