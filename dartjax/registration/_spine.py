"""Order of the vertebrae of one scene, and the pose that the other vertebrae suggest for each."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from dartjax import ssm, transforms
from dartjax.registration._objective import ExpectedPose


class SpineOrder(eqx.Module):
    """Order of the vertebrae of one scene in the prior of the spine, padded to any number: place of
    each in `ssm.SPINE_LEVELS` (-1: none), and whether the entry is a vertebra or padding."""

    prior: ssm.SpinePrior
    place: Int[Array, " vertebra"]
    present: Bool[Array, " vertebra"]


def order_of(levels: Sequence[str], prior: ssm.SpinePrior) -> SpineOrder:
    """Make the `SpineOrder` of the given levels, in their order, all present."""
    places = jnp.asarray(ssm.spine_places(levels), jnp.int32)
    return SpineOrder(prior, places, jnp.ones(len(levels), bool))


def expected_poses(order: SpineOrder, poses: transforms.SE3) -> ExpectedPose:
    """Predict the pose of every vertebra from those of all other vertebrae that are present.

    The prediction is `ssm.frames_from_others`: the nearest vertebra and the prior's step from it,
    given all other steps. `poses` (T_world_vertebra) and the result have a leading vertebra axis;
    poses of vertebrae that are not present may be NaN.
    """
    count = len(ssm.SPINE_LEVELS)
    own_place = jnp.maximum(order.place, 0)
    in_vertebra = jax.tree.map(lambda leaf: leaf[own_place], order.prior.T_vertebra_frame)
    frames = jax.vmap(lambda pose, frame: pose @ frame)(poses, in_vertebra)
    has_place = order.place >= 0
    slot = jnp.where(order.present & has_place, order.place, count)  # count: dropped
    in_order = jax.tree.map(
        lambda leaf: jnp.zeros((count, leaf.shape[-1])).at[slot].set(leaf, mode="drop"), frames
    )
    known = jnp.zeros(count, bool).at[slot].set(True, mode="drop")
    found = ssm.frames_from_others(order.prior, in_order, known)
    own = jax.tree.map(lambda leaf: leaf[own_place], found)
    pose = jax.vmap(lambda at, frame: at @ frame.inverse())(own.T_world_frame, in_vertebra)
    sigma = jnp.concatenate([own.sigma[:, 3:], own.sigma[:, :3]], axis=1)
    return ExpectedPose(pose, own.known & has_place, sigma)
