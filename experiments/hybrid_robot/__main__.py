"""The hybrid spine robot of Li, Du and Yu (2020): kinematics, calibration, weight of the tool.

  python -m experiments.hybrid_robot

Round trips of 100,000 poses; the 14 legs of tables 4 to 6, by simulated robots with errors of
machining before and after self-calibration, with the noise floor beside them; which parameters
the measurements determine; the weight compensation of table 7; the six-leg guide robot. Leaves
tables.md, workspace.png, legs.png, weight.png, report.html and every leg in metrics.json.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, transforms
from dartjax.robot import StatusCode, arms
from experiments.hybrid_robot import legs as hybrid_robot_legs
from experiments.hybrid_robot import report as hybrid_robot_report
from experiments.hybrid_robot import tool_weight
from experiments.hybrid_robot.legs import DRIVES, PRINTED_LEGS_MM, PUBLISHED_MEAN_MM

_POSES = flags.DEFINE_integer("poses", 100_000, "Poses of the round trips.", lower_bound=1)
_ROBOTS = flags.DEFINE_integer("robots", 200, "Simulated robots to calibrate.", lower_bound=2)

_TILT = np.pi / 6
BOX = np.array([(550, 700), (350, 600), (-250, -20), (-_TILT, _TILT), (-_TILT, _TILT)])
Summary = dict[str, Any]


def main(ctx: cli.RunContext) -> None:
    """Every study in turn, then tables and pictures."""
    with cli.progress("hybrid robot", 5) as step:
        with jax.enable_x64(True):
            summary = round_trips(ctx.seed, _POSES.value)
            step("round trips")
            summary |= guide_robot(ctx.seed)
            step("guide robot")
            study, seen = hybrid_robot_legs.run(ctx.seed, _ROBOTS.value)
            ideal = hybrid_robot_legs.ideal_legs()
            reach = hybrid_robot_report.reach_map()
            step("legs and calibration")
        summary |= single_precision(ctx.seed, _POSES.value)
        step("single precision")
        weight, weight_rows, fields = tool_weight.study(ctx.seed)
        step("weight of the tool")
    leg_rows = legs_table(ideal, study)
    summary |= leg_summary(ideal, study) | identified(seen) | weight
    record = ctx.record(
        dataset="simulated robots",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    hybrid_robot_report.write(
        ctx.out, record, summary, leg_rows, weight_rows, seen, study, reach, fields
    )
    ctx.save_metrics(record, summary, leg_rows)


def poses_of_the_box(seed: int, count: int) -> np.ndarray:
    """Poses with both tilts within 30 degrees, drawn evenly."""
    rng = np.random.default_rng([seed, 1])
    return BOX[:, 0] + rng.random((count, 5)) * np.ptp(BOX, axis=1)


def round_trips(seed: int, count: int) -> Summary:
    """FK(IK(pose)) and IK(FK(joints)) in float64, and the Jacobian against differences and its
    closed inverse."""
    model = arms.spine_hybrid()
    forward = jax.jit(jax.vmap(lambda q: arms.hybrid_forward(q, model)))
    inverse = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))
    poses = jnp.asarray(poses_of_the_box(seed, count))
    q, status = inverse(poses)
    back, _ = forward(q)
    drawn, drawn_poses, drawn_status = arms.sample_joints(model, count, key=jax.random.key(seed))
    good = drawn_status == StatusCode.OK
    again, _ = inverse(drawn_poses[good])
    few = slice(0, 500)
    jacobian = jax.jit(jax.vmap(lambda each: arms.hybrid_jacobian(each, model)))(q[few])
    closed = jax.jit(jax.vmap(lambda each: arms.hybrid_inverse_jacobian(each, model)))(poses[few])
    step = 1e-5 * jnp.eye(5)
    differences = [(forward(q[few] + h)[0] - forward(q[few] - h)[0]) / 2e-5 for h in step[:, None]]
    return {
        "round_trip_max_mm": _largest((back - poses)[:, :3]),
        "round_trip_max_rad": _largest((back - poses)[:, 3:]),
        "joint_round_trip_max_mm": _largest((again - drawn[good])[:, :3]),
        "joint_round_trip_max_rad": _largest((again - drawn[good])[:, 3:]),
        "round_trip_poses": count,
        "poses_within_limits_share": float(np.mean(status == StatusCode.OK)),
        "drawn_joints_that_close_share": float(np.mean(good)),
        "jacobian_to_differences_max": _largest(jacobian - jnp.stack(differences, axis=-1)),
        "jacobian_times_closed_inverse_max": _largest(jacobian @ closed - jnp.eye(5)[None]),
    }


def single_precision(seed: int, count: int) -> Summary:
    """The same round trip in float32."""
    model = arms.spine_hybrid()
    poses = jnp.asarray(poses_of_the_box(seed, count), jnp.float32)
    q, _ = jax.jit(jax.vmap(lambda pose: arms.hybrid_inverse(pose, model)))(poses)
    back, _ = jax.jit(jax.vmap(lambda each: arms.hybrid_forward(each, model)))(q)
    return {
        "round_trip_float32_max_mm": _largest((back - poses)[:, :3]),
        "round_trip_float32_max_rad": _largest((back - poses)[:, 3:]),
    }


def guide_robot(seed: int) -> Summary:
    """Round trips of the six-leg robot, and what 0.02 mm of leg error does to its tool."""
    model, count = arms.bone_mounted_guide(), 5000
    rng = np.random.default_rng([seed, 2])
    shifts = jnp.asarray(rng.uniform(-10.0, 10.0, (count, 3)))
    turns = jnp.asarray(np.deg2rad(rng.uniform(-15.0, 15.0, (count, 3))))
    start = arms.neutral_pose(model)
    poses = jax.vmap(lambda turn, shift: transforms.perturb(start, turn, shift))(turns, shifts)
    legs, status = jax.jit(jax.vmap(lambda T: arms.guide_inverse(T, model)))(poses)
    back, _ = jax.jit(jax.vmap(lambda each: arms.guide_forward(each, model)))(legs)
    error = jax.jit(jax.vmap(lambda T: arms.guide_error(T, model, 0.02)))(poses)
    return {
        "guide_round_trip_max_mm": _largest(back.translation() - poses.translation()),
        "guide_within_limits_share": float(np.mean(status == StatusCode.OK)),
        "guide_tool_error_mean_mm": float(np.mean(error.position_rms_mm)),
        "guide_tool_error_max_mm": float(np.max(error.position_rms_mm)),
    }


def legs_table(ideal: np.ndarray, study: hybrid_robot_legs.Study) -> list[dict[str, Any]]:
    """One row per leg: lengths of table 4, and absolute errors over all robots."""
    legs = {name: np.asarray(study.legs_mm[name]) for name in DRIVES}
    return [
        {
            "leg": i + 1,
            "table_4_mm": printed,
            "ideal_mm": float(ideal[i]),
            **{f"{name}_mean_mm": float(legs[name][:, i].mean()) for name in DRIVES},
            **{f"{name}_max_mm": float(legs[name][:, i].max()) for name in DRIVES},
        }
        for i, printed in enumerate(PRINTED_LEGS_MM)
    ]


def leg_summary(ideal: np.ndarray, study: hybrid_robot_legs.Study) -> Summary:
    """Mean over legs and robots; `max` is the largest of a robot's 14 legs, which 95 % of the
    robots stay below, `worst` the largest of all robots. `floor` drives with the true
    parameters, so that slider and tracker alone are left."""
    summary: Summary = {
        "table_4_largest_difference_mm": float(np.abs(ideal - PRINTED_LEGS_MM).max()),
        "published_distance_error_mean_mm": PUBLISHED_MEAN_MM,
        "robots_calibrated_share": float(np.mean(study.status == StatusCode.OK)),
    }
    for name, prefix in zip(DRIVES, ("uncalibrated", "calibrated", "floor"), strict=True):
        legs = np.asarray(study.legs_mm[name])
        summary |= {
            f"{prefix}_distance_error_mean_mm": float(legs.mean()),
            f"{prefix}_distance_error_max_mm": float(np.percentile(legs.max(1), 95.0)),
            f"{prefix}_distance_error_max_median_robot_mm": float(np.median(legs.max(1))),
            f"{prefix}_distance_error_worst_mm": float(legs.max()),
            f"{prefix}_position_error_mean_mm": float(np.mean(study.position_mm[name])),
            f"{prefix}_position_error_max_mm": float(np.max(study.position_mm[name])),
            f"{prefix}_tilt_error_mean_deg": float(np.rad2deg(np.mean(study.tilt_rad[name]))),
        }
    return summary


def identified(seen: dict[str, Any]) -> Summary:
    """Ranks: of seven parameters from legs, of thirteen unknowns from planned poses."""
    return {
        "parameters_seen_by_legs": int(seen["legs"].rank),
        "unknowns_seen_by_planned_poses": int(seen["points"].rank),
    }


def _largest(values: jax.Array) -> float:
    return float(jnp.max(jnp.abs(values)))


if __name__ == "__main__":
    cli.run(main)
