"""Construction of the shape model of one region from registered shapes.

The covariance is the sum of that of the registered shapes (levels pooled, mirror images added,
size kept), a Gaussian process (Luethi et al., PAMI 2018) and motions of single parts, which keep a
model of few subjects flexible. Published lengths set the amplitudes. Every level has its own mean;
the modes are shared by the region.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dartjax.ssm._annotate import attach
from dartjax.ssm._frame import vertebra_frame
from dartjax.ssm.build._calibrate import LinearLengths, amplitudes, shift_toward
from dartjax.ssm.build._gaussian_process import (
    MIRROR,
    Kernel,
    kernel_factor,
    outward_normals,
    principal_modes,
)
from dartjax.ssm.build._intersections import self_intersections
from dartjax.ssm.build._morphometry import measure
from dartjax.ssm.build._part_fields import part_factor
from dartjax.ssm.build._remesh import smoothed_at, symmetrized, unfolded

_Surface = Float[np.ndarray, "vertex 3"]

# Standard deviation / mean of lengths without a published spread.
RELATIVE_SPREAD = {
    "body_height": 0.09,
    "body_height_post": 0.09,
    "endplate_width": 0.12,
    "canal_width": 0.11,
    "tp_span": 0.11,
    "pedicle_width_left": 0.2,
    "pedicle_width_right": 0.2,
}
LENGTHS = tuple(RELATIVE_SPREAD)
# Error of a cohort's mean with respect to the population's, in units of the spread between people
# (sampling and measurement). The same for published tables and for our shapes.
_COHORT_ERROR = 0.5
# Modes checked for self-intersections, and the factors by which an intersecting mode is reduced.
_CHECKED_MODES = 15
_MODE_FACTORS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_SMOOTHING_ROUNDS, _MIN_MODES = 10, 3
_EXTRAPOLATION = 0.75  # of the step between the two nearest levels, to a level without shapes


class Topology(NamedTuple):
    """The triangulation shared by all shapes."""

    faces: Int[np.ndarray, "face 3"]
    mirror: Int[np.ndarray, " vertex"]
    parts: Int[np.ndarray, " vertex"]


class Shape(NamedTuple):
    """One registered vertebra, in its vertebra frame, mm."""

    subject: str
    level: str
    vertices: _Surface
    people: int = 1  # number of people it is the mean of


class Target(NamedTuple):
    """A published length, mm; `sd` None where only a mean is given."""

    mean: float
    sd: float | None


class Recipe(NamedTuple):
    """Parameters of the covariance, chosen on ctacardio, remus_vhm and clouthier_mean alone, with
    one subject (lumbar) or one level (thoracic) held out at a time."""

    kernels: tuple[Kernel, ...] = (Kernel(30.0, 1.0), Kernel(15.0, 0.8), Kernel(9.0, 0.45))
    symmetric_fraction: float = 0.88
    isotropic_scale: float = 0.06
    axis_scale: float = 0.04
    sample_weight: float = 0.7  # of the registered shapes' own standard deviation
    part_weight: float = 1.0  # of the motions of parts
    smooth_weight: float = 1.0  # of the Gaussian process
    thickness_mm: float = 0.5  # of a motion of the whole surface along its normals


class RegionModel(NamedTuple):
    """Shape model of a region: means of region and levels, shared modes; vertebra frame, mm."""

    mean_shape: _Surface
    level_shapes: dict[str, _Surface]
    modes: Float[np.ndarray, "mode vertex 3"]


def build_region(
    shapes: Sequence[Shape],
    levels: Sequence[str],
    topology: Topology,
    targets: Mapping[str, Mapping[str, Target]],
    *,
    num_modes: int,
    recipe: Recipe = Recipe(),
    neighbours: Sequence[Shape] = (),
) -> RegionModel:
    """Build the shape model of one region from its registered shapes (host).

    `levels` from head to foot; `targets` are published lengths by level and name (`LENGTHS`).
    `neighbours` are shapes of adjoining regions, used to interpolate levels without shapes.
    ValueError when there are no shapes, or fewer than two levels with shapes.
    """
    if not shapes:
        raise ValueError(
            f"no shapes of {levels[0]} to {levels[-1]}: give training shapes of these levels"
        )
    means = level_means(shapes, topology)
    if set(means) != set(levels):
        means |= _interpolate_levels(means | level_means(neighbours, topology), levels)
    center = symmetrized(np.mean([means[level] for level in levels], axis=0), topology.mirror)
    factor = _covariance_factor(center, shapes, topology, recipe)
    modes = principal_modes(factor, center, topology.faces, num_modes)
    spreads = _mean_spreads(center, levels, targets, topology)
    scales = amplitudes(linear_lengths(center, topology)(np.moveaxis(modes, 0, 2)), spreads)
    modes = scales[:, None, None] * modes
    calibrated = {
        level: _smooth_creases(
            _calibrate_mean(means[level], level, shapes, modes, targets, topology), modes, topology
        )
        for level in levels
    }
    factors = _mode_factors(list(calibrated.values()), modes[:_CHECKED_MODES], topology)
    modes[:_CHECKED_MODES] *= factors[:, None, None]
    return RegionModel(np.mean(list(calibrated.values()), axis=0), calibrated, modes)


def level_means(shapes: Sequence[Shape], topology: Topology) -> dict[str, _Surface]:
    """Compute the symmetric mean of each level in its vertebra frame: Procrustes without scaling
    over the shapes and their mirror images, weighted by their number of people."""
    means = {}
    for level in dict.fromkeys(shape.level for shape in shapes):
        own = [shape for shape in shapes if shape.level == level]
        weights = np.repeat([float(shape.people) for shape in own], 2)
        copies = [copy for shape in own for copy in with_mirror(shape.vertices, topology.mirror)]
        mean = symmetrized(np.average(copies, axis=0, weights=weights), topology.mirror)
        for _ in range(5):
            copies = [rigidly_onto(copy, mean) for copy in copies]
            mean = symmetrized(np.average(copies, axis=0, weights=weights), topology.mirror)
        means[level] = in_vertebra_frame(mean, topology)
    return means


def with_mirror(vertices: _Surface, mirror: Int[np.ndarray, " vertex"]) -> tuple[_Surface, ...]:
    """Return a shape and its mirror image in x = 0, both in correspondence."""
    return vertices, vertices[mirror] * MIRROR


def rigidly_onto(vertices: _Surface, target: _Surface) -> _Surface:
    """Align a surface rigidly to another one in correspondence (Kabsch)."""
    center, target_center = vertices.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((target - target_center).T @ (vertices - center))
    u[:, 2] *= np.linalg.det(u @ vt)
    return (vertices - center) @ (u @ vt).T + target_center


def in_vertebra_frame(vertices: _Surface, topology: Topology) -> _Surface:
    """Move a symmetric surface within its mirror plane into its vertebra frame."""
    pose = vertebra_frame(vertices, topology.faces)
    moved = (vertices - pose[:3, 3]) @ pose[:3, :3]
    return symmetrized(moved, topology.mirror)


def linear_lengths(surface: _Surface, topology: Topology) -> LinearLengths:
    """Linearise `LENGTHS`, as `measure` finds them on a surface, in its vertices."""
    calipers = measure(surface, topology.faces)
    ends = np.stack([calipers[name].ends for name in LENGTHS])
    attached = [[attach(surface, topology.faces, end) for end in pair] for pair in ends]
    vertices = np.array([[vertices for vertices, _ in pair] for pair in attached])
    weights = np.array([[weights for _, weights in pair] for pair in attached])
    return LinearLengths(ends, vertices, weights)


def _covariance_factor(
    center: _Surface, shapes: Sequence[Shape], topology: Topology, recipe: Recipe
) -> Float[np.ndarray, "vertex 3 column"]:
    smooth = kernel_factor(
        center,
        recipe.kernels,
        symmetric_fraction=recipe.symmetric_fraction,
        isotropic_scale=recipe.isotropic_scale,
        axis_scale=recipe.axis_scale,
    )
    by_part = part_factor(center, *topology, symmetric_fraction=recipe.symmetric_fraction)
    deviations = [
        rigidly_onto(copy, center) - center
        for shape in shapes
        for copy in with_mirror(shape.vertices, topology.mirror)
    ]
    samples = np.stack(deviations, axis=2) / np.sqrt(len(deviations))
    return np.concatenate(
        [
            recipe.smooth_weight * smooth,
            recipe.part_weight * by_part,
            recipe.sample_weight * samples,
            recipe.thickness_mm * outward_normals(center, topology.faces)[:, :, None],
        ],
        axis=2,
    )


def _interpolate_levels(
    means: Mapping[str, _Surface], levels: Sequence[str]
) -> dict[str, _Surface]:
    """Interpolate or extrapolate levels without shapes from the two nearest levels with shapes."""
    known = sorted(means, key=_number)
    interpolated = {}
    for level in [level for level in levels if level not in means]:
        order = sorted(known, key=lambda other: abs(_number(other) - _number(level)))[:2]
        if len(order) < 2:
            raise ValueError(
                f"no two levels with shapes to interpolate {level} from: give shapes of more levels"
            )
        nearest, second = order
        step = (_number(level) - _number(nearest)) / (_number(nearest) - _number(second))
        share = step if -1.0 < step < 0.0 else _EXTRAPOLATION * step
        aligned = rigidly_onto(means[second], means[nearest])
        interpolated[level] = means[nearest] + share * (means[nearest] - aligned)
    return interpolated


def _number(level: str) -> int:
    """Number of a level along the spine: T1 is 1, L1 is 13."""
    return int(level[1:]) + (12 if level[0] == "L" else 0)


def _mean_spreads(
    center: _Surface,
    levels: Sequence[str],
    targets: Mapping[str, Mapping[str, Target]],
    topology: Topology,
) -> Float[np.ndarray, " length"]:
    """Compute the standard deviation of each length within a level, mean over the region, mm."""
    calipers = measure(center, topology.faces)

    def spread(level: str, name: str) -> float:
        target = targets.get(level, {}).get(name, Target(calipers[name].value, None))
        return RELATIVE_SPREAD[name] * target.mean if target.sd is None else target.sd

    return np.array([np.mean([spread(level, name) for level in levels]) for name in LENGTHS])


def _smooth_creases(
    mean: _Surface, modes: Float[np.ndarray, "mode vertex 3"], topology: Topology
) -> _Surface:
    """Smooth a mean at edges with a dihedral angle over 90 degrees, and where several modes cause
    self-intersections, which shows that the mean itself is pinched there."""
    mean = unfolded(mean, topology.faces, least_angle_deg=0.0, turn_deg=90.0)
    for _ in range(_SMOOTHING_ROUNDS):
        found = (_intersecting_faces(mean, mode, topology) for mode in modes[:_CHECKED_MODES])
        hits = [faces for faces in found if len(faces)]
        if len(hits) < _MIN_MODES:
            break
        mean = smoothed_at(mean, topology.faces, np.unique(np.concatenate(hits)))
    return symmetrized(mean, topology.mirror)


def _intersecting_faces(
    mean: _Surface, mode: Float[np.ndarray, "vertex 3"], topology: Topology
) -> Int[np.ndarray, " hit"]:
    """Find the faces that intersect at +-3 standard deviations of a mode."""
    return np.concatenate(
        [self_intersections(mean + size * mode, topology.faces) for size in (-3.0, 3.0)]
    )


def _mode_factors(
    means: Sequence[_Surface], modes: Float[np.ndarray, "mode vertex 3"], topology: Topology
) -> Float[np.ndarray, " mode"]:
    """Find the largest factor <= 1 of each mode without self-intersections of any mean at +-3
    standard deviations."""

    def is_intersection_free(mode: Float[np.ndarray, "vertex 3"]) -> bool:
        return not any(len(_intersecting_faces(mean, mode, topology)) for mean in means)

    return np.array(
        [
            next((s for s in _MODE_FACTORS if is_intersection_free(s * mode)), _MODE_FACTORS[-1])
            for mode in modes
        ]
    )


def _step_to_lengths(
    modes: Float[np.ndarray, "mode vertex 3"],
    lengths: LinearLengths,
    mean: _Surface,
    wanted: Float[np.ndarray, " length"],
    spread: Float[np.ndarray, " length"],
    topology: Topology,
) -> tuple[_Surface, LinearLengths]:
    """Take one step toward the target lengths, halved until the measured lengths are closer too.

    A linear step can increase the error when the rules then measure at another place. If no step
    is closer the mean is unchanged."""
    full_step = symmetrized(shift_toward(modes, lengths, mean, wanted), topology.mirror)
    gap = np.linalg.norm((lengths(mean) - wanted) / spread)
    for part in (1.0, 0.5, 0.25):
        moved = mean + part * (full_step - mean)
        found = linear_lengths(moved, topology)
        if np.linalg.norm((found(moved) - wanted) / spread) <= gap:
            return moved, found
    return mean, lengths


def _calibrate_mean(
    mean: _Surface,
    level: str,
    shapes: Sequence[Shape],
    modes: Float[np.ndarray, "mode vertex 3"],
    targets: Mapping[str, Mapping[str, Target]],
    topology: Topology,
) -> _Surface:
    """Deform the mean of a level toward the published lengths, more for a level of fewer people.

    Lengths without a published spread are kept. Two steps, since lengths are not exactly
    linear.
    """
    people = sum(shape.people for shape in shapes if shape.level == level)
    own_error = _COHORT_ERROR**2 + (1.0 / people if people else np.inf)
    share = 1.0 - _COHORT_ERROR**2 / (_COHORT_ERROR**2 + own_error)
    published = targets.get(level, {})
    known = np.array([name in published and published[name].sd is not None for name in LENGTHS])
    table = np.array(
        [published[name].mean if k else 0.0 for name, k in zip(LENGTHS, known, strict=True)]
    )
    lengths = linear_lengths(mean, topology)
    wanted = lengths(mean) + share * np.where(known, table - lengths(mean), 0.0)
    spread = np.array([RELATIVE_SPREAD[name] for name in LENGTHS]) * wanted
    for _ in range(2):
        mean, lengths = _step_to_lengths(modes, lengths, mean, wanted, spread, topology)
    return in_vertebra_frame(mean, topology)
