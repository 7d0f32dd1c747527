"""The rows and the summary of the drag study."""

import numpy as np
import pytest

from dartjax.robot import cooperation
from experiments.admittance import __main__ as admittance
from experiments.admittance.__main__ import HIGH, OURS, RHO0, TRUE_RHO0
from experiments.admittance_tuning import __main__ as admittance_tuning

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
    summary = admittance.summarise(admittance.table(NAMES, ARMS, numbers()))
    assert summary["work_ratio_to_high_damping_worst"] == pytest.approx(0.5)
    assert summary["stop_error_ratio_to_rho0_worst"] == pytest.approx(0.5)
    assert summary["tremor_ratio_to_rho0_worst"] == pytest.approx(1.0)
    assert summary["fixed_high_work_ratio_to_high_damping_worst"] == pytest.approx(1.0)
    assert summary["all_stable"] is True


def test_one_swing_is_enough_to_be_unstable():
    values = numbers()
    values["stable"][3, 1, 2] = False
    summary = admittance.summarise(admittance.table(NAMES, ARMS, values))
    assert summary["all_stable"] is False and summary["rho_0_all_stable"] is True


def test_nothing_moves_below_the_threshold():
    assert admittance.motion_below_threshold() == 0.0


def test_the_librarys_rules_are_those_that_were_tuned():
    tuned, packaged = admittance_tuning.tuned_laws()[OURS], cooperation.intent_rules()
    np.testing.assert_array_equal(tuned.rules.table, packaged.rules.table)
    np.testing.assert_array_equal(tuned.rules.row_apexes, packaged.rules.row_apexes)
    for name in ("most", "rate", "small_force", "by_intent"):
        assert float(getattr(tuned, name)) == float(getattr(packaged, name))


def test_a_family_keeps_to_its_inputs():
    genome = np.random.default_rng(0).normal(size=15)
    speed = admittance_tuning.law_of(genome, admittance_tuning.SPEED).rules.table
    assert np.ptp(np.asarray(speed), axis=1).max() < 1e-6
    meant = admittance_tuning.law_of(genome, admittance_tuning.INTENT).rules.table
    assert np.ptp(np.asarray(meant), axis=0).max() < 1e-6
