"""Options of the reconstruction of a spine."""

import dataclasses

from dartjax import data
from dartjax.anatomy import unknown_name
from dartjax.pipeline._recipes import FITTED_ALONE, RECIPES


@dataclasses.dataclass(frozen=True)
class ReconstructOptions:
    """Options of the reconstruction of a spine."""

    recipe: str = "classical"  # one of `RECIPES`
    restarts: int = 1  # starts per vertebra, for recipes that fit every vertebra alone
    similarity: str | None = None  # folder of the learned similarity; None: the packaged one
    isolation: str | None = None  # folder of the isolation network; None: the packaged one
    detector: str | None = None  # folder of the detector; None: the packaged one
    landmarks: str | None = None  # folder of the landmark network; None: the packaged one, if any
    shape_models: str | None = None  # folder of a set; None: the packaged ones
    exclude: tuple[str, ...] = ()  # subjects on whom no model in use may have been trained
    recover: bool = True  # fit unreliable vertebrae again, from other starts
    needle_radius_mm: float = data.NEEDLE_RADIUS_MM
    seed: int = 0  # of the disturbed starts


def method_of(options: ReconstructOptions) -> str:
    """Look up the method of a recipe. DataError for an unknown recipe, and for `restarts` of a
    recipe that fits all vertebrae jointly."""
    if options.recipe not in RECIPES:
        raise data.DataError(unknown_name("recipe", options.recipe, list(RECIPES)))
    method = RECIPES[options.recipe]
    if options.restarts > 1 and method not in FITTED_ALONE:
        raise data.DataError(
            f"restarts={options.restarts} needs a recipe that fits every vertebra separately, such "
            f"as 'alone'; {options.recipe!r} fits all vertebrae jointly"
        )
    return method
