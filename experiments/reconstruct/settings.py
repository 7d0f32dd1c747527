"""What `python -m experiments.reconstruct` can be told."""

import dataclasses

from dartjax.cli import setting


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where the X-rays come from, what is known of them, and which methods answer."""

    demo: bool = setting(False, "Run on the example chest CT (fetched once, cached).")
    cohort: str | None = setting(None, "Folder of CTs with masks in VerSe layout.")
    levels: str | None = setting(None, "Only these levels, such as T5-T8,L1.")
    pairs: int = setting(
        1,
        "Pairs of views per subject, twice that where a spine is longer than an image.",
        lower_bound=1,
    )
    observations: str = setting(
        "disturbed",
        "What is known at the start. disturbed: the truth disturbed by 5 mm per axis and 7 "
        "degrees, ten landmarks with 3 mm noise, masks of Dice 0.90. simulated: what a detector "
        "with misses, gross errors and exchanged sides says (docs/reconstruction.md), and a start "
        "made of it.",
        choices=("disturbed", "simulated"),
    )
    detector: str = setting(
        "standard",
        "Error model behind --observations=simulated: as good as published networks, or far worse.",
        choices=("standard", "stress"),
    )
    views: str = setting(
        "random",
        "Pairs of views 20 to 160 degrees apart, or AP and left lateral, each within 5 degrees.",
        choices=("random", "orthogonal"),
    )
    recipe: str = setting(
        "classical",
        "Which method's answers are graded case by case; the others are baselines.",
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
        False, "X-rays with spectrum, scatter and noise instead of line integrals."
    )
    restarts: int = setting(
        1, "Starts per vertebra that is fitted alone; the best is kept.", lower_bound=1
    )
    baselines: bool = setting(True, "Also run the baselines of the table.")
    ablation: bool = setting(False, "Also run `dartjax` without each of its terms in turn.")
    limits: bool = setting(False, "Also run `dartjax` told one part of the truth at a time.")
    ssm: str | None = setting(None, "Folder of other shape models than the packaged ones.")
    isolation: str | None = setting(
        None,
        "Folder of weights of experiments.train_isolation, or `packaged`: adds the row `isolated`.",
    )
    similarity: str | None = setting(
        None,
        "Folder of weights of experiments.train_similarity, or `packaged`: adds the rows "
        "`faithful` and `ours`.",
    )
    work: str | None = setting(
        None,
        "Folder for finished subjects, kept. Default: <out>.work, removed when the run is done.",
    )
    coordinator: str | None = setting(
        None, "HOST:PORT of process 0, for several processes that share a cohort out."
    )
    num_processes: int = setting(1, "How many processes there are.", lower_bound=1)
    process_id: int = setting(0, "Which of them this is, from 0.", lower_bound=0)
    xrays: tuple[str, ...] = setting((), "Your X-rays: PNG (8 or 16 bit), TIFF or .npy.")
    cameras: str | None = setting(None, "JSON with one camera per X-ray.")
    level: str | None = setting(None, "Level of the vertebra in --xrays, such as L3.")
    init: str | None = setting(None, "JSON with a first guess of where it is.")
    pixels: str = setting(
        "line_integral",
        "What the pixels of --xrays are: line integrals (bone bright) or raw intensity (air "
        "bright).",
        choices=("line_integral", "intensity"),
    )
