"""Compare Adam and Gauss-Newton on one objective, by the number of renderings.

    python -m benchmarks.solvers --out runs/solvers.json

The scene is a vertebra of known pose and shape (T9, 15 modes) in two views 80 degrees apart, with
64 x 64 pixels and white noise of 0.3 image standard deviations. Eight random starts (3 mm and 4
degrees per axis) are fitted separately for every budget of renderings, so that Adam's schedule is
always complete. One rendering is all views with the derivatives that the solver needs: one reverse
pass for Adam, one tangent for each of the 21 unknowns for Gauss-Newton. "Reached" is the first
budget with a median remaining loss within 2 % of the reduction from the start to the lowest loss of
all runs.
"""

import argparse
import dataclasses
import pathlib
import sys
import time
from typing import Any

import numpy as np

from benchmarks._timing import machine_info, print_table, versions, write_json

BUDGETS = {"Adam": (5, 10, 20, 40, 80, 160), "Gauss-Newton": (2, 3, 4, 6, 8, 12, 20)}
EVIDENCE = ("images, masks, landmarks", "images alone")
NOISE, CLOSE = 0.3, 0.02


def main() -> int:
    """Run all budgets, print the table, and write JSON and figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", default="runs/solvers.json", help="JSON file to write")
    parser.add_argument("--figure", default="runs/solvers.png", help="figure to write")
    parser.add_argument("--starts", type=int, default=8, help="random starts")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = [
        {"solver": solver, "renderings": budget, **result}
        for solver, budgets in BUDGETS.items()
        for budget in budgets
        for result in _run(solver, budget, options.starts)
    ]
    _add_gaps(runs)
    reached = _reached(runs)
    _print(runs, reached)
    record = {"machine": machine_info(), "versions": versions("jax", "jaxlib", "dartjax")}
    write_json(options.out, {**record, "runs": runs, "reached": reached})
    _draw(runs, pathlib.Path(options.figure))
    return 0


def _run(solver: str, budget: int, num_starts: int) -> list[dict[str, Any]]:
    """Fit all starts; return final losses and surface distances for both kinds of evidence."""
    import jax

    from dartjax.registration import fit, fit_gauss_newton
    from tests.registration import scenes

    model = scenes.model()

    def one(seen, start):
        if solver == "Adam":
            scale = scenes.QUICK.scales[0]._replace(num_steps=budget)
            return fit(model, seen, start, dataclasses.replace(scenes.QUICK, scales=(scale,)))
        # The start is rendered as well.
        return fit_gauss_newton(model, seen, start, scenes.QUICK, num_steps=budget - 1)

    print(f"{solver}, {budget} renderings", file=sys.stderr)
    starts = _starts(num_starts)
    program, results = None, []
    for evidence in EVIDENCE:
        seen = _observations(with_landmarks=evidence == EVIDENCE[0])
        if program is None:
            program = jax.jit(lambda o, s: jax.lax.map(lambda p: one(o, p), s))
            program = program.lower(seen, starts).compile()
        began = time.perf_counter()
        found = jax.block_until_ready(program(seen, starts))
        seconds = (time.perf_counter() - began) / num_starts
        results.append(
            {
                "evidence": evidence,
                "loss": [float(x) for x in found.history[:, -1]],
                "loss_start": [float(x) for x in found.history[:, 0]],
                "masd_mm": _surface_distances(found),
                "seconds_per_case": seconds,
            }
        )
    return results


def _observations(*, with_landmarks: bool):
    """Make the scene of the tests of the fit, with noise."""
    from tests.registration import scenes

    seen = scenes.observations(-30.0, 50.0, landmarks=with_landmarks, masks=with_landmarks)
    images = np.asarray(seen.images)
    noise = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    return dataclasses.replace(seen, images=images + NOISE * images.std() * noise)


def _starts(number: int):
    import jax.numpy as jnp

    from dartjax import transforms
    from dartjax.registration import stack
    from tests.registration import scenes

    rng = np.random.default_rng(1)
    turns = np.deg2rad(4.0) * rng.normal(size=(number, 3))
    shifts = 3.0 * rng.normal(size=(number, 3))
    return stack(
        [
            transforms.perturb(
                scenes.TRUE_POSE, jnp.asarray(turn, jnp.float32), jnp.asarray(shift, jnp.float32)
            )
            for turn, shift in zip(turns, shifts, strict=True)
        ]
    )


def _surface_distances(found) -> list[float]:
    """Compute the MASD of every result, mm."""
    import jax

    from dartjax import metrics, ssm
    from dartjax.mesh import TriangleMesh
    from tests.registration import scenes

    model = scenes.model()
    vertices = jax.vmap(lambda r: ssm.posed(model, r.pose, r.coefficients))(found)
    true = ssm.posed(model, scenes.TRUE_POSE, scenes.TRUE_COEFFICIENTS)
    truth = TriangleMesh(true, model.faces)
    return [
        metrics.masd(metrics.surface_distances(TriangleMesh(v, model.faces), truth))
        for v in vertices
    ]


def _add_gaps(runs: list[dict[str, Any]]) -> None:
    """Add the remaining loss: (loss - lowest) / (start - lowest), median over the starts."""
    for evidence in EVIDENCE:
        chosen = [run for run in runs if run["evidence"] == evidence]
        least = np.min([run["loss"] for run in chosen], axis=0)
        for run in chosen:
            first, last = np.array(run["loss_start"]), np.array(run["loss"])
            run["gap"] = float(np.median((last - least) / (first - least)))
            run["median_masd_mm"] = float(np.median(run["masd_mm"]))


def _reached(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the first budget that is close to the lowest loss, by evidence and solver."""
    reached: dict[str, dict[str, Any]] = {evidence: {} for evidence in EVIDENCE}
    for run in runs:
        first = run["evidence"], run["solver"]
        if run["gap"] <= CLOSE and run["solver"] not in reached[first[0]]:
            reached[first[0]][run["solver"]] = {
                "renderings": run["renderings"],
                "seconds_per_case": run["seconds_per_case"],
                "median_masd_mm": run["median_masd_mm"],
            }
    return reached


