"""From surfaces to shape models: registration with a cache, models of all regions, and models
that leave one subject out."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from dartjax import data, ssm
from dartjax.ssm import ShapeModel, build
from dartjax.ssm.build import Recipe, RegionModel, Shape, Target, Template, Topology

ROUNDS = 2  # of registration: from the template, then from the means of the first round
# How many people a shape is the mean of, where it is not one.
PEOPLE_BEHIND = {"clouthier_mean": 87}
_CACHE_VERSION = "1"

LEVELS: dict[str, tuple[str, ...]] = {
    region: tuple(data.parse_levels(region)) for region in data.REGIONS
}


@dataclasses.dataclass(frozen=True)
class Surface:
    """One training surface in its own vertebra frame, mm."""

    subject: str
    level: str
    vertices: np.ndarray
    faces: np.ndarray


@dataclasses.dataclass(frozen=True)
class Registered:
    """A training surface with the template brought onto it, vertebra frame, mm."""

    surface: Surface
    vertices: np.ndarray
    residual_mm: float

    @property
    def shape(self) -> Shape:
        """What models are built from."""
        subject = self.surface.subject
        people = PEOPLE_BEHIND.get(subject, 1)
        return Shape(subject, self.surface.level, self.vertices, people)


def in_own_frame(shape: data.TrainingShape) -> Surface:
    """A surface moved into its vertebra frame. T13 and L6 count as the level above."""
    vertices, faces = np.asarray(shape.surface.vertices, float), np.asarray(shape.surface.faces)
    pose = ssm.vertebra_frame(vertices, faces)
    local = (vertices - pose[:3, 3]) @ pose[:3, :3]
    level = data.SUPERNUMERARY.get(shape.level, shape.level)
    return Surface(shape.subject, level, local, faces)


def register_all(
    surfaces: Sequence[Surface],
    template: Template,
    step: Callable[[str], None],
) -> list[Registered]:
    """Every surface registered in `ROUNDS` rounds, first from the template, then from the means
    of the levels. Each registration is cached as it is done, so a killed build goes on where it
    stopped."""
    starts = dict(template.level_shapes)
    registered: list[Registered] = []
    for number in range(ROUNDS):
        registered = []
        for surface in surfaces:
            found = _register(surface, _nearest_start(starts, surface.level), template.topology)
            registered.append(found)
            residual = f"{found.residual_mm:.2f} mm"
            step(f"round {number + 1}: {surface.subject} {surface.level} {residual}")
        starts |= build.level_means([r.shape for r in registered], template.topology)
    return registered


def _register(surface: Surface, start: np.ndarray, topology: Topology) -> Registered:
    content = [np.round(start, 4), np.round(surface.vertices, 4), topology.faces.astype(np.int32)]

    def make() -> tuple[np.ndarray, np.ndarray]:
        found = build.correspond(start, topology.faces, surface.vertices, surface.faces)
        return found.vertices, np.asarray(found.residual)

    vertices, residual = data.remembered(
        "registrations", _CACHE_VERSION, content, (np.zeros(0), np.zeros(0)), make
    )
    return Registered(surface, vertices, float(residual))


def _nearest_start(starts: Mapping[str, np.ndarray], level: str) -> np.ndarray:
    order = [name for region in LEVELS.values() for name in region]
    near = min(starts, key=lambda name: abs(order.index(name) - order.index(level)))
    return starts[near]


def build_regions(
    shapes: Sequence[Shape],
    topology: Topology,
    *,
    num_modes: int,
    recipe: Recipe,
    regions: Collection[str] = data.REGIONS,
) -> dict[str, RegionModel]:
    """Models of the regions from registered shapes and the published lengths."""
    targets = published_targets()
    built = {}
    for region in regions:
        levels = LEVELS[region]
        built[region] = build.build_region(
            [shape for shape in shapes if shape.level in levels],
            levels,
            topology,
            targets,
            num_modes=num_modes,
            recipe=recipe,
            neighbours=[shape for shape in shapes if shape.level not in levels],
        )
    return built


def annotated(regions: Mapping[str, RegionModel], topology: Topology) -> dict[str, ShapeModel]:
    """The shape model of every level, annotated on the mean as it will be stored."""
    return {
        level: build.annotated_model(data.as_stored(mean), region.modes, topology)
        for region in regions.values()
        for level, mean in region.level_shapes.items()
    }


def published_targets() -> dict[str, dict[str, Target]]:
    """The published lengths by level."""
    levels = [level for region in LEVELS.values() for level in region]
    return {
        level: {name: Target(p.mean, p.sd) for name, p in data.published(level).items()}
        for level in levels
    }
