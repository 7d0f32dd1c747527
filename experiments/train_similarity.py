"""Train the multi-view similarity: how far a fit is from the vertebra in the X-rays.

  python -m experiments.train_similarity --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/similarity

The X-rays are those of `experiments.train_isolation` (kept in --crops). Every step sees two wrong
fits of each of a few vertebrae in one to four views, and learns their mean surface distance, which
of the two is worse, that the gradient points away from the truth, and the way back. A run that was
killed goes on from its checkpoint. Leaves weights.npz and card.json, curves.png, predictions.png.
"""

import pathlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import PyTree
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from dartjax import data, ssm, transforms
from dartjax.camera import Camera
from dartjax.models import SIMILARITY_PRESETS, MultiViewSimilarity, ViewPair
from dartjax.ssm import posed
from dartjax.training import (
    Fit,
    FitErrors,
    Loss,
    Schedule,
    direction_loss,
    disturbed,
    moved,
    prediction_loss,
    ranking_loss,
    surface_error,
    view_pairs,
    way_to,
)
from experiments import launch, learning_data, training_run
from experiments.learning_data import Crops, Sampler

_COHORT = flags.DEFINE_string("cohort", None, "Folder of SynthVerSe.")
_CROPS = flags.DEFINE_string("crops", None, "Folder for the X-rays that are made of it, kept.")
_VALIDATION = flags.DEFINE_list("validation", [], "Subjects to stop by; not trained on.")
_SUBJECTS = flags.DEFINE_list("subjects", [], "Only these subjects beside them.")
_WORK = flags.DEFINE_string("work", None, "Folder for checkpoints. Default: in CROPS.")
_ASSET = flags.DEFINE_string("asset", None, "Folder to write the weights to as well.")
_MINUTES = flags.DEFINE_float("minutes", float("inf"), "Stop after these; go on by another call.")
MOST_VIEWS = 4


class Preset(NamedTuple):
    """How long a preset trains, and on how much of a batch the direction is trained: it needs
    second derivatives, which cost three times as much."""

    num_steps: int
    batch_size: int
    num_directions: int
    validate_every: int
    learning_rate: float = 1e-3


PRESETS = {
    "smoke": Preset(10, 4, 1, 5),
    "cpu60": Preset(5000, 8, 2, 250),
    "h200_30": Preset(30000, 64, 8, 1000, 5e-4),
    "paper": Preset(100000, 128, 16, 2000, 3e-4),
}


class Batch(eqx.Module):
    """A few vertebrae, each in MOST_VIEWS views; how many of them count is drawn."""

    images: jax.Array
    masks: jax.Array
    cameras: Camera
    vertices: jax.Array
    true: Fit
    level: jax.Array


def batch_of(crops: Crops, chosen: np.ndarray, views: np.ndarray) -> Batch:
    """The chosen vertebrae in the chosen views."""
    rows = chosen[:, None]
    return Batch(
        images=jnp.asarray(crops.images[rows, views], jnp.float32),
        masks=jnp.asarray(crops.masks[rows, views], jnp.float32),
        cameras=learning_data.camera_of(crops, rows, views),
        vertices=jnp.asarray(crops.vertices[chosen]),
        true=Fit(
            transforms.SE3(jnp.asarray(crops.pose[chosen])),
            jnp.asarray(crops.coefficients[chosen]),
        ),
        level=jnp.asarray(crops.level[chosen]),
    )