def _print(runs: list[dict[str, Any]], reached: dict[str, dict[str, Any]]) -> None:
    columns = ["solver", "renderings", "remaining loss %", "MASD mm", "s per case"]
    for evidence in EVIDENCE:
        rows = [
            [
                run["solver"],
                str(run["renderings"]),
                f"{100 * run['gap']:.1f}",
                f"{run['median_masd_mm']:.2f}",
                f"{run['seconds_per_case']:.2f}",
            ]
            for run in runs
            if run["evidence"] == evidence
        ]
        print_table(evidence, columns, rows)
        for solver, result in reached[evidence].items():
            print(f"{solver} reaches it after {result['renderings']} renderings")


def _draw(runs: list[dict[str, Any]], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, evidence in enumerate(EVIDENCE):
        for solver, colour in zip(BUDGETS, ("#f59e0b", "#0f766e"), strict=True):
            chosen = [r for r in runs if r["evidence"] == evidence and r["solver"] == solver]
            renderings = [r["renderings"] for r in chosen]
            for row, key in enumerate(("gap", "median_masd_mm")):
                values = [max(r[key], 1e-4) for r in chosen]
                axes[row, column].plot(renderings, values, "o-", color=colour, label=solver)
        axes[0, column].set(title=evidence, xscale="log", yscale="log")
        axes[0, column].axhline(CLOSE, color="0.6", linewidth=0.8)
        axes[1, column].set(xlabel="renderings of all views")
    axes[0, 0].set_ylabel("remaining loss, share (0.0001: less)")
    axes[1, 0].set(ylabel="MASD, mm (median)", ylim=(0.0, None))
    axes[0, 0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    sys.exit(main())
