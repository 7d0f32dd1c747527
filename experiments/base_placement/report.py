"""Write the tables and figures of `base_placement`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from dartjax import report
from dartjax.robot import StatusCode, arms
from dartjax.robot.arms import JOINT_NAMES
from dartjax.simulation import PathReach, PlannedPatient
from experiments.base_placement.tables import CART

Row = Mapping[str, Any]
_GOOD, _BAD = "#0f766e", "#b91c1c"
_COLOURS = ("#9ca3af", "#0f766e", "#b45309", "#4338ca")


def write(
    out: pathlib.Path,
    record: Row,
    patient: PlannedPatient,
    reaches: Mapping[str, PathReach],
    rows: Sequence[Row],
    trajectories: arms.Trajectory,
) -> None:
    """Write tables.md and the three figures."""
    paths = [
        {"path": name, **{place: _verdict(reach, i) for place, reach in reaches.items()}}
        for i, name in enumerate(patient.names)
    ]
    text = (
        "## Placements (margin 1 = half a joint's range)\n\n"
        f"{report.markdown_table(record, rows)}\n"
        f"## All paths\n\n{report.markdown_table(record, paths)}"
    )
    (out / "tables.md").write_text(text, encoding="utf-8")
    first_two = dict(list(reaches.items())[:2])
    draw_placements(patient, first_two).savefig(out / "placement.png", dpi=110)
    draw_margins(patient, reaches).savefig(out / "margins.png", dpi=110)
    reached = np.flatnonzero(reaches[CART].reached)
    if len(reached):
        middle = int(reached[len(reached) // 2])
        figure = draw_trajectory(trajectories, middle, patient.names[middle])
        figure.savefig(out / "trajectory.png", dpi=110)


def _verdict(reach: PathReach, i: int) -> str:
    if reach.reached[i]:
        return f"reached, margin {float(reach.approach.margin[i]):.2f}"
    if reach.status[i] == StatusCode.OK:
        return f"tool {-float(reach.approach.clearance[i]):.0f} mm in the patient"
    return StatusCode(int(reach.status[i])).name.lower().replace("_", " ")


def draw_placements(patient: PlannedPatient, reaches: Mapping[str, PathReach]) -> Figure:
    """Draw the paths in the frame of the base, from above and from the side."""
    figure = Figure(figsize=(12.0, 9.6), layout="constrained")
    axes = figure.subplots(2, len(reaches), squeeze=False)
    for column, (name, reach) in enumerate(reaches.items()):
        approach = reach.approach
        entry, target = np.asarray(approach.entry_point), np.asarray(approach.target_point)
        along = (target - entry) / np.linalg.norm(target - entry, axis=1, keepdims=True)
        back = entry - 70.0 * along
        long = int(np.ptp(entry[:, :2], axis=0).argmax())  # axis along the spine
        for row, (a, b) in enumerate(((0, 1), (long, 2))):
            axis = axes[row, column]
            for i, is_reached in enumerate(reach.reached):
                colour = _GOOD if is_reached else _BAD
                axis.plot(*np.stack([entry[i], target[i]])[:, [a, b]].T, color=colour, linewidth=2)
                line = np.stack([back[i], entry[i]])[:, [a, b]].T
                axis.plot(*line, color=colour, linewidth=0.6, alpha=0.7)
            for level in (0, len(patient.levels) - 1):
                at = entry[2 * level : 2 * level + 2].mean(axis=0)
                axis.annotate(
                    patient.levels[level],
                    at[[a, b]],
                    fontsize=9,
                    fontweight="bold",
                    textcoords="offset points",
                    xytext=(12, 12),
                )
            axis.set(xlabel=f"{'xy'[a]} [mm]", ylabel=("y [mm]", "z, up [mm]")[row])
            axis.set_aspect("equal", adjustable="datalim")
            axis.grid(alpha=0.3)
        reached = int(reach.reached.sum())
        title = f"{name}: {reached} of {len(reach.reached)} paths reached"
        axes[0, column].set_title(f"{title}\nfrom above", fontsize=10)
        axes[1, column].set_title("from the side", fontsize=10)
    axes[0, 0].plot([], [], color=_GOOD, linewidth=2, label="reached")
    axes[0, 0].plot([], [], color=_BAD, linewidth=2, label="not reached")
    axes[0, 0].plot([], [], color="black", linewidth=0.6, label="approach of the tool")
    axes[0, 0].legend(fontsize=8)
    figure.suptitle("Paths in the robot's base frame", fontsize=11)
    return figure


def draw_margins(patient: PlannedPatient, reaches: Mapping[str, PathReach]) -> Figure:
    """Draw the margins of every path by placement, and the clearances."""
    figure = Figure(figsize=(11.0, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    at = np.arange(len(patient.names))
    for colour, (name, reach) in zip(_COLOURS, reaches.items(), strict=False):
        style = {"color": colour, "label": name, "markersize": 4, "linewidth": 1.0}
        upper.plot(at, np.asarray(reach.approach.margin), "o-", **style)
    clearance = np.asarray(reaches[CART].approach.clearance)
    lower.plot(at, clearance, "o-", color=_COLOURS[1], markersize=4, linewidth=1.0)
    for axis, label in (
        (upper, "least margin\n(1 = half a joint's range)"),
        (lower, "clearance between tool\nand patient [mm]"),
    ):
        axis.axhline(0.0, color=_BAD, linewidth=1.0)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    upper.set_ylim(-0.8, 1.0)
    upper.legend(fontsize=8, ncols=4, loc="upper left")
    labels = [f"{name.split()[0]} {name.split()[1][0].upper()}" for name in patient.names]
    lower.set_xticks(at, labels, rotation=90, fontsize=7)
    return figure


def draw_trajectory(trajectories: arms.Trajectory, index: int, name: str) -> Figure:
    """Draw joint positions and rates of one path, relative to their limits."""
    run = jax.tree.map(lambda leaf: np.asarray(leaf[index]), trajectories)
    model, limits = arms.spine_hybrid(), arms.spine_motion_limits()
    lower, upper = np.asarray(model.lower), np.asarray(model.upper)
    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for joint, label in enumerate(JOINT_NAMES):
        share = (run.positions[:, joint] - lower[joint]) / (upper[joint] - lower[joint])
        above.plot(run.times, share, label=label)
        below.plot(run.times, run.rates[:, joint] / float(limits.rate[joint]), label=label)
    parts = len(run.times) // 3
    for axis in (above, below):
        axis.axvspan(run.times[parts], run.times[2 * parts], color="0.9", label="straight approach")
        axis.grid(alpha=0.3)
    above.set(ylabel="position in its range", ylim=(-0.02, 1.02))
    below.set(ylabel="rate over its limit", xlabel="time [s]", ylim=(-1.1, 1.1))
    above.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    above.set_title(f"{name}: {run.duration:.1f} s", fontsize=10)
    return figure
