"""Optimisation of the robot's base placement for a set of planned paths, by gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from dartjax._types import Point, Scalar
from dartjax.observations import NeedlePath
from dartjax.robot.arms._follow import ApproachOptions, approach_margins, plan_approach
from dartjax.robot.arms._hybrid import HybridRobot, Joints
from dartjax.robot.arms._tool_clearance import SignedDistance, ToolShape
from dartjax.transforms import SE3, SO3

BaseMove = Float[Array, "6"]  # translation in mm, rotation in rad, along the base's axes
_SOFTNESS = 0.02  # temperature of the soft minimum of margins
_CLEARANCE_UNIT_MM = 50.0  # clearance that counts as a margin of 1
CART = (True, True, True, False, False, True)  # free motions of a cart with a lift


class PlacementOptions(eqx.Module):
    """Options of the base placement."""

    wanted_margin: float = 0.4  # of every path; a larger margin gives no further improvement
    num_steps: int = 200
    step_size: float = 0.05  # of the units below, per step of Adam
    unit_mm: float = 100.0
    unit_rad: float = 0.3
    may_move: tuple[bool, ...] = eqx.field(
        static=True, default=(True, True, True, False, False, True)
    )


class Placement(eqx.Module):
    """Placement of the base with the margin of every path."""

    T_base_patient: SE3
    move: BaseMove  # of the base from its start
    margin: Float[Array, " path"]  # soft minimum of margins, clearance included
    history: Float[Array, " step"]  # the loss


def moved_base(T_base_patient: SE3, move: BaseMove, pivot: Point) -> SE3:
    """Compute T_base_patient after a motion of the base.

    The base rotates about `pivot`, a point of its own frame (mm), by the rotation vector move[3:],
    then translates by move[:3].
    """
    turn = SO3.exp(move[3:])
    T_old_new = SE3.from_rotation_and_translation(turn, pivot - turn.apply(pivot) + move[:3])
    return T_old_new.inverse() @ T_base_patient


def reachability(
    path: NeedlePath,
    T_base_patient: SE3,
    robot: HybridRobot,
    *,
    body: SignedDistance,
    tool: ToolShape,
    options: ApproachOptions = ApproachOptions(),
    start: Joints | None = None,
) -> Scalar:
    """Compute the soft minimum of the margins of one path; positive if the robot reaches it.

    -t log sum exp(-m / t) over the margins of `approach_margins` and the tool's clearance in units
    of 50 mm, with t = 0.02; never above the smallest margin. With `start` the clearance includes
    the way from these joints, see `plan_approach`. Differentiable in T_base_patient, also out of
    reach.
    """
    margins = approach_margins(path, T_base_patient, robot, options=options)
    approach, _ = plan_approach(
        path, T_base_patient, robot, body=body, tool=tool, options=options, start=start
    )
    every = jnp.append(margins, approach.clearance / _CLEARANCE_UNIT_MM)
    return -_SOFTNESS * jax.nn.logsumexp(-every / _SOFTNESS)


def place_base(
    paths: NeedlePath,
    T_base_patient: SE3,
    robot: HybridRobot,
    *,
    body: SignedDistance,
    tool: ToolShape,
    approach: ApproachOptions = ApproachOptions(),
    options: PlacementOptions = PlacementOptions(),
    start: Joints | None = None,
) -> Placement:
    """Optimise the base placement so that all paths (leading axis) are reached.

    Adam minimises the mean of max(wanted - reachability, 0)^2 from the given placement, over the
    translations and rotations that `may_move` frees: by default the three translations and the
    rotation about the base's z, as for a cart with a lift. The best step is kept. With `start` the
    clearance includes the way from these joints. The optimisation is local: use vmap over several
    placements.
    """
    unit = jnp.array(3 * [options.unit_mm] + 3 * [options.unit_rad])
    unit = jnp.where(jnp.array(options.may_move), unit, 0.0)
    pivot = jnp.mean(jax.vmap(T_base_patient.apply)(paths.entry_point), axis=0)

    def margins_of(x: BaseMove) -> Float[Array, " path"]:
        moved = moved_base(T_base_patient, unit * x, pivot)
        return jax.vmap(
            lambda path: reachability(
                path, moved, robot, body=body, tool=tool, options=approach, start=start
            )
        )(paths)

    def loss_of(x: BaseMove) -> Scalar:
        return jnp.mean(jnp.maximum(options.wanted_margin - margins_of(x), 0.0) ** 2)

    optimizer = optax.adam(optax.cosine_decay_schedule(options.step_size, options.num_steps))

    def step(state, _):
        x, memory, best, best_loss = state
        loss, gradient = jax.value_and_grad(loss_of)(x)
        better = loss < best_loss
        best, best_loss = jnp.where(better, x, best), jnp.where(better, loss, best_loss)
        update, memory = optimizer.update(gradient, memory)
        return (x + update, memory, best, best_loss), loss

    still = jnp.zeros_like(unit)
    state = (still, optimizer.init(still), still, jnp.asarray(jnp.inf, unit.dtype))
    (_, _, best, _), history = jax.lax.scan(step, state, length=options.num_steps)
    placed = moved_base(T_base_patient, unit * best, pivot)
    return Placement(placed, unit * best, margins_of(best), history)
