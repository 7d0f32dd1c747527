"""Robot kinematics: serial arms, the hybrid spine robot, the six-leg guide robot; path following
and base placement."""

from dartjax.robot.arms._base_placement import CART as CART
from dartjax.robot.arms._base_placement import Placement as Placement
from dartjax.robot.arms._base_placement import PlacementOptions as PlacementOptions
from dartjax.robot.arms._base_placement import moved_base as moved_base
from dartjax.robot.arms._base_placement import place_base as place_base
from dartjax.robot.arms._base_placement import reachability as reachability
from dartjax.robot.arms._chain import SerialChain as SerialChain
from dartjax.robot.arms._chain import chain_excess as chain_excess
from dartjax.robot.arms._chain import chain_forward as chain_forward
from dartjax.robot.arms._chain import chain_jacobian as chain_jacobian
from dartjax.robot.arms._chain import damped_inverse as damped_inverse
from dartjax.robot.arms._chain import manipulability as manipulability
from dartjax.robot.arms._chain import null_space_projector as null_space_projector
from dartjax.robot.arms._chain import pose_error as pose_error
from dartjax.robot.arms._chain import sample_chain as sample_chain
from dartjax.robot.arms._chain import tool_pose as tool_pose
from dartjax.robot.arms._chain_import import DHRow as DHRow
from dartjax.robot.arms._chain_import import chain_from_dh as chain_from_dh
from dartjax.robot.arms._chain_import import chain_from_urdf as chain_from_urdf
from dartjax.robot.arms._chain_inverse import ChainSolution as ChainSolution
from dartjax.robot.arms._chain_inverse import solve_damped as solve_damped
from dartjax.robot.arms._chain_inverse import solve_levenberg_marquardt as solve_levenberg_marquardt
from dartjax.robot.arms._checked import checked_calibration as checked_calibration
from dartjax.robot.arms._checked import checked_chain_forward as checked_chain_forward
from dartjax.robot.arms._checked import checked_chain_inverse as checked_chain_inverse
from dartjax.robot.arms._checked import checked_guide_forward as checked_guide_forward
from dartjax.robot.arms._checked import checked_guide_inverse as checked_guide_inverse
from dartjax.robot.arms._checked import checked_hybrid_forward as checked_hybrid_forward
from dartjax.robot.arms._checked import checked_hybrid_inverse as checked_hybrid_inverse
from dartjax.robot.arms._follow import Approach as Approach
from dartjax.robot.arms._follow import ApproachOptions as ApproachOptions
from dartjax.robot.arms._follow import approach_margins as approach_margins
from dartjax.robot.arms._follow import follow as follow
from dartjax.robot.arms._follow import motion_clearance as motion_clearance
from dartjax.robot.arms._follow import plan_approach as plan_approach
from dartjax.robot.arms._follow import stack_paths as stack_paths
from dartjax.robot.arms._guide_robot import GuideRobot as GuideRobot
from dartjax.robot.arms._guide_robot import ToolError as ToolError
from dartjax.robot.arms._guide_robot import bone_mounted_guide as bone_mounted_guide
from dartjax.robot.arms._guide_robot import guide_condition as guide_condition
from dartjax.robot.arms._guide_robot import guide_error as guide_error
from dartjax.robot.arms._guide_robot import guide_forward as guide_forward
from dartjax.robot.arms._guide_robot import guide_inverse as guide_inverse
from dartjax.robot.arms._guide_robot import guide_jacobian as guide_jacobian
from dartjax.robot.arms._guide_robot import leg_excess as leg_excess
from dartjax.robot.arms._guide_robot import neutral_pose as neutral_pose
from dartjax.robot.arms._hybrid import JOINT_NAMES as JOINT_NAMES
from dartjax.robot.arms._hybrid import HybridRobot as HybridRobot
from dartjax.robot.arms._hybrid import ToolPose as ToolPose
from dartjax.robot.arms._hybrid import branch_of as branch_of
from dartjax.robot.arms._hybrid import closing_sine as closing_sine
from dartjax.robot.arms._hybrid import hybrid_forward as hybrid_forward
from dartjax.robot.arms._hybrid import hybrid_inverse as hybrid_inverse
from dartjax.robot.arms._hybrid import hybrid_margins as hybrid_margins
from dartjax.robot.arms._hybrid import limit_excess as limit_excess
from dartjax.robot.arms._hybrid import reach_ratios as reach_ratios
from dartjax.robot.arms._hybrid import sample_joints as sample_joints
from dartjax.robot.arms._hybrid import spine_hybrid as spine_hybrid
from dartjax.robot.arms._hybrid import tool_frame as tool_frame
from dartjax.robot.arms._hybrid import wire_direction as wire_direction
from dartjax.robot.arms._hybrid import wire_pose as wire_pose
from dartjax.robot.arms._hybrid import wire_tip as wire_tip
from dartjax.robot.arms._hybrid_calibration import STRUCTURE_NAMES as STRUCTURE_NAMES
from dartjax.robot.arms._hybrid_calibration import HybridCalibration as HybridCalibration
from dartjax.robot.arms._hybrid_calibration import Identifiability as Identifiability
from dartjax.robot.arms._hybrid_calibration import calibrate_from_legs as calibrate_from_legs
from dartjax.robot.arms._hybrid_calibration import calibrate_from_points as calibrate_from_points
from dartjax.robot.arms._hybrid_calibration import (
    identifiability_of_legs as identifiability_of_legs,
)
from dartjax.robot.arms._hybrid_calibration import (
    identifiability_of_points as identifiability_of_points,
)
from dartjax.robot.arms._hybrid_calibration import leg_lengths as leg_lengths
from dartjax.robot.arms._hybrid_calibration import perturbed as perturbed
from dartjax.robot.arms._hybrid_calibration import plan_calibration as plan_calibration
from dartjax.robot.arms._hybrid_calibration import structure_of as structure_of
from dartjax.robot.arms._hybrid_calibration import tool_points as tool_points
from dartjax.robot.arms._hybrid_calibration import with_structure as with_structure
from dartjax.robot.arms._hybrid_jacobian import Conditioning as Conditioning
from dartjax.robot.arms._hybrid_jacobian import conditioning as conditioning
from dartjax.robot.arms._hybrid_jacobian import hybrid_inverse_jacobian as hybrid_inverse_jacobian
from dartjax.robot.arms._hybrid_jacobian import hybrid_jacobian as hybrid_jacobian
from dartjax.robot.arms._tool_clearance import SignedDistance as SignedDistance
from dartjax.robot.arms._tool_clearance import ToolShape as ToolShape
from dartjax.robot.arms._tool_clearance import guide_tool as guide_tool
from dartjax.robot.arms._tool_clearance import in_patient as in_patient
from dartjax.robot.arms._tool_clearance import tool_clearance as tool_clearance
from dartjax.robot.arms._tool_clearance import tube_distance as tube_distance
from dartjax.robot.arms._trajectory import MotionLimits as MotionLimits
from dartjax.robot.arms._trajectory import Trajectory as Trajectory
from dartjax.robot.arms._trajectory import joined as joined
from dartjax.robot.arms._trajectory import spine_motion_limits as spine_motion_limits
from dartjax.robot.arms._trajectory import straight as straight
from dartjax.robot.arms._trajectory import timed as timed
