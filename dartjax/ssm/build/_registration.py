"""Registration of the template to training surfaces, on the host."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from dartjax._progress import Step, no_step
from dartjax.ssm.build._build import Shape, Topology, level_means
from dartjax.ssm.build._correspondence import correspond
from dartjax.ssm.build._regions import LEVELS_OF_REGION, Mapped, Remember
from dartjax.ssm.build._template import Template

NUM_ROUNDS = 2  # start from the template, then from the means of the first round
_VERSION = "1"  # of the cached results


@dataclasses.dataclass(frozen=True)
class TrainingSurface:
    """One closed training surface in its vertebra frame, mm."""

    subject: str
    level: str
    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    people: int = 1  # number of people it is the mean of


@dataclasses.dataclass(frozen=True)
class RegisteredSurface:
    """A training surface and the template registered to it, vertebra frame, mm."""

    surface: TrainingSurface
    vertices: Float[np.ndarray, "vertex 3"]
    residual_mm: float

    @property
    def shape(self) -> Shape:
        """The registered shape as input of `build_region`."""
        surface = self.surface
        return Shape(surface.subject, surface.level, self.vertices, surface.people)


def register_surfaces(
    surfaces: Sequence[TrainingSurface],
    template: Template,
    *,
    remember: Remember | None = None,
    num_rounds: int = NUM_ROUNDS,
    start_subjects: Collection[str] = (),
    mapped: Mapped = map,
    step: Step = no_step,
) -> list[RegisteredSurface]:
    """Register the template to every surface.

    The first round starts from the template, each further round from the level means of the
    previous round: those of `start_subjects`, or of all subjects if none of these is among the
    surfaces. With `remember` each registration is cached, so that an interrupted build resumes;
    with `start_subjects`, builds from different subjects share the cached registrations. `mapped`
    as in `build_regions`. `step` is called after each registration.
    """
    starts = dict(template.level_shapes)
    registered: list[RegisteredSurface] = []
    for number in range(num_rounds):
        registered = []
        begin = [_nearest_start(starts, surface.level) for surface in surfaces]
        register = functools.partial(_register, topology=template.topology, remember=remember)
        for surface, found in zip(surfaces, mapped(register, surfaces, begin), strict=True):
            registered.append(found)
            residual = f"{found.residual_mm:.2f} mm"
            step(f"round {number + 1}: {surface.subject} {surface.level} {residual}")
        chosen = [each for each in registered if each.surface.subject in start_subjects]
        shapes = [each.shape for each in chosen or registered]
        starts |= level_means(shapes, template.topology)
    return registered


def _register(
    surface: TrainingSurface,
    start: Float[np.ndarray, "start 3"],
    topology: Topology,
    remember: Remember | None,
) -> RegisteredSurface:
    def make() -> tuple[np.ndarray, np.ndarray]:
        found = correspond(start, topology.faces, surface.vertices, surface.faces)
        return found.vertices, np.asarray(found.residual)

    if remember is None:
        vertices, residual = make()
    else:
        content = [
            np.round(start, 4),
            np.round(surface.vertices, 4),
            topology.faces.astype(np.int32),
        ]
        like = (np.zeros(0), np.zeros(0))
        vertices, residual = remember("registrations", _VERSION, content, like, make)
    return RegisteredSurface(surface, vertices, float(residual))


def _nearest_start(
    starts: Mapping[str, Float[np.ndarray, "start 3"]], level: str
) -> Float[np.ndarray, "start 3"]:
    order = [name for levels in LEVELS_OF_REGION.values() for name in levels]
    near = min(starts, key=lambda name: abs(order.index(name) - order.index(level)))
    return starts[near]
