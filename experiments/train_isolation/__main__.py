"""Train the network that isolates one vertebra in a radiograph.

  python -m experiments.make_synthverse --num_subjects=12 --cohort_out=COHORT
  python -m experiments.train_isolation --cohort=COHORT --crops=CROPS --preset=cpu60 \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/isolation

X-rays of every vertebra are simulated first, once (kept in --crops). The network sees a crop,
a mask with errors and a rendering of a first guess with errors, and learns what the vertebra alone
would look like. A run that was killed goes on from its checkpoint (--work) when the same command
is given again. Leaves weights.npz and card.json, curves.png and examples.png.
"""

from typing import NamedTuple

import jax

from dartjax import cli, pipeline
from dartjax.models import ISOLATION_PRESETS, IsolationNet
from dartjax.training import (
    NEVER_SEEN,
    Schedule,
    Training,
    answers,
    batches,
    examples,
    loss,
    stacked_models,
    validation,
)
from experiments.common import learning
from experiments.evaluate_learning import isolation_report


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


def main(ctx: cli.RunContext) -> None:
    """Make the crops, train, and write what was found."""
    preset = PRESETS[ctx.preset]
    models = stacked_models(NEVER_SEEN)
    seen, held = learning.crops_of(ctx, models)
    net = IsolationNet(ISOLATION_PRESETS[ctx.preset])
    random = pipeline.random_isolation(net, jax.random.key(ctx.seed))
    training = Training(
        loss=loss(net, models),
        batch_of=batches(seen, preset.batch_size, ctx.seed),
        validate=validation(net, models, held),
        schedule=Schedule(learning.num_steps(preset.num_steps), preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=8,
    )
    trained = learning.train(ctx, "isolation", learning.beginning(random), training)
    scores = next(row for row in trained.validations if row["step"] == trained.step)
    summary = {
        "thickness_error_mm": scores["error_mm"],
        "thickness_error_share": scores["share"],
        "mask_dice": scores["mask_dice"],
        "images_per_second": trained.steps_run * preset.batch_size / max(trained.seconds, 1e-9),
    }
    found = answers(net, models, trained.params, held)
    isolation_report.draw(ctx.out / "examples.png", examples(held, found))
    learning.publish(ctx, "isolation", trained, seen, held, summary)


if __name__ == "__main__":
    cli.run(main, presets=list(PRESETS))
