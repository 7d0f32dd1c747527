"""Order of the vertebrae of one subject: distances between them, and the expected pose of each."""

import itertools
from collections.abc import Iterable, Mapping

import jax.numpy as jnp
import numpy as np

from dartjax import ssm, transforms
from dartjax.anatomy import LANDMARK_NAMES, MODELLED_LEVELS, disc_above_mm, usual_tilt_deg
from dartjax.registration._joint import SpineOrder, suggested_step
from dartjax.registration._objective import (
    NEIGHBOUR_SIGMA,
    NEIGHBOUR_SIGMA_MM,
    Neighbour,
    no_neighbour,
)

MAX_STEPS = 2  # neighbours more levels away than this are ignored
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


def order_of(models: Mapping[str, ssm.ShapeModel]) -> SpineOrder:
    """Make the `SpineOrder` of the given levels for `fit_together`: positions along the spine from
    `positions_mm`, tilts of the mean spine."""
    along = positions_mm(models)
    levels = sorted(models, key=along.__getitem__)
    tilt = [np.radians(usual_tilt_deg(level)) for level in levels]
    return SpineOrder(
        along=jnp.asarray([along[level] for level in levels], jnp.float32),
        tilt=jnp.asarray(tilt, jnp.float32),
        present=jnp.ones(len(levels), bool),
    )


def mean_curve_prior(models: Mapping[str, ssm.ShapeModel]) -> ssm.SpinePrior:
    """Return the prior between neighbours of the joint fit as a prior of the spine without factors:
    steps by `order_of`, standard deviations `NEIGHBOUR_SIGMA_MM` and `NEIGHBOUR_SIGMA`.

    `models` holds all of `ssm.SPINE_LEVELS`. For comparison with `data.load_spine_prior`.
    """
    order = order_of(models)
    frames = [ssm.frame_in_vertebra(models[level]) for level in ssm.SPINE_LEVELS]
    steps = []
    for i, (upper, lower) in enumerate(itertools.pairwise(frames)):
        step = upper.inverse() @ suggested_step(order, i + 1, i) @ lower
        steps.append(jnp.concatenate([step.translation(), step.rotation().log()]))
    sizes = ssm.spine_sizes(jnp.zeros(ssm.num_spine_values()))
    sigma = jnp.array([*NEIGHBOUR_SIGMA_MM, *NEIGHBOUR_SIGMA])
    mean = jnp.concatenate([jnp.concatenate(steps), sizes.reshape(-1)])
    noise = jnp.concatenate([jnp.tile(sigma, len(steps)), jnp.ones(sizes.size)])
    return ssm.SpinePrior(mean, jnp.zeros((len(mean), 1)), noise)


def _body_height(model: ssm.ShapeModel) -> float:
    points = np.asarray(ssm.landmarks(model, model.mean_shape))
    return float(np.linalg.norm(points[_TOP] - points[_BOTTOM]))


def expected_poses(
    levels: Iterable[str],
    models: Mapping[str, ssm.ShapeModel],
    known: Mapping[str, transforms.SE3],
) -> dict[str, Neighbour]:
    """Predict the poses of some `levels` of one spine from the known poses (T_world_vertebra) of
    their neighbours, see `expected_pose`. `models` holds the shape models of all levels of the
    spine, which give the distances; `levels` and `known` are among them."""
    along = positions_mm(models)
    return {level: expected_pose(level, along, known) for level in levels}


def expected_pose(
    level: str, along: Mapping[str, float], known: Mapping[str, transforms.SE3]
) -> Neighbour:
    """Predict the pose of a level from the nearest known vertebra above and below it, at most two
    levels away: with the neighbour's orientation, moved along the neighbour's own axis. If both
    are known, their poses are interpolated by distance."""
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
