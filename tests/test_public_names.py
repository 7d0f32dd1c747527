"""The names that version 0.1 offered can still be imported from where they were."""

import importlib

import pytest

# Generated from the `__init__` files of version 0.1.
DATA = """
    Case DataError DatasetKind EXAMPLE_SUBJECT InitialGuess Kind LABEL_OF_LEVEL LEVEL_OF_LABEL
    Layout Leak MODELLED_LEVELS Manifest NETWORKS OfflineError PACKED Published REGIONS Rejected
    SUPERNUMERARY Scan ShapeSource Split StoredFailureModel Subject TrainingShape XRAY_FORMAT
    XrayDataset angle_between as_stored build_case cache_folder check_views content_hash
    decode_radiograph encode_radiograph example_case example_folder example_is_cached
    find_shapes find_subjects foreign_material grain grid_around hu_to_attenuation ids_hash
    includes_subject is_verse19 is_verse_small judge_levels label_of leaks leaks_into_model
    level_of load_cameras load_case load_centroids load_ct load_failure_model load_init
    load_labels load_manifest load_mesh load_meshes load_radiograph load_radiographs
    load_shape_model load_shapes load_template load_weights mask_centroids names_of open_arrays
    open_xrays pack_masks parse_levels patient_of plausible_range published radiograph_record
    read_card read_centroids read_ids read_scan region_of same_subject save_centroids
    save_failure_model save_manifest save_ply save_shape_models save_template save_weights
    shape_model_card shape_model_levels shape_model_set solid_of surface_of synthetic_case
    synthverse unpack_masks verse_small xray_loader
"""
REGISTRATION = """
    ABSTAINED Agreement CAMERA_STATUS CameraPrior Comparison FEATURE_NAMES FailureModel
    FitOptions FitParameters Initialisation LeastSquares MultiViewScore Neighbour NextView
    ObjectiveWeights REACH RUNGS Reconstruction RefinedCameras RiskCoverage STATUS_MEANING Scale
    SpineOrder Surroundings Triangulated Uncertainty abstain abstention_threshold
    agreeing_landmarks auroc best_next_view calibrated_inflation carm_motion crop_cameras
    descent_direction failure_features failure_probability fit fit_failure_model fit_from_starts
    fit_gauss_newton fit_landmarks fit_together initialise interval_coverage landmark_residuals
    laplace levenberg_marquardt map_cases moved_cameras moved_pose no_neighbour normal_std
    objective observe posed_vertices refine_cameras risk_coverage stack triangulate
    with_moved_cameras
"""
PLANNING = """
    Clearance DistanceField PedicleGrade best_corridor breach_mm clearance
    distance_field_from_mesh distance_field_from_solid pedicle_grade signed_distance
"""
RENDER = """
    CARM_DETECTOR_MM DetectorGaussians MASK_MM Patches PiecewiseLinear Similarity Solids
    Spectrum SplatOptions TORSO_DETECTOR_MM Tool ViewRanges XrayBody XrayChannels XraySettings
    accumulate_dense accumulate_separable accumulate_windowed angles_between ball
    basis_attenuation basis_thickness cannula collimation detected_signal detector_blur
    display_window drr equivalent_quanta gradient_ncc gray_dice kirschner_wire label_volume
    line_integral line_integral_of_gaussian linear_attenuation local_gradient_ncc log_transform
    material_names mesh_thickness mutual_information ncc orthogonal_views paired_drr patch_ncc
    pedicle_screw physics_tables place_along poisson project_gaussians project_solids
    quantum_noise random_view ray_geometry read_out reduced_spectrum sample_pairs scatter
    simulate_radiograph solid_masks splat splat_alpha splat_scene suggest_window surface_patches
    tool_attenuation tool_thickness transmission tube_spectrum two_compartment usable_pairs
    vertebra_solids xray_body xray_settings xvr_similarity
"""
SSM = """
    Annotation BACKUP_LANDMARK_NAMES Caliper CarriedPoints Correspondence FRACTURE_NAMES Isthmus
    Kernel LENGTHS MEASURES PART_NAMES PRIOR_KERNELS REGISTRATION_KERNELS Recipe RegionModel
    Registration Shape ShapeModel Target Template Topology annotate annotated_model attach
    backup_landmarks build_region build_template carried correspond corridor_radius
    dense_landmarks fit_distance_field fit_modes fit_surface fracture_fields fracture_log_prior
    fractured instance isthmus landmarks level_means log_prior log_size losses_from measure
    paths posed posterior posterior_from_surface project register_surface rigidly_onto sample
    sample_surface self_intersections smooth_modes surface_samples triangle_quality truncate
    vertebra_frame vertex_points with_fracture_modes
"""
METRICS = """
    COVER_EDGE_MM DEFINITIONS MAX_EXTENT_MM NUM_NEAREST SAMPLE_AREA_MM2 Solid SurfaceDistances
    dice distance_to_surface hd95 masd mtre nsd pose_error reconstruction_metrics solid_of
    surface_distances
"""
TRANSFORMS = """
    VIEW_AXES ViewName align_points apply carm_rotation from_matrix perturb rotation_angle
    view_rotation
"""
# The noise models of detectors, which were in `registration`.
SIMULATION = """
    Detector Disturbance STRESS detect_landmarks detect_mask disturbed_mask disturbed_pose
    is_lateral
"""

OFFERED = {
    "data": DATA,
    "registration": REGISTRATION,
    "planning": PLANNING,
    "render": RENDER,
    "ssm": SSM,
    "metrics": METRICS,
    "transforms": TRANSFORMS,
    "simulation": SIMULATION,
}
NAMES = [(package, name) for package, names in OFFERED.items() for name in names.split()]


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_a_name_of_version_01_is_still_there(package, name):
    module = importlib.import_module(f"dartjax.{package}")
    assert getattr(module, name) is not None


@pytest.mark.parametrize("package", ["data", "ssm"])
def test_an_unknown_name_is_said_to_be_unknown(package):
    module = importlib.import_module(f"dartjax.{package}")
    with pytest.raises(AttributeError, match=f"dartjax.{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


def test_moved_names_are_the_same_objects():
    from dartjax import data, ssm, synthverse
    from dartjax.ssm import build

    assert data.synthetic_case is synthverse.synthetic_case and data.synthverse is synthverse
    assert ssm.Recipe is build.Recipe
