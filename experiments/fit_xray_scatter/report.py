"""Draw the fitted scatter kernels."""

import pathlib
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from dartjax.render import SCATTER_RADII_MM, ScatterKernel, SlabScatter


def draw(
    path: pathlib.Path,
    thicknesses_mm: Sequence[float],
    slabs: Sequence[SlabScatter],
    kernels: Sequence[ScatterKernel],
) -> None:
    """Draw the scattered signal within a radius: Monte Carlo (dots) and fit (lines)."""
    figure, axis = plt.subplots(figsize=(6, 4))
    radius = SCATTER_RADII_MM[1:]
    for number, (slab, kernel) in enumerate(zip(slabs, kernels, strict=True)):
        label = f"{thicknesses_mm[number]:g} mm"
        axis.plot(radius, np.cumsum(slab.shares), ".", ms=3, color=f"C{number}")
        axis.plot(radius, kernel.share_within(radius), lw=1, color=f"C{number}", label=label)
    axis.set(xlabel="radius on the detector, mm", ylabel="share of scatter within")
    axis.legend(title="water")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
