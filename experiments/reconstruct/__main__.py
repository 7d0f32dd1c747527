"""Reconstruct vertebrae in 3D from two X-rays, with a needle path through each pedicle.

  python -m experiments.reconstruct --demo
      Simulates two X-rays of a real chest CT, reconstructs all complete vertebrae, and grades
      them against the CT.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=5
      Does the same for every subject of a folder in VerSe layout.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=20 --observations=simulated
      Does not use the ground truth: landmarks and masks are from a detector's error model, and
      the start of every vertebra is computed from them. Abstains from vertebrae with too few
      detections.
  python -m experiments.reconstruct --cohort=FOLDER --out=runs/big
      Continues a run that was killed, if the same command is given again.
  python -m experiments.reconstruct --xrays=a.png,b.png --cameras=cameras.json --level=L3 \\
      --init=init.json
      Reconstructs one vertebra from your own calibrated X-rays (docs/input_formats.md).
"""

import functools
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import cast

import jax

from dartjax import data, pipeline, report, simulation
from dartjax.cli import RunSettings, launch
from dartjax.image import Radiograph
from experiments.reconstruct import units
from experiments.reconstruct.ablation import ABLATION, LIMITS
from experiments.reconstruct.settings import Settings
from experiments.reconstruct.sources import Source, cohort_sources, example_source

_SUBJECTS_SHOWN = 3  # subjects with X-rays and a 3D view in the report
_SUBJECTS_PER_CLEANING = 16
# The other processes wait for process 0. A process that fails waits as long, then ends all of them.
_REPORT_SECONDS = 600


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Reconstruct and grade the vertebrae of CTs, or one vertebra in the user's own X-rays."""
    _check_sources(settings)
    if settings.xrays:
        spine, radiographs = _own_xrays(settings, ctx.seed)
        record = ctx.record(
            dataset="user X-rays",
            dataset_kind="real_xray",
            subjects=["xrays"],
            n_vertebrae=1,
            ssm_excludes=[],
            nsd_tolerance_mm=1.0,
        )
        summary, cases = report.write_spine(ctx.out, record, spine, radiographs)
        ctx.save_metrics(record, summary, cases)
        return

    study = _study(settings, ctx.seed)
    sources = cohort_sources(settings) if settings.cohort else example_source()
    _check_networks(study, [source.subject for source in sources])

    flags = ctx.config["flags"]
    work = _work_folder(settings.work, flags["out"] or ctx.final_out)
    keep = _keeps_units(work, settings, overwrite=flags["overwrite"])
    units.begin(work, sources, study, ctx.config["commit"], keep=keep)
    _make_units(work, sources, study, settings)
    if settings.process_id:
        return

    finished = [units.read(work, source.subject) for source in sources]
    datasets = [source.dataset for source in sources]
    record = ctx.record(**report.provenance(datasets, sources[0].dataset_kind, finished))
    record["surroundings"] = settings.surroundings
    summary, cases = report.write_graded(
        ctx.out, record, finished, study.headline, progress=launch.progress
    )
    ctx.save_metrics(record, summary, cases)
    if settings.work is None:
        ctx.remove_when_done(work)


def join(settings: Settings, common: RunSettings) -> int:
    """Connect to the other processes of this run, if any; return the number of this process."""
    if settings.num_processes == 1:
        return 0
    if not settings.coordinator or settings.process_id >= settings.num_processes:
        raise data.DataError("--num_processes needs --coordinator=HOST:PORT and --process_id")
    if not (settings.cohort and (common.out or settings.work)):
        raise data.DataError("--num_processes needs --cohort, and --out or --work as common folder")
    jax.distributed.initialize(
        settings.coordinator,
        settings.num_processes,
        settings.process_id,
        shutdown_timeout_seconds=_REPORT_SECONDS,
    )
    return settings.process_id


def _check_sources(settings: Settings) -> None:
    if sum([settings.demo, settings.cohort is not None, bool(settings.xrays)]) != 1:
        raise data.DataError("give exactly one of --demo, --cohort=FOLDER and --xrays=A,B")
    if settings.xrays and not (settings.cameras and settings.level and settings.init):
        raise data.DataError("--xrays also needs --cameras, --level and --init")


