"""Train the multi-view similarity: how far a fit is from the vertebra in the X-rays.

  python -m experiments.train_similarity --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/similarity

The X-rays are those of `experiments.train_isolation` (kept in --crops). Every step sees two wrong
fits of each of a few vertebrae in one to some views, and learns their mean surface distance, which
of the two is worse, that the gradient points away from the truth, and the way back. A run that was
killed goes on from its checkpoint. Leaves weights.npz and card.json, curves.png, predictions.png.
"""

from typing import NamedTuple

import jax
import numpy as np

from dartjax import cli, pipeline
from dartjax.training import (
    NEVER_SEEN,
    Schedule,
    Task,
    Training,
    batches,
    predictions,
    rank_correlation,
    stacked_models,
    validation,
)
from experiments.common import learning
from experiments.evaluate_learning import similarity_report


class Preset(NamedTuple):
    """How long a preset trains, in how many views at most, and on how much of a batch the
    direction is trained: it needs second derivatives, which cost three times as much."""

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


def main(ctx: cli.RunContext) -> None:
    """Make the crops, train, and write what was found."""
    preset = PRESETS[ctx.preset]
    models = stacked_models(NEVER_SEEN)
    seen, held = learning.crops_of(ctx, models)
    task = Task(ctx.preset, models)
    training = Training(
        loss=task.loss(preset.num_directions),
        batch_of=batches(seen, preset.most_views, preset.batch_size, ctx.seed),
        validate=validation(task, held),
        schedule=Schedule(learning.num_steps(preset.num_steps), preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    random = pipeline.random_similarity(task.net, jax.random.key(ctx.seed))
    params = learning.beginning(random)
    trained = learning.train(ctx, "similarity", params, training)
    predicted, true = predictions(task, held)(trained.params)
    pairs = 2.0 * trained.steps_run * preset.batch_size
    summary = {
        "masd_error_mm": float(np.mean(np.abs(predicted - true))),
        "masd_error_of_the_median_mm": float(np.mean(np.abs(true - np.median(true)))),
        "rank_correlation": rank_correlation(predicted, true),
        "direction_cosine_train": trained.curve[-1]["cosine"],
        "pairs_per_second": pairs / max(trained.seconds, 1e-9),
    }
    similarity_report.draw_predictions(ctx.out / "predictions.png", predicted, true)
    learning.publish(ctx, "similarity", trained, seen, held, summary)


if __name__ == "__main__":
    cli.run(main, presets=list(PRESETS))
