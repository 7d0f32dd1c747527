"""Patient model of the robot studies: planned needle paths, torso and position."""

import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dartjax import data, registration, ssm
from dartjax.anatomy import usual_tilt_deg
from dartjax.data import RECORD_FIELDS, needle, read_plans, read_record
from dartjax.observations import SIDES, NeedlePath
from dartjax.robot.arms import SignedDistance, stack_paths, tube_distance
from dartjax.transforms import SE3, SO3

# The torso: three parallel tubes, their back 40 mm behind the entry points.
_TORSO_RADIUS_MM, _TORSO_DEPTH_MM, _TORSO_OFFSETS_MM = 110.0, 70.0, (-60.0, 0.0, 60.0)
_LONGER_MM = 200.0  # extension of the torso beyond the last levels
ROBOT_WORKSPACE_CENTER_MM = (625.0, 475.0, -135.0)  # of the hybrid robot, base frame
# R_base_patient, prone, head toward +x of the base: right is -y, anterior down, head +x.
PRONE_ROTATION = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class PlannedPatient(NamedTuple):
    """Planned paths of one subject in patient coordinates: left and right of each level in turn."""

    levels: tuple[str, ...]
    paths: NeedlePath  # (2 levels,)
    record: dict[str, Any]  # dataset, dataset_kind, subjects, ssm_excludes

    @property
    def names(self) -> list[str]:
        """Names of the paths: level and side."""
        return [f"{level} {side}" for level in self.levels for side in SIDES]


def read_planned_patient(run: pathlib.Path) -> PlannedPatient:
    """Read the planned paths of the first subject and pair of views of a `reconstruct` run."""
    found, record = read_plans(run), read_record(run)
    first = found[0]
    chosen = [plan for plan in found if (plan.subject, plan.pair) == (first.subject, first.pair)]
    kept = {key: record[key] for key in RECORD_FIELDS}
    paths = stack_paths([path for plan in chosen for path in plan.paths])
    return PlannedPatient(
        tuple(plan.level for plan in chosen), paths, kept | {"subjects": [first.subject]}
    )


def mean_shape_patient() -> PlannedPatient:
    """Assemble the packaged mean shapes, T1 to L5, with the normal spacing and curvature, each with
    its two paths."""
    models = {level: data.load_shape_model(level) for level in data.shape_model_levels()}
    positions = registration.positions_mm(models)
    levels = sorted(models, key=positions.__getitem__)
    tilt = np.radians([usual_tilt_deg(level) for level in levels])
    along = np.array([positions[level] for level in levels])
    up = np.stack([0.0 * tilt, np.sin(tilt), np.cos(tilt)], axis=1)  # + = head end forward
    steps = 0.5 * (up[1:] + up[:-1]) * np.diff(along)[:, None]
    centers = np.concatenate([np.zeros((1, 3)), -np.cumsum(steps, axis=0)])
    paths = []
    for level, turn, center in zip(levels, tilt, centers, strict=True):
        model = models[level]
        pose = SE3.from_rotation_and_translation(
            SO3.from_x_radians(jnp.asarray(-turn, jnp.float32)), jnp.asarray(center, jnp.float32)
        )
        points = np.asarray(ssm.paths(model, model.mean_shape)).reshape(-1, 3)
        points = np.asarray(pose.rotation().as_matrix()) @ points.T + center[:, None]
        for entry, target in points.T.reshape(2, 2, 3):
            paths.append(needle(entry, target))
    record = {
        "dataset": "mean shapes of the packaged models, T1 to L5",
        "dataset_kind": "synthetic",
        "ssm_excludes": [],
        "ssm_leak": False,
        "subjects": [],
    }
    return PlannedPatient(tuple(levels), stack_paths(paths), record)


def torso_distance(patient: PlannedPatient) -> SignedDistance:
    """Build the signed distance to a torso along the entry points, in patient coordinates."""
    entries = np.asarray(patient.paths.entry_point).reshape(-1, 2, 3).mean(axis=1)
    middle = entries[np.argsort(entries[:, 2])] + [0.0, _TORSO_DEPTH_MM, 0.0]
    if len(middle) > 1:
        ends = [middle[0] - middle[1], middle[-1] - middle[-2]]
        ends = [end / np.linalg.norm(end) for end in ends]
    else:
        ends = [np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])]
    middle = np.vstack(
        [middle[0] + _LONGER_MM * ends[0], middle, middle[-1] + _LONGER_MM * ends[1]]
    )
    nodes = np.stack([middle + np.array([offset, 0.0, 0.0]) for offset in _TORSO_OFFSETS_MM])
    nodes = jnp.asarray(nodes, jnp.float32)
    return lambda points: tube_distance(points, nodes=nodes, radius=_TORSO_RADIUS_MM)


def prone_placement(patient: PlannedPatient) -> SE3:
    """Compute T_base_patient of a prone patient, head toward +x, with the mean entry point in the
    middle of the workspace."""
    middle = jnp.mean(patient.paths.entry_point, axis=0)
    turn = SO3.from_matrix(jnp.asarray(PRONE_ROTATION, jnp.float32))
    center = jnp.array(ROBOT_WORKSPACE_CENTER_MM)
    return SE3.from_rotation_and_translation(turn, center - turn.apply(middle))
