"""Compression fractures of the body as three optional modes with losses >= 0.

The types are those of Genant et al. (J Bone Miner Res 8, 1993), who grade them by the loss of
height: 20-25 % mild, 25-40 % moderate, above 40 % severe. Every column of the body (a line along
z) is shortened about a fixed height:
- wedge: about the lowest point of the body, so the superior end-plate sinks. The loss is zero at
  the posterior wall, full at the anterior wall, linear in between;
- biconcave: about mid-height, so both end-plates sink. The loss is full at the end-plate's centre
  and zero at the rim (the posterior wall, the anterior wall, the waists and beyond);
- crush: about mid-height everywhere, posterior wall included; both end-plates approach.
Only the body moves, along z. The loss decreases to zero toward the bases of the pedicles, over
0.25 (lateral) to 0.35 (anterior) of the body's half width: the columns under the pedicles keep
their height. Where the pedicles are close together, as at T1, the posterior wall therefore loses
less than the nominal loss of a crush. The relative shortening of a column does not depend on z, so
the solid does not fold while the losses sum to less than 1; sliver triangles may fold beyond a
crush of 40 %.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax._numerics import safe_norm
from dartjax._types import Scalar, Vertices
from dartjax.observations import LANDMARK_NAMES
from dartjax.ssm._model import (
    BACKUP_LANDMARK_NAMES,
    PART_NAMES,
    ShapeModel,
    backup_landmarks,
    landmarks,
)

FRACTURE_NAMES = ("wedge", "biconcave", "crush")
MAX_TOTAL_LOSS = 0.8

_BODY, _PEDICLE = (PART_NAMES.index(name) for name in ("body", "pedicle"))
_SUPERIOR, _INFERIOR, _WAIST = (
    BACKUP_LANDMARK_NAMES.index(name)
    for name in ("superior_endplate_center", "inferior_endplate_center", "right_waist")
)
_ANTERIOR = LANDMARK_NAMES.index("anterior_wall_center")
_FADE = (0.25, 0.35)  # along x and y, of the half width


def fracture_fields(vertices: Vertices, model: ShapeModel) -> Float[Array, "3 vertex 3"]:
    """Compute the displacement of every vertex per unit of loss, by `FRACTURE_NAMES`, mm.

    `vertices` are an instance (or the mean) in the vertebra frame. A loss of 0.4 removes 40 % of
    the height of the fractured columns; the displacement is linear in the loss and exactly zero
    outside `parts` == body.
    """
    height = vertices[:, 2]
    lowest = jnp.min(jnp.where(model.parts == _BODY, height, jnp.inf))
    ends = backup_landmarks(model, vertices)
    middle = 0.5 * (ends[_SUPERIOR, 2] + ends[_INFERIOR, 2])
    levels = jnp.stack([lowest, middle, middle])
    along_z = -_loss_shares(model, vertices) * (height[None] - levels[:, None])
    return along_z[:, :, None] * jnp.array([0.0, 0.0, 1.0])[None, None]


def fractured(model: ShapeModel, vertices: Vertices, losses: Float[Array, "3"]) -> Vertices:
    """Apply fractures with fractional height losses (3,) to an instance in the vertebra frame.

    Returns vertices + losses . fracture_fields. Losses must be >= 0 and sum to less than 1; see
    `losses_from`. The frame remains that of the intact vertebra.
    """
    return vertices + jnp.tensordot(losses, fracture_fields(vertices, model), axes=1)


def with_fracture_modes(model: ShapeModel, loss_sd: float = 0.2) -> ShapeModel:
    """Append three fracture modes to a model, in the order of `FRACTURE_NAMES`.

    The modes are the fracture fields of the mean shape; coefficient c is a loss of `loss_sd` c
    (Genant's grade 1 begins at a loss of 0.2). Fit them with coefficients >= 0
    (`registration.FitOptions.nonnegative_modes` = 3), so that they only reduce the height.
    """
    fields = loss_sd * fracture_fields(model.mean_shape, model)
    return eqx.tree_at(lambda m: m.modes, model, jnp.concatenate([model.modes, fields]))


def losses_from(raw: Float[Array, "3"]) -> Float[Array, "3"]:
    """Map three free numbers to losses > 0 that sum to less than 0.8.

    With s = softplus(raw), losses = 0.8 s / (0.8 + sum s). A loss is about exp(raw) where raw is
    far below 0; raw = -6 stands for an intact vertebra.
    """
    positive = jax.nn.softplus(raw)
    return MAX_TOTAL_LOSS * positive / (MAX_TOTAL_LOSS + jnp.sum(positive))


def fracture_log_prior(losses: Float[Array, "3"], mean_loss: float = 0.1) -> Scalar:
    """Compute the log density of independent exponential losses without its constant,
    -sum(losses) / mean_loss. Its maximum is at 0, since most vertebrae are intact."""
    return -jnp.sum(losses) / mean_loss


def _loss_shares(model: ShapeModel, vertices: Vertices) -> Float[Array, "3 vertex"]:
    """Compute the share of each loss that applies to the column through every vertex."""
    x, y = vertices[:, 0], vertices[:, 1]
    waist = backup_landmarks(model, vertices)[_WAIST, 0]
    front = landmarks(model, vertices)[_ANTERIOR, 1]
    wall = y[_wall_vertex(model)]
    wedge = jnp.clip((y - wall) / (front - wall), 0.0, 1.0)
    radius = safe_norm(jnp.stack([x / waist, y / jnp.where(y > 0.0, front, -wall)], axis=1))
    by_type = jnp.stack([wedge, 1.0 - _smoothstep(radius), jnp.ones_like(wedge)])
    cut_off = _smoothstep(_distance_to_pedicles(model, vertices, waist * jnp.array(_FADE)))
    return by_type * jnp.where(model.parts == _BODY, cut_off, 0.0)[None]


def _wall_vertex(model: ShapeModel) -> Int[Array, ""]:
    """Find the vertex of the posterior wall: the body's vertex nearest to the ray from the centre
    to posterior."""
    mean = model.mean_shape
    behind = (model.parts == _BODY) & (mean[:, 1] < 0.0)
    return jnp.argmin(jnp.where(behind, mean[:, 0] ** 2 + mean[:, 2] ** 2, jnp.inf))


def _distance_to_pedicles(
    model: ShapeModel, vertices: Vertices, unit: Float[Array, "2"]
) -> Float[Array, " vertex"]:
    """Compute the distance in the x-y plane of each vertex to the pedicles (their vertices and the
    centres of their triangles outside the body), in `unit` along x and y."""
    corners = model.parts[model.faces]
    part_of_face = jnp.any(corners == _PEDICLE, axis=1) & jnp.all(corners != _BODY, axis=1)
    of_pedicle = jnp.concatenate([model.parts == _PEDICLE, part_of_face])
    # Together about 3 in 10 of the number of vertices; unused entries repeat the first one.
    chosen = jnp.nonzero(of_pedicle, size=len(vertices) // 2, fill_value=-1)[0]
    chosen = jnp.where(chosen < 0, jnp.argmax(of_pedicle), chosen)
    here = vertices[:, :2] / unit[None]
    centers = jnp.mean(here[model.faces], axis=1)
    fixed = jnp.concatenate([here, centers])[chosen]
    # The search has no gradient; the distance to the point found has.
    offset = jax.lax.stop_gradient(here[:, None] - fixed[None])
    return safe_norm(here - fixed[jnp.argmin(jnp.sum(offset**2, axis=-1), axis=1)])


def _smoothstep(t: Float[Array, " vertex"]) -> Float[Array, " vertex"]:
    t = jnp.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
