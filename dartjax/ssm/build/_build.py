"""From registered shapes to the shape model of one region.

The covariance is that of the registered shapes (levels pooled, mirror images added, size kept)
plus a Gaussian process (Luethi et al., PAMI 2018) plus motions of single parts, so that few
subjects do not mean a stiff model; published lengths then set the amplitudes. Every level has
its own mean; the modes are shared by the region.
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

# Of lengths the tables give no spread for: standard deviation over mean.
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
# Of a cohort's means beside the population's, in units of the spread between people: whom it
# drew and how it measured. Taken for tables and for shapes alike.
_COHORT_ERROR = 0.5
# The modes looked at by eye, and by how much one that lets sheets of bone meet is made smaller.
_CHECKED_MODES = 15
_REACHES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
_SMOOTHING_ROUNDS, _SEVERAL = 10, 3
_EXTRAPOLATION = 0.75  # of the step between the two nearest levels, for a level without shapes


class Topology(NamedTuple):
    """The triangulation all shapes share."""

    faces: Int[np.ndarray, "face 3"]
    mirror: Int[np.ndarray, " vertex"]
    parts: Int[np.ndarray, " vertex"]


class Shape(NamedTuple):
    """One registered vertebra, in its vertebra frame, mm."""

    subject: str
    level: str
    vertices: _Surface
    people: int = 1  # how many it is the mean of


class Target(NamedTuple):
    """A published length, mm; `sd` None where only a mean is given."""

    mean: float
    sd: float | None


class Recipe(NamedTuple):
    """The numbers of the covariance. Found on shapes of ctacardio, remus_vhm and clouthier_mean
    alone, one subject (lumbar) or one level (thoracic) left out at a time."""

    kernels: tuple[Kernel, ...] = (Kernel(30.0, 1.0), Kernel(15.0, 0.8), Kernel(9.0, 0.45))
    symmetric_fraction: float = 0.88
    isotropic_scale: float = 0.06
    axis_scale: float = 0.04
    sample_weight: float = 0.5  # of the registered shapes' own covariance
    part_weight: float = 1.0  # 0 leaves the motions of parts out
    smooth_weight: float = 1.0  # 0 leaves the Gaussian process out
    thickness_mm: float = 0.5  # of the whole bone at once; also where a segmentation draws it


class RegionModel(NamedTuple):
    """Mean of a region, means of its levels and the modes they share; vertebra frame, mm."""

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
    """Shape model of one region from its registered shapes (host).

    `levels` from head to foot; `targets` are published lengths by level and name (`LENGTHS`).
    `neighbours` are shapes of adjoining levels, from which a level without shapes is filled.
    Raises ValueError when there are no shapes, or fewer than two levels with
    shapes.
    """
    if not shapes:
        raise ValueError(f"no shapes of {levels[0]} to {levels[-1]} to build a model from")
    means = level_means([*shapes, *neighbours], topology)
    means |= _filled(means, levels)
    center = symmetrized(np.mean([means[level] for level in levels], axis=0), topology.mirror)
    factor = _covariance_factor(center, shapes, topology, recipe)
    modes = principal_modes(factor, center, topology.faces, num_modes)
    spreads = _mean_spreads(center, levels, targets, topology)
    scales = amplitudes(linear_lengths(center, topology)(np.moveaxis(modes, 0, 2)), spreads)
    modes = scales[:, None, None] * modes
    calibrated = {
        level: _without_creases(
            _toward_tables(means[level], level, shapes, modes, targets, topology), modes, topology
        )
        for level in levels
    }
    reach = _sound_reach(list(calibrated.values()), modes[:_CHECKED_MODES], topology)
    modes[:_CHECKED_MODES] *= reach[:, None, None]
    return RegionModel(np.mean(list(calibrated.values()), axis=0), calibrated, modes)


def level_means(shapes: Sequence[Shape], topology: Topology) -> dict[str, _Surface]:
    """Symmetric mean of each level, in its vertebra frame: Procrustes without scaling over the
    shapes and their mirror images, each weighing as many people as it stands for."""
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
    """A shape and its mirror image in x = 0, both in correspondence."""
    return vertices, vertices[mirror] * MIRROR


def rigidly_onto(vertices: _Surface, target: _Surface) -> _Surface:
    """The surface moved by the rotation and shift that bring it nearest to another (Kabsch)."""
    center, target_center = vertices.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((target - target_center).T @ (vertices - center))
    u[:, 2] *= np.linalg.det(u @ vt)
    return (vertices - center) @ (u @ vt).T + target_center


def in_vertebra_frame(vertices: _Surface, topology: Topology) -> _Surface:
    """A symmetric surface moved within its mirror plane into its own vertebra frame."""
    pose = vertebra_frame(vertices, topology.faces)
    moved = (vertices - pose[:3, 3]) @ pose[:3, :3]
    return symmetrized(moved, topology.mirror)


def linear_lengths(surface: _Surface, topology: Topology) -> LinearLengths:
    """The lengths `LENGTHS`, as `measure` finds them on this surface, tied to its vertices."""
    calipers = measure(surface, topology.faces)
    ends = np.stack([calipers[name].ends for name in LENGTHS])
    tied = [[attach(surface, topology.faces, end) for end in pair] for pair in ends]
    vertices = np.array([[vertices for vertices, _ in pair] for pair in tied])
    weights = np.array([[weights for _, weights in pair] for pair in tied])
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


def _filled(means: Mapping[str, _Surface], levels: Sequence[str]) -> dict[str, _Surface]:
    """Levels without shapes, from the two nearest with: between them or beyond them."""
    known = list(means)
    filled = {}
    for level in [level for level in levels if level not in means]:
        order = sorted(known, key=lambda other: abs(_number(other) - _number(level)))[:2]
        if len(order) < 2:
            raise ValueError(f"no two levels with shapes to make {level} from")
        near, far = order
        step = (_number(level) - _number(near)) / (_number(near) - _number(far))
        share = step if -1.0 < step < 0.0 else _EXTRAPOLATION * step
        onto = rigidly_onto(means[far], means[near])
        filled[level] = means[near] + share * (means[near] - onto)
    return filled


def _number(level: str) -> int:
    """Position along the spine: T1 is 1, L1 is 13."""
    return int(level[1:]) + (12 if level[0] == "L" else 0)


def _mean_spreads(
    center: _Surface,
    levels: Sequence[str],
    targets: Mapping[str, Mapping[str, Target]],
    topology: Topology,
) -> Float[np.ndarray, " length"]:
    """Standard deviation of each length within a level, averaged over the region, mm."""
    calipers = measure(center, topology.faces)

    def spread(level: str, name: str) -> float:
        target = targets.get(level, {}).get(name, Target(calipers[name].value, None))
        return RELATIVE_SPREAD[name] * target.mean if target.sd is None else target.sd

    return np.array([np.mean([spread(level, name) for level in levels]) for name in LENGTHS])


def _without_creases(
    mean: _Surface, modes: Float[np.ndarray, "mode vertex 3"], topology: Topology
) -> _Surface:
    """Smoothed where the surface turns by over a right angle at an edge, and where several modes
    push one sheet of bone through another: there the mean itself is pinched."""
    mean = unfolded(mean, topology.faces, least_angle_deg=0.0, turn_deg=90.0)
    for _ in range(_SMOOTHING_ROUNDS):
        hits = [hit for mode in modes[:_CHECKED_MODES] if len(hit := _hits(mean, mode, topology))]
        if len(hits) < _SEVERAL:
            break
        mean = smoothed_at(mean, topology.faces, np.unique(np.concatenate(hits)))
    return symmetrized(mean, topology.mirror)


def _hits(
    mean: _Surface, mode: Float[np.ndarray, "vertex 3"], topology: Topology
) -> Int[np.ndarray, " hit"]:
    """Faces of the mean that pass through each other at 3 standard deviations of a mode."""
    return np.concatenate(
        [self_intersections(mean + size * mode, topology.faces) for size in (-3.0, 3.0)]
    )


def _sound_reach(
    means: Sequence[_Surface], modes: Float[np.ndarray, "mode vertex 3"], topology: Topology
) -> Float[np.ndarray, " mode"]:
    """How much of each mode, 1 or less, leaves every mean free of self-intersections at +-3
    standard deviations."""

    def is_sound(mode: Float[np.ndarray, "vertex 3"]) -> bool:
        return not any(len(_hits(mean, mode, topology)) for mean in means)

    return np.array(
        [next((s for s in _REACHES if is_sound(s * mode)), _REACHES[-1]) for mode in modes]
    )


def _closer(
    modes: Float[np.ndarray, "mode vertex 3"],
    lengths: LinearLengths,
    mean: _Surface,
    wanted: Float[np.ndarray, " length"],
    spread: Float[np.ndarray, " length"],
    topology: Topology,
) -> tuple[_Surface, LinearLengths]:
    """One step toward the wanted lengths, halved until the rules find it closer too: where they
    come to measure at another place, the linear step leads astray. Else the mean as it is."""
    whole = symmetrized(shift_toward(modes, lengths, mean, wanted), topology.mirror)
    gap = np.linalg.norm((lengths(mean) - wanted) / spread)
    for part in (1.0, 0.5, 0.25):
        moved = mean + part * (whole - mean)
        found = linear_lengths(moved, topology)
        if np.linalg.norm((found(moved) - wanted) / spread) <= gap:
            return moved, found
    return mean, lengths


def _toward_tables(
    mean: _Surface,
    level: str,
    shapes: Sequence[Shape],
    modes: Float[np.ndarray, "mode vertex 3"],
    targets: Mapping[str, Mapping[str, Target]],
    topology: Topology,
) -> _Surface:
    """The mean of a level drawn toward the published means, the more the fewer people it has.

    Lengths published without a spread, or not at all, are kept. Two steps, since lengths are
    not quite linear.
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
        mean, lengths = _closer(modes, lengths, mean, wanted, spread, topology)
    return in_vertebra_frame(mean, topology)
