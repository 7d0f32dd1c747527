"""The mean curve of the spine from published heights of discs and tilts of levels."""

import itertools
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from dartjax import ssm, transforms
from dartjax.anatomy import LANDMARK_NAMES, MODELLED_LEVELS, disc_above_mm, usual_tilt_deg
from dartjax.registration._batch import stack

# Standard deviations between neighbours: flexion, side bending, axial turn (rad); right, anterior,
# superior (mm).
_SIGMA, _SIGMA_MM = (0.07, 0.05, 0.05), (2.0, 2.5, 2.5)
_TOP, _BOTTOM = (LANDMARK_NAMES.index(f"{s}_endplate_center") for s in ("superior", "inferior"))


def positions_mm(models: Mapping[str, ssm.ShapeModel]) -> dict[str, float]:
    """Compute the position of each level's body centre along the spine, mm, increasing toward the
    feet, from the heights of the bodies and discs. Heights of levels between the given ones are
    interpolated; T13 counts only if it is given."""
    order = [level for level in MODELLED_LEVELS if level in models or level != "T13"]
    index = {level: i for i, level in enumerate(order)}
    given = sorted(models, key=index.__getitem__)
    known = [_body_height(models[level]) for level in given]
    heights = np.interp(np.arange(len(order)), [index[level] for level in given], known)
    discs = np.array([disc_above_mm(level) for level in order])
    apart = 0.5 * (heights[1:] + heights[:-1]) + discs[1:]
    along = np.concatenate([[0.0], np.cumsum(apart)])
    return {level: float(along[index[level]]) for level in given}


def mean_curve_prior(models: Mapping[str, ssm.ShapeModel]) -> ssm.SpinePrior:
    """Return a prior of the spine without factors, from `positions_mm` and the published tilts of
    the levels, for comparison with `data.load_spine_prior`.

    `models` holds all of `ssm.SPINE_LEVELS`.
    """
    along = positions_mm(models)
    frames = [ssm.frame_in_vertebra(models[level]) for level in ssm.SPINE_LEVELS]
    steps = []
    for above, below in itertools.pairwise(range(len(frames))):
        upper, lower = ssm.SPINE_LEVELS[above], ssm.SPINE_LEVELS[below]
        # A positive tilt leans the upper end forward: a rotation about the x axis by minus it.
        forward = np.radians(usual_tilt_deg(lower) - usual_tilt_deg(upper))
        step = _step_down(-forward, along[lower] - along[upper])
        step = frames[above].inverse() @ step @ frames[below]
        steps.append(jnp.concatenate([step.translation(), step.rotation().log()]))
    sizes = ssm.spine_sizes(jnp.zeros(ssm.num_spine_values()))
    mean = jnp.concatenate([jnp.concatenate(steps), sizes.reshape(-1)])
    sigma = jnp.array([*_SIGMA_MM, *_SIGMA])
    noise = jnp.concatenate([jnp.tile(sigma, len(steps)), jnp.ones(sizes.size)])
    return ssm.SpinePrior(mean, jnp.zeros((len(mean), 1)), noise, stack(frames))


def _step_down(turn: float, distance_mm: float) -> transforms.SE3:
    """Make the pose of a vertebra in the frame of the one above: turned about the x axis, and moved
    along the mean of both axes."""
    down = transforms.SO3.from_x_radians(jnp.asarray(0.5 * turn, jnp.float32)).apply(
        jnp.array([0.0, 0.0, -distance_mm])
    )
    rotation = transforms.SO3.from_x_radians(jnp.asarray(turn, jnp.float32))
    return transforms.SE3.from_rotation_and_translation(rotation, down)


def _body_height(model: ssm.ShapeModel) -> float:
    points = np.asarray(ssm.landmarks(model, model.mean_shape))
    return float(np.linalg.norm(points[_TOP] - points[_BOTTOM]))
