"""Training surfaces brought into correspondence: the template registered onto each, on the host."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from dartjax._progress import Step, no_step
from dartjax.ssm.build._build import Shape, Topology, level_means
from dartjax.ssm.build._correspondence import correspond
from dartjax.ssm.build._regions import LEVELS_OF_REGION
from dartjax.ssm.build._template import Template

NUM_ROUNDS = 2  # from the template, then from the means of the first round
_VERSION = "1"  # of what is remembered


@dataclasses.dataclass(frozen=True)
class TrainingSurface:
    """One closed surface to learn from, in its own vertebra frame, mm."""

    subject: str
    level: str
    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    people: int = 1  # how many it is the mean of


@dataclasses.dataclass(frozen=True)
class RegisteredSurface:
    """A training surface with the template brought onto it, vertebra frame, mm."""

    surface: TrainingSurface
    vertices: Float[np.ndarray, "vertex 3"]
    residual_mm: float

    @property
    def shape(self) -> Shape:
        """What models are built from."""
        own = self.surface
        return Shape(own.subject, own.level, self.vertices, own.people)


@runtime_checkable
class Remember(Protocol):
    """Keeps results of long computations: `make()`, or what it returned for the same arrays."""

    def __call__(
        self,
        kind: str,
        version: str,
        depends_on: Sequence[np.ndarray],
        like: Any,
        make: Callable[[], Any],
    ) -> Any:
        """See `dartjax.data.remembered`, which is one."""
        ...


def register_surfaces(
    surfaces: Sequence[TrainingSurface],
    template: Template,
    *,
    remember: Remember | None = None,
    num_rounds: int = NUM_ROUNDS,
    step: Step = no_step,
) -> list[RegisteredSurface]:
    """Register the template onto every surface.

    In rounds: the first starts from the template, each next one from the means of the levels that
    the round before gave. With `remember` each registration is kept as it is done, so that a
    build that was stopped goes on where it was. `step` is called after each registration.
    """
    starts = dict(template.level_shapes)
    registered: list[RegisteredSurface] = []
    for number in range(num_rounds):
        registered = []
        for surface in surfaces:
            start = _nearest_start(starts, surface.level)
            found = _register(surface, start, template.topology, remember)
            registered.append(found)
            residual = f"{found.residual_mm:.2f} mm"
            step(f"round {number + 1}: {surface.subject} {surface.level} {residual}")
        starts |= level_means([each.shape for each in registered], template.topology)
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
