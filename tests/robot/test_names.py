"""Names of `dartjax.robot`: those of version 0.1 are found in the sub-packages."""

from types import ModuleType

import pytest

from dartjax import robot
from dartjax.robot import arms, carm, cooperation, distal, navigation

SUBPACKAGES = (arms, carm, cooperation, distal, navigation)
# fmt: off
NAMES_OF_0_1 = [
    "Admittance", "Approach", "ApproachOptions", "ArmEstimate", "BadParameter", "BadWrench",
    "BallOptions", "Balls", "BiPlanar", "CART", "Calibrated", "CalibrationPhantom",
    "CarmCalibration", "CarmView", "ChainSolution", "ClosureTooLarge", "Conditioning",
    "CorrespondenceFailed", "DHRow", "DampingLaw", "DegenerateGeometry", "DetectionFailed", "Drag",
    "DrillGuide", "ERROR_OF_STATUS", "EdgePoints", "Ellipse", "Event", "Exposure", "ForceFilter",
    "FrameChain", "GlobalDistortion", "GuideMatch", "GuideRobot", "HandEye", "HandWrench",
    "HybridCalibration", "HybridRobot", "Identifiability", "Intensifier", "Intention",
    "JOINT_NAMES", "JointLimit", "LeastSquares", "LocalDistortion", "LocatedPoint", "LockingError",
    "LoopHistory", "LoopOptions", "LoopState", "MarkerPose", "MotionLimits", "NUM_FRAMES", "Nail",
    "NailEdges", "NailFit", "NailOptions", "NavigationError", "NotFrontoParallel", "PLATE_BALLS",
    "PartMatch", "Placement", "PlacementOptions", "PolynomialTool", "PoseFit", "PoseNotConverged",
    "Protocol", "ProtocolError", "ReadingNoise", "RigidTool", "RobotError", "STRUCTURE_NAMES",
    "SerialChain", "Sighting", "SignedDistance", "SingularConfiguration", "State", "StatusCode",
    "SugenoRules", "TooFewFiducials", "ToolError", "ToolEstimate", "ToolModel", "ToolShape",
    "Tracker", "Trajectory", "TurnAdvice", "TwoPlaneView", "UnreachablePose", "WireOptions",
    "WireSeen", "absorb", "admittance_step", "agreeing_circles", "aligned_target",
    "apply_homography", "approach_margins", "arm_estimate_step", "ball_thickness",
    "balls_attenuation", "biplanar_target", "bitangents", "bone_mounted_guide", "branch_of",
    "calibrate_carm", "calibrate_from_balls", "calibrate_from_legs", "calibrate_from_points",
    "calibration_phantom", "chain_excess", "chain_forward", "chain_from_dh", "chain_from_urdf",
    "chain_jacobian", "check_exposure", "check_guide", "check_nail", "check_payload",
    "checked_chain_forward", "checked_chain_inverse", "checked_guide_forward",
    "checked_guide_inverse", "checked_hybrid_forward", "checked_hybrid_inverse", "circle_guidance",
    "circle_poses", "classical_rules", "close_loop", "closed_loop_correct", "closed_loop_step",
    "closing_sine", "compensate", "conditioning", "consensus_ellipse", "damped_inverse",
    "damping_bounds", "damping_step", "dead_band", "detect_balls", "detect_nail", "detect_wire",
    "distort_points", "drill_guide", "error_of", "estimate_pose", "filter_step", "first_status",
    "fit_ellipse", "fit_global", "fit_local", "fit_polynomial_tool", "fit_pose", "fit_rigid_tool",
    "fixed_damping", "flat_panel", "follow", "fronto_parallel_pose", "fronto_parallel_view",
    "generic_view", "goal_in_nail", "gravity_in_joint", "guide_attenuation", "guide_condition",
    "guide_error", "guide_forward", "guide_inverse", "guide_jacobian", "guide_tool", "hand_eye",
    "hand_velocity", "hole_plane", "homography_dlt", "homography_refine", "hull_ellipse",
    "hybrid_forward", "hybrid_inverse", "hybrid_inverse_jacobian", "hybrid_jacobian",
    "hybrid_margins", "ideal_balls", "ideal_of_real", "ideal_of_real_global", "ideal_pixels",
    "identifiability_of_legs", "identifiability_of_points", "identify_tool", "image_rays",
    "in_patient", "intensifier", "intent", "intent_rules", "intrinsics", "is_stable", "joined",
    "least_squares_step", "leg_excess", "leg_lengths", "limit_excess", "limit_length",
    "limit_rates", "locate_path", "locate_point", "locking_error", "locking_nail", "lowest_damping",
    "lowest_stable_damping", "manipulability", "marker_frames", "match_guide", "match_part",
    "mean_marker", "measure_marker", "memberships", "moved_base", "nail_attenuation",
    "nail_residual", "nail_thickness", "neutral_pose", "null_space_projector",
    "orientation_admittance", "paper_tool", "path_frame", "path_in_base", "perturbed",
    "pixel_of_point", "place_base", "plan_approach", "plan_calibration", "pnp_depths", "pnp_dlt",
    "pnp_evolution", "pnp_lm", "pose_error", "project_points", "projection_dlt", "raise_for_status",
    "reach_ratios", "reachability", "real_of_ideal", "record_image", "register_view",
    "required_tip", "residual_2d_mm", "residual_3d_mm", "residuals", "sample_chain",
    "sample_joints", "saturated_share", "see", "see_guide", "see_nail", "sensor_to_joint",
    "simulate_drag", "snap_to_epipolar", "solve_damped", "solve_levenberg_marquardt",
    "spine_hybrid", "spine_motion_limits", "stack_paths", "start_arm_estimate", "start_loop",
    "stay_inside", "stop_quality", "straight", "structure_of", "swing_only", "through_hole_pose",
    "tilt_deg", "tilt_rotation", "timed", "to_slopes", "tool_clearance", "tool_frame",
    "tool_in_patient", "tool_points", "tool_pose", "tool_pose_of", "triangulate_rays",
    "tube_distance", "tuned_law", "turn_advice", "two_plane_points", "two_plane_ray", "unblocked",
    "undistort_image", "undistort_points", "wire_direction", "wire_pose", "wire_tip",
    "with_structure",
]
# fmt: on


def test_the_list_is_complete():
    assert len(NAMES_OF_0_1) == len(set(NAMES_OF_0_1)) == 290


@pytest.mark.parametrize("name", NAMES_OF_0_1)
def test_names_of_0_1_can_be_imported(name):
    found = {}
    exec(f"from dartjax.robot import {name}", found)
    assert found[name] is getattr(robot, name)


def test_names_of_sub_packages_are_distinct():
    """Otherwise the meaning of a name of version 0.1 would depend on their order."""
    public = [
        name
        for subpackage in SUBPACKAGES
        for name, value in vars(subpackage).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert len(public) == len(set(public))


def test_the_names_are_listed():
    assert set(NAMES_OF_0_1) <= set(dir(robot))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = robot.nothing
    with pytest.raises(ImportError):
        exec("from dartjax.robot import nothing", {})
