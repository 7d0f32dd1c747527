"""Needle paths of a reconstructed surface, and their clearance in it."""

import equinox as eqx
import jax
import jax.numpy as jnp

from dartjax import planning, ssm
from dartjax._types import Scalar
from dartjax.data import NEEDLE_RADIUS_MM
from dartjax.mesh import TriangleMesh
from dartjax.observations import NeedlePath
from dartjax.pipeline._task import Estimate, Task, estimated_surface
from dartjax.ssm import ShapeModel


class PlannedPath(eqx.Module):
    """Needle path with its clearance in the reconstructed (not the true) bone."""

    path: NeedlePath
    clearance_mm: Scalar  # from the needle's surface to the nearest wall; below 0 it breaches

    @property
    def feasible(self) -> bool:
        """Return whether the needle stays in the reconstructed bone; False if the clearance is
        NaN."""
        return bool(self.clearance_mm >= 0.0)


def carried_paths(
    task: Task, estimate: Estimate, radius_mm: float = NEEDLE_RADIUS_MM
) -> tuple[NeedlePath, NeedlePath]:
    """Compute the left and right transpedicular paths of the reconstructed surface of a task."""
    return _carried(task.model, estimated_surface(task, estimate), radius_mm)


def planned_paths(
    model: ShapeModel, surface: TriangleMesh, radius_mm: float = NEEDLE_RADIUS_MM
) -> tuple[PlannedPath, PlannedPath]:
    """Compute the left and right transpedicular paths in a reconstructed surface of a model, with
    their clearance in it (`planning.clearance`)."""
    field = planning.distance_field_from_mesh(surface)
    left, right = (
        PlannedPath(path, _clearance(path, field).clearance)
        for path in _carried(model, surface, radius_mm)
    )
    return left, right


def _carried(
    model: ShapeModel, surface: TriangleMesh, radius_mm: float
) -> tuple[NeedlePath, NeedlePath]:
    radius = jnp.asarray(radius_mm, jnp.float32)
    left, right = (
        NeedlePath(entry, target, radius) for entry, target in ssm.paths(model, surface.vertices)
    )
    return left, right


_clearance = jax.jit(planning.clearance)
