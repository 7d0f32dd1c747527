import numpy as np
import pytest

from dartjax import render
from experiments.xray_realism import report
from experiments.xray_realism.report import Shot


def test_attenuation_table_is_within_a_percent():
    rows = render.compare_attenuation()
    assert {row["material"] for row in rows} == {"water", "cortical_bone"}
    assert max(abs(row["difference_percent"]) for row in rows) < 1.0
    for row in rows:
        assert row["shipped_cm2_per_g"] == pytest.approx(row["nist_cm2_per_g"], rel=0.01)
    assert "| water | 60 | 0.2059 |" in report.table_text(rows)


def test_noise_power_of_white_noise_is_flat_and_adds_up():
    rng = np.random.default_rng(0)
    images = 0.2 * rng.standard_normal((2, 128, 128))
    shot = Shot("AP", "white", images[0], images[1], 0.5)
    assert shot.noise_std == pytest.approx(0.2, rel=0.05)
    _, power = render.noise_power_spectrum(shot.noise, shot.pixel_mm)
    np.testing.assert_allclose(power[3:], 0.2**2 * 0.5**2, rtol=0.35)
    assert power[3:].mean() == pytest.approx(0.2**2 * 0.5**2, rel=0.05)
