"""Case of the demonstration: a real chest CT, or a synthetic torso if it is not available."""

from dartjax import data
from dartjax._progress import Progress, no_progress
from dartjax.synthverse._torso import synthetic_case


def demo_case(*, offline: bool = False, progress: Progress = no_progress) -> tuple[data.Case, str]:
    """Load the example chest CT (downloaded once, then cached) or else a synthetic torso.

    Also returns the reason for the synthetic torso, "" for the real CT. `offline`: use the real CT
    only if it is cached."""
    if offline and not data.example_is_cached():
        return synthetic_case(), "the example chest CT is not on this machine"
    try:
        with progress("example chest CT") as step:
            case = data.example_case()
            step(f"{case.subject}: {len(case.levels)} complete vertebrae")
        return case, ""
    except data.OfflineError as error:
        return synthetic_case(), str(error)
