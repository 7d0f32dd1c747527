"""Wires measured in check images."""

import numpy as np
import pytest

from dartjax.simulation.navigation import _wire_check as wire_check


def test_deviation_of_a_line_from_the_plan_in_an_image():
    planned = np.array([[300.0, 200.0], [400.0, 200.0]])
    shifted = wire_check._Line(np.array([250.0, 203.0]), np.array([-1.0, 0.0]))
    offset, angle = wire_check._deviation(shifted, planned)
    assert offset == pytest.approx(3.0 * wire_check.MM_PER_PX) and angle == pytest.approx(0.0)
    turn = np.deg2rad(2.0)
    tilted = wire_check._Line(planned[0], np.array([np.cos(turn), np.sin(turn)]))
    offset, angle = wire_check._deviation(tilted, planned)
    assert offset == pytest.approx(0.0, abs=1e-9) and angle == pytest.approx(2.0)
