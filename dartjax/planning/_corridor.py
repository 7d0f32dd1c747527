"""Search for the straight corridor with the largest clearance near a path."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax._numerics import normalize, safe_norm
from dartjax._types import Point
from dartjax.observations import NeedlePath
from dartjax.planning._distance_field import DistanceField
from dartjax.planning._paths import Clearance, clearance

_FIRST_STEP_MM = 3.0
_STEP_RATIO = 0.75
_NUM_ROUNDS = 14  # the last step is 0.07 mm


def best_corridor(
    path: NeedlePath, field: DistanceField, *, max_shift_mm: float = 6.0
) -> tuple[NeedlePath, Clearance]:
    """Find the path with the largest clearance near a given path.

    Entry and target are shifted by at most `max_shift_mm` at right angles to the given axis; the
    returned entry point is on the bone's surface. The method is a pattern search over the four
    shifts: 14 rounds of the 3^4 neighbours at steps from 3 mm down to 0.07 mm. The clearance is
    never less than that of the given path. The optimum is local: a corridor behind a wall wider
    than about 3 mm is not found. If the clearance saturates (see `clearance`), the search stops
    before the path is centred.
    """
    axes = _perpendicular_axes(path.target_point - path.entry_point)
    neighbours = jnp.stack(jnp.meshgrid(*4 * [jnp.array([0.0, -1.0, 1.0])], indexing="ij"), -1)
    neighbours = neighbours.reshape(-1, 2, 2)

    def shifted(shifts: Float[Array, "2 2"]) -> NeedlePath:
        entry_shift, target_shift = shifts @ axes
        return NeedlePath(
            path.entry_point + entry_shift, path.target_point + target_shift, path.radius
        )

    def refine(shifts: Float[Array, "2 2"], step: Float[Array, ""]):
        candidates = shifts[None] + step * neighbours
        size = safe_norm(candidates)[..., None]
        candidates = candidates * jnp.minimum(1.0, max_shift_mm / jnp.maximum(size, 1e-6))
        clearances = jax.vmap(lambda c: clearance(shifted(c), field).clearance)(candidates)
        clearances = jnp.where(jnp.isfinite(clearances), clearances, -jnp.inf)
        return candidates[jnp.argmax(clearances)], None

    steps = _FIRST_STEP_MM * _STEP_RATIO ** jnp.arange(_NUM_ROUNDS)
    shifts, _ = jax.lax.scan(refine, jnp.zeros((2, 2)), steps)
    found = clearance(shifted(shifts), field)
    corridor = NeedlePath(found.bone_entry, shifted(shifts).target_point, path.radius)
    return corridor, found


def _perpendicular_axes(direction: Point) -> Float[Array, "2 3"]:
    """Make two unit vectors at right angles to a direction and to each other."""
    direction = normalize(direction)
    helper = jnp.zeros(3).at[jnp.argmin(jnp.abs(direction))].set(1.0)
    first = normalize(jnp.cross(direction, helper))
    return jnp.stack([first, jnp.cross(direction, first)])
