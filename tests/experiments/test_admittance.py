"""The rows and the summary of the damping study."""

import numpy as np
import pytest

from dartjax import simulation
from dartjax.data import DataError
from dartjax.robot import cooperation
from experiments.admittance.__main__ import parse_stiffness
from experiments.admittance.laws import compared_laws, tuned_laws
from experiments.admittance.tables import HIGH, OURS, RHO0, TRUE_RHO0, ratio_rows, summarise
from experiments.admittance_tuning.__main__ import read_genomes, write_laws

NAMES, ARMS = [HIGH, RHO0, TRUE_RHO0, OURS], np.array([50.0, 1500.0])


def numbers():
    """Ours: half the work, a quarter of the overshoot; its second arm twice as bad."""
    base = {"work_J": 1.0, "overshoot_mm": 4.0, "tremor_mm": 0.1, "error_mm": 1.0, "swing_mm": 1.0}
    values = {key: np.full((4, 2, 3), value) for key, value in base.items()}
    values["work_J"][3] *= 0.5
    values["overshoot_mm"][3] *= 0.25
    values["overshoot_mm"][3, 1] *= 2.0
    values["stable"] = np.ones((4, 2, 3), bool)
    return values


def test_the_summary_is_of_the_worst_arm():
    summary = summarise(ratio_rows(NAMES, ARMS, numbers()))
    assert summary["work_ratio_to_high_damping_worst"] == pytest.approx(0.5)
    assert summary["stop_error_ratio_to_rho0_worst"] == pytest.approx(0.5)
    assert summary["tremor_ratio_to_rho0_worst"] == pytest.approx(1.0)
    assert summary["fixed_high_work_ratio_to_high_damping_worst"] == pytest.approx(1.0)
    assert summary["all_stable"] is True


def test_one_swing_is_enough_to_be_unstable():
    values = numbers()
    values["stable"][3, 1, 2] = False
    summary = summarise(ratio_rows(NAMES, ARMS, values))
    assert summary["all_stable"] is False and summary["rho_0_all_stable"] is True


def test_nothing_moves_below_the_threshold():
    assert simulation.motion_below_threshold() == 0.0


def test_the_rules_of_the_library_are_those_that_were_tuned():
    tuned, packaged = tuned_laws()[OURS], cooperation.intent_rules()
    np.testing.assert_array_equal(tuned.rules.table, packaged.rules.table)
    np.testing.assert_array_equal(tuned.rules.row_apexes, packaged.rules.row_apexes)
    for name in ("most", "rate", "small_force", "by_intent"):
        assert float(getattr(tuned, name)) == float(getattr(packaged, name))


def test_a_family_keeps_to_its_inputs():
    genome = np.random.default_rng(0).normal(size=15)
    speed = simulation.damping_law_of(genome, "speed").rules.table
    assert np.ptp(np.asarray(speed), axis=1).max() < 1e-6
    meant = simulation.damping_law_of(genome, "intent").rules.table
    assert np.ptp(np.asarray(meant), axis=0).max() < 1e-6


def test_the_packaged_laws_are_of_every_family():
    assert tuple(tuned_laws()) == simulation.DAMPING_FAMILIES
    names = [f"tuned, {name}" for name in simulation.DAMPING_FAMILIES[:-1]]
    assert [*names, OURS] == list(compared_laws())[-4:]


def test_stored_laws_are_read_back(tmp_path):
    search = simulation.start_damping_search()
    write_laws(tmp_path / "tuned.json", search)
    genomes = read_genomes(tmp_path / "tuned.json")
    resumed = simulation.start_damping_search(genomes)
    assert tuple(genomes) == simulation.DAMPING_FAMILIES
    np.testing.assert_array_equal(resumed.mean["speed"], search.mean["speed"])
    assert (resumed.spread["speed"] < search.spread["speed"]).all()


def test_laws_in_numbers_keep_their_values():
    law = simulation.damping_law_of(np.random.default_rng(1).normal(size=15), "intent and speed")
    back = simulation.stored_damping_law(simulation.damping_law_numbers(law), "intent and speed")
    np.testing.assert_allclose(back.rules.table, law.rules.table, atol=6e-4)
    assert float(back.most) == float(law.most) and float(back.by_intent) == 1.0


@pytest.mark.parametrize("values", [("50", "soft"), (), ("10",), ("3000",), ("nan",)])
def test_bad_arms_are_named(values):
    with pytest.raises(DataError, match="--stiffness"):
        parse_stiffness(values)
