import numpy as np
import pytest

from dartjax import render
from dartjax.render._build_tables import mass_attenuation, tube_fluence


def test_packaged_tables_are_reproduced():
    pytest.importorskip("xraydb")
    tables = render.physics_tables()
    names = [str(name) for name in tables["materials"]]
    assert names == list(render.XRAY_MATERIALS)
    for material in ("lung", "steel"):
        density, _ = render.XRAY_MATERIALS[material]
        built = mass_attenuation(material)
        row = names.index(material)
        np.testing.assert_allclose(tables["mass_attenuation"][row], built, rtol=1e-5)
        assert tables["densities"][row] == pytest.approx(density)


def test_packaged_spectra_are_reproduced():
    pytest.importorskip("spekpy")
    tables = render.physics_tables()
    built = tube_fluence(75.0, 12.0)
    np.testing.assert_allclose(tables["fluence"][15], built, rtol=1e-4, atol=1e-8)
