"""Two-plane navigation in simulated scenes: registration, wires in pedicles, closed loop."""

from dartjax.simulation.navigation._robot import LOOP_TOLERANCE_MM as LOOP_TOLERANCE_MM
from dartjax.simulation.navigation._robot import WirePlacement as WirePlacement
from dartjax.simulation.navigation._robot import closed_loop_statistics as closed_loop_statistics
from dartjax.simulation.navigation._robot import closed_loop_study as closed_loop_study
from dartjax.simulation.navigation._wire_check import WIRE_CHECK_VIEWS as WIRE_CHECK_VIEWS
from dartjax.simulation.navigation._wire_check import WireCheck as WireCheck
from dartjax.simulation.navigation._wire_navigation import WireNavigation as WireNavigation
from dartjax.simulation.navigation._wire_navigation import navigate_wires as navigate_wires
from dartjax.simulation.navigation._wire_navigation import (
    wire_navigation_summary as wire_navigation_summary,
)
