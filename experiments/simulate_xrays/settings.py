"""Settings of a data set of simulated radiographs."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Scans, number of radiographs, and imaging settings."""

    cohort: str | None = setting(None, "Folder or manifest of CTs with vertebra masks. Required.")
    labels: str = labels_setting()
    dataset_out: str | None = setting(None, "Folder of the data set; may exist already. Required.")
    views: str = setting(
        "random",
        "Views. random: from all sides, tilted by up to 15 degrees; orthogonal: AP and left "
        "lateral in turn, each within 5 degrees.",
        choices=("random", "orthogonal"),
    )
    num_views: int = setting(50, "Number of radiographs per scan.", lower_bound=1)
    shard: str = setting("0/1", "Part of the scans that this run writes, I/N with I from 0.")
    image_size: int = setting(256, "Pixels per side.", lower_bound=32, upper_bound=2048)
    field: str = setting(
        "carm",
        "Detector. carm: 300 mm, which shows about six vertebrae; torso: 720 mm; mixed: any size "
        "from 225 to 720 mm, with the isocenter up to 50 mm off.",
        choices=("carm", "torso", "mixed"),
    )
    kvp: tuple[str, ...] = setting(
        ("70", "110"), "Tube voltage, kV: one value, or minimum and maximum."
    )
    low_dose: float = setting(
        0.2, "Share of radiographs with fluoroscopy dose.", lower_bound=0.0, upper_bound=1.0
    )
    collimated: float = setting(
        0.2, "Share of radiographs with a collimated field.", lower_bound=0.0, upper_bound=1.0
    )
    tools: float = setting(
        0.2,
        "Share of radiographs with an instrument at a pedicle.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    pair_deg: tuple[str, ...] = setting(
        ("20", "160"), "Minimum and maximum angle between the beams of a pair, degrees."
    )
    dense_fit: bool = setting(
        True, "Compute landmarks and needle paths, not only masks and levels."
    )
    ray_workers: int = setting(
        0, "Number of Ray workers that share the scans; 0 does not use Ray.", lower_bound=0
    )
    ray_address: str | None = setting(
        None, "Ray cluster to use, such as auto. Default: a cluster on this machine."
    )
