"""Fit the scatter kernel of the X-ray simulator to a Monte Carlo simulation of photons in water.

    python -m experiments.fit_xray_scatter --out=FOLDER

Pencil beams of a tube spectrum pass through slabs of water. The positions of scattered photons on
the detector give, for every thickness, the scatter-to-primary ratio of a wide field and the two
Gaussians of the kernel (`dartjax.render.xray_settings`: scatter_to_primary, scatter_widths_mm,
scatter_shares). Compton scatter is that of free electrons (Klein and Nishina). The momentum
transfer of coherent scatter is distributed around water's peak at 1.6 / nm. Takes about a minute.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dartjax import render
from dartjax.cli import launch
from dartjax.data import DataError
from experiments.fit_xray_scatter import report
from experiments.fit_xray_scatter.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Simulate the photons, fit the kernels and draw them."""
    rng = np.random.default_rng(ctx.seed)
    thicknesses = _parsed(settings.thicknesses_mm)
    setup = render.ScatterSetup(
        settings.kvp, settings.gap_mm, settings.grid_ratio, settings.num_photons
    )
    slabs, kernels = [], []
    with launch.progress("slabs", len(thicknesses)) as step:
        for thickness in thicknesses:
            slabs.append(render.simulate_scatter(thickness, setup, rng))
            kernels.append(render.fit_scatter_kernel(slabs[-1].shares))
            step(f"{thickness:g} mm: scatter / primary {slabs[-1].scatter_to_primary:.2f}")
    report.draw(ctx.out / "kernel.png", thicknesses, slabs, kernels)
    record = ctx.record(
        dataset="Monte Carlo of water slabs",
        dataset_kind="synthetic",
        subjects=[],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    cases = [_case(*each) for each in zip(thicknesses, slabs, kernels, strict=True)]
    summary = {f"ratio_{case['thickness_mm']:g}_mm": case["scatter_to_primary"] for case in cases}
    exponent = render.scatter_growth_exponent(slabs)
    ctx.save_metrics(record, summary | {"exponent": exponent}, cases)


def _parsed(texts: Sequence[str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise DataError(f"--thicknesses_mm={list(texts)}: give numbers") from error


def _case(
    thickness: float, slab: render.SlabScatter, kernel: render.ScatterKernel
) -> dict[str, Any]:
    return {
        "thickness_mm": thickness,
        "scatter_to_primary": slab.scatter_to_primary,
        "log_transmission": slab.log_transmission,
        "ratio_per_log": slab.scatter_to_primary / slab.log_transmission,
        "widths_mm": kernel.widths_mm.tolist(),
        "shares": kernel.shares.tolist(),
    }


if __name__ == "__main__":
    launch.run(main, Settings)
