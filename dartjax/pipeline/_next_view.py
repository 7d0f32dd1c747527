"""Selection of a further X-ray view by the expected uncertainty of the needle paths."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import camera as cameras
from dartjax import transforms
from dartjax._progress import Step, no_step
from dartjax.camera import Camera
from dartjax.observations import Observations
from dartjax.pipeline._assess import RenderedNeighbours, as_reconstruction
from dartjax.pipeline._task import Estimate, Task
from dartjax.registration import (
    FitOptions,
    Reconstruction,
    Surroundings,
    best_next_view,
    stack,
)
from dartjax.ssm import ShapeModel


def candidate_views(center: Float[np.ndarray, "3"], view: Camera, num_views: int = 12) -> Camera:
    """Make candidates for a further view (leading axis): the same C-arm turned about the patient's
    long axis in equal steps over 180 degrees. Views from opposite sides show the same, so 180
    degrees suffice."""
    isocenter = jnp.asarray(center, jnp.float32)
    reach = float(jnp.linalg.norm(view.source - isocenter))
    across, along = map(float, view.pixel_spacing)
    ring = [
        cameras.from_carm(
            transforms.carm_rotation(float(angle), 0.0),
            isocenter,
            sdd=float(view.sdd),
            source_to_isocenter=reach,
            pixel_spacing=(across, along),
            image_size=view.image_size,
        )
        for angle in np.arange(num_views) * np.pi / num_views
    ]
    return stack(ring)


def next_views(
    tasks: Sequence[Task],
    estimates: Sequence[Estimate],
    options: FitOptions,
    candidates: Camera,
    neighbours: RenderedNeighbours = None,
    *,
    step: Step = no_step,
) -> Float[np.ndarray, "case candidate"]:
    """Compute the expected standard deviation of the path points (rms, mm, without inflation) with
    each candidate (leading axis, full detectors) as one more view. `neighbours` as in
    `measure_quality`."""
    rendered = [None] * len(tasks) if neighbours is None else neighbours
    expect, found = _next_view(options), []
    for done, (task, estimate, near) in enumerate(zip(tasks, estimates, rendered, strict=True), 1):
        result = as_reconstruction(task, estimate)
        found.append(np.asarray(expect(task.model, task.observations, result, candidates, near)))
        step(f"further views: {done}/{len(tasks)}")
    return np.stack(found)


@functools.cache
def _next_view(options: FitOptions):
    @jax.jit
    def one(
        model: ShapeModel,
        seen: Observations,
        found: Reconstruction,
        candidates: Camera,
        around: Surroundings | None,
    ):
        expected = best_next_view(model, seen, found, options, candidates, around, inflation=1.0)
        return expected.path_std

    return one
