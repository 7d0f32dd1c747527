"""Make the cases of a synthetic cohort and a sheet of pictures."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float

from dartjax import data, synthverse


def case_of(number: int, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Make the case of one subject for metrics.json."""
    return {
        "subject": synthverse.subject_id(number),
        "family": facts["family"],
        "parents": synthverse.real_parents(facts),
        "sex": facts["sex"],
        "age_years": facts["age_years"],
        "field_of_view": facts["field_of_view"],
        "cobb_deg": facts["alignment"]["cobb_deg"],
        "fractures": len(facts["fractures"]),
        "vertebrae": len(facts["vertebrae"]),
        "seconds": seconds or None,
    }


def write_sheet(path: pathlib.Path, folder: pathlib.Path, names: list[str]) -> None:
    """Draw parallel projections from the front and the side, and slices, of a few subjects."""
    subjects = {s.id: s for s in data.find_subjects(folder)}
    figure, axes = plt.subplots(len(names), 4, figsize=(15, 5 * len(names)), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        hu, spacing = _upright(data.load_ct(subjects[name].ct_path))
        for axis, (title, image, steps) in zip(row, _pictures(hu, spacing), strict=True):
            extent = (0.0, image.shape[1] * steps[1], 0.0, image.shape[0] * steps[0])
            limits = (0.0, 0.035) if title.endswith("slice") else (None, None)
            axis.imshow(image, cmap="gray", extent=extent, vmin=limits[0], vmax=limits[1])
            axis.set_title(f"{name} {title}", fontsize=8)
            axis.set_axis_off()
    figure.suptitle("SYNTHETIC ANATOMY - not VerSe", fontsize=10)
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.0 - 0.4 / figure.get_figheight()))
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _upright(volume: Any) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "3"]]:
    """Reorient attenuation to axes nearest to right, anterior, superior; also return spacing."""
    affine = np.asarray(volume.world_from_voxel, float)
    values = np.asarray(volume.values)
    order = np.argmax(np.abs(affine[:3, :3]), axis=1)
    values = np.transpose(values, order)
    for axis in range(3):
        if affine[axis, order[axis]] < 0:
            values = np.flip(values, axis)
    return values, np.linalg.norm(affine[:3, :3], axis=0)[order]


def _pictures(mu: Float[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> list[Any]:
    """Make projections and slices: (title, image with the head up, spacing of rows and columns)."""
    x, y, z = spacing
    middle = mu.shape[0] // 2
    return [
        ("front", mu.sum(1)[::-1, ::-1].T, (z, x)),
        ("side", mu.sum(0)[::-1, ::-1].T, (z, y)),
        ("sagittal slice", mu[middle][::-1, ::-1].T, (z, y)),
        ("axial slice", mu[::-1, ::-1, mu.shape[2] // 2].T, (y, x)),
    ]
