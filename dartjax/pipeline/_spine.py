"""Reconstructed spine: pose, shape, uncertainty and needle paths of every vertebra; spine.json."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from dartjax import data
from dartjax._types import Coefficients
from dartjax.mesh import TriangleMesh
from dartjax.observations import SIDES
from dartjax.pipeline._paths import PlannedPath
from dartjax.registration import STATUS_MEANING
from dartjax.transforms import SE3

SPINE_FILE = "spine.json"


def mesh_name(level: str) -> str:
    """Return the file of a level's surface, relative to the folder that `Spine.save` writes."""
    return f"meshes/{level}.ply"


class Vertebra(eqx.Module):
    """Reconstructed vertebra of a `Spine`; world mm."""

    level: str = eqx.field(static=True)
    pose: SE3  # T_world_vertebra
    coefficients: Coefficients  # of the shape model, in standard deviations
    surface: TriangleMesh
    start_surface: TriangleMesh  # the mean shape at the start pose
    covariance: Float[Array, "unknown unknown"] | None  # turn (rad), shift (mm), coefficients
    paths: tuple[PlannedPath, PlannedPath] | None  # left, right; None when abstained
    p_failure: float | None = eqx.field(static=True)  # probability of MASD > 2 mm; None: unknown
    status: str = eqx.field(static=True)  # "converged", or the problem in words
    abstained: bool = eqx.field(static=True)  # no result is given; `status` states the reason
    tier: str = eqx.field(static=True)  # initialisation tier: the evidence for the start
    mask_agreement: float = eqx.field(static=True)  # of the worst view; NaN without a mask
    level_probability: float | None = eqx.field(static=True, default=None)  # None: given
    level_reliable: bool = eqx.field(static=True, default=True)  # else `level` is a guess

    @property
    def succeeded(self) -> bool:
        """Return whether there is a result without a flag."""
        return not self.abstained and self.status == STATUS_MEANING[0]


class Spine(eqx.Module):
    """Reconstructed vertebrae of one set of views, from head to foot."""

    vertebrae: tuple[Vertebra, ...]
    warnings: tuple[str, ...] = eqx.field(static=True)  # about the views
    num_views: int = eqx.field(static=True)
    shape_models: str = eqx.field(static=True)  # name of the set
    weights: tuple[str, ...] = eqx.field(static=True)  # names of the networks used
    seconds_per_vertebra: float = eqx.field(static=True)  # start and fit, after compilation
    version: str = eqx.field(static=True)  # of dartjax

    def __iter__(self) -> Iterator[Vertebra]:
        return iter(self.vertebrae)

    def __len__(self) -> int:
        return len(self.vertebrae)

    def __getitem__(self, level: str) -> Vertebra:
        """Return the vertebra of a level. KeyError, with the available levels, if it is missing."""
        for vertebra in self.vertebrae:
            if vertebra.level == level:
                return vertebra
        available = ", ".join(vertebra.level for vertebra in self.vertebrae)
        raise KeyError(f"{level} is not among the reconstructed levels ({available})")

    def save(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Write meshes/LEVEL.ply for every vertebra that is not abstained from, and spine.json;
        return the path of spine.json.

        Creates the folder if it is missing. spine.json is written last, in one atomic step: if it
        exists, all files are complete.
        """
        target = pathlib.Path(folder)
        (target / "meshes").mkdir(parents=True, exist_ok=True)
        for vertebra in self.vertebrae:
            if not vertebra.abstained:
                data.save_ply(target / mesh_name(vertebra.level), vertebra.surface)
        text = json.dumps(self.as_json(), indent=1, allow_nan=False) + "\n"
        data.publish_file(target / SPINE_FILE, lambda path: path.write_text(text, "utf-8"))
        return target / SPINE_FILE

    def as_json(self, mesh_of: Callable[[str], str] = mesh_name) -> dict[str, Any]:
        """Convert to the content of spine.json: plain values, null for unknown ones. `mesh_of`
        gives the mesh file of a level, relative to the folder of spine.json."""
        return {
            "vertebrae": [_entry(vertebra, mesh_of(vertebra.level)) for vertebra in self],
            "frame": "patient",
            "views": self.num_views,
            "models": self.shape_models,
            "weights": list(self.weights),
            "warnings": list(self.warnings),
            "version": self.version,
        }


def _entry(vertebra: Vertebra, mesh: str) -> dict[str, Any]:
    """Convert one vertebra for spine.json; its results are null if it is abstained from."""
    entry: dict[str, Any] = {
        "level": vertebra.level if vertebra.level_reliable else None,
        "level_probability": _plain(vertebra.level_probability),
        "most_likely_level": vertebra.level,
        "status": vertebra.status,
        "abstained": vertebra.abstained,
        "p_failure": _plain(vertebra.p_failure),
        "tier": vertebra.tier,
    }
    given = None if vertebra.abstained else vertebra
    return entry | {
        "mesh": given and mesh,
        "pose_world_from_vertebra": given and _plain(given.pose.as_matrix()),
        "coefficients": given and _plain(given.coefficients),
        "covariance": given and _plain(given.covariance),
        "paths": given and _paths_entry(given),
    }


def _paths_entry(vertebra: Vertebra) -> Mapping[str, Any] | None:
    if vertebra.paths is None:
        return None
    return {side: _path_entry(path) for side, path in zip(SIDES, vertebra.paths, strict=True)}


def _path_entry(planned: PlannedPath) -> dict[str, Any]:
    return {
        "entry_point": _plain(planned.path.entry_point),
        "target_point": _plain(planned.path.target_point),
        "radius_mm": _plain(planned.path.radius),
        "clearance_mm": _plain(planned.clearance_mm),
        "p_no_breach": None,
        "feasible": planned.feasible,
    }


def _plain(values: Any) -> Any:
    """Convert numbers to floats and lists; None if a value is missing or not finite."""
    if values is None or not np.isfinite(np.asarray(values, float)).all():
        return None
    return np.asarray(values, float).tolist()
