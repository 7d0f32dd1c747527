"""What the training commands share: their flags, the X-rays they ask for, the run itself, and what
is left of it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import PyTree

from dartjax import cli, data, ssm
from dartjax.training import (
    NEVER_SEEN,
    Crops,
    Trained,
    Training,
    cohort_crops,
    draw_curves,
    fitted_by,
    run,
)

_COHORT = flags.DEFINE_string("cohort", None, "Folder of SynthVerSe.")
_CROPS = flags.DEFINE_string("crops", None, "Folder for the X-rays that are made of it, kept.")
_VALIDATION = flags.DEFINE_list("validation", [], "Subjects to stop by; not trained on.")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects beside them.")
_BEGIN = flags.DEFINE_string("begin", None, "Folder of weights to begin with, not random ones.")
_WORK = flags.DEFINE_string("work", None, "Folder for checkpoints. Default: in CROPS.")
_ASSET = flags.DEFINE_string("asset", None, "Folder to write the weights to as well.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Instead of the preset's.", lower_bound=1)
_MINUTES = flags.DEFINE_float("minutes", float("inf"), "Stop after these; go on by another call.")


def crops_of(ctx: cli.RunContext, models: ssm.ShapeModel) -> tuple[Crops, Crops]:
    """To train on, and of the subjects left out; made where they are missing, and fitted by the
    models that training uses."""
    if _COHORT.value is None or _CROPS.value is None:
        raise data.DataError("give --cohort=FOLDER of make_synthverse and --crops=FOLDER")
    data.grain()  # what draws the batches is missed before the X-rays are made, not after
    seen, held = cohort_crops(
        _COHORT.value, _CROPS.value, _SUBJECTS.value, _VALIDATION.value, ctx.seed
    )
    return fitted_by(seen, models), fitted_by(held, models)


def num_steps(of_preset: int) -> int:
    """Of the schedule: the flag, or else the preset's."""
    return _NUM_STEPS.value or of_preset


def beginning(random: PyTree) -> PyTree:
    """The parameters before training: random ones, or those of --begin."""
    if _BEGIN.value is None:
        return random
    if known := sorted(set(_seen_before()) & set(_VALIDATION.value)):
        raise data.DataError(f"the weights in {_BEGIN.value} were trained on {', '.join(known)}")
    return jax.tree.map(jax.numpy.asarray, data.load_weights(_BEGIN.value, random)[0])


def train(ctx: cli.RunContext, name: str, params: PyTree, training: Training) -> Trained:
    """With checkpoints from which the same command goes on."""
    work = pathlib.Path(_WORK.value or f"{_CROPS.value}/work-{name}-{ctx.preset}")
    with cli.progress("training") as step:
        return run(params, training, work, step, minutes=_MINUTES.value)


def publish(
    ctx: cli.RunContext,
    name: str,
    trained: Trained,
    seen: Crops,
    held: Crops,
    summary: Mapping[str, Any],
) -> None:
    """The weights with their card, the curves and metrics.json."""
    left_out = sorted(set(map(str, held.subject)))
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=left_out,
        n_vertebrae=len(held.level),
        ssm_excludes=sorted({*NEVER_SEEN, *left_out}),
        nsd_tolerance_mm=None,
    )
    summary = {
        **summary,
        "best_step": trained.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
        "steps_per_second": trained.steps_run / max(trained.seconds, 1e-9),
    }
    card = {
        "name": name,
        "preset": ctx.preset,
        "subjects_included": sorted({*map(str, seen.subject), *_seen_before()}),
        "validated_on": left_out,
        "never_seen": list(NEVER_SEEN),
        "num_crops": int(np.prod(seen.images.shape[:2])),
        "seed": ctx.seed,
        "commit": record["commit"],
        "command": f"python -m experiments.train_{name} {' '.join(_told(ctx))}",
        "quality": summary,
    }
    for folder in filter(None, (ctx.out / "model", _ASSET.value)):
        data.save_weights(folder, trained.params, card)
    draw_curves(ctx.out / "curves.png", trained, f"{name}, {ctx.preset}")
    ctx.save_metrics(record, summary, trained.validations)


def _told(ctx: cli.RunContext) -> list[str]:
    """The flags that decide what the weights are, without anybody's folders."""
    told = ["--cohort=COHORT", "--crops=CROPS", f"--preset={ctx.preset}", f"--seed={ctx.seed}"]
    told += [
        f"--{flag.name}={','.join(flag.value)}" for flag in (_SUBJECTS, _VALIDATION) if flag.value
    ]
    told += [f"--num_steps={_NUM_STEPS.value}"] if _NUM_STEPS.value else []
    return told + (["--begin=WEIGHTS"] if _BEGIN.value else [])


def _seen_before() -> list[str]:
    """Subjects behind the weights of --begin."""
    return [] if _BEGIN.value is None else data.read_card(_BEGIN.value)["subjects_included"]
