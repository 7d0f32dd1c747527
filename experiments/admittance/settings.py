"""Settings of `admittance`."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Motions and arms of the simulated operators."""

    tasks_per_kind: int = setting(8, "Number of motions of each kind.", lower_bound=1)
    stiffness: tuple[str, ...] = setting(
        ("50", "100", "200", "400", "700", "1000", "1500"), "Stiffness of the operators' arms, N/m."
    )
