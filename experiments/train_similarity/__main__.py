"""Train the multi-view similarity network: the distance of a fit from the vertebra in the X-rays.

  python -m experiments.train_similarity --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/similarity

The X-rays are those of `experiments.train_isolation` (kept in --crops). A training step uses two
wrong fits per vertebra in one or more views. The network learns their mean surface distance, which
of the two is worse, a gradient that points away from the true pose, and the step back to it. A run
that was killed continues from its checkpoint. Writes weights.npz, card.json, curves.png and
predictions.png.
"""

from typing import NamedTuple

import jax
import numpy as np

from dartjax import pipeline, training
from dartjax.cli import launch
from dartjax.training import Schedule, SimilarityTask, Trained, Training
from experiments.common import learning, learning_figures
from experiments.train_similarity.settings import Settings

_NAME = "similarity"


class Preset(NamedTuple):
    """Length and batch size of a training, and its largest number of views.

    `num_directions` is the part of a batch that trains the direction of the gradient; it needs
    second derivatives, which take three times as long.
    """

    num_steps: int
    batch_size: int
    num_directions: int
    validate_every: int
    learning_rate: float = 1e-3
    most_views: int = 4


PRESETS = {
    "smoke": Preset(10, 4, 1, 5, most_views=2),
    "cpu60": Preset(5000, 8, 2, 100, most_views=2),
    "h200_30": Preset(30000, 64, 8, 1000, 5e-4),
    "paper": Preset(100000, 128, 16, 2000, 3e-4),
}


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the crops, train the network, and write it with its validation."""
    preset = PRESETS[ctx.preset]
    models = training.stacked_shape_models(training.NEVER_TRAINED_ON)
    seen, held = learning.fitted_crops(settings, models, ctx.seed)

    task = SimilarityTask(ctx.preset, models)
    random = pipeline.untrained_similarity(task.net, jax.random.key(ctx.seed))
    params = learning.initial_parameters(settings, random)
    plan = Training(
        loss=task.loss(preset.num_directions),
        batch_of=training.similarity_batches(seen, preset.most_views, preset.batch_size, ctx.seed),
        validate=training.similarity_validation(task, held),
        schedule=Schedule(settings.num_steps or preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    trained = learning.train(
        _NAME, ctx.preset, settings, learning.subjects_of(seen), params, plan, settings.crops
    )
    predicted, true = training.similarity_predictions(task, held)(trained.params)

    scores = _scores(trained, predicted, true, preset.batch_size)
    summary = {**scores, **learning.training_numbers(trained)}
    record = ctx.record(**learning.provenance(learning.subjects_of(held), len(held.level)))
    card = learning.weights_card(
        _NAME,
        settings,
        learning.subjects_of(seen),
        learning.subjects_of(held),
        summary,
        num_images=int(np.prod(seen.images.shape[:2])),
        source=learning.CROPS_SOURCE,
        preset=ctx.preset,
        seed=ctx.seed,
        commit=record["commit"],
    )
    learning.save_weights(ctx.out, settings.asset, trained.params, card)
    learning_figures.draw_predictions(ctx.out / "predictions.png", predicted, true)
    learning_figures.draw_curves(ctx.out / "curves.png", trained, f"{_NAME}, {ctx.preset}")
    ctx.save_metrics(record, summary, trained.validations)


def _scores(
    trained: Trained, predicted: np.ndarray, true: np.ndarray, batch_size: int
) -> dict[str, float]:
    """Return the errors of predicted distances, and the speed of the training."""
    pairs = 2.0 * trained.steps_run * batch_size
    return {
        "masd_error_mm": float(np.mean(np.abs(predicted - true))),
        "masd_error_of_the_median_mm": float(np.mean(np.abs(true - np.median(true)))),
        "rank_correlation": training.rank_correlation(predicted, true),
        "direction_cosine_train": trained.curve[-1]["cosine"],
        "pairs_per_second": pairs / max(trained.seconds, 1e-9),
    }


if __name__ == "__main__":
    launch.run(main, Settings, presets=list(PRESETS))
