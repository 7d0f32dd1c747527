"""Vertebrae in 3D from two X-rays, and the needle path through each pedicle.

  python -m experiments.reconstruct --demo
      Two X-rays simulated from a real chest CT, all complete vertebrae, graded against the CT.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=5
      The same for every subject of a folder in VerSe layout.
  python -m experiments.reconstruct --cohort=FOLDER --pairs=20 --observations=simulated
      Nothing of the truth is known: landmarks and masks come from a detector's error model, and
      the start of every vertebra from them. Vertebrae with too little are abstained from.
  python -m experiments.reconstruct --xrays=a.png,b.png --cameras=cameras.json --level=L3 \\
      --init=init.json
      Your own calibrated X-rays of one vertebra (formats: docs/input_formats.md).
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console

from dartjax import data, ssm, transforms
from dartjax.camera import Camera
from dartjax.image import Radiograph
from dartjax.observations import LANDMARK_NAMES
from dartjax.registration import Disturbance, crop_cameras, observe
from dartjax.render import xray_settings
from experiments import detections, launch, methods, reconstruct_report, scene

_DEMO = flags.DEFINE_bool("demo", False, "Run on the example chest CT (fetched once, cached).")
_COHORT = flags.DEFINE_string("cohort", None, "Folder of CTs with masks in VerSe layout.")
_LEVELS = flags.DEFINE_string("levels", None, "Only these levels, such as T5-T8,L1.")
_PAIRS = flags.DEFINE_integer("pairs", 1, "Pairs of views per subject.", lower_bound=1)
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
    list(detections.DETECTORS),
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
    list(methods.RECIPES),
    "Which method's answers are graded case by case; the others are baselines.",
)
_XRAY_PHYSICS = flags.DEFINE_bool(
    "xray_physics", False, "X-rays with spectrum, scatter and noise instead of line integrals."
)
_RESTARTS = flags.DEFINE_integer("restarts", 1, "Starts per vertebra; the best is kept.", 1)
_BASELINES = flags.DEFINE_bool("baselines", True, "Also run the baselines of the table.")
_SSM = flags.DEFINE_string("ssm", None, "Folder of other shape models than the packaged ones.")
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


def main(ctx: launch.RunContext) -> None:
    """Dispatch on where the X-rays come from."""
    sources = [bool(_DEMO.value), _COHORT.value is not None, bool(_XRAYS.value)]
    if sum(sources) != 1:
        raise data.DataError("give exactly one of --demo, --cohort=FOLDER and --xrays=A,B")
    if _XRAYS.value:
        _reconstruct_images(ctx)
    else:
        _reconstruct_cohort(ctx, [_demo_case()] if _DEMO.value else _cohort_cases())


def _demo_case() -> data.Case:
    try:
        with launch.progress("example chest CT") as step:
            case = data.example_case()
            step(f"{case.subject}: {len(case.levels)} complete vertebrae")
        return case
    except data.OfflineError as error:
        Console(stderr=True).print(
            f"[bold yellow]{error}[/]\n[bold]Running on SYNTHETIC anatomy instead.[/]"
        )
        return data.synthetic_case()


def _cohort_cases() -> Sequence[data.Case]:
    return [data.load_case(subject) for subject in data.find_subjects(str(_COHORT.value))]


def _reconstruct_cohort(ctx: launch.RunContext, cases: Sequence[data.Case]) -> None:
    """Simulated X-rays of CTs: every method, graded against the CT's own mask."""
    if len(kinds := {case.dataset_kind for case in cases}) > 1:
        raise data.DataError(f"the cohort mixes {', '.join(sorted(kinds))} data: run them apart")
    if _DETECTOR.value != "standard" and _OBSERVATIONS.value != "simulated":
        raise data.DataError("--detector is only for --observations=simulated")
    tasks: list[methods.Task] = []
    radiographs: dict[tuple[str, int], list[Radiograph]] = {}
    for case in cases:
        truths = _truths(case)
        for pair in range(_PAIRS.value):
            rng = np.random.default_rng([ctx.seed, pair])
            seen = _simulate(ctx, case, truths, rng, pair)
            radiographs[case.subject, pair] = seen
            tasks += _tasks(ctx, case, truths, seen, rng, pair)
    tasks, seconds_to_start = _initialised(tasks)
    headline = methods.RECIPES[_RECIPE.value]
    others = [name for name in methods.RECIPES.values() if name != headline]
    names = [*(others if _BASELINES.value else ()), headline]
    results, seconds = {}, {}
    with launch.progress("reconstruction") as step:
        for name in names:
            results[name], seconds[name] = methods.run_method(
                name, tasks, num_starts=_starts_of(name), seed=ctx.seed, step=step
            )
            seconds[name] += seconds_to_start
    leaks = [case for case in cases if _has_been_seen(case)]
    record = ctx.record(
        dataset=" + ".join(sorted({case.dataset for case in cases})),
        dataset_kind=cases[0].dataset_kind,
        subjects=[case.subject for case in cases],
        n_vertebrae=len({(t.subject, t.level) for t in tasks}),
        ssm_excludes=sorted({p for c in cases if c not in leaks for p in _people_of(c)}),
        nsd_tolerance_mm=1.0,
        ssm_leak=bool(leaks),
    )
    reconstruct_report.write_graded(ctx, record, tasks, results, headline, seconds, radiographs)


def _starts_of(name: str) -> int:
    return 1 if name == "landmarks" else _RESTARTS.value


