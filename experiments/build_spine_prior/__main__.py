"""Estimate the prior of the whole spine from a table of vertebra centres, and measure its quality.

  python -m experiments.build_spine_prior --table=vid_keypoints.csv.gz --out=OUT
      One row per point: the centres of the body and of both pedicles of the vertebrae of many
      scans. Writes prior.npz and card.json (load them with data.load_spine_prior(path=OUT)),
      tables.md and spines.png.

The tables are of people kept apart: the prior of the tables is estimated without them, the prior
that is written with everybody. Takes about two minutes on 2 cores.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dartjax import data, registration, report, ssm, transforms
from dartjax.cli import launch
from dartjax.ssm import build
from experiments.build_spine_prior import card, figures
from experiments.build_spine_prior.settings import Settings


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Estimate the prior with and without the people kept apart, and write it with its tables."""
    if settings.table is None:
        raise data.DataError("--table is required: give a table of vertebra centres")
    scans = data.load_spine_scans(settings.table)
    if settings.without_verse:
        scans = [scan for scan in scans if not scan.person.startswith(("verse", "gl"))]
    kept_apart = _kept_apart(scans, settings.held_out, ctx.seed)
    with launch.progress("priors", 2) as step:
        trial = _estimated([scan for scan in scans if scan.person not in kept_apart], settings)
        step("without the people kept apart")
        statistics = _estimated(scans, settings)
        step("of everybody")

    tested = [scan for scan in scans if scan.person in kept_apart and scan.position != "prone"]
    models = {level: data.load_shape_model(level) for level in ssm.SPINE_LEVELS}
    earlier = registration.mean_curve_prior(models)
    supine = _supine(trial, _frames(trial, models))
    with launch.progress("quality", 3) as step:
        regions = build.spine_regions(supine, tested)
        step("regions")
        likelihood = {
            "prior": build.spine_likelihood(supine, tested),
            "mean curve": build.spine_likelihood(earlier, tested),
        }
        step("likelihood")
        further = build.spine_extrapolation({"prior": supine, "mean curve": earlier}, tested)
        step("extrapolation")

    summary = card.summary_of(regions, likelihood, further)
    written = card.card_of(settings, scans, summary)
    frames = _frames(statistics, models)
    data.save_spine_prior(ctx.out, {**statistics._asdict(), "T_vertebra_frame": frames}, written)
    figures.draw_spines(ctx.out / "spines.png", _supine(statistics, frames))
    record = ctx.record(
        dataset=f"table of vertebra centres, {written['name']}",
        dataset_kind="real_ct_drr",
        subjects=sorted(kept_apart),
        n_vertebrae=sum(len(scan.levels) for scan in tested),
        ssm_excludes=sorted(kept_apart),
        nsd_tolerance_mm=None,
    )
    tables = {"Regions of 90 %": regions, "Sixth vertebra from five neighbours": further}
    shown = record | {"ssm_excludes": [f"{len(kept_apart)} people kept apart"]}
    text = "\n".join(
        f"## {title}\n\n{report.markdown_table(shown, rows)}" for title, rows in tables.items()
    )
    (ctx.out / "tables.md").write_text(text, encoding="utf-8")
    ctx.save_metrics(record, summary, regions)


def _kept_apart(scans: Sequence[build.SpineScan], share: float, seed: int) -> set[str]:
    people = sorted({scan.person for scan in scans})
    order = np.random.default_rng(seed).permutation(len(people))
    return {people[i] for i in order[: round(share * len(people))]}


def _estimated(scans: Sequence[build.SpineScan], settings: Settings) -> build.SpineStatistics:
    try:
        return build.estimate_spine(scans, settings.num_factors)
    except ValueError as error:
        raise data.DataError(f"{settings.table}: {error}") from error


def _frames(
    statistics: build.SpineStatistics, models: Mapping[str, ssm.ShapeModel]
) -> Float[np.ndarray, "level 4 4"]:
    """Compute the frames of the prior in the vertebra frames of the shape models."""
    own = [np.asarray(ssm.frame_in_vertebra(model).as_matrix()) for model in models.values()]
    return build.frames_in_vertebrae(statistics.mean, np.stack(own))


def _supine(
    statistics: build.SpineStatistics, frames: Float[np.ndarray, "level 4 4"]
) -> ssm.SpinePrior:
    return ssm.SpinePrior(
        mean=jnp.asarray(statistics.mean, jnp.float32),
        loadings=jnp.asarray(statistics.loadings, jnp.float32),
        noise=jnp.asarray(statistics.noise, jnp.float32),
        T_vertebra_frame=jax.vmap(transforms.from_matrix)(jnp.asarray(frames, jnp.float32)),
    )


if __name__ == "__main__":
    launch.run(main, Settings)
