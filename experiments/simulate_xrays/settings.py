"""Settings of a data set of simulated radiographs."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of which scans, how many radiographs, and how they are taken."""

    cohort: str | None = setting(None, "Folder or manifest of CTs with vertebra masks.")
    dataset_out: str | None = setting(None, "Folder of the data set; may exist.")
    views: str = setting(
        "random",
        "Random: all round the patient, tilted up to 15 degrees. Orthogonal: AP and left lateral "
        "in turn, each within 5 degrees.",
        choices=("random", "orthogonal"),
    )
    num_views: int = setting(50, "Radiographs per scan.", lower_bound=1)
    shard: str = setting("0/1", "Which part of the scans this run writes: I/N.")
    image_size: int = setting(256, "Pixels a side.", lower_bound=32, upper_bound=2048)
    field: str = setting(
        "carm",
        "Detector: 300 mm of a C-arm, which shows about six vertebrae, or 720 mm.",
        choices=("carm", "torso"),
    )
    kvp: tuple[str, ...] = setting(("70", "110"), "Tube voltage: one, or least and largest.")
    low_dose: float = setting(
        0.2, "Share taken with fluoroscopy's dose.", lower_bound=0.0, upper_bound=1.0
    )
    collimated: float = setting(
        0.2, "Share with a smaller open field.", lower_bound=0.0, upper_bound=1.0
    )
    tools: float = setting(
        0.2, "Share with an instrument at a pedicle.", lower_bound=0.0, upper_bound=1.0
    )
    pair_deg: tuple[str, ...] = setting(
        ("20", "160"), "Least and largest angle between the beams of a pair."
    )
    dense_fit: bool = setting(
        True, "Find landmarks and needle paths; without, only masks and levels."
    )
    ray_workers: int = setting(
        0, "Share the scans out over so many Ray workers; 0 works without Ray.", lower_bound=0
    )
    ray_address: str | None = setting(
        None, "Ray cluster to join, such as auto; by default one on this machine."
    )
