"""Shape oracle: the best fit of a shape model to true surfaces, and its needle paths."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dartjax import data, metrics, planning, ssm
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES, NeedlePath

# Diameters of the cylinders through the pedicles, mm: Spine-DART's, and an 11 gauge needle.
ORACLE_DIAMETERS_MM = (5.0, 3.2)
ORACLE_METRICS = ("dice", "nsd_1mm", "hd95_mm", "masd_mm")
_clearance, _best_corridor = jax.jit(planning.clearance), jax.jit(planning.best_corridor)


def fit_shape_oracle(
    shape: data.TrainingShape,
    field: planning.DistanceField,
    num_modes: int,
    folder: pathlib.Path,
    *,
    fracture_modes: bool = False,
) -> tuple[dict[str, Any], ssm.Registration, Int[np.ndarray, "face 3"]]:
    """Fit the shape model to the true surface of one vertebra, optionally with three fracture modes
    added; return the grades with the clearance of its paths in the true bone (distance field
    `field`), the fit, and its triangles."""
    model = data.load_shape_model(shape.level, path=folder, num_modes=num_modes)
    if fracture_modes:
        model = ssm.with_fracture_modes(model)
    vertices, faces = np.asarray(shape.surface.vertices, float), np.asarray(shape.surface.faces)
    fit = ssm.register_surface(model, vertices, faces)
    grades = metrics.reconstruction_metrics(TriangleMesh(fit.vertices, model.faces), shape.surface)
    size = float(np.sqrt(np.mean(np.square(np.asarray(fit.coefficients)))))
    case = {"subject": shape.subject, "level": shape.level, "modes": num_modes}
    case |= grades | {"coefficient_rms": size} | carried_path_clearances(fit.paths, field)
    return case, fit, np.asarray(model.faces)


def carried_path_clearances(
    paths: Float[Array, "2 2 3"], field: planning.DistanceField
) -> dict[str, float]:
    """Compute the clearance of a cylinder around each path in the true bone, negative for a
    breach, and that of the best straight path nearby; by side and diameter, mm."""
    grades = {}
    for diameter in ORACLE_DIAMETERS_MM:
        for side, (entry, target) in zip(SIDES, paths, strict=True):
            path = NeedlePath(entry, target, jnp.asarray(diameter / 2.0))
            carried = _clearance(path, field).clearance
            best = _best_corridor(path, field)[1].clearance
            grades[f"clearance_{side}_{diameter:g}_mm"] = float(carried)
            grades[f"best_clearance_{side}_{diameter:g}_mm"] = float(best)
    return grades


def shape_oracle_summary(cases: Sequence[dict[str, Any]], modes: Sequence[int]) -> dict[str, float]:
    """Summarise the grades for each number of modes: median, mean and worst value."""
    summary = {}
    for num_modes in modes:
        own = [case for case in cases if case["modes"] == num_modes]
        dice, masd = ([case[name] for case in own] for name in ("dice", "masd_mm"))
        summary |= {
            f"dice_median_{num_modes}": float(np.median(dice)),
            f"dice_mean_{num_modes}": float(np.mean(dice)),
            f"dice_min_{num_modes}": float(np.min(dice)),
            f"masd_mean_{num_modes}_mm": float(np.mean(masd)),
            f"hd95_mean_{num_modes}_mm": float(np.mean([case["hd95_mm"] for case in own])),
            f"nsd_1mm_mean_{num_modes}": float(np.mean([case["nsd_1mm"] for case in own])),
        }
        for diameter in ORACLE_DIAMETERS_MM:
            for kind in ("clearance", "best_clearance"):
                values = [case[f"{kind}_{side}_{diameter:g}_mm"] for case in own for side in SIDES]
                name = "carried" if kind == "clearance" else "feasible"
                share = float(np.mean(np.array(values) >= 0.0))
                summary[f"paths_{name}_share_{diameter:g}_mm_{num_modes}"] = share
    return summary
