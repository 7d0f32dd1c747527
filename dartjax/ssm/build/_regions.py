"""Shape models of all regions of the spine from registered shapes, on the host."""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dartjax.anatomy import REGIONS, parse_levels
from dartjax.ssm._model import ShapeModel
from dartjax.ssm.build._atlas import annotated_model
from dartjax.ssm.build._build import Recipe, RegionModel, Shape, Target, Topology, build_region

LEVELS_OF_REGION: dict[str, tuple[str, ...]] = {
    region: tuple(parse_levels(region)) for region in REGIONS
}
Mapped = Callable[..., Iterable[Any]]  # `map`, or that of a `concurrent.futures.Executor`
_VERSION = "1"  # of the cached models


@runtime_checkable
class Remember(Protocol):
    """Cache of long computations: returns `make()`, or its cached result for the same arrays."""

    def __call__(
        self,
        kind: str,
        version: str,
        depends_on: Sequence[np.ndarray],
        like: Any,
        make: Callable[[], Any],
    ) -> Any:
        """Return the result; `dartjax.data.remembered` is an implementation."""
        ...


def build_regions(
    shapes: Sequence[Shape],
    topology: Topology,
    targets: Mapping[str, Mapping[str, Target]],
    *,
    num_modes: int,
    recipe: Recipe = Recipe(),
    regions: Collection[str] = REGIONS,
    remember: Remember | None = None,
    mapped: Mapped = map,
) -> dict[str, RegionModel]:
    """Build the models of the regions; see `build_region`.

    `targets` are the published lengths by level and name. Shapes of other regions are used as
    neighbours of a region without shapes of all levels. With `remember` each model is cached, so
    that an interrupted build resumes and sets with the same shapes of a region share its model.
    `mapped` is a function like `map`, such as that of a pool of processes.
    """
    models = mapped(
        functools.partial(
            _region,
            shapes=shapes,
            topology=topology,
            targets=targets,
            num_modes=num_modes,
            recipe=recipe,
            remember=remember,
        ),
        regions,
    )
    return dict(zip(regions, models, strict=True))


def _region(
    region: str,
    shapes: Sequence[Shape],
    topology: Topology,
    targets: Mapping[str, Mapping[str, Target]],
    num_modes: int,
    recipe: Recipe,
    remember: Remember | None,
) -> RegionModel:
    """Build the model of one region, or read it from the cache."""
    levels = LEVELS_OF_REGION[region]
    own = [shape for shape in shapes if shape.level in levels]
    is_complete = {shape.level for shape in own} == set(levels)
    neighbours = [] if is_complete else [s for s in shapes if s.level not in levels]
    make = functools.partial(
        build_region,
        own,
        levels,
        topology,
        targets,
        num_modes=num_modes,
        recipe=recipe,
        neighbours=neighbours,
    )
    if remember is None:
        return make()
    used = [*own, *neighbours]
    names = [(shape.level, shape.people) for shape in used]
    version = f"{_VERSION} {region} {num_modes} {recipe} {names} {sorted(targets.items())}"
    content = [*topology, *(np.round(shape.vertices, 4) for shape in used)]
    like = RegionModel(np.zeros(0), dict.fromkeys(levels, np.zeros(0)), np.zeros(0))
    found = remember("region_models", version, content, like, make)
    in_order = {level: found.level_shapes[level] for level in levels}  # a pytree sorts the names
    return found._replace(level_shapes=in_order)


def annotated_models(
    regions: Mapping[str, RegionModel],
    topology: Topology,
    *,
    as_stored: Callable[[np.ndarray], np.ndarray] = np.asarray,
    mapped: Mapped = map,
) -> dict[str, ShapeModel]:
    """Annotate the mean of every level and return the shape models by level.

    `as_stored` rounds a mean to the precision of the file, so that the annotations match the
    model as it is loaded. `mapped` as in `build_regions`.
    """
    means = {
        level: (as_stored(mean), region.modes)
        for region in regions.values()
        for level, mean in region.level_shapes.items()
    }
    annotate = functools.partial(annotated_model, topology=topology)
    models = mapped(annotate, *zip(*means.values(), strict=True))
    return dict(zip(means, models, strict=True))
