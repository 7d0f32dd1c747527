"""Train the network that isolates one vertebra in a radiograph.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=COHORT
  python -m experiments.train_isolation --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/isolation

X-rays of every vertebra are simulated first, once (kept in --crops). The network sees a crop,
a mask with errors and a rendering of a first guess with errors, and learns what the vertebra alone
would look like. A run that was killed goes on from its checkpoint (--work) when the same command
is given again. Leaves weights.npz and card.json, curves.png and examples.png.
"""

import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import PyTree

from dartjax import data, ssm, transforms
from dartjax.camera import Camera
from dartjax.models import ISOLATION_PRESETS, IsolationNet, no_hint
from dartjax.render import splat
from dartjax.training import (
    ISOLATION_SPLATS,
    RANDOMISATIONS,
    GuessErrors,
    Loss,
    Schedule,
    guessed_surface,
    hint_of,
    isolation_errors,
    isolation_loss,
    randomise,
)
from experiments import isolation_report, launch, learning_data, training_run
from experiments.learning_data import Crops, Sampler

_COHORT = flags.DEFINE_string("cohort", None, "Folder of SynthVerSe.")
_CROPS = flags.DEFINE_string("crops", None, "Folder for the X-rays that are made of it, kept.")
_VALIDATION = flags.DEFINE_list("validation", [], "Subjects to stop by; not trained on.")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects beside them.")
_WORK = flags.DEFINE_string("work", None, "Folder for checkpoints. Default: CROPS/work-PRESET.")
_ASSET = flags.DEFINE_string("asset", None, "Folder to write the weights to as well.")
_MINUTES = flags.DEFINE_float("minutes", float("inf"), "Stop after these; go on by another call.")


_NUM_STEPS = flags.DEFINE_integer("num_steps", None, "Instead of the preset's.", lower_bound=1)


class Preset(NamedTuple):
    """How long a preset trains."""

    num_steps: int
    batch_size: int
    validate_every: int
    learning_rate: float = 2e-3


PRESETS = {
    "smoke": Preset(20, 4, 10),
    "cpu60": Preset(4000, 16, 200),
    "h200_30": Preset(30000, 64, 1000, 1e-3),
    "paper": Preset(100000, 128, 2000, 5e-4),
}


class Batch(eqx.Module):
    """One view each of a few vertebrae."""

    image: jax.Array
    mask: jax.Array
    camera: Camera
    vertices: jax.Array
    pose: transforms.SE3
    coefficients: jax.Array
    level: jax.Array


def batch_of(crops: Crops, chosen: np.ndarray, views: np.ndarray) -> Batch:
    """The chosen vertebrae, one view each."""
    return Batch(
        image=jnp.asarray(crops.images[chosen, views], jnp.float32),
        mask=jnp.asarray(crops.masks[chosen, views], jnp.float32),
        camera=learning_data.camera_of(crops, chosen, views),
        vertices=jnp.asarray(crops.vertices[chosen]),
        pose=transforms.SE3(jnp.asarray(crops.pose[chosen])),
        coefficients=jnp.asarray(crops.coefficients[chosen]),
        level=jnp.asarray(crops.level[chosen]),
    )


