"""Settings of `python -m experiments.reconstruct`."""

import dataclasses

from dartjax.cli import setting
from experiments.common.cohort_settings import labels_setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sources of X-rays, observations, and methods."""

    demo: bool = setting(False, "Run on the example chest CT (fetched once, cached).")
    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout.")
    labels: str = labels_setting()
    levels: str | None = setting(None, "Only these levels, such as T5-T8,L1.")
    pairs: int = setting(
        1,
        "Pairs of views per subject; twice as many if the spine is longer than an image.",
        lower_bound=1,
    )
    observations: str = setting(
        "disturbed",
        "Observations and start. disturbed: start at the true pose, disturbed by 5 mm per axis and "
        "7 degrees, ten landmarks with 3 mm noise, masks of Dice 0.90. simulated: detections with "
        "misses, outliers and left/right swaps (docs/reconstruction.md), and a start computed from "
        "them. detected: found in the X-rays by a network; the "
        "truth is not used.",
        choices=("disturbed", "simulated", "detected"),
    )
    detector: str = setting(
        "standard",
        "Error model of --observations=simulated. standard: as good as published networks; stress: "
        "much worse.",
        choices=("standard", "stress"),
    )
    detector_weights: str | None = setting(
        None,
        "Folder of weights of experiments.train_detector, for --observations=detected. Default: "
        "the packaged ones.",
    )
    views: str = setting(
        "random",
        "Pairs of views. random: 20 to 160 degrees apart; orthogonal: AP and left lateral, each "
        "within 5 degrees.",
        choices=("random", "orthogonal"),
    )
    recipe: str = setting(
        "classical",
        "Method whose answers are the cases of metrics.json; the others are baselines.",
        choices=(
            "landmarks",
            "landmarks+masks",
            "ncc",
            "xvr",
            "alone",
            "classical",
            "isolated",
            "faithful",
            "ours",
        ),
    )
    xray_physics: bool = setting(
        False, "Simulate X-rays with spectrum, scatter and noise instead of line integrals."
    )
    surroundings: str = setting(
        "none",
        "What is around the vertebrae. none: the CT as it is; synthetic: its complete vertebrae in "
        "a synthetic body, for CTs that are cropped to the spine.",
        choices=("none", "synthetic"),
    )
    restarts: int = setting(
        1, "Starts per vertebra that is fitted separately; the best is kept.", lower_bound=1
    )
    baselines: bool = setting(True, "Also run the baselines.")
    ablation: bool = setting(False, "Also run the joint fit without each of its terms (ablation).")
    limits: bool = setting(
        False, "Also run the joint fit with one part of the ground truth (oracle ablation)."
    )
    ssm: str | None = setting(None, "Folder with shape models. Default: the packaged shape models.")
    isolation: str | None = setting(
        None,
        "Folder of weights of experiments.train_isolation, or `packaged`. Adds the row `isolated`.",
    )
    similarity: str | None = setting(
        None,
        "Folder of weights of experiments.train_similarity, or `packaged`. Adds the rows "
        "`faithful` and `ours`.",
    )
    work: str | None = setting(
        None,
        "Folder for finished subjects; it is kept. Default: <out>.work, removed after the run.",
    )
    coordinator: str | None = setting(
        None, "HOST:PORT of process 0, if several processes share a cohort."
    )
    num_processes: int = setting(1, "Number of processes.", lower_bound=1)
    process_id: int = setting(0, "Number of this process, from 0.", lower_bound=0)
    xrays: tuple[str, ...] = setting((), "Your X-rays: PNG (8 or 16 bit), TIFF or .npy.")
    cameras: str | None = setting(None, "JSON file with one camera per X-ray, for --xrays.")
    level: str | None = setting(None, "Level of the vertebra in --xrays, such as L3.")
    init: str | None = setting(
        None, "JSON file with the initial estimate of its position, for --xrays."
    )
    pixels: str = setting(
        "line_integral",
        "Meaning of the pixels of --xrays: line integrals (bone is bright) or raw intensity (air "
        "is bright).",
        choices=("line_integral", "intensity"),
    )
