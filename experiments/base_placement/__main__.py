"""Where to stand the hybrid robot beside a patient so that it reaches every planned path.

  python -m experiments.reconstruct --demo --out=runs/demo
  python -m experiments.base_placement --run=runs/demo

The paths of a run's first subject, the patient prone; without --run those of the packaged mean
shapes, T1 to L5 (the record says so). Compared: the base as first placed, moved by gradient as a
cart with a lift can be, with the table tilted too, and moved anew for every level. Leaves
tables.md, placement.png, margins.png, trajectory.png and every path in metrics.json.
"""

import dataclasses
import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dartjax import cli, simulation
from dartjax.observations import SIDES, NeedlePath
from dartjax.robot import StatusCode, arms
from dartjax.robot.arms import Approach, HybridRobot, Placement, PlacementOptions
from dartjax.simulation import Patient
from dartjax.transforms import SE3
from experiments.base_placement import report as base_placement_report

_RUN = flags.DEFINE_string("run", None, "Folder of a `reconstruct` run whose paths to follow.")
_STEPS = flags.DEFINE_integer("steps", 200, "Steps of the placement's optimiser.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 200, "Displaced patients in the test.", lower_bound=1)
_SHIFT_MM = flags.DEFINE_float("patient_shift_mm", 5.0, "Their shift, SD per axis.", 0.0)
_TURN_DEG = flags.DEFINE_float("patient_turn_deg", 2.0, "Their turn, SD per axis.", 0.0)

FIRST, CART, TABLE, EVERY_LEVEL = "as first placed", "cart", "cart and table", "cart, every level"
_TABLE_MOVES = (True,) * 6
_FIRST_TURNS_DEG = (-90.0, -30.0, 30.0, 90.0, 180.0)  # starts of the optimiser beside 0


class Reach(NamedTuple):
    """Every path from one placement (or each from its own)."""

    T_base_patient: SE3  # () or (path,)
    approach: Approach  # (path,)
    status: np.ndarray  # (path,)

    @property
    def reached(self) -> np.ndarray:
        """Within limits, and the tool clear of the patient."""
        clear = np.asarray(self.approach.clearance) > 0.0
        return (self.status == StatusCode.OK) & clear


def main(ctx: cli.RunContext) -> None:
    """Place, follow, displace the patient, and report."""
    patient = (
        simulation.planned(pathlib.Path(_RUN.value)) if _RUN.value else simulation.mean_spine()
    )
    planner = Planner(patient, arms.spine_hybrid(), _STEPS.value)
    with cli.progress("base placement", 5) as step:
        places = {FIRST: planner.reach(simulation.first_placement(patient))}
        step(FIRST)
        for name, moves in ((CART, arms.CART), (TABLE, _TABLE_MOVES)):
            places[name] = planner.reach(planner.place(patient.paths, moves).T_base_patient)
            step(name)
        places[EVERY_LEVEL] = planner.reach_level_by_level()
        step(EVERY_LEVEL)
        moved = displaced(planner, places[CART], ctx.seed)
        trajectories, wire_mm = planner.follow(places[CART])
        step("trajectories")
    summary = {"paths": len(patient.names), **moved, "wire_tip_error_max_mm": wire_mm}
    rows = [placement_row(name, place) for name, place in places.items()]
    for row, prefix in zip(rows, ("first", "cart", "table", "every_level"), strict=True):
        summary |= {f"{prefix}_{key}": value for key, value in row.items() if key != "placement"}
    durations = np.asarray(trajectories.duration)[places[CART].reached]
    summary["trajectory_mean_seconds"] = float(durations.mean()) if len(durations) else np.nan
    cases = path_rows(patient, places, np.asarray(trajectories.duration))
    record = ctx.record(n_vertebrae=len(patient.levels), nsd_tolerance_mm=None, **patient.record)
    base_placement_report.write(ctx.out, record, patient, places, rows, trajectories)
    ctx.save_metrics(record, summary, cases)


class Planner:
    """Compiled programs for one patient and robot."""

    def __init__(self, patient: Patient, model: HybridRobot, num_steps: int) -> None:
        self.patient, self.model, self.num_steps = patient, model, num_steps
        self.body, self.tool = simulation.torso(patient), arms.guide_tool()
        self.approach_all = jax.jit(jax.vmap(self._approach, in_axes=(0, None)))
        self.approach_each = jax.jit(jax.vmap(self._approach))
        self.home = 0.5 * (model.lower + model.upper)[:5]

    def _approach(self, path: NeedlePath, T_base_patient: SE3):
        return arms.plan_approach(path, T_base_patient, self.model, body=self.body, tool=self.tool)

    def reach(self, T_base_patient: SE3) -> Reach:
        """All paths from one placement."""
        approach, status = self.approach_all(self.patient.paths, T_base_patient)
        return Reach(T_base_patient, approach, np.asarray(status))

    def place(self, paths: NeedlePath, moves: tuple[bool, ...]) -> Placement:
        """The best of several starts, turned about the vertical and laid amid the workspace."""
        return jax.jit(lambda each: self._place(each, moves))(paths)

    def _place(self, paths: NeedlePath, moves: tuple[bool, ...]) -> Placement:
        options = dataclasses.replace(PlacementOptions(), num_steps=self.num_steps, may_move=moves)
        middle = jnp.mean(paths.entry_point, axis=0)
        first = simulation.first_placement(self.patient)
        first = SE3.from_rotation_and_translation(
            first.rotation(), first.translation() + self._center() - first.apply(middle)
        )

        def from_turn(turn: jax.Array) -> Placement:
            move = jnp.zeros(6).at[5].set(turn)
            start = arms.moved_base(first, move, self._center())
            return arms.place_base(
                paths, start, self.model, body=self.body, tool=self.tool, options=options
            )

        found = jax.vmap(from_turn)(jnp.deg2rad(jnp.array([0.0, *_FIRST_TURNS_DEG])))
        best = jnp.argmin(jnp.min(found.history, axis=1))
        return jax.tree.map(lambda leaf: leaf[best], found)

    def _center(self) -> jax.Array:
        return jnp.array(simulation.WORKSPACE_CENTER_MM)

    def reach_level_by_level(self) -> Reach:
        """The cart moved anew for each level: both pedicles of one level at a time."""
        count = len(self.patient.levels)
        by_level = jax.tree.map(
            lambda leaf: leaf.reshape(count, 2, *leaf.shape[1:]), self.patient.paths
        )
        placed = jax.jit(lambda paths: jax.lax.map(lambda p: self._place(p, arms.CART), paths))
        frames = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, 2, axis=0), placed(by_level).T_base_patient
        )
        approach, status = self.approach_each(self.patient.paths, frames)
        return Reach(frames, approach, np.asarray(status))

    def follow(self, place: Reach) -> tuple[arms.Trajectory, float]:
        """Trajectories from the middle of the joint ranges, and the farthest that the wire's tip
        ends from its target, mm, over the paths that are reached."""
        limits = arms.spine_motion_limits()
        run = jax.jit(jax.vmap(lambda a: arms.follow(a, self.home, self.model, limits)))
        found = run(place.approach)
        last = found.positions[:, -1]
        pose, _ = jax.vmap(lambda q: arms.hybrid_forward(q[:5], self.model))(last)
        gap = jax.vmap(arms.wire_tip)(pose, last[:, 5]) - place.approach.target_point
        error = np.linalg.norm(np.asarray(gap), axis=1)[place.reached]
        return found, float(error.max()) if len(error) else float("nan")


