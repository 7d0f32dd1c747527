"""Settings of the evaluation of trained networks."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """On whom trained networks are evaluated, and which."""

    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout.")
    demo: bool = setting(False, "The example chest CT (fetched once, cached).")
    subjects: tuple[str, ...] = setting((), "Only these of the cohort.")
    crops: str | None = setting(None, "Folder of X-rays made earlier. Default: the cache.")
    vertebrae: int = setting(6, "At most so many of every subject.", lower_bound=1)
    starts_mm: tuple[str, ...] = setting(("0", "3", "6"), "How far off fits begin.")
    similarity: str | None = setting(
        None, "Weights of experiments.train_similarity, or `packaged`."
    )
    isolation: str | None = setting(None, "Weights of experiments.train_isolation, or `packaged`.")
