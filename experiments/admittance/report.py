"""Write the tables and figures of the damping study."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from dartjax import report
from dartjax.robot.cooperation import DampingLaw, Drag
from dartjax.simulation import HandMotions

_COLOURS = ("#64748b", "#0369a1", "#c2410c")  # fixed high, rho = 0, ours
_PANELS = {
    "work / high": ("work over that of fixed high damping", 0.8),
    "overshoot / rho 0": ("overshoot over that of rho = 0", 0.8),
    "tremor / rho 0": ("tremor over that of rho = 0", 0.8),
}
_STYLES = {
    "fixed high": ("#64748b", "-"),
    "fixed low": ("#64748b", ":"),
    "rho = 0": ("#0369a1", "-"),
    "rho = 0, arm known": ("#0369a1", ":"),
    "classical fuzzy rules": ("#15803d", "-"),
    "tuned, speed": ("#a16207", ":"),
    "tuned, intent": ("#a16207", "-"),
    "tuned, force and speed": ("#15803d", "--"),
    "intent and speed": ("#c2410c", "-"),
}
Row = Mapping[str, Any]


def write_tables(
    path: pathlib.Path, record: Mapping[str, Any], rows: Sequence[Row], summary: Mapping[str, Any]
) -> None:
    """Write tables.md: the worst arm of every controller, then all arms."""
    names = list(dict.fromkeys(row["controller"] for row in rows))
    keys = [key for key in rows[0] if "/" in key and key != "arm [N/m]"]
    worst = [
        {"controller": name}
        | {key: max(row[key] for row in rows if row["controller"] == name) for key in keys}
        | {"stable": min(row["stable"] for row in rows if row["controller"] == name)}
        for name in names
    ]
    text = (
        "# Hand guiding\n\nWorst arm of each controller (target: work at most 0.8 of fixed high "
        "damping, overshoot and tremor at most 0.8 of rho = 0):\n\n"
        f"{report.markdown_table(record, worst)}\nBy arm, means over the motions:\n\n"
        f"{report.markdown_table(record, rows)}\nMotion under a force just below the threshold: "
        f"{summary['motion_below_threshold_mm']:g} mm.\n"
    )
    path.write_text(text, encoding="utf-8")


def draw_ratios(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draw work, overshoot and tremor against arm stiffness; the target is the dotted line."""
    figure = Figure(figsize=(14.0, 4.6), layout="constrained")
    for axis, (key, (title, limit)) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        for name, (colour, style) in _STYLES.items():
            own = [row for row in rows if row["controller"] == name]
            x, y = [row["arm [N/m]"] for row in own], [row[key] for row in own]
            width = 2.6 if name == "intent and speed" else 1.3
            axis.plot(x, y, style, color=colour, linewidth=width, label=name)
        axis.axhline(limit, color="black", linewidth=1.0, linestyle=(0, (1, 2)))
        axis.set_xscale("log")
        arms = sorted({row["arm [N/m]"] for row in rows})
        axis.set_xticks(arms, [f"{arm:g}" for arm in arms])
        axis.minorticks_off()
        axis.set_ylim(0.0, 2.0)
        axis.set_xlabel("stiffness of the arm [N/m]")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=110)


def draw_traces(
    path: pathlib.Path,
    drags: Drag,
    motions: HandMotions,
    shown: Sequence[int],
    arms: np.ndarray,
    motion: int,
) -> None:
    """Draw one stop with a soft, a medium and the stiffest arm, for three controllers."""
    names = ("fixed high", "rho = 0", "intent and speed")
    picked = sorted({int(np.argmin(np.abs(arms - arm))) for arm in (100.0, 400.0, arms.max())})
    figure = Figure(figsize=(4.6 * len(picked), 9.0), layout="constrained")
    axes = figure.subplots(4, len(picked), sharex=True, squeeze=False)
    toward, goal = np.asarray(motions.direction[motion]), np.asarray(motions.goal[motion])
    time = 0.01 * np.arange(1, drags.work.shape[-1] + 1)
    intended = (np.asarray(motions.intention.position[motion])[9::10] - goal) @ toward
    for column, arm in enumerate(picked):
        for controller, name, colour in zip(shown, names, _COLOURS, strict=True):
            own = jax.tree.map(lambda leaf, i=(controller, arm, motion): np.asarray(leaf[i]), drags)
            curves = (
                (own.position - goal) @ toward,
                own.velocity @ toward,
                own.force @ toward,
                own.damping,
            )
            for axis, curve in zip(axes[:, column], curves, strict=True):
                axis.plot(time, curve, color=colour, linewidth=1.2, label=name)
        axes[0, column].plot(
            time, intended, color="black", linewidth=1.0, linestyle=":", label="intended"
        )
        axes[0, column].set_title(f"arm of {arms[arm]:g} N/m", fontsize=10)
        axes[3, column].set_xlabel("time [s]")
        for axis in axes[:, column]:
            axis.axvline(float(motions.stop[motion]), color="0.6", linewidth=0.8)
            axis.grid(alpha=0.3)
    for axis, label in zip(
        axes[:, 0],
        ("distance to the goal [mm]", "speed [mm/s]", "force of the hand [N]", "damping [N s/m]"),
        strict=True,
    ):
        axis.set_ylabel(label)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_rules(path: pathlib.Path, ours: DampingLaw, classical: DampingLaw) -> None:
    """Draw rho, the share of the high damping, against the inputs of two sets of rules."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = (
        (ours, "intent of the hand: 1 = holds the speed, 0 = lets go", (-0.5, 2.0), "tuned rules"),
        (classical, "force over 15 N", (0.0, 1.0), "classical rules"),
    )
    levels, shown = np.linspace(0.0, 1.0, 11), None
    for axis, (law, label, (low, high), title) in zip(
        figure.subplots(1, 2, sharey=True), panels, strict=True
    ):
        speed, column = jnp.linspace(0.0, 1.0, 61), jnp.linspace(low, high, 61)
        rho = jax.vmap(jax.vmap(law.rules, (None, 0)), (0, None))(speed, column)
        shown = axis.contourf(column, speed, rho, levels=levels, cmap="viridis")
        axis.set_xlabel(label)
        axis.set_title(title, fontsize=10)
    figure.axes[0].set_ylabel("speed over its limit")
    assert shown is not None
    figure.colorbar(shown, ax=figure.axes, label="rho")
    figure.savefig(path, dpi=110)
