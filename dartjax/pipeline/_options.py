"""How a spine is reconstructed."""

import dataclasses

from dartjax import data
from dartjax.anatomy import unknown_name
from dartjax.pipeline._recipes import FITTED_ALONE, RECIPES


@dataclasses.dataclass(frozen=True)
class ReconstructOptions:
    """How a spine is reconstructed."""

    recipe: str = "classical"  # one of RECIPES; `registration.FIT_OPTIONS` has the reasons
    restarts: int = 1  # starts per vertebra, for recipes that fit every vertebra alone
    similarity: str | None = None  # folder of the learned similarity; None: the packaged one
    isolation: str | None = None  # folder of the isolation network; None: the packaged one
    shape_models: str | None = None  # folder of a set; None: the packaged ones
    exclude: tuple[str, ...] = ()  # people whom no model that is used may have seen
    recover: bool = True  # fit doubtful answers again, from other starts
    needle_radius_mm: float = data.NEEDLE_RADIUS_MM
    seed: int = 0  # of the disturbed starts


def method_of(options: ReconstructOptions) -> str:
    """The method of a recipe."""
    if options.recipe not in RECIPES:
        raise data.DataError(unknown_name("recipe", options.recipe, list(RECIPES)))
    method = RECIPES[options.recipe]
    if options.restarts > 1 and method not in FITTED_ALONE:
        raise data.DataError(
            f"restarts={options.restarts} is for recipes that fit every vertebra by itself, such "
            f"as 'alone'; {options.recipe!r} fits them together"
        )
    return method
