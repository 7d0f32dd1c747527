"""Code shared by the training experiments: crops, initial parameters, training run, card."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from dartjax import data, ssm, training
from dartjax.cli import launch
from dartjax.training import Crops, Trained, Training
from experiments.common.learning_settings import LearningSettings, TrainingSettings


class NetworkPreset(NamedTuple):
    """Network, length and batch size of a training."""

    network: str
    num_steps: int
    batch_size: int
    validate_every: int
    learning_rate: float = 2e-3


CROPS_SOURCE = "--cohort=COHORT --crops=CROPS"  # flags of the trainings on crops


def fitted_crops(
    settings: LearningSettings, models: ssm.ShapeModel, seed: int
) -> tuple[Crops, Crops]:
    """Load the crops of training and of held-out subjects (`cohort_crops`), with the best fits of
    the models."""
    seen, held = cohort_crops(settings, seed)
    return training.with_best_fits(seen, models), training.with_best_fits(held, models)


def cohort_crops(settings: LearningSettings, seed: int) -> tuple[Crops, Crops]:
    """Load the crops of training and of held-out subjects.

    Missing crops are made first. DataError if --cohort or --crops is missing.
    """
    if settings.cohort is None or settings.crops is None:
        raise data.DataError("give --cohort=FOLDER (of make_synthverse) and --crops=FOLDER")
    data.grain()  # fails before the X-rays are made if it is not installed
    return training.cohort_crops(
        settings.cohort,
        settings.crops,
        settings.subjects,
        settings.validation,
        seed,
        launch.progress,
    )


def initial_parameters(settings: TrainingSettings, random: PyTree) -> PyTree:
    """Return the parameters before training: random ones, or the weights of --begin.

    DataError if those weights were trained on a subject of --validation.
    """
    if settings.begin is None:
        return random
    if known := sorted(set(_seen_before(settings.begin)) & set(settings.validation)):
        raise data.DataError(f"the weights in {settings.begin} were trained on {', '.join(known)}")
    return jax.tree.map(jax.numpy.asarray, data.load_weights(settings.begin, random)[0])


def train(
    name: str,
    preset: str,
    settings: TrainingSettings,
    subjects: Sequence[str],
    params: PyTree,
    plan: Training,
    home: str | None,
) -> Trained:
    """Train on data of `subjects`, in the folder `home`, with checkpoints, from which the same
    command continues.

    DataError if the checkpoints are of a training with other settings.
    """
    work = pathlib.Path(settings.work or f"{home}/work-{name}-{preset}")
    started_with = {
        "training": name,
        "preset": preset,
        "seed": plan.seed,
        "num_steps": plan.schedule.num_steps,
        "subjects": list(subjects),
        "validation": list(settings.validation),
        "begin": settings.begin,
    }
    try:
        data.start_dataset(work, started_with)
    except data.DataError as error:
        raise data.DataError(f"{error} (--work)") from error
    with launch.progress("training") as step:
        return training.train(
            params,
            plan,
            work,
            step,
            minutes=settings.minutes,
            checkpoint_minutes=settings.checkpoint_minutes,
        )


def training_numbers(trained: Trained) -> dict[str, Any]:
    """Make the part of the summary that is common to all trainings."""
    return {
        "best_step": trained.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
        "steps_per_second": trained.steps_run / max(trained.seconds, 1e-9),
    }


def provenance(held_out: Sequence[str], num_vertebrae: int) -> dict[str, Any]:
    """Make the fields of the record about the held-out subjects."""
    return {
        "dataset": "SynthVerSe",
        "dataset_kind": "synthetic",
        "subjects": list(held_out),
        "n_vertebrae": num_vertebrae,
        "ssm_excludes": sorted({*training.NEVER_TRAINED_ON, *held_out}),
        "nsd_tolerance_mm": None,
    }


def weights_card(
    name: str,
    settings: TrainingSettings,
    seen: Sequence[str],
    held: Sequence[str],
    summary: Mapping[str, Any],
    *,
    num_images: int,
    source: str,
    preset: str,
    seed: int,
    commit: str,
) -> dict[str, Any]:
    """Make the card of the weights: trained on `num_images` of the subjects `seen`, validated on
    `held`; `source` are the flags of the training data."""
    return {
        "name": name,
        "preset": preset,
        "subjects_included": sorted({*seen, *_seen_before(settings.begin)}),
        "validated_on": list(held),
        "never_seen": list(training.NEVER_TRAINED_ON),
        "num_images": num_images,
        "seed": seed,
        "commit": commit,
        "command": f"python -m experiments.train_{name} {source} "
        + _arguments(settings, preset, seed),
        "quality": dict(summary),
    }


def save_weights(
    out: pathlib.Path, asset: str | None, params: PyTree, card: Mapping[str, Any]
) -> None:
    """Write the weights with their card to `out`/model, and to the folder of --asset."""
    for folder in filter(None, (out / "model", asset)):
        data.save_weights(folder, params, card)


def subjects_of(crops: Crops) -> list[str]:
    """Return the sorted names of the subjects."""
    return sorted(set(map(str, crops.subject)))


def network_of_card(
    preset: NetworkPreset, settings: TrainingSettings, trained: Trained
) -> dict[str, Any]:
    """Make the part of a card that names the network, and counts the samples it was trained with,
    those of --begin included."""
    before = {} if settings.begin is None else data.read_card(settings.begin)
    samples = trained.step * preset.batch_size + int(before.get("samples", 0))
    return {"network": preset.network, "samples": samples}


def _arguments(settings: TrainingSettings, preset: str, seed: int) -> str:
    """Return the flags that determine the weights, with placeholders for folders."""
    given = [f"--preset={preset}", f"--seed={seed}"]
    lists = {"subjects": settings.subjects, "validation": settings.validation}
    given += [f"--{name}={','.join(value)}" for name, value in lists.items() if value]
    given += [f"--num_steps={settings.num_steps}"] if settings.num_steps else []
    given += ["--begin=WEIGHTS"] if settings.begin else []
    return " ".join(given)


def _seen_before(begin: str | None) -> list[str]:
    """Return the subjects that the weights of --begin were trained on."""
    return [] if begin is None else data.read_card(begin)["subjects_included"]
