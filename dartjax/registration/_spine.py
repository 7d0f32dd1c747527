"""The vertebrae of one subject in order: how far apart they are, and where one is expected."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from dartjax import ssm, transforms
from dartjax.anatomy import LANDMARK_NAMES, MODELLED_LEVELS, disc_above_mm, usual_tilt_deg
from dartjax.registration._joint import SpineOrder
from dartjax.registration._objective import Neighbour, no_neighbour

MAX_STEPS = 2  # a neighbour further away than this many levels says too little
_TOP, _BOTTOM = (LANDMARK_NAMES.index(f"{s}_endplate_center") for s in ("superior", "inferior"))


def positions_mm(models: Mapping[str, ssm.ShapeModel]) -> dict[str, float]:
    """Where the body centre of each level lies along the spine, mm, growing toward the feet: half
    the heights of the bodies above and below each disc, and the disc. Levels between the given
    ones are counted with interpolated heights; T13 only if it is given."""
    order = [level for level in MODELLED_LEVELS if level in models or level != "T13"]
    index = {level: i for i, level in enumerate(order)}
    given = sorted(models, key=index.__getitem__)
    known = [_body_height(models[level]) for level in given]
    heights = np.interp(np.arange(len(order)), [index[level] for level in given], known)
    discs = np.array([disc_above_mm(level) for level in order])
    apart = 0.5 * (heights[1:] + heights[:-1]) + discs[1:]
    along = np.concatenate([[0.0], np.cumsum(apart)])
    return {level: float(along[index[level]]) for level in given}


def order_of(models: Mapping[str, ssm.ShapeModel]) -> SpineOrder:
    """The given levels from head to foot for `fit_together`: places along the spine from
    `positions_mm`, tilts of the mean spine."""
    along = positions_mm(models)
    levels = sorted(models, key=along.__getitem__)
    tilt = [np.radians(usual_tilt_deg(level)) for level in levels]
    return SpineOrder(
        along=jnp.asarray([along[level] for level in levels], jnp.float32),
        tilt=jnp.asarray(tilt, jnp.float32),
        present=jnp.ones(len(levels), bool),
    )


def _body_height(model: ssm.ShapeModel) -> float:
    points = np.asarray(ssm.landmarks(model, model.mean_shape))
    return float(np.linalg.norm(points[_TOP] - points[_BOTTOM]))


def expected_poses(
    levels: Iterable[str],
    models: Mapping[str, ssm.ShapeModel],
    known: Mapping[str, transforms.SE3],
) -> dict[str, Neighbour]:
    """The pose that the known poses (T_world_vertebra) of its neighbours suggest for each of some
    levels of one spine. `models` of all its levels say how far apart they are; `levels` and
    `known` are among them. See `expected_pose`."""
    along = positions_mm(models)
    return {level: expected_pose(level, along, known) for level in levels}


def expected_pose(
    level: str, along: Mapping[str, float], known: Mapping[str, transforms.SE3]
) -> Neighbour:
    """The pose of a level from the nearest known vertebra above and below it, at most two levels
    away: turned alike, and moved along the neighbour's own axis. Between two neighbours both
    are mixed by distance."""
    place = MODELLED_LEVELS.index
    near = [n for n in known if n != level and abs(place(n) - place(level)) <= MAX_STEPS]
    above = max((n for n in near if along[n] < along[level]), key=along.__getitem__, default=None)
    below = min((n for n in near if along[n] > along[level]), key=along.__getitem__, default=None)
    poses = {
        n: _moved_along(known[n], along[n] - along[level]) for n in (above, below) if n is not None
    }
    if not poses:
        return no_neighbour()
    if above is None or below is None:
        return Neighbour(next(iter(poses.values())), jnp.asarray(True))
    share = (along[level] - along[above]) / (along[below] - along[above])
    return Neighbour(_between(poses[above], poses[below], share), jnp.asarray(True))


def _moved_along(pose: transforms.SE3, upward_mm: float) -> transforms.SE3:
    upward = pose.rotation().apply(jnp.array([0.0, 0.0, upward_mm]))
    return transforms.SE3.from_rotation_and_translation(
        pose.rotation(), pose.translation() + upward
    )


def _between(first: transforms.SE3, second: transforms.SE3, share: float) -> transforms.SE3:
    turn = (first.rotation().inverse() @ second.rotation()).log()
    rotation = first.rotation() @ transforms.SO3.exp(share * turn)
    place = (1.0 - share) * first.translation() + share * second.translation()
    return transforms.SE3.from_rotation_and_translation(rotation, place)
