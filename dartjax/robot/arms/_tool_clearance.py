"""Clearance between tool and patient: capsules of the tool against a signed distance.

The patient is a function of points (n, 3) in the base frame that returns their signed distances in
mm, negative inside: `tube_distance` for a torso, or `planning.signed_distance` of a `DistanceField`
after mapping the points into the patient's frame (see `in_patient`).
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Points, Scalar
from dartjax.robot._reductions import least
from dartjax.transforms import SE3

SignedDistance = Callable[[Points], Float[Array, " n"]]
_SAMPLES = 9  # along each capsule


class ToolShape(eqx.Module):
    """Shape of a tool: capsules in its frame (wire along -z), by axis ends and radii, mm."""

    starts: Float[Array, "capsule 3"]
    ends: Float[Array, "capsule 3"]
    radii: Float[Array, " capsule"]


def guide_tool() -> ToolShape:
    """Build the shape of a wire driver behind a slim guide sleeve.

    It consists of the driver's body and the bracket that carries it. The sleeve, 80 mm long, is
    excluded, because it may enter the patient.
    """
    return ToolShape(
        starts=jnp.array([[0.0, 0.0, 105.0], [0.0, 0.0, 170.0]]),
        ends=jnp.array([[0.0, 0.0, 200.0], [-70.0, 0.0, 220.0]]),
        radii=jnp.array([22.0, 30.0]),
    )


def tool_clearance(T_base_tool: SE3, tool: ToolShape, patient: SignedDistance) -> Scalar:
    """Compute the smallest distance of the tool from the patient, mm; negative = collision. NaN if
    a distance is.

    Takes nine samples along each capsule; between samples the distance is smaller by at most half
    their spacing. The gradient is that of the nearest sample.
    """
    share = jnp.linspace(0.0, 1.0, _SAMPLES)[None, :, None]
    points = tool.starts[:, None] + share * (tool.ends - tool.starts)[:, None]
    distance = patient(transforms.apply(T_base_tool, points.reshape(-1, 3)))
    return least(distance.reshape(-1, _SAMPLES) - tool.radii[:, None])


def in_patient(T_base_patient: SE3, distance: SignedDistance) -> SignedDistance:
    """Convert a signed distance in patient coordinates to base coordinates."""
    T_patient_base = T_base_patient.inverse()
    return lambda points: distance(transforms.apply(T_patient_base, points))


def tube_distance(
    points: Points, *, nodes: Float[Array, "tube node 3"], radius: Scalar | float
) -> Float[Array, " n"]:
    """Compute the signed distance (mm) to round tubes of one radius along polylines.

    Several parallel tubes model a torso that follows the curve of the spine. Where tubes overlap,
    the depth is that in the deepest tube. NaN for a point or node that is.
    """
    starts, along = nodes[:, :-1].reshape(-1, 3), jnp.diff(nodes, axis=1).reshape(-1, 3)
    length = jnp.maximum(jnp.sum(along**2, axis=1), 1e-12)
    away = points[:, None] - starts[None]
    share = jnp.clip(jnp.einsum("nsi,si->ns", away, along) / length[None], 0.0, 1.0)
    nearest = safe_norm(away - share[:, :, None] * along[None])
    known = ~jnp.any(jnp.isnan(nearest), axis=1)
    return jnp.where(known, jnp.min(nearest, axis=1), jnp.nan) - radius
