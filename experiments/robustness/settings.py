"""Settings of the robustness curves."""

import dataclasses

from dartjax.cli import setting

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
    """On whom the curves are made, and which."""

    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout.")
    curves: tuple[str, ...] = setting(tuple(CURVES), f"Which of {', '.join(CURVES)}.")
    levels: str = setting("T3,T6,T9,T12,L1", "Only these levels, such as T5-T8,L1.")
    repeats: int = setting(1, "Draws of views and errors per subject.", lower_bound=1)
    evidence: float = setting(
        12.6,
        "How strongly landmarks must contradict the cameras for a refinement to move them; 0 moves "
        "them always.",
        lower_bound=0.0,
    )
