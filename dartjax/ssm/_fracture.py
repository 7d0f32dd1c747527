"""Compression fractures of the body as three optional modes with losses >= 0.

The kinds are those of Genant et al. (J Bone Miner Res 8, 1993), graded there by the loss of
height: 20-25 % mild, 25-40 % moderate, above 40 % severe. Every column of the body (a line along
z) is shortened about a level at which it stays:
- wedge: about the lowest point of the body, so the superior end-plate sinks; not at the posterior
  wall, in full at the anterior wall, linearly in between;
- biconcave: about mid-height, so both end-plates sink; in full below the end-plate's centre, not
  at the rim (at the posterior wall, the anterior wall, the waists and beyond);
- crush: about mid-height everywhere, posterior wall included; both end-plates approach.
Only the body moves, along z. Seen along z, each effect fades to none toward the bases of the
pedicles, over 0.25 (sideways) to 0.35 (forward) of the body's half width: the columns under the
pedicles keep their height. Where the pedicles stand close together, as at T1, a crush so takes
less of the posterior wall than it says. How much a column is shortened does not depend on z, so
the solid does not fold while the losses sum to less than 1; slivers of the triangulation may,
beyond a crush of 40 %.
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
    """Displacement of every vertex per unit of loss, in the order of `FRACTURE_NAMES`, mm.

    `vertices` are an instance (or the mean) in the vertebra frame. A loss of 0.4 takes 40 % of
    the height of the columns at the fracture's place; the displacement is linear in the loss.
    Exactly zero outside `parts` == body.
    """
    height = vertices[:, 2]
    lowest = jnp.min(jnp.where(model.parts == _BODY, height, jnp.inf))
    ends = backup_landmarks(model, vertices)
    middle = 0.5 * (ends[_SUPERIOR, 2] + ends[_INFERIOR, 2])
    levels = jnp.stack([lowest, middle, middle])
    along_z = -_shares(model, vertices) * (height[None] - levels[:, None])
    return along_z[:, :, None] * jnp.array([0.0, 0.0, 1.0])[None, None]


def fractured(model: ShapeModel, vertices: Vertices, losses: Float[Array, "3"]) -> Vertices:
    """An instance in the vertebra frame with fractures of fractional height losses (3,).

    vertices + losses . fracture_fields. Losses must be >= 0 and sum to less than 1; see
    `losses_from`. The frame stays that of the intact vertebra.
    """
    return vertices + jnp.tensordot(losses, fracture_fields(vertices, model), axes=1)


def with_fracture_modes(model: ShapeModel, loss_sd: float = 0.2) -> ShapeModel:
    """The model with three modes more, in the order of `FRACTURE_NAMES`: the fields of its mean
    shape, so that coefficient c of one is a loss of `loss_sd` c (0.2 is where Genant's grade 1
    begins). Fitted with coefficients >= 0 (`registration.FitOptions.nonnegative_modes` = 3) they
    take height only from those who have lost it.
    """
    fields = loss_sd * fracture_fields(model.mean_shape, model)
    return eqx.tree_at(lambda m: m.modes, model, jnp.concatenate([model.modes, fields]))


def losses_from(raw: Float[Array, "3"]) -> Float[Array, "3"]:
    """Losses > 0 that sum to less than 0.8 from three free numbers.

    s = softplus(raw), losses = 0.8 s / (0.8 + sum s): about exp(raw) where raw is far below 0,
    so -6 is intact.
    """
    positive = jax.nn.softplus(raw)
    return MAX_TOTAL_LOSS * positive / (MAX_TOTAL_LOSS + jnp.sum(positive))


def fracture_log_prior(losses: Float[Array, "3"], mean_loss: float = 0.1) -> Scalar:
    """Log density of independent exponential losses without its constant: -sum(losses) /
    mean_loss. Most vertebrae have none, so the density is highest at 0."""
    return -jnp.sum(losses) / mean_loss


def _shares(model: ShapeModel, vertices: Vertices) -> Float[Array, "3 vertex"]:
    """The share of each loss that the column through a vertex takes."""
    x, y = vertices[:, 0], vertices[:, 1]
    waist = backup_landmarks(model, vertices)[_WAIST, 0]
    front = landmarks(model, vertices)[_ANTERIOR, 1]
    wall = y[_wall_vertex(model)]
    wedge = jnp.clip((y - wall) / (front - wall), 0.0, 1.0)
    radius = safe_norm(jnp.stack([x / waist, y / jnp.where(y > 0.0, front, -wall)], axis=1))
    kinds = jnp.stack([wedge, 1.0 - _smoothstep(radius), jnp.ones_like(wedge)])
    cut_off = _smoothstep(_distance_to_pedicles(model, vertices, waist * jnp.array(_FADE)))
    return kinds * jnp.where(model.parts == _BODY, cut_off, 0.0)[None]


def _wall_vertex(model: ShapeModel) -> Int[Array, ""]:
    """The body's vertex nearest to the ray from the centre to the back: on the posterior wall."""
    mean = model.mean_shape
    behind = (model.parts == _BODY) & (mean[:, 1] < 0.0)
    return jnp.argmin(jnp.where(behind, mean[:, 0] ** 2 + mean[:, 2] ** 2, jnp.inf))


def _distance_to_pedicles(
    model: ShapeModel, vertices: Vertices, unit: Float[Array, "2"]
) -> Float[Array, " vertex"]:
    """Distance of each vertex, seen along z, to the pedicles (their vertices and the centres of
    their triangles off the body), in `unit` along x and y."""
    corners = model.parts[model.faces]
    part_of_face = jnp.any(corners == _PEDICLE, axis=1) & jnp.all(corners != _BODY, axis=1)
    of_pedicle = jnp.concatenate([model.parts == _PEDICLE, part_of_face])
    # Both are about 3 in 10 as many as the vertices; unused places repeat the first one.
    chosen = jnp.nonzero(of_pedicle, size=len(vertices) // 2, fill_value=-1)[0]
    chosen = jnp.where(chosen < 0, jnp.argmax(of_pedicle), chosen)
    here = vertices[:, :2] / unit[None]
    centers = jnp.mean(here[model.faces], axis=1)
    fixed = jnp.concatenate([here, centers])[chosen]
    # The search has no gradient; that of the distance is the one to the point found.
    apart = jax.lax.stop_gradient(here[:, None] - fixed[None])
    return safe_norm(here - fixed[jnp.argmin(jnp.sum(apart**2, axis=-1), axis=1)])


def _smoothstep(t: Float[Array, " vertex"]) -> Float[Array, " vertex"]:
    t = jnp.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