def displaced(planner: Planner, place: Reach, seed: int) -> dict[str, Any]:
    """Share of the reached paths that stay in reach when the patient lies otherwise than
    planned, all in one program, and how many it plans per second."""
    rng = np.random.default_rng([seed, 3])
    count = _DRAWS.value
    move = np.c_[
        _SHIFT_MM.value * rng.standard_normal((count, 3)),
        np.deg2rad(_TURN_DEG.value) * rng.standard_normal((count, 3)),
    ]
    middle = jnp.mean(jax.vmap(place.T_base_patient.apply)(planner.patient.paths.entry_point), 0)
    frames = jax.vmap(lambda m: arms.moved_base(place.T_base_patient, m, middle))(
        jnp.asarray(move, jnp.float32)
    )
    every = jax.jit(jax.vmap(lambda T: planner.approach_all(planner.patient.paths, T)))
    program = every.lower(frames).compile()
    began = time.perf_counter()
    approach, status = jax.block_until_ready(program(frames))
    seconds = time.perf_counter() - began
    good = (np.asarray(status) == StatusCode.OK) & (np.asarray(approach.clearance) > 0.0)
    kept = good[:, place.reached]
    return {
        "displaced_still_reached_share": float(kept.mean()) if kept.size else float("nan"),
        "displaced_paths": int(good.size),
        "displaced_seconds": seconds,
        "approaches_per_second": good.size / seconds,
    }


def placement_row(name: str, place: Reach) -> dict[str, Any]:
    """One line of the table; a margin of 1 is half a joint's range."""
    reached = place.reached
    margin, clearance = np.asarray(place.approach.margin), np.asarray(place.approach.clearance)
    return {
        "placement": name,
        "reached_share": float(reached.mean()),
        "both_pedicles_share": float(reached.reshape(-1, 2).all(axis=1).mean()),
        "within_limits_share": float((place.status == StatusCode.OK).mean()),
        "clear_of_patient_share": float((clearance > 0.0).mean()),
        "margin_min": float(margin.min()),
        "margin_mean": float(margin.mean()),
        "clearance_min_mm": float(clearance.min()),
    }


def path_rows(
    patient: Patient, places: dict[str, Reach], durations: np.ndarray
) -> list[dict[str, Any]]:
    """One case per path."""
    rows = []
    for i, name in enumerate(patient.names):
        level, side = name.split()
        assert side in SIDES
        row: dict[str, Any] = {"level": level, "side": side}
        for place, found in places.items():
            key = place.replace(", ", "_").replace(" ", "_")
            row |= {
                f"{key}_status": StatusCode(int(found.status[i])).name.lower(),
                f"{key}_reached": bool(found.reached[i]),
                f"{key}_margin": float(found.approach.margin[i]),
                f"{key}_clearance_mm": float(found.approach.clearance[i]),
            }
        row["feed_mm"] = float(places[CART].approach.feed_at_target[i])
        is_reached = places[CART].reached[i]
        row["trajectory_seconds"] = float(durations[i]) if is_reached else float("nan")
        row["trajectory_seconds_reason"] = "" if is_reached else "the path is not reached"
        rows.append(row)
    return rows


if __name__ == "__main__":
    cli.run(main)
