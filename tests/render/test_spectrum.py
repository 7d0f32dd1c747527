import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from dartjax.render import linear_attenuation, physics_tables, reduced_spectrum, tube_spectrum
from dartjax.render._spectrum import TABLES

# Mass attenuation in cm^2/g as printed by NIST (Hubbell and Seltzer, NISTIR 5632, tables 3, 4).
NIST = {
    "water": {20: 0.8096, 40: 0.2683, 60: 0.2059, 80: 0.1837, 100: 0.1707, 150: 0.1505},
    "cortical_bone": {20: 4.001, 40: 0.6655, 60: 0.3148, 80: 0.2229, 100: 0.1855, 150: 0.1480},
    "adipose": {40: 0.2396, 60: 0.1974, 80: 0.1800, 100: 0.1688},
    "air": {40: 0.2485, 60: 0.1875, 80: 0.1662, 100: 0.1541},
}
DENSITY = {"water": 1.0, "cortical_bone": 1.92, "adipose": 0.95, "air": 0.001205}


@pytest.mark.parametrize("material", list(DENSITY))
def test_attenuation_is_that_of_the_published_tables(material):
    energies = np.array(list(NIST[material]), float)
    expected = np.array(list(NIST[material].values())) * DENSITY[material] / 10.0
    np.testing.assert_allclose(linear_attenuation(material, energies), expected, rtol=5e-3)


@pytest.mark.parametrize("material", ["water", "cortical_bone", "steel"])
def test_attenuation_is_that_of_xraydb(material):
    xraydb = pytest.importorskip("xraydb")
    formulas = {  # of the element mixtures, written independently of the builder
        "water": {"H": 2 * 1.008, "O": 15.999},
        "cortical_bone": {"H": 3.4, "C": 15.5, "N": 4.2, "O": 43.5, "Na": 0.1, "Mg": 0.2}
        | {"P": 10.3, "S": 0.3, "Ca": 22.5},
        "steel": {"Fe": 65.5, "Cr": 17.0, "Ni": 12.0, "Mo": 2.5, "Mn": 2.0, "Si": 1.0},
    }
    density = {"water": 1.0, "cortical_bone": 1.92, "steel": 8.0}[material]
    energies = np.linspace(21.3, 120.0, 40)  # between the energies of the table, too
    parts = formulas[material]
    per_gram = sum(w * xraydb.mu_elam(e, 1e3 * energies) for e, w in parts.items())
    expected = per_gram / sum(parts.values()) * density / 10.0
    np.testing.assert_allclose(linear_attenuation(material, energies), expected, rtol=1e-2)


def test_card_belongs_to_the_tables():
    card = json.loads((TABLES.parent / "card.json").read_text())
    assert card["sha256"] == hashlib.sha256(TABLES.read_bytes()).hexdigest()
    assert all(
        {"from", "licence", "version"} <= source.keys() for source in card["sources"].values()
    )
    names = [str(name) for name in physics_tables()["materials"]]
    assert list(card["materials"]) == names
    for fractions in card["materials"].values():
        assert sum(fractions.values()) == pytest.approx(1.0, abs=0.002)


def test_unknown_material_is_named():
    with pytest.raises(ValueError, match="'kryptonite' is not tabulated: use air"):
        linear_attenuation("kryptonite", np.array([60.0]))


def mean_energy(spectrum):
    return float(jnp.vdot(spectrum.energies_kev, spectrum.weights))


def test_spectrum_is_normalised_ends_at_the_voltage_and_hardens():
    for kvp in (60.0, 87.5, 120.0):
        spectrum = tube_spectrum(kvp)
        assert float(spectrum.weights.sum()) == pytest.approx(1.0, abs=1e-5)
        assert kvp - 1.6 <= float(spectrum.energies_kev[-1]) <= kvp
    means = [mean_energy(tube_spectrum(kvp)) for kvp in (60.0, 80.0, 80.5, 100.0, 120.0)]
    assert np.all(np.diff(means) > 0.0)
    soft, hard = (mean_energy(tube_spectrum(80.0, filtration_mm_al=mm)) for mm in (2.5, 8.0))
    assert hard > soft + 2.0


def test_characteristic_lines_of_tungsten_appear_above_its_edge():
    # K alpha at 58 and 59 keV stands out at 100 kV and is absent at 65 kV, below the K edge.
    weights = {
        kvp: dict(zip(np.asarray(s.energies_kev), np.asarray(s.weights), strict=True))
        for kvp in (65.0, 100.0)
        for s in [tube_spectrum(kvp)]
    }
    around = lambda w: (w[58.0] + w[59.0]) / (w[55.0] + w[62.0])  # noqa: E731
    assert around(weights[100.0]) > 1.6
    assert around(weights[65.0]) < 1.3


def depth(spectrum, water, bone):
    """-log transmission in float64, from the spectrum's own energies."""
    energies, weights = (np.asarray(a, float) for a in (spectrum.energies_kev, spectrum.weights))
    mu = [np.asarray(linear_attenuation(m, energies), float) for m in ("water", "cortical_bone")]
    return -np.log(np.exp(-(water[:, None] * mu[0] + bone[:, None] * mu[1])) @ weights)


@pytest.mark.parametrize("kvp", [60.0, 80.0, 100.0, 120.0])
def test_three_bins_attenuate_like_the_whole_spectrum(kvp):
    water, bone = (a.ravel() for a in np.meshgrid(np.linspace(3, 400, 25), np.linspace(0, 60, 9)))
    whole = tube_spectrum(kvp)
    assert len(whole.energies_kev) >= kvp - 25
    found = depth(reduced_spectrum(whole, 3), water, bone)
    expected = depth(whole, water, bone)
    error = np.abs(found / expected - 1.0)
    assert error.max() < 0.0065
    assert np.sqrt((error**2).mean()) < 0.002


def test_one_bin_and_all_bins():
    whole = tube_spectrum(70.0)
    one = reduced_spectrum(whole, 1)
    assert one.weights.tolist() == [1.0]
    assert 40.0 < float(one.energies_kev[0]) < 60.0
    assert reduced_spectrum(whole, 500) is whole


def test_water_hardens_the_beam():
    effective = [
        float(depth(tube_spectrum(80.0), *(np.array([t]) for t in (mm, 0.0)))[0] / mm)
        for mm in (10.0, 200.0)
    ]
    assert effective[1] < 0.95 * effective[0]


def test_bad_techniques_are_rejected():
    with pytest.raises(ValueError, match="kvp is 150"):
        tube_spectrum(150.0)
    with pytest.raises(ValueError, match="filtration is negative"):
        tube_spectrum(80.0, filtration_mm_al=-1.0)
    with pytest.raises(ValueError, match="num_bins is 0"):
        reduced_spectrum(tube_spectrum(80.0), 0)
