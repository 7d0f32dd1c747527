"""Shape models of all regions of the spine from registered shapes, on the host."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from dartjax.anatomy import REGIONS, parse_levels
from dartjax.ssm._model import ShapeModel
from dartjax.ssm.build._atlas import annotated_model
from dartjax.ssm.build._build import Recipe, RegionModel, Shape, Target, Topology, build_region

LEVELS_OF_REGION: dict[str, tuple[str, ...]] = {
    region: tuple(parse_levels(region)) for region in REGIONS
}


def build_regions(
    shapes: Sequence[Shape],
    topology: Topology,
    targets: Mapping[str, Mapping[str, Target]],
    *,
    num_modes: int,
    recipe: Recipe = Recipe(),
    regions: Collection[str] = REGIONS,
) -> dict[str, RegionModel]:
    """Build the models of the regions; see `build_region`.

    `targets` are the published lengths by level and name. Shapes of other regions are used as
    neighbours.
    """
    built = {}
    for region in regions:
        levels = LEVELS_OF_REGION[region]
        built[region] = build_region(
            [shape for shape in shapes if shape.level in levels],
            levels,
            topology,
            targets,
            num_modes=num_modes,
            recipe=recipe,
            neighbours=[shape for shape in shapes if shape.level not in levels],
        )
    return built


def annotated_models(
    regions: Mapping[str, RegionModel],
    topology: Topology,
    *,
    as_stored: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> dict[str, ShapeModel]:
    """Annotate the mean of every level and return the shape models by level.

    `as_stored` rounds a mean to the precision of the file, so that the annotations match the
    model as it is loaded.
    """
    return {
        level: annotated_model(as_stored(mean), region.modes, topology)
        for region in regions.values()
        for level, mean in region.level_shapes.items()
    }