def _own_xrays(settings: Settings, seed: int) -> tuple[pipeline.Spine, list[Radiograph]]:
    """Reconstruct one vertebra from the user's X-rays; also return the X-rays."""
    assert settings.cameras and settings.level and settings.init
    data.label_of(settings.level)
    views = data.load_cameras(settings.cameras)
    radiographs = data.load_radiographs(settings.xrays, views, cast(data.Kind, settings.pixels))
    spine = pipeline.reconstruct(
        radiographs,
        starts={settings.level: data.load_init(settings.init)},
        options=pipeline.ReconstructOptions(
            recipe="alone", restarts=settings.restarts, shape_models=settings.ssm, seed=seed
        ),
        progress=launch.progress,
    )
    for warning in spine.warnings:
        launch.warn(warning)
    return spine, radiographs


def _study(settings: Settings, seed: int) -> pipeline.Study:
    """Make the study of all subjects. DataError for settings that contradict each other."""
    method = pipeline.RECIPES[settings.recipe]
    if settings.detector != "standard" and settings.observations != "simulated":
        raise data.DataError("--detector is only for --observations=simulated")
    if settings.restarts > 1 and method not in pipeline.FITTED_ALONE:
        raise data.DataError(
            "--restarts works only for separate fits: give --recipe=alone, or omit it"
        )
    return pipeline.Study(
        seed=seed,
        pairs=settings.pairs,
        levels=tuple(data.parse_levels(settings.levels)) if settings.levels else (),
        observations=settings.observations,
        detector=settings.detector,
        detector_weights=settings.detector_weights,
        views=settings.views,
        recipe=settings.recipe,
        baselines=settings.baselines,
        extra=tuple(_extra_methods(settings)),
        restarts=settings.restarts,
        xray_physics=settings.xray_physics,
        surroundings=cast(simulation.Surroundings, settings.surroundings),
        ssm=settings.ssm,
        isolation=settings.isolation,
        similarity=settings.similarity,
    )


def _extra_methods(settings: Settings) -> dict[str, pipeline.Fitter]:
    ablation = ABLATION if settings.ablation else {}
    limits = LIMITS if settings.limits else {}
    return {**ablation, **limits}


def _check_networks(study: pipeline.Study, subjects: Sequence[str]) -> None:
    """Raise DataError if a network cannot be loaded or was trained on a subject."""
    for name, folder in study.weights.items():
        if folder is not None:
            pipeline.load_network(name, folder)
    pipeline.check_networks(study.weights, subjects)


def _work_folder(work: str | None, out: str | pathlib.Path) -> pathlib.Path:
    """Return the folder for finished subjects."""
    if work is not None:
        return pathlib.Path(work)
    out = pathlib.Path(out).absolute()
    return out.with_name(f"{out.name}.work")


def _keeps_units(work: pathlib.Path, settings: Settings, *, overwrite: bool) -> bool:
    """Return whether finished subjects of other settings must be kept."""
    has_units = any(work.glob("scans/*/unit"))
    return settings.work is not None or settings.num_processes > 1 or (has_units and not overwrite)


def _make_units(
    work: pathlib.Path, sources: Sequence[Source], study: pipeline.Study, settings: Settings
) -> None:
    """Reconstruct this process's share of the subjects, and wait for the other processes."""
    share = (settings.process_id, settings.num_processes)
    own = data.shard_of(list(enumerate(sources)), share)
    for done, (index, source) in enumerate(own, 1):
        if len(sources) > 1:
            count = f"subject {index + 1} of {len(sources)}"
            print(f"{count}: {source.subject}", file=sys.stderr, flush=True)
        units.make(
            work,
            source,
            functools.partial(_answers, study, _extra_methods(settings), study.seed_of(index)),
            study,
            shown=index < _SUBJECTS_SHOWN,
            strict=len(sources) == 1,
        )
        if done % _SUBJECTS_PER_CLEANING == 0:
            jax.clear_caches()  # drops programs for CTs of other sizes
    units.wait_for(work, [source.subject for source in sources])


def _answers(
    study: pipeline.Study, others: Mapping[str, pipeline.Fitter], seed: int, case: data.Case
) -> pipeline.Answers:
    return pipeline.reconstruct_subject(
        case, study, seed, _assessor(case, study), others=others, progress=launch.progress
    )


def _assessor(case: data.Case, study: pipeline.Study) -> pipeline.Assessor | None:
    """Return the quality assessor, or None.

    The failure model holds for simulated detections, and for subjects it was not fitted on.
    """
    if study.observations != "simulated":
        return None
    stored = data.load_failure_model()
    is_known = data.includes_subject(stored.card, case.subject)
    return None if is_known else pipeline.quality_assessor(stored)


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    launch.run(main, Settings, join=join)
