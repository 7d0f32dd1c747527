"""Define the compared damping laws."""

import json
import pathlib

from dartjax import simulation
from dartjax.robot import cooperation
from dartjax.robot.cooperation import DampingLaw
from experiments.admittance.tables import CLASSICAL, HIGH, LOW, OURS, RHO0, TRUE_RHO0

_TUNED = pathlib.Path(__file__).with_name("laws.json")  # a tuned.json of `admittance_tuning`


def tuned_laws() -> dict[str, DampingLaw]:
    """Load the laws found by `admittance_tuning`, by family."""
    stored = json.loads(_TUNED.read_text(encoding="utf-8"))
    return {
        family: simulation.stored_damping_law(numbers, family) for family, numbers in stored.items()
    }


def compared_laws() -> dict[str, tuple[DampingLaw, bool]]:
    """Return every law by name, and whether it uses the true stiffness of the arm."""
    lowest = cooperation.lowest_damping()
    fixed = {
        HIGH: (cooperation.fixed_damping(simulation.FIXED_HIGH_DAMPING), False),
        LOW: (cooperation.fixed_damping(simulation.FIXED_LOW_DAMPING), False),
        RHO0: (lowest, False),
        TRUE_RHO0: (lowest, True),
        CLASSICAL: (cooperation.classical_rules(), False),
    }
    others = {f"tuned, {name}": (law, False) for name, law in tuned_laws().items() if name != OURS}
    return fixed | others | {OURS: (cooperation.intent_rules(), False)}
