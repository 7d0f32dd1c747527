"""Settings of the robustness curves."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting

# What --curves takes, and the curves that each makes.
CURVES = {
    "cameras": ("camera_angle", "camera_shift"),
    "views": ("views",),
    "angles": ("angles",),
    "landmarks": ("landmarks",),
    "masks": ("masks",),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Subjects, levels and curves."""

    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout. Required.")
    labels: str = labels_setting()
    curves: tuple[str, ...] = setting(tuple(CURVES), f"Curves to compute: {', '.join(CURVES)}.")
    levels: str = setting("T3,T6,T9,T12,L1", "Only these levels, such as T5-T8,L1.")
    repeats: int = setting(1, "Random draws of views and errors per subject.", lower_bound=1)
    evidence: float = setting(
        12.6,
        "How strongly landmarks must contradict the cameras before a refinement moves the cameras; "
        "0 always moves them.",
        lower_bound=0.0,
    )
