"""List the CTs of a run: the example, or the subjects of a cohort."""

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

from dartjax import data, synthverse
from dartjax.cli import launch
from experiments.reconstruct.settings import Settings


@dataclasses.dataclass(frozen=True)
class Source:
    """Scan that is not read yet."""

    subject: str
    dataset: str
    dataset_kind: str
    load: Callable[[], data.Case]
    labels: str = "verse"  # numbering of the mask


def example_source() -> list[Source]:
    """Return the example chest CT, or a synthetic subject if it cannot be fetched."""
    case, why_synthetic = synthverse.demo_case(progress=launch.progress)
    if why_synthetic:
        launch.warn(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")
    return [Source(case.subject, case.dataset, case.dataset_kind, lambda: case)]


def cohort_sources(settings: Settings) -> list[Source]:
    """Return the subjects of a cohort. DataError if real and synthetic data are mixed."""
    subjects = data.find_subjects(
        str(settings.cohort), labels=cast(data.Numbering, settings.labels)
    )
    if len(kinds := {subject.dataset_kind for subject in subjects}) > 1:
        raise data.DataError(
            f"the cohort mixes {', '.join(sorted(kinds))} data: run them separately"
        )
    return [
        Source(s.id, s.dataset, s.dataset_kind, functools.partial(data.load_case, s), s.labels)
        for s in subjects
    ]
