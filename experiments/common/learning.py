"""What the training experiments share: the X-rays they ask for, where they begin, the run itself,
and the card of the weights."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from dartjax import data, ssm, training
from dartjax.cli import launch
from dartjax.training import Crops, Trained, Training
from experiments.common.learning_settings import LearningSettings


def fitted_crops(
    settings: LearningSettings, models: ssm.ShapeModel, seed: int
) -> tuple[Crops, Crops]:
    """Load the crops to train on, and those of the subjects left out; made where they are missing,
    and fitted by the models that training uses."""
    if settings.cohort is None or settings.crops is None:
        raise data.DataError("give --cohort=FOLDER of make_synthverse and --crops=FOLDER")
    data.grain()  # what draws the batches is missed before the X-rays are made, not after
    seen, held = training.cohort_crops(
        settings.cohort,
        settings.crops,
        settings.subjects,
        settings.validation,
        seed,
        launch.progress,
    )
    return training.with_best_fits(seen, models), training.with_best_fits(held, models)


def initial_parameters(settings: LearningSettings, random: PyTree) -> PyTree:
    """The parameters before training: random ones, or those of --begin. DataError if those were
    trained on a subject of --validation."""
    if settings.begin is None:
        return random
    if known := sorted(set(_seen_before(settings.begin)) & set(settings.validation)):
        raise data.DataError(f"the weights in {settings.begin} were trained on {', '.join(known)}")
    return jax.tree.map(jax.numpy.asarray, data.load_weights(settings.begin, random)[0])


def train(
    name: str, preset: str, settings: LearningSettings, params: PyTree, plan: Training
) -> Trained:
    """Train with checkpoints from which the same command goes on."""
    work = pathlib.Path(settings.work or f"{settings.crops}/work-{name}-{preset}")
    with launch.progress("training") as step:
        return training.train(params, plan, work, step, minutes=settings.minutes)


def training_numbers(trained: Trained) -> dict[str, Any]:
    """Numbers of a training for its summary, whatever was trained."""
    return {
        "best_step": trained.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
        "steps_per_second": trained.steps_run / max(trained.seconds, 1e-9),
    }


def provenance(held: Crops) -> dict[str, Any]:
    """What the record of a training says of the subjects it was judged on."""
    left_out = subjects_of(held)
    return {
        "dataset": "SynthVerSe",
        "dataset_kind": "synthetic",
        "subjects": left_out,
        "n_vertebrae": len(held.level),
        "ssm_excludes": sorted({*training.NEVER_TRAINED_ON, *left_out}),
        "nsd_tolerance_mm": None,
    }


def weights_card(
    name: str,
    settings: LearningSettings,
    seen: Crops,
    held: Crops,
    summary: Mapping[str, Any],
    *,
    preset: str,
    seed: int,
    commit: str,
) -> dict[str, Any]:
    """The card that is kept beside the weights."""
    return {
        "name": name,
        "preset": preset,
        "subjects_included": sorted({*subjects_of(seen), *_seen_before(settings.begin)}),
        "validated_on": subjects_of(held),
        "never_seen": list(training.NEVER_TRAINED_ON),
        "num_crops": int(np.prod(seen.images.shape[:2])),
        "seed": seed,
        "commit": commit,
        "command": f"python -m experiments.train_{name} {_arguments(settings, preset, seed)}",
        "quality": dict(summary),
    }


def save_weights(
    out: pathlib.Path, asset: str | None, params: PyTree, card: Mapping[str, Any]
) -> None:
    """Write the weights with their card to `out`/model, and to the folder of --asset."""
    for folder in filter(None, (out / "model", asset)):
        data.save_weights(folder, params, card)


def subjects_of(crops: Crops) -> list[str]:
    """Names of the subjects, in order."""
    return sorted(set(map(str, crops.subject)))


def _arguments(settings: LearningSettings, preset: str, seed: int) -> str:
    """The flags that decide what the weights are, without anybody's folders."""
    given = ["--cohort=COHORT", "--crops=CROPS", f"--preset={preset}", f"--seed={seed}"]
    lists = {"subjects": settings.subjects, "validation": settings.validation}
    given += [f"--{name}={','.join(value)}" for name, value in lists.items() if value]
    given += [f"--num_steps={settings.num_steps}"] if settings.num_steps else []
    given += ["--begin=WEIGHTS"] if settings.begin else []
    return " ".join(given)


def _seen_before(begin: str | None) -> list[str]:
    """Subjects behind the weights of --begin."""
    return [] if begin is None else data.read_card(begin)["subjects_included"]
