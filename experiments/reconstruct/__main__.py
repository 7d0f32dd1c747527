"""Vertebrae in 3D from two X-rays, and the needle path through each pedicle.

  python -m experiments.reconstruct --demo
      Two X-rays simulated from a real chest CT, all complete vertebrae, graded against the CT.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=5
      The same for every subject of a folder in VerSe layout.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=20 --observations=simulated
      Nothing of the truth is known: landmarks and masks come from a detector's error model, and
      the start of every vertebra from them. Vertebrae with too little are abstained from.
  python -m experiments.reconstruct --cohort=FOLDER --out=runs/big
      A run that was killed goes on where it was when the same command is given again.
  python -m experiments.reconstruct --xrays=a.png,b.png --cameras=cameras.json --level=L3 \\
      --init=init.json
      Your own calibrated X-rays of one vertebra (formats: docs/input_formats.md).
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console

from dartjax import (
    cli,
    data,
    pipeline,
    registration,
    report,
    simulation,
    ssm,
    synthverse,
    transforms,
)
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.observations import LANDMARK_NAMES
from dartjax.pipeline import Settings
from dartjax.registration import crop_cameras, observe
from experiments.reconstruct import units as reconstruct_units
from experiments.reconstruct.units import Source

_DEMO = flags.DEFINE_bool("demo", False, "Run on the example chest CT (fetched once, cached).")
_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with masks in VerSe layout.")
_LEVELS = flags.DEFINE_string("levels", None, "Only these levels, such as T5-T8,L1.")
_PAIRS = flags.DEFINE_integer(
    "pairs",
    1,
    "Pairs of views per subject, twice that where a spine is longer than an image.",
    lower_bound=1,
)
_OBSERVATIONS = flags.DEFINE_enum(
    "observations",
    "disturbed",
    ["disturbed", "simulated"],
    "What is known at the start. disturbed: the truth disturbed by 5 mm per axis and 7 degrees, "
    "ten landmarks with 3 mm noise, masks of Dice 0.90. simulated: what a detector with misses, "
    "gross errors and exchanged sides says (docs/reconstruction.md), and a start made of it.",
)
_DETECTOR = flags.DEFINE_enum(
    "detector",
    "standard",
    list(simulation.DETECTORS),
    "Error model behind --observations=simulated: as good as published networks, or far worse.",
)
_VIEWS = flags.DEFINE_enum(
    "views",
    "random",
    ["random", "orthogonal"],
    "Pairs of views 20 to 160 degrees apart, or AP and left lateral, each within 5 degrees.",
)
_RECIPE = flags.DEFINE_enum(
    "recipe",
    "classical",
    list(pipeline.RECIPES),
    "Which method's answers are graded case by case; the others are baselines.",
)
_XRAY_PHYSICS = flags.DEFINE_bool(
    "xray_physics", False, "X-rays with spectrum, scatter and noise instead of line integrals."
)
_RESTARTS = flags.DEFINE_integer(
    "restarts", 1, "Starts per vertebra that is fitted alone; the best is kept.", 1
)
_BASELINES = flags.DEFINE_bool("baselines", True, "Also run the baselines of the table.")
_ABLATION = flags.DEFINE_bool(
    "ablation", False, "Also run `dartjax` without each of its terms in turn."
)
_LIMITS = flags.DEFINE_bool(
    "limits", False, "Also run `dartjax` told one part of the truth at a time."
)
_SSM = flags.DEFINE_string("ssm", None, "Folder of other shape models than the packaged ones.")
_ISOLATION = flags.DEFINE_string(
    "isolation",
    None,
    "Folder of weights of experiments.train_isolation, or `packaged`: adds the row `isolated`.",
)
_SIMILARITY = flags.DEFINE_string(
    "similarity",
    None,
    "Folder of weights of experiments.train_similarity, or `packaged`: adds the rows `faithful` "
    "and `ours`.",
)
_WORK = flags.DEFINE_string(
    "work",
    None,
    "Folder for finished subjects, kept. Default: <out>.work, removed when the run is done.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for several processes that share a cohort out."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "How many processes there are.", 1)
_PROCESS_ID = flags.DEFINE_integer("process_id", 0, "Which of them this is, from 0.", 0)
_XRAYS = flags.DEFINE_list("xrays", [], "Your X-rays: PNG (8 or 16 bit), TIFF or .npy.")
_CAMERAS = flags.DEFINE_string("cameras", None, "JSON with one camera per X-ray.")
_LEVEL = flags.DEFINE_string("level", None, "Level of the vertebra in --xrays, such as L3.")
_INIT = flags.DEFINE_string("init", None, "JSON with a first guess of where it is.")
_PIXELS = flags.DEFINE_enum(
    "pixels",
    "line_integral",
    ["line_integral", "intensity"],
    "What the pixels of --xrays are: line integrals (bone bright) or raw intensity (air bright).",
)

_INIT_LANDMARK_SIGMA_MM = 3.0
_SUBJECTS_SHOWN = 3  # with X-rays and a 3D view in the report
_SUBJECTS_PER_CLEANING = 16
# The other processes wait for that of process 0. One that fails waits as long, then ends them all.
_REPORT_SECONDS = 600


def main(ctx: cli.RunContext) -> None:
    """Dispatch on where the X-rays come from."""
    sources = [bool(_DEMO.value), _COHORT.value is not None, bool(_XRAYS.value)]
    if sum(sources) != 1:
        raise data.DataError("give exactly one of --demo, --cohort=FOLDER and --xrays=A,B")
    if _XRAYS.value:
        _reconstruct_images(ctx)
    else:
        settings = _settings(ctx.seed)
        _reconstruct_cohort(ctx, [_demo_source()] if _DEMO.value else _cohort(), settings)


def join() -> int:
    """Meet the other processes of this run, if there are any; the number of this one."""
    if _NUM_PROCESSES.value == 1:
        return 0
    if not _COORDINATOR.value or _PROCESS_ID.value >= _NUM_PROCESSES.value:
        raise data.DataError("--num_processes needs --coordinator=HOST:PORT and --process_id")
    if not (_COHORT.value and (flags.FLAGS.out or _WORK.value)):
        raise data.DataError("--num_processes needs --cohort, and --out or --work to meet in")
    jax.distributed.initialize(
        _COORDINATOR.value,
        _NUM_PROCESSES.value,
        _PROCESS_ID.value,
        shutdown_timeout_seconds=_REPORT_SECONDS,
    )
    return _PROCESS_ID.value


def _settings(seed: int) -> Settings:
    if _DETECTOR.value != "standard" and _OBSERVATIONS.value != "simulated":
        raise data.DataError("--detector is only for --observations=simulated")
    if _RESTARTS.value > 1 and pipeline.RECIPES[_RECIPE.value] not in pipeline.CASE_BY_CASE:
        raise data.DataError(
            "--restarts is for vertebrae each by itself: give --recipe=alone, or leave it out"
        )
    return Settings(
        seed=seed,
        pairs=_PAIRS.value,
        levels=tuple(data.parse_levels(_LEVELS.value)) if _LEVELS.value else (),
        observations=_OBSERVATIONS.value,
        detector=_DETECTOR.value,
        views=_VIEWS.value,
        recipe=_RECIPE.value,
        baselines=_BASELINES.value,
        ablation=_ABLATION.value,
        limits=_LIMITS.value,
        restarts=_RESTARTS.value,
        xray_physics=_XRAY_PHYSICS.value,
        ssm=_SSM.value,
        isolation=_weights("isolation"),
        similarity=_weights("similarity"),
    )


def _weights(name: str) -> str | None:
    """The folder of a network's weights: what its flag says, or the packaged ones where the recipe
    cannot do without."""
    needed = pipeline.NEEDS.get(pipeline.RECIPES[_RECIPE.value]) == name
    return pipeline.folder_of(name, flags.FLAGS[name].value, needed=needed)


def _demo_source() -> Source:
    case = _demo_case()
    return Source(case.subject, case.dataset, case.dataset_kind, lambda: case)


def _judge_of(case: data.Case, settings: Settings) -> pipeline.Judge | None:
    """Who says how far to trust answers: one that knows the errors of detectors, and was not
    fitted on this subject."""
    if settings.observations != "simulated":
        return None
    stored = data.load_failure_model()
    known = data.includes_subject(stored.card, case.subject)
    return None if known else pipeline.judge_of(stored)


def _demo_case() -> data.Case:
    try:
        with cli.progress("example chest CT") as step:
            case = data.example_case()
            step(f"{case.subject}: {len(case.levels)} complete vertebrae")
        return case
    except data.OfflineError as error:
        Console(stderr=True).print(
            f"[bold yellow]{error}[/]\n[bold]Running on SYNTHETIC anatomy instead.[/]"
        )
        return synthverse.synthetic_case()


def _cohort() -> list[Source]:
    subjects = data.find_subjects(str(_COHORT.value))
    if len(kinds := {subject.dataset_kind for subject in subjects}) > 1:
        raise data.DataError(f"the cohort mixes {', '.join(sorted(kinds))} data: run them apart")
    return [
        Source(s.id, s.dataset, s.dataset_kind, functools.partial(data.load_case, s))
        for s in subjects
    ]


def _reconstruct_cohort(ctx: cli.RunContext, sources: Sequence[Source], settings: Settings) -> None:
    """Simulated X-rays of CTs: every method, graded against the CT's own mask.

    This process makes the units of its share of the subjects; process 0 reports on all.
    """
    for name, folder in settings.weights.items():
        if folder is not None:
            getattr(networks, name)(folder)
            pipeline.check_unseen(folder, [source.subject for source in sources], name)
    work, is_kept = _work_folder(ctx)
    has_units = any(work.glob("scans/*/unit"))
    keep = is_kept or _NUM_PROCESSES.value > 1 or (has_units and not flags.FLAGS.overwrite)
    reconstruct_units.begin(work, sources, settings, ctx.config["commit"], keep=keep)
    share = (_PROCESS_ID.value, _NUM_PROCESSES.value)
    own = data.shard_of(list(enumerate(sources)), share)
    for done, (index, source) in enumerate(own, 1):
        if len(sources) > 1:
            count = f"subject {index + 1} of {len(sources)}"
            print(f"{count}: {source.subject}", file=sys.stderr, flush=True)
        seed = settings.seed_of(index)
        reconstruct_units.make(
            work,
            source,
            lambda case, seed=seed: pipeline.answer(
                case, settings, seed, _judge_of(case, settings)
            ),
            settings,
            shown=index < _SUBJECTS_SHOWN,
            strict=len(sources) == 1,
        )
        if done % _SUBJECTS_PER_CLEANING == 0:
            jax.clear_caches()  # programs for CTs of other sizes; the fits' own are kept
    reconstruct_units.wait_for(work, [source.subject for source in sources])
    if _PROCESS_ID.value == 0:
        _report(ctx, work, sources, settings)
        if not is_kept:
            shutil.rmtree(work)


def _work_folder(ctx: cli.RunContext) -> tuple[pathlib.Path, bool]:
    """Where finished subjects are kept, and whether they stay when the run is done."""
    if _WORK.value:
        return pathlib.Path(_WORK.value), True
    if flags.FLAGS.out:
        out = pathlib.Path(flags.FLAGS.out).absolute()
        return out.with_name(f"{out.name}.work"), False
    return ctx.final_out.with_name(f"{ctx.final_out.name}.work"), False


def _report(
    ctx: cli.RunContext, work: pathlib.Path, sources: Sequence[Source], settings: Settings
) -> None:
    units = [reconstruct_units.read(work, source.subject) for source in sources]
    used = [unit for unit in units if not unit.reason]
    if not used:
        raise data.DataError(f"no subject could be used; {units[0].subject}: {units[0].reason}")
    record = ctx.record(
        dataset=" + ".join(sorted({source.dataset for source in sources})),
        dataset_kind=sources[0].dataset_kind,
        subjects=[unit.subject for unit in used],
        n_vertebrae=len({(c["subject"], c["level"]) for unit in used for c in unit.cases}),
        ssm_excludes=sorted({p for unit in used if not unit.ssm_leak for p in unit.people}),
        nsd_tolerance_mm=1.0,
        ssm_leak=any(unit.ssm_leak for unit in used),
    )
    report.write_graded(ctx, record, units, settings.headline)


def _reconstruct_images(ctx: cli.RunContext) -> None:
    """One vertebra from the user's own X-rays; there is no truth to grade against."""
    if not (_CAMERAS.value and _LEVEL.value and _INIT.value):
        raise data.DataError("--xrays also needs --cameras, --level and --init")
    data.label_of(_LEVEL.value)
    views = data.load_cameras(_CAMERAS.value)
    radiographs = data.load_radiographs(_XRAYS.value, views, cast(data.Kind, _PIXELS.value))
    model = data.load_shape_model(_LEVEL.value, path=_SSM.value)
    guess = data.load_init(_INIT.value)
    start, points = _start_from(guess, model)
    center = start.apply(jnp.mean(model.mean_shape, axis=0))
    warnings = data.check_views(views, np.asarray(center))
    for warning in warnings:
        Console(stderr=True).print(f"[yellow]warning: {warning}[/]")
    task = pipeline.Task(
        subject="xrays",
        level=_LEVEL.value,
        pair=0,
        model=model,
        observations=_observe_images(radiographs, views, center, points),
        start=start,
        truth=None,
        angle_deg=simulation.pair_angles_deg(views)[0] if len(views) > 1 else 0.0,
        rung="given",
    )
    with cli.progress("reconstruction") as step:
        estimates, seconds = pipeline.run_method(
            registration.ALONE, [task], num_starts=_RESTARTS.value, seed=ctx.seed, step=step
        )
    record = ctx.record(
        dataset="user X-rays",
        dataset_kind="real_xray",
        subjects=["xrays"],
        n_vertebrae=1,
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    report.write_ungraded(ctx, record, task, estimates[0], seconds, radiographs, warnings)


def _observe_images(
    radiographs: Sequence[Radiograph],
    views: Sequence[Camera],
    center: jax.Array,
    points: np.ndarray,
):
    crops = crop_cameras(
        views, center, width_mm=registration.CROP_WIDTH_MM, num_pixels=registration.CROP_PIXELS
    )
    known = np.isfinite(points).all(1)
    seen = observe(
        radiographs,
        crops,
        landmarks_world=jnp.asarray(np.nan_to_num(points), jnp.float32),
        landmark_sigma_mm=_INIT_LANDMARK_SIGMA_MM,
    )
    sigma = jnp.where(jnp.asarray(known)[None], seen.landmark_sigma, jnp.inf)
    return dataclasses.replace(seen, landmark_sigma=sigma)


def _start_from(
    guess: data.InitialGuess, model: ssm.ShapeModel
) -> tuple[transforms.SE3, np.ndarray]:
    """Start pose, and the given landmarks (10, 3) with NaN for those not given."""
    points = np.full((len(LANDMARK_NAMES), 3), np.nan)
    for name, point in guess.landmarks_world.items():
        points[LANDMARK_NAMES.index(name)] = point
    known = np.isfinite(points).all(1)
    if known.sum() >= 3:
        mean = ssm.landmarks(model, model.mean_shape)
        weights = jnp.asarray(known, jnp.float32)
        target = jnp.asarray(np.nan_to_num(points), jnp.float32)
        return transforms.align_points(mean, target, weights), points
    assert guess.center_world is not None
    rotation = transforms.SO3.from_matrix(jnp.asarray(guess.axes_world, jnp.float32))
    center = jnp.asarray(guess.center_world, jnp.float32)
    return transforms.SE3.from_rotation_and_translation(rotation, center), points


if __name__ == "__main__":
    # One XLA device per core, so that a batch of vertebrae uses all of them.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    cli.run(main, join=join)
