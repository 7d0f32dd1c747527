"""Train the network that finds ten landmarks and the mask of a vertebra in a crop of a radiograph.

  python -m experiments.make_synthverse --family=both --meshes=MESHES --num_subjects=24 \\
      --cohort_out=COHORT
  python -m experiments.train_landmarks --cohort=COHORT --crops=CROPS --preset=cpu \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/landmarks

X-rays of every vertebra are simulated first and kept in --crops, which the isolation and similarity
networks use too. Crops, mirror images, clutter and grey values are drawn anew in every step. A run
that was killed continues from its checkpoint (--work) if the same command is given again. Writes
weights.npz, card.json, curves.png and kept.png, the error against the share of landmarks kept.
"""

import jax
import numpy as np

from dartjax import training
from dartjax.cli import launch
from dartjax.models import LANDMARK_PRESETS, LandmarkNet
from dartjax.training import Schedule, Training
from experiments.common import detection_figures, learning, learning_figures
from experiments.train_landmarks.settings import Settings

_NAME = "landmarks"
PRESETS = {
    "smoke": learning.NetworkPreset("smoke", 20, 4, 10),
    "cpu": learning.NetworkPreset("nano", 20000, 16, 500, 1.5e-3),
    "h200": learning.NetworkPreset("tiny", 30000, 64, 1000, 5e-4),
    "paper": learning.NetworkPreset("base", 100000, 64, 2000, 2e-4),
}


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the crops, train the network, and write it with its validation."""
    preset = PRESETS[ctx.preset]
    models = training.stacked_shape_models(training.NEVER_TRAINED_ON)
    seen, held = (
        training.landmark_crops(crops, models)
        for crops in learning.cohort_crops(settings, ctx.seed)
    )

    net = LandmarkNet(LANDMARK_PRESETS[preset.network])
    random = training.untrained_landmarks(net, jax.random.key(ctx.seed))
    plan = Training(
        loss=training.landmark_training_loss(net),
        batch_of=training.landmark_batches(seen, preset.batch_size, ctx.seed),
        validate=training.landmark_validation(net, held),
        schedule=Schedule(settings.num_steps or preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=12,
    )
    subjects, held_out = learning.subjects_of(seen.crops), learning.subjects_of(held.crops)
    trained = learning.train(
        _NAME,
        ctx.preset,
        settings,
        subjects,
        learning.initial_parameters(settings, random),
        plan,
        settings.crops,
    )
    rows = training.landmark_rows(net, trained.params, held)

    summary = training.landmark_summary(rows) | learning.training_numbers(trained)
    summary["images_per_second"] = (
        trained.steps_run * preset.batch_size / max(trained.seconds, 1e-9)
    )
    record = ctx.record(**learning.provenance(held_out, len(held.landmarks)))
    card = learning.weights_card(
        _NAME,
        settings,
        subjects,
        held_out,
        summary,
        num_images=int(np.prod(seen.silhouettes.shape[:2])),
        source=learning.CROPS_SOURCE,
        preset=ctx.preset,
        seed=ctx.seed,
        commit=record["commit"],
    )
    card |= learning.network_of_card(preset, settings, trained)
    learning.save_weights(ctx.out, settings.asset, trained.params, card)
    detection_figures.draw_kept(ctx.out / "kept.png", rows)
    learning_figures.draw_curves(ctx.out / "curves.png", trained, f"{_NAME}, {ctx.preset}")
    ctx.save_metrics(record, summary, trained.validations)


if __name__ == "__main__":
    launch.run(main, Settings, presets=list(PRESETS))
