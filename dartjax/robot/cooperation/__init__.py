"""Hand guidance of a robot: tool-weight compensation, arm stiffness, variable admittance."""

from dartjax.robot.cooperation._admittance import Admittance as Admittance
from dartjax.robot.cooperation._admittance import ForceFilter as ForceFilter
from dartjax.robot.cooperation._admittance import admittance_step as admittance_step
from dartjax.robot.cooperation._admittance import dead_band as dead_band
from dartjax.robot.cooperation._admittance import filter_step as filter_step
from dartjax.robot.cooperation._admittance import hand_velocity as hand_velocity
from dartjax.robot.cooperation._admittance import limit_length as limit_length
from dartjax.robot.cooperation._admittance import limit_rates as limit_rates
from dartjax.robot.cooperation._admittance import orientation_admittance as orientation_admittance
from dartjax.robot.cooperation._admittance import stay_inside as stay_inside
from dartjax.robot.cooperation._arm_stiffness import ArmEstimate as ArmEstimate
from dartjax.robot.cooperation._arm_stiffness import RecursiveLeastSquares as RecursiveLeastSquares
from dartjax.robot.cooperation._arm_stiffness import arm_estimate_step as arm_estimate_step
from dartjax.robot.cooperation._arm_stiffness import is_stable as is_stable
from dartjax.robot.cooperation._arm_stiffness import lowest_stable_damping as lowest_stable_damping
from dartjax.robot.cooperation._arm_stiffness import (
    recursive_least_squares_step as recursive_least_squares_step,
)
from dartjax.robot.cooperation._arm_stiffness import start_arm_estimate as start_arm_estimate
from dartjax.robot.cooperation._damping import DampingLaw as DampingLaw
from dartjax.robot.cooperation._damping import classical_rules as classical_rules
from dartjax.robot.cooperation._damping import damping_bounds as damping_bounds
from dartjax.robot.cooperation._damping import damping_step as damping_step
from dartjax.robot.cooperation._damping import fixed_damping as fixed_damping
from dartjax.robot.cooperation._damping import intent as intent
from dartjax.robot.cooperation._damping import intent_rules as intent_rules
from dartjax.robot.cooperation._damping import lowest_damping as lowest_damping
from dartjax.robot.cooperation._damping import orientation_rules as orientation_rules
from dartjax.robot.cooperation._damping import tuned_law as tuned_law
from dartjax.robot.cooperation._fuzzy import SugenoRules as SugenoRules
from dartjax.robot.cooperation._fuzzy import memberships as memberships
from dartjax.robot.cooperation._operator import Drag as Drag
from dartjax.robot.cooperation._operator import Intention as Intention
from dartjax.robot.cooperation._operator import simulate_drag as simulate_drag
from dartjax.robot.cooperation._operator import stop_quality as stop_quality
from dartjax.robot.cooperation._tool_identification import ReadingNoise as ReadingNoise
from dartjax.robot.cooperation._tool_identification import ToolEstimate as ToolEstimate
from dartjax.robot.cooperation._tool_identification import check_payload as check_payload
from dartjax.robot.cooperation._tool_identification import (
    fit_polynomial_tool as fit_polynomial_tool,
)
from dartjax.robot.cooperation._tool_identification import fit_rigid_tool as fit_rigid_tool
from dartjax.robot.cooperation._tool_identification import identify_tool as identify_tool
from dartjax.robot.cooperation._tool_identification import residuals as residuals
from dartjax.robot.cooperation._tool_identification import (
    update_tool_estimate as update_tool_estimate,
)
from dartjax.robot.cooperation._tool_weight import HandWrench as HandWrench
from dartjax.robot.cooperation._tool_weight import PolynomialTool as PolynomialTool
from dartjax.robot.cooperation._tool_weight import RigidTool as RigidTool
from dartjax.robot.cooperation._tool_weight import ToolModel as ToolModel
from dartjax.robot.cooperation._tool_weight import compensate as compensate
from dartjax.robot.cooperation._tool_weight import gravity_in_joint as gravity_in_joint
from dartjax.robot.cooperation._tool_weight import paper_tool as paper_tool
from dartjax.robot.cooperation._tool_weight import sensor_to_joint as sensor_to_joint
from dartjax.robot.cooperation._tool_weight import tilt_rotation as tilt_rotation
