"""The simulated robot of two-plane navigation."""

import pytest

from dartjax.simulation import closed_loop_statistics, closed_loop_study


@pytest.mark.slow
def test_the_loop_positions_robots_with_structure_errors():
    many, one = (closed_loop_statistics(own) for own in closed_loop_study(20, 0).values())
    assert many["settled_fraction"] == 1.0
    assert many["mean_mm"] < 0.1 and many["mean_deg"] < 0.05
    assert many["measurements_max"] <= 4
    assert one["mean_mm"] > many["mean_mm"]