def _truths(case: data.Case) -> list[scene.TrueVertebra]:
    levels = case.levels
    if _LEVELS.value:
        levels = data.parse_levels(_LEVELS.value)
    known = (*data.shape_model_levels(_SSM.value), *data.SUPERNUMERARY)
    levels = [level for level in levels if level in known]
    if not levels:
        raise data.DataError(
            f"subject {case.subject} has no complete vertebra with a shape model: "
            f"{case.rejected or 'its mask is empty'}"
        )
    truths = []
    with launch.progress(f"true shapes of {case.subject}", len(levels)) as step:
        for level in levels:
            model = data.load_shape_model(level, path=_model_set(case))
            truths.append(scene.true_vertebra(case, level, model))
            step(level)
    return truths


def _simulate(
    ctx: launch.RunContext,
    case: data.Case,
    truths: Sequence[scene.TrueVertebra],
    rng: np.random.Generator,
    pair: int,
) -> list[Radiograph]:
    setup = scene.CarmSetup()
    isocenter = np.mean([np.asarray(t.pose.translation()) for t in truths], axis=0)
    draw = scene.random_views if _VIEWS.value == "random" else scene.ap_and_lateral
    views = draw(rng, isocenter, setup)
    data.check_views(views, case.ct)
    angles = ", ".join(f"{angle:.0f}" for angle in scene.pair_angles_deg(views))
    with launch.progress(f"X-rays of {case.subject}, pair {pair + 1}") as step:
        physics = xray_settings(num_samples=setup.num_samples) if _XRAY_PHYSICS.value else None
        radiographs = scene.simulate(case.ct, views, setup, physics=physics, seed=ctx.seed + pair)
        jax.block_until_ready(radiographs)
        step(f"two views {angles} deg apart")
    return radiographs


def _tasks(
    ctx: launch.RunContext,
    case: data.Case,
    truths: Sequence[scene.TrueVertebra],
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    pair: int,
) -> list[methods.Task]:
    with launch.progress("observations", len(truths)) as step:
        if _OBSERVATIONS.value == "simulated":
            detector = detections.DETECTORS[_DETECTOR.value]
            return detections.detected_tasks(
                case.subject,
                truths,
                radiographs,
                detector=detector,
                seed=ctx.seed,
                pair=pair,
                step=step,
            )
        return _disturbed_tasks(case, truths, radiographs, rng, pair, step)


def _disturbed_tasks(
    case: data.Case,
    truths: Sequence[scene.TrueVertebra],
    radiographs: Sequence[Radiograph],
    rng: np.random.Generator,
    pair: int,
    step: Callable[[str], None],
) -> list[methods.Task]:
    tasks = []
    angle = scene.pair_angles_deg([r.camera for r in radiographs])[0]
    for truth in truths:
        seen, start = scene.disturbed_observations(truth, radiographs, rng, Disturbance())
        tasks.append(
            methods.Task(case.subject, truth.level, pair, truth.model, seen, start, truth, angle)
        )
        step(truth.level)
    return tasks


def _initialised(tasks: list[methods.Task]) -> tuple[list[methods.Task], float]:
    """Starts that are not given, and seconds per vertebra to find them."""
    if _OBSERVATIONS.value != "simulated":
        return tasks, 0.0
    with launch.progress("starts") as step:
        return detections.initialised(tasks, step=step)


def _people_of(case: data.Case) -> tuple[str, ...]:
    """Whom the shape models must not have seen: the subject, and whom a synthetic one is made
    from."""
    return (case.subject, *case.parents)


def _model_set(case: data.Case) -> pathlib.Path:
    """The shape models given by --ssm, else those that have seen none of these people; if every
    set has, those without the subject itself (which then counts as a leak)."""
    if _SSM.value:
        return pathlib.Path(_SSM.value)
    try:
        return data.shape_model_set(_people_of(case))
    except data.DataError:
        return data.shape_model_set([case.subject])


def _has_been_seen(case: data.Case) -> bool:
    card = data.shape_model_card(_model_set(case))
    return data.includes_subject(card, case.subject, case.ct_hash) or any(
        data.includes_subject(card, parent) for parent in case.parents
    )


def _reconstruct_images(ctx: launch.RunContext) -> None:
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
    task = methods.Task(
        subject="xrays",
        level=_LEVEL.value,
        pair=0,
        model=model,
        observations=_observe_images(radiographs, views, center, points),
        start=start,
        truth=None,
        angle_deg=scene.pair_angles_deg(views)[0] if len(views) > 1 else 0.0,
        rung="given",
    )
    with launch.progress("reconstruction") as step:
        estimates, seconds = methods.run_method(
            methods.OURS, [task], num_starts=_RESTARTS.value, seed=ctx.seed, step=step
        )
    record = ctx.record(
        dataset="user X-rays",
        dataset_kind="real_xray",
        subjects=["xrays"],
        n_vertebrae=1,
        ssm_excludes=[],
        nsd_tolerance_mm=1.0,
    )
    reconstruct_report.write_ungraded(
        ctx, record, task, estimates[0], seconds, radiographs, warnings
    )


def _observe_images(
    radiographs: Sequence[Radiograph],
    views: Sequence[Camera],
    center: jax.Array,
    points: np.ndarray,
):
    crops = crop_cameras(views, center, width_mm=scene.CROP_WIDTH_MM, num_pixels=scene.CROP_PIXELS)
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
    launch.run(main)
