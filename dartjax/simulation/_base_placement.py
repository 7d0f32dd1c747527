"""Placement of the hybrid robot's base next to a patient, and the paths in its reach."""

import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from dartjax._types import Point
from dartjax.observations import NeedlePath
from dartjax.robot import StatusCode, arms
from dartjax.robot.arms import Approach, HybridRobot, Placement, PlacementOptions
from dartjax.simulation._planned_patient import (
    ROBOT_WORKSPACE_CENTER_MM,
    PlannedPatient,
    prone_placement,
    torso_distance,
)
from dartjax.transforms import SE3

_FIRST_TURNS_DEG = (-90.0, -30.0, 30.0, 90.0, 180.0)  # starts of the optimiser in addition to 0


class PathReach(NamedTuple):
    """Approaches to all paths from one placement of the base, or from one placement per path."""

    T_base_patient: SE3  # () or (path,)
    approach: Approach  # (path,)
    status: Int[np.ndarray, " path"]

    @property
    def reached(self) -> np.ndarray:
        """Mask of the paths within limits and without collision of tool and patient on the whole
        motion."""
        clear = np.asarray(self.approach.clearance) > 0.0
        return (self.status == StatusCode.OK) & clear


class DisplacedReach(NamedTuple):
    """Paths in reach after a displacement of the patient from the planned position."""

    still_reached_share: float  # of the paths in reach before; NaN if there are none
    num_paths: int  # over all displacements
    seconds: float  # for all paths, without compilation


class BasePlanner:
    """Planner of the base placement of one robot for one patient; programs are compiled once.

    Every motion starts in the middle of the joint ranges, `home`.
    """

    def __init__(self, patient: PlannedPatient, robot: HybridRobot, num_steps: int) -> None:
        self.patient, self.robot, self.num_steps = patient, robot, num_steps
        self.body, self.tool = torso_distance(patient), arms.guide_tool()
        self.approach_all = jax.jit(jax.vmap(self._approach, in_axes=(0, None)))
        self.approach_each = jax.jit(jax.vmap(self._approach))
        self.home = 0.5 * (robot.lower + robot.upper)[:5]

    def reach(self, T_base_patient: SE3) -> PathReach:
        """Plan the approaches to all paths from one placement."""
        approach, status = self.approach_all(self.patient.paths, T_base_patient)
        return PathReach(T_base_patient, approach, np.asarray(status))

    def place(self, paths: NeedlePath, may_move: tuple[bool, ...]) -> Placement:
        """Optimise the placement from several orientations about the vertical; keep the best.

        `may_move` frees translations and rotations of the base, as in `PlacementOptions`.
        """
        return jax.jit(lambda each: self._place(each, may_move))(paths)

    def reach_level_by_level(self) -> PathReach:
        """Place the cart separately for each level, for both of its pedicles."""
        count = len(self.patient.levels)
        by_level = jax.tree.map(
            lambda leaf: leaf.reshape(count, 2, *leaf.shape[1:]), self.patient.paths
        )
        placed = jax.jit(lambda paths: jax.lax.map(lambda p: self._place(p, arms.CART), paths))
        frames = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, 2, axis=0), placed(by_level).T_base_patient
        )
        approach, status = self.approach_each(self.patient.paths, frames)
        return PathReach(frames, approach, np.asarray(status))

    def follow(self, reach: PathReach) -> tuple[arms.Trajectory, float]:
        """Compute trajectories from the middle of the joint ranges to all targets.

        Also returns the largest distance (mm) of the wire's tip from its target over the paths in
        reach.
        """
        limits = arms.spine_motion_limits()
        run = jax.jit(jax.vmap(lambda a: arms.follow(a, self.home, self.robot, limits)))
        found = run(reach.approach)
        last = found.positions[:, -1]
        pose, _ = jax.vmap(lambda q: arms.hybrid_forward(q[:5], self.robot))(last)
        gap = jax.vmap(arms.wire_tip)(pose, last[:, 5]) - reach.approach.target_point
        error = np.linalg.norm(np.asarray(gap), axis=1)[reach.reached]
        return found, float(error.max()) if len(error) else float("nan")

    def _approach(self, path: NeedlePath, T_base_patient: SE3) -> tuple[Approach, Int[Array, ""]]:
        return arms.plan_approach(
            path, T_base_patient, self.robot, body=self.body, tool=self.tool, start=self.home
        )

    def _place(self, paths: NeedlePath, may_move: tuple[bool, ...]) -> Placement:
        options = dataclasses.replace(
            PlacementOptions(), num_steps=self.num_steps, may_move=may_move
        )
        middle, center = jnp.mean(paths.entry_point, axis=0), _workspace_center()
        first = prone_placement(self.patient)
        first = SE3.from_rotation_and_translation(
            first.rotation(), first.translation() + center - first.apply(middle)
        )

        def from_turn(turn: Array) -> Placement:
            start = arms.moved_base(first, jnp.zeros(6).at[5].set(turn), center)
            return arms.place_base(
                paths,
                start,
                self.robot,
                body=self.body,
                tool=self.tool,
                options=options,
                start=self.home,
            )

        found = jax.vmap(from_turn)(jnp.deg2rad(jnp.array([0.0, *_FIRST_TURNS_DEG])))
        best = jnp.argmin(jnp.min(found.history, axis=1))
        return jax.tree.map(lambda leaf: leaf[best], found)


def reach_when_displaced(
    planner: BasePlanner,
    reach: PathReach,
    *,
    count: int,
    shift_mm: float,
    turn_deg: float,
    seed: int,
) -> DisplacedReach:
    """Displace the patient `count` times at random and plan every path again.

    `shift_mm` and `turn_deg` are standard deviations per axis, from the position for which the
    placement was planned. All plans run in one program.
    """
    rng = np.random.default_rng([seed, 3])
    move = np.c_[
        shift_mm * rng.standard_normal((count, 3)),
        np.deg2rad(turn_deg) * rng.standard_normal((count, 3)),
    ]
    paths = planner.patient.paths
    middle = jnp.mean(jax.vmap(reach.T_base_patient.apply)(paths.entry_point), 0)
    frames = jax.vmap(lambda m: arms.moved_base(reach.T_base_patient, m, middle))(
        jnp.asarray(move, jnp.float32)
    )
    every = jax.jit(jax.vmap(lambda T: planner.approach_all(paths, T)))
    program = every.lower(frames).compile()
    began = time.perf_counter()
    approach, status = jax.block_until_ready(program(frames))
    seconds = time.perf_counter() - began
    good = (np.asarray(status) == StatusCode.OK) & (np.asarray(approach.clearance) > 0.0)
    kept = good[:, reach.reached]
    share = float(kept.mean()) if kept.size else float("nan")
    return DisplacedReach(share, int(good.size), seconds)


def _workspace_center() -> Point:
    return jnp.array(ROBOT_WORKSPACE_CENTER_MM)
