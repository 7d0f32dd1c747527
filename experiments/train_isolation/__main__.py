"""Train the network that isolates one vertebra in a radiograph.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=COHORT
  python -m experiments.train_isolation --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/isolation

X-rays of every vertebra are simulated first and kept in --crops. The inputs of the network are a
crop, a mask with errors, and a rendering of an inaccurate initial estimate. It learns to predict
the image of the vertebra without other anatomy. A run that was killed continues from its checkpoint
(--work) if the same command is given again. Writes weights.npz, card.json, curves.png and
examples.png.
"""

from typing import NamedTuple

import jax
import numpy as np

from dartjax import pipeline, training
from dartjax.cli import launch
from dartjax.models import ISOLATION_PRESETS, IsolationNet
from dartjax.training import Schedule, Trained, Training
from experiments.common import learning, learning_figures
from experiments.train_isolation.settings import Settings

_NAME = "isolation"


class Preset(NamedTuple):
    """Length and batch size of a training."""

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


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the crops, train the network, and write it with its validation."""
    preset = PRESETS[ctx.preset]
    models = training.stacked_shape_models(training.NEVER_TRAINED_ON)
    seen, held = learning.fitted_crops(settings, models, ctx.seed)

    net = IsolationNet(ISOLATION_PRESETS[ctx.preset])
    random = pipeline.untrained_isolation(net, jax.random.key(ctx.seed))
    params = learning.initial_parameters(settings, random)
    plan = Training(
        loss=training.isolation_training_loss(net, models),
        batch_of=training.isolation_batches(seen, preset.batch_size, ctx.seed),
        validate=training.isolation_validation(net, models, held),
        schedule=Schedule(settings.num_steps or preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    trained = learning.train(
        _NAME, ctx.preset, settings, learning.subjects_of(seen), params, plan, settings.crops
    )
    answers = training.isolation_answers(net, models, trained.params, held)

    summary = {**_scores(trained, preset.batch_size), **learning.training_numbers(trained)}
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
    examples = training.isolation_examples(held, answers)
    learning_figures.draw_isolation(ctx.out / "examples.png", examples)
    learning_figures.draw_curves(ctx.out / "curves.png", trained, f"{_NAME}, {ctx.preset}")
    ctx.save_metrics(record, summary, trained.validations)


def _scores(trained: Trained, batch_size: int) -> dict[str, float]:
    """Return the validation of the final parameters, and the speed of the training."""
    scores = next(row for row in trained.validations if row["step"] == trained.step)
    return {
        "thickness_error_mm": scores["error_mm"],
        "thickness_error_share": scores["share"],
        "mask_dice": scores["mask_dice"],
        "images_per_second": trained.steps_run * batch_size / max(trained.seconds, 1e-9),
    }


if __name__ == "__main__":
    launch.run(main, Settings, presets=list(PRESETS))