def main(ctx: launch.RunContext) -> None:
    """Make the crops, train, and write what was found."""
    preset = PRESETS[ctx.preset]
    preset = preset._replace(num_steps=_NUM_STEPS.value or preset.num_steps)
    if _COHORT.value is None or _CROPS.value is None:
        raise data.DataError("give --cohort=FOLDER of make_synthverse and --crops=FOLDER")
    train, held = learning_data.cohort_crops(
        _COHORT.value, _CROPS.value, _SUBJECTS.value, _VALIDATION.value, ctx.seed
    )
    models = learning_data.stacked_models(learning_data.NEVER_SEEN)
    net = IsolationNet(ISOLATION_PRESETS[ctx.preset])
    nothing = jnp.zeros(train.images.shape[-2:])
    params = jax.jit(net.init)(jax.random.key(ctx.seed), nothing, no_hint(nothing))["params"]
    training = training_run.Training(
        loss=_loss(net, models),
        batch_of=_batches(train, preset, ctx.seed),
        validate=_validation(net, models, held),
        schedule=Schedule(preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    work = pathlib.Path(_WORK.value or f"{_CROPS.value}/work-isolation-{ctx.preset}")
    with launch.progress("training") as step:
        trained = training_run.run(params, training, work, step, minutes=_MINUTES.value)
    _write(ctx, net, models, train, held, trained, preset)


def _batches(crops: Crops, preset: Preset, seed: int):
    sampler = Sampler(len(crops.level), 1, preset.batch_size, seed)

    def of_step(step: int) -> Batch:
        chosen, views = sampler(step)
        return batch_of(crops, chosen, views[:, 0])

    return of_step


def _shown(models: ssm.ShapeModel, own: Batch, key: jax.Array, tone: str):
    """Of one view of one vertebra: the image and the hint the network gets, and the truth."""
    model = jax.tree.map(lambda leaf: leaf[own.level], models)
    keys = jax.random.split(key, 3)
    guess = guessed_surface(model, own.pose, own.coefficients, GuessErrors(), key=keys[0])
    hint = hint_of(own.mask, guess, model.faces, own.camera, key=keys[1])
    truth = splat(own.vertices, model.faces, own.camera, ISOLATION_SPLATS)
    return randomise(own.image, RANDOMISATIONS[tone], key=keys[2]), hint, truth


def _loss(net: IsolationNet, models: ssm.ShapeModel) -> Loss:
    def of_batch(params: PyTree, batch: Batch, key: jax.Array):
        keys = jax.random.split(key, len(batch.level))
        shown = jax.lax.map(lambda each: _shown(models, each[0], each[1], "mild"), (batch, keys))

        def one(image, hint, truth):
            found = net.apply({"params": params}, image, hint)
            cost = isolation_loss(found, truth.thickness, truth.shell, truth.silhouette)  # pyright: ignore
            error, nothing, dice = isolation_errors(found, truth.thickness, truth.silhouette)  # pyright: ignore
            return cost, {"error_mm": error, "nothing_mm": nothing, "mask_dice": dice}

        costs, numbers = jax.vmap(one)(*shown)
        return jnp.mean(costs), jax.tree.map(jnp.mean, numbers)

    return of_batch


def _validation(net: IsolationNet, models: ssm.ShapeModel, held: Crops):
    """Errors on every vertebra left out, two views each, always with the same guesses."""
    loss = jax.jit(_loss(net, models))
    place = np.arange(len(held.level))
    batches = [batch_of(held, place, np.full_like(place, view)) for view in (0, 1)]

    def of(params: PyTree) -> dict[str, float]:
        rows = [loss(params, batch, jax.random.key(7 + i)) for i, batch in enumerate(batches)]
        numbers = {k: float(np.mean([row[1][k] for row in rows])) for k in rows[0][1]}
        share = numbers["error_mm"] / numbers.pop("nothing_mm")
        return {"score": float(np.mean([row[0] for row in rows])) + 10.0, **numbers, "share": share}

    return of


def _write(
    ctx: launch.RunContext,
    net: IsolationNet,
    models: ssm.ShapeModel,
    train: Crops,
    held: Crops,
    trained: training_run.Trained,
    preset: Preset,
) -> None:
    scores = next(row for row in trained.validations if row["step"] == trained.step)
    subjects = sorted(set(map(str, train.subject)))
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=sorted(set(map(str, held.subject))),
        n_vertebrae=len(held.level),
        ssm_excludes=sorted({*learning_data.NEVER_SEEN, *map(str, held.subject)}),
        nsd_tolerance_mm=None,
    )
    summary: dict[str, Any] = {
        "thickness_error_mm": scores["error_mm"],
        "thickness_error_share": scores["share"],
        "mask_dice": scores["mask_dice"],
        "best_step": trained.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
        "images_per_second": trained.steps_run * preset.batch_size / trained.seconds,
    }
    card = {
        "name": "isolation",
        "preset": ctx.preset,
        "subjects_included": subjects,
        "validated_on": sorted(set(map(str, held.subject))),
        "never_seen": list(learning_data.NEVER_SEEN),
        "num_crops": int(train.images.shape[0] * train.images.shape[1]),
        "seed": ctx.seed,
        "commit": record["commit"],
        "command": ctx.config.get("command", ""),
        "quality": summary,
    }
    for folder in filter(None, (ctx.out / "model", _ASSET.value)):
        data.save_weights(folder, trained.params, card)
    training_run.draw_curves(ctx.out / "curves.png", trained, f"isolation, {ctx.preset}")
    isolation_report.draw(ctx.out / "examples.png", _examples(net, models, held, trained.params))
    ctx.save_metrics(record, summary, trained.validations)


def _examples(
    net: IsolationNet, models: ssm.ShapeModel, held: Crops, params: PyTree
) -> list[isolation_report.Example]:
    """The best, the median and the worst of the vertebrae left out, by the error inside them."""
    place = np.arange(len(held.level))
    batch = batch_of(held, place, np.zeros_like(place))
    keys = jax.random.split(jax.random.key(7), len(place))

    def one(each):
        image, hint, truth = _shown(models, each[0], each[1], "none")
        found = net.apply({"params": params}, image, hint)
        error, _, _ = isolation_errors(found, truth.thickness, truth.silhouette)  # pyright: ignore
        return error, image, hint, found, truth

    errors, *rest = jax.device_get(jax.jit(lambda *each: jax.lax.map(one, each))(batch, keys))
    order = np.argsort(errors)
    chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return [
        isolation_report.Example(
            f"{name}: {held.subject[i]} {learning_data.LEVELS[held.level[i]]}, {errors[i]:.1f} mm",
            *(jax.tree.map(lambda leaf, i=i: leaf[i], each) for each in rest),
        )
        for name, i in chosen.items()
    ]


if __name__ == "__main__":
    launch.run(main, presets=list(PRESETS))
