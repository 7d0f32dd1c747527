"""Settings of the evaluation of trained networks."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Subjects of the evaluation, and networks to evaluate."""

    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout.")
    labels: str = labels_setting()
    demo: bool = setting(False, "Use the example chest CT (fetched once, cached).")
    subjects: tuple[str, ...] = setting((), "Only these subjects of the cohort.")
    crops: str | None = setting(
        None, "Folder for simulated X-rays, which are kept. Default: the cache."
    )
    vertebrae: int = setting(6, "Largest number of vertebrae per subject.", lower_bound=1)
    starts_mm: tuple[str, ...] = setting(("0", "3", "6"), "Start errors of the fits, mm.")
    similarity: str | None = setting(
        None, "Folder of weights of experiments.train_similarity, or `packaged`."
    )
    isolation: str | None = setting(
        None, "Folder of weights of experiments.train_isolation, or `packaged`."
    )
