"""Room between the tool and the patient: capsules on the tool against any signed distance.

The patient is a function of base-frame points (n, 3) that returns their signed distances to it
in mm, negative inside: `tube_distance` for a torso, or `planning.signed_distance` of a
`DistanceField` after mapping the points into the patient's frame (see `in_patient`).
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dartjax import transforms
from dartjax._numerics import safe_norm
from dartjax._types import Points, Scalar
from dartjax.transforms import SE3

SignedDistance = Callable[[Points], Float[Array, " n"]]
_SAMPLES = 9  # along each capsule


class ToolShape(eqx.Module):
    """Capsules in the tool's frame (wire along -z): axis ends and radii, mm."""

    starts: Float[Array, "capsule 3"]
    ends: Float[Array, "capsule 3"]
    radii: Float[Array, " capsule"]


def guide_tool() -> ToolShape:
    """A wire driver behind a slim guide sleeve. The sleeve, 80 mm long, may enter the patient
    and is left out; counted are the driver's body and the bracket that carries it."""
    return ToolShape(
        starts=jnp.array([[0.0, 0.0, 105.0], [0.0, 0.0, 170.0]]),
        ends=jnp.array([[0.0, 0.0, 200.0], [-70.0, 0.0, 220.0]]),
        radii=jnp.array([22.0, 30.0]),
    )


def tool_clearance(T_base_tool: SE3, tool: ToolShape, patient: SignedDistance) -> Scalar:
    """Least distance from the tool's capsules to the patient in mm; negative = collision.

    Nine samples along each capsule; between them the distance is at most half their spacing
    less for a patient of any shape. Differentiable at the one nearest sample.
    """
    share = jnp.linspace(0.0, 1.0, _SAMPLES)[None, :, None]
    points = tool.starts[:, None] + share * (tool.ends - tool.starts)[:, None]
    distance = patient(transforms.apply(T_base_tool, points.reshape(-1, 3)))
    return jnp.min(distance.reshape(-1, _SAMPLES) - tool.radii[:, None])


def in_patient(T_base_patient: SE3, distance: SignedDistance) -> SignedDistance:
    """A signed distance of patient coordinates as one of base coordinates."""
    T_patient_base = T_base_patient.inverse()
    return lambda points: distance(transforms.apply(T_patient_base, points))


def tube_distance(
    points: Points, *, nodes: Float[Array, "tube node 3"], radius: Scalar | float
) -> Float[Array, " n"]:
    """Signed distance to round tubes of one radius along polylines, mm: a torso that follows
    the curve of the spine is some of them side by side. Inside where tubes overlap the depth is
    that in the deepest tube."""
    starts, along = nodes[:, :-1].reshape(-1, 3), jnp.diff(nodes, axis=1).reshape(-1, 3)
    length = jnp.maximum(jnp.sum(along**2, axis=1), 1e-12)
    away = points[:, None] - starts[None]
    share = jnp.clip(jnp.einsum("nsi,si->ns", away, along) / length[None], 0.0, 1.0)
    nearest = safe_norm(away - share[:, :, None] * along[None])
    return jnp.min(nearest, axis=1) - radius
