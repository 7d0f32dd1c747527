"""Grades of pedicle breaches: how far a cylinder extends beyond the wall of the pedicle."""

import enum
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dartjax._types import Scalar
from dartjax.observations import NeedlePath
from dartjax.planning._distance_field import DistanceField
from dartjax.planning._paths import clearance

GradeScheme = Literal["four", "five"]


class PedicleGrade(enum.IntEnum):
    """Grades of a breach b in mm by Gertzbein and Robbins (Spine 15:11, 1990), as numbered in [L]:
    I no breach, II b < 2, III 2 <= b <= 4, IV b > 4. I and II count as acceptable."""

    I = 1  # noqa: E741
    II = 2
    III = 3
    IV = 4


def breach_mm(path: NeedlePath, field: DistanceField) -> Scalar:
    """Compute how far the cylinder around a path extends beyond the bone at most, mm; 0 inside.

    The result is the maximum over the axis of radius + signed distance, evaluated as in
    `clearance`: from the entry cortex to the tip, canal included. Differentiable where above 0.
    """
    return clearance(path, field).breach_depth


def pedicle_grade(
    breach: Float[Array, "*shape"] | float, scheme: GradeScheme = "four"
) -> Int[Array, "*shape"]:
    """Grade a breach in mm: 1 to 4 (see `PedicleGrade`), or with "five" the common modified
    form A to E as 1 to 5 (0, < 2, < 4, < 6, >= 6 mm). A NaN or negative breach gives 0, which is
    not a grade."""
    b = jnp.asarray(breach)
    four = (b > 0.0, b >= 2.0, b > 4.0)
    beyond = {"four": four, "five": (b > 0.0, b >= 2.0, b >= 4.0, b >= 6.0)}[scheme]
    grade = 1 + sum(edge.astype(jnp.int32) for edge in beyond)
    return jnp.where(b >= 0.0, grade, 0).astype(jnp.int32)