def main(ctx: launch.RunContext) -> None:
    """Make the crops, train, and write what was found."""
    preset = PRESETS[ctx.preset]
    if _COHORT.value is None or _CROPS.value is None:
        raise data.DataError("give --cohort=FOLDER of make_synthverse and --crops=FOLDER")
    train, held = learning_data.cohort_crops(
        _COHORT.value, _CROPS.value, _SUBJECTS.value, _VALIDATION.value, ctx.seed
    )
    task = Task(ctx.preset, learning_data.stacked_models(learning_data.NEVER_SEEN))
    training = training_run.Training(
        loss=task.loss(preset.num_directions),
        batch_of=_batches(train, preset, ctx.seed),
        validate=_validation(task, held),
        schedule=Schedule(preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    work = pathlib.Path(_WORK.value or f"{_CROPS.value}/work-similarity-{ctx.preset}")
    with launch.progress("training") as step:
        start = task.initial(jax.random.key(ctx.seed))
        trained = training_run.run(start, training, work, step, minutes=_MINUTES.value)
    _write(ctx, task, train, held, trained, preset)


class Task:
    """The network with the shape models its fits are made of."""

    def __init__(self, preset: str, models: ssm.ShapeModel):
        self.net = MultiViewSimilarity(SIMILARITY_PRESETS[preset])
        self.models = models

    @property
    def size(self) -> int:
        """Pixels of a crop."""
        return self.net.config.size

    def initial(self, key: jax.Array) -> PyTree:
        """Parameters before training."""
        image = jnp.zeros((1, self.size, self.size))
        views = ViewPair(image, image, image, image, jnp.zeros((1, 7)))
        return jax.jit(self.net.init)(key, views, jnp.ones(1, bool))["params"]

    def loss(self, num_directions: int) -> Loss:
        """Over two wrong fits of every vertebra of a batch."""

        def of_batch(params: PyTree, batch: Batch, key: jax.Array):
            keys = jax.random.split(key, len(batch.level))
            costs, numbers = jax.vmap(lambda own, k: self._one(params, own, k))(batch, keys)
            some = jax.tree.map(lambda leaf: leaf[:num_directions], (batch, keys))
            lost, cosine = jax.vmap(lambda own, k: self._direction(params, own, k))(*some)
            numbers = jax.tree.map(jnp.mean, numbers) | {"cosine": jnp.mean(cosine)}
            return jnp.mean(costs) + jnp.mean(lost), numbers

        return of_batch

    def predict(self, params: PyTree, own: Batch, fit: Fit, valid: jax.Array):
        """What the network says of a fit of one vertebra."""
        model = self._model(own)
        seen = view_pairs(model, fit, own.cameras, own.images, own.masks, self.size)
        return self.net.apply({"params": params}, seen, valid)

    def error(self, own: Batch, fit: Fit) -> jax.Array:
        """How wrong it is, mm."""
        model = self._model(own)
        return surface_error(posed(model, fit.pose, fit.coefficients), own.vertices, model.faces)

    def _model(self, own: Batch) -> ssm.ShapeModel:
        return jax.tree.map(lambda leaf: leaf[own.level], self.models)

    def _one(self, params: PyTree, own: Batch, key: jax.Array):
        first, second, views = jax.random.split(key, 3)
        valid = jnp.arange(MOST_VIEWS) < jax.random.randint(views, (), 1, MOST_VIEWS + 1)
        fits = [disturbed(own.true, FitErrors(), key=k) for k in (first, second)]
        found = [self.predict(params, own, fit, valid) for fit in fits]
        errors = [self.error(own, fit) for fit in fits]
        parts = [
            prediction_loss(f, e, fit, own.true)  # pyright: ignore[reportArgumentType]
            for f, e, fit in zip(found, errors, fits, strict=True)
        ]
        ranked = ranking_loss((found[0], found[1]), (errors[0], errors[1]))  # pyright: ignore
        cost = 0.5 * (parts[0][0] + parts[1][0]) + ranked
        return cost, jax.tree.map(lambda a, b: 0.5 * (a + b), parts[0][1], parts[1][1])

    def _direction(self, params: PyTree, own: Batch, key: jax.Array):
        fit, valid = disturbed(own.true, FitErrors(), key=key), jnp.arange(MOST_VIEWS) < 2

        def predicted(x: jax.Array) -> jax.Array:
            return self.predict(params, own, moved(fit, x), valid).log_masd  # pyright: ignore

        return direction_loss(jax.grad(predicted)(jnp.zeros(21)), way_to(own.true, fit))


def _batches(crops: Crops, preset: Preset, seed: int):
    sampler = Sampler(len(crops.level), MOST_VIEWS, preset.batch_size, seed)

    def of_step(step: int) -> Batch:
        return batch_of(crops, *sampler(step))

    return of_step


def _validation(task: Task, held: Crops):
    """Two views of every vertebra left out, always with the same wrong fits."""
    predict = _predictions(task)

    def of(params: PyTree) -> dict[str, float]:
        predicted, true = predict(params, held)
        off = np.log1p(predicted) - np.log1p(true)
        return {
            "score": float(np.sqrt(np.mean(off**2))),
            "masd_error_mm": float(np.mean(np.abs(predicted - true))),
            "one_less_rank": 1.0 - _rank_correlation(predicted, true),
        }

    return of


def _predictions(task: Task):
    """Predicted and true MASD (mm) of fixed wrong fits of all vertebrae, in two views."""

    @jax.jit
    def measure(params: PyTree, batch: Batch, keys: jax.Array):
        def one(each):
            own, key = each
            fit, valid = disturbed(own.true, FitErrors(), key=key), jnp.arange(MOST_VIEWS) < 2
            found = task.predict(params, own, fit, valid)
            return jnp.expm1(found.log_masd), task.error(own, fit)  # pyright: ignore

        return jax.lax.map(one, (batch, keys))

    def of(params: PyTree, crops: Crops):
        place = np.arange(len(crops.level))
        batch = batch_of(crops, place, np.tile(np.arange(MOST_VIEWS), (len(place), 1)))
        keys = jax.random.split(jax.random.key(5), (3, len(place)))
        parts = [jax.device_get(measure(params, batch, k)) for k in keys]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    return of


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _write(
    ctx: launch.RunContext,
    task: Task,
    train: Crops,
    held: Crops,
    trained: training_run.Trained,
    preset: Preset,
) -> None:
    predicted, true = _predictions(task)(trained.params, held)
    held_subjects = sorted(set(map(str, held.subject)))
    record = ctx.record(
        dataset="SynthVerSe",
        dataset_kind="synthetic",
        subjects=held_subjects,
        n_vertebrae=len(held.level),
        ssm_excludes=sorted({*learning_data.NEVER_SEEN, *held_subjects}),
        nsd_tolerance_mm=None,
    )
    summary: dict[str, Any] = {
        "masd_error_mm": float(np.mean(np.abs(predicted - true))),
        "masd_error_of_the_mean_mm": float(np.mean(np.abs(true - np.median(true)))),
        "rank_correlation": _rank_correlation(predicted, true),
        "direction_cosine_train": trained.curve[-1]["cosine"],
        "best_step": trained.step,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(trained.params)),
        "pairs_per_second": 2.0
        * trained.steps_run
        * preset.batch_size
        / max(trained.seconds, 1e-9),
    }
    card = {
        "name": "similarity",
        "preset": ctx.preset,
        "subjects_included": sorted(set(map(str, train.subject))),
        "validated_on": held_subjects,
        "never_seen": list(learning_data.NEVER_SEEN),
        "num_crops": int(train.images.shape[0] * train.images.shape[1]),
        "seed": ctx.seed,
        "commit": record["commit"],
        "command": ctx.config.get("command", ""),
        "quality": summary,
    }
    for folder in filter(None, (ctx.out / "model", _ASSET.value)):
        data.save_weights(folder, trained.params, card)
    training_run.draw_curves(ctx.out / "curves.png", trained, f"similarity, {ctx.preset}")
    _draw(ctx.out / "predictions.png", predicted, true)
    ctx.save_metrics(record, summary, trained.validations)


def _draw(path: pathlib.Path, predicted: np.ndarray, true: np.ndarray) -> None:
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    most = 1.05 * float(max(predicted.max(), true.max()))
    axis.plot([0, most], [0, most], color="0.7", linewidth=0.8)
    axis.scatter(true, predicted, s=9, alpha=0.6)
    axis.set(xlabel="true MASD of a wrong fit [mm]", ylabel="predicted [mm]", xlim=(0, most))
    axis.set(ylim=(0, most), title="two views, subjects left out")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    launch.run(main, presets=list(PRESETS))
