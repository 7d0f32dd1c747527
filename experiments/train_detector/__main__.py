"""Train the detector: Swin Mask R-CNN, which finds the vertebrae in one radiograph.

  python -m experiments.train_detector --xrays=XRAYS --examples=EXAMPLES --preset=cpu \\
      --validation=synth0002,synth0003 --asset=dartjax/assets/networks/detector

XRAYS is one or more data sets, of synthetic subjects, that were made by
`experiments.simulate_xrays --field=mixed --nodense_fit`. Their radiographs are written once to
EXAMPLES as arrays, which are memory-mapped; field, mirror image and grey values are drawn anew in
every step. A run that was killed continues from
its checkpoint. Writes weights.npz, card.json, curves.png and detections.png.
"""

from typing import Any

import jax
import numpy as np

from dartjax import data, training
from dartjax.cli import launch
from dartjax.models import DETECTOR_PRESETS, VertebraDetector
from dartjax.training import DetectionExamples, Schedule, Trained, Training
from experiments.common import detection_figures, learning, learning_figures
from experiments.train_detector.settings import Settings

_NAME = "detector"
PRESETS = {
    "smoke": learning.NetworkPreset("smoke", 20, 2, 10),
    "cpu": learning.NetworkPreset("nano", 50000, 8, 500, 1.5e-3),
    "h200": learning.NetworkPreset("tiny", 30000, 64, 1000, 5e-4),
    "paper": learning.NetworkPreset("base", 100000, 32, 2000, 2e-4),
}


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Make the examples, train the detector, and write it with its validation."""
    preset = PRESETS[ctx.preset]
    examples, seen, held = _examples(settings)
    shown = held[np.linspace(0, len(held) - 1, settings.validation_images).astype(int)]

    net = VertebraDetector(DETECTOR_PRESETS[preset.network])
    random = training.untrained_detector(net, jax.random.key(ctx.seed))
    params = learning.initial_parameters(settings, random)
    plan = Training(
        loss=training.detection_training_loss(net),
        batch_of=training.detection_batches(examples, seen, preset.batch_size, ctx.seed),
        validate=training.detection_validation(net, examples, np.unique(shown)),
        schedule=Schedule(settings.num_steps or preset.num_steps, preset.learning_rate),
        seed=ctx.seed,
        validate_every=preset.validate_every,
        patience=12,
    )
    subjects = _subjects(examples, seen)
    trained = learning.train(_NAME, ctx.preset, settings, subjects, params, plan, settings.examples)

    summary = {**_scores(trained, preset.batch_size), **learning.training_numbers(trained)}
    held_out = _subjects(examples, held)
    num_vertebrae = int((examples.fields["level"][shown] >= 0).sum())
    record = ctx.record(**learning.provenance(held_out, num_vertebrae))
    card = learning.weights_card(
        _NAME,
        settings,
        subjects,
        held_out,
        summary,
        num_images=len(seen),
        source="--xrays=XRAYS --examples=EXAMPLES",
        preset=ctx.preset,
        seed=ctx.seed,
        commit=record["commit"],
    )
    card |= learning.network_of_card(preset, settings, trained)
    card["threshold"] = summary["threshold"]
    learning.save_weights(ctx.out, settings.asset, trained.params, card)
    detection_figures.draw_detections(
        ctx.out / "detections.png",
        *training.find_in_examples(
            net, trained.params, examples, shown[:: max(len(shown) // 8, 1)]
        ),
        card["threshold"],
    )
    learning_figures.draw_curves(ctx.out / "curves.png", trained, f"{_NAME}, {ctx.preset}")
    ctx.save_metrics(record, summary, trained.validations)


def _examples(settings: Settings) -> tuple[DetectionExamples, np.ndarray, np.ndarray]:
    """Load the examples, and the rows of training and of held-out subjects."""
    if not settings.xrays or settings.examples is None:
        raise data.DataError("give --xrays=FOLDER (of simulate_xrays) and --examples=FOLDER")
    if not settings.validation:
        raise data.DataError("name subjects for validation, which are held out of the training")
    data.grain()  # fails before the examples are made if it is not installed
    with launch.progress("examples") as step:
        examples = training.load_detection_examples(settings.xrays, settings.examples, step)
    known = sorted(set(examples.subjects))
    wanted = settings.subjects or [name for name in known if name not in settings.validation]
    if unknown := sorted({*wanted, *settings.validation} - set(known)):
        raise data.DataError(f"{settings.examples} has no {', '.join(unknown)}")
    if both := sorted(set(wanted) & set(settings.validation)):
        raise data.DataError(f"{', '.join(both)}: both in training and validation")
    training.check_not_reported(known)
    return examples, examples.rows_of(wanted), examples.rows_of(settings.validation)


def _subjects(examples: DetectionExamples, rows: np.ndarray) -> list[str]:
    return sorted({examples.subjects[row] for row in rows})


def _scores(trained: Trained, batch_size: int) -> dict[str, Any]:
    """Return the validation of the final parameters, and the speed of the training."""
    scores = next(row for row in trained.validations if row["step"] == trained.step)
    return {key: value for key, value in scores.items() if key not in ("score", "step")} | {
        "images_per_second": trained.steps_run * batch_size / max(trained.seconds, 1e-9),
    }


if __name__ == "__main__":
    launch.run(main, Settings, presets=list(PRESETS))
