"""Draw every operation of domain randomisation on one radiograph, and random draws of the presets.

  python -m experiments.randomisation_sheet --out=OUT
      Writes operations.png (each operation at the middle of its range), draws.png (randomised
      images as in training, with a mask and landmarks) and the number of images per second.

The radiograph is simulated from the synthetic torso. Takes about a minute on 2 cores.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dartjax import camera as cameras
from dartjax import synthverse, training, transforms
from dartjax.cli import launch
from dartjax.render import drr
from experiments.randomisation_sheet import report
from experiments.randomisation_sheet.operations import operations
from experiments.randomisation_sheet.settings import Settings

SIZE = (256, 256)
LANDMARKS = np.array(
    [[96.0, 96.0], [160.0, 96.0], [128.0, 128.0], [96.0, 160.0], [160.0, 160.0]], np.float32
)


def main(ctx: launch.RunContext, settings: Settings) -> None:
    """Draw both sheets and measure the speed."""
    image = _radiograph()
    unit = (image - jnp.min(image)) / (jnp.max(image) - jnp.min(image))
    key = jax.random.key(ctx.seed)
    results = operations(unit, key)
    report.write_sheet(ctx.out / "operations.png", results, "all operations", (0.0, 1.0))
    tiles, marks = _draws(image, key, settings.draws)
    title = "random draws, with a square mask and landmarks"
    report.write_sheet(ctx.out / "draws.png", tiles, title, None, marks)
    with launch.progress("timing", len(training.RANDOMISATIONS)) as step:
        rates = {}
        for preset, config in training.RANDOMISATIONS.items():
            rate = _images_per_second(image, config, key, settings.count)
            rates[f"images_per_second_{preset}"] = rate
            step(f"{preset}: {rate:.0f} images per second")
    record = ctx.record(
        dataset="synthetic-torso",
        dataset_kind="synthetic",
        subjects=["synth0000"],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, rates | {"image_pixels": int(image.size)}, [])


def _radiograph() -> Float[Array, "h w"]:
    """Simulate line integrals of the synthetic torso, AP."""
    with launch.progress("synthetic torso") as step:
        case = synthverse.synthetic_case()
        camera = cameras.from_carm(
            transforms.view_rotation("AP"),
            case.ct.center,
            sdd=1020.0,
            source_to_isocenter=700.0,
            pixel_spacing=1.3,
            image_size=SIZE,
        )
        image = jax.jit(drr, static_argnames="num_samples")(case.ct, camera, num_samples=300)
        step()
    return image


def _draws(
    image: Float[Array, "h w"], key: Array, count: int
) -> tuple[list[report.Tile], list[report.Marks]]:
    """Make random draws of two presets, with a square mask and landmarks."""
    u, v = jnp.meshgrid(jnp.arange(SIZE[1]) + 0.5, jnp.arange(SIZE[0]) + 0.5)
    masks = (jnp.maximum(jnp.abs(u - 128.0), jnp.abs(v - 128.0)) < 32.0).astype(jnp.float32)[None]
    tiles, marks = [], []
    for preset in ("mild", "synthex"):
        config = training.RANDOMISATIONS[preset]
        draw = jax.jit(
            lambda key, config=config: training.randomise_with_labels(
                image, masks, jnp.asarray(LANDMARKS), config, key=key
            )
        )
        for number, own in enumerate(jax.random.split(key, count)):
            found = draw(own)
            tiles.append((f"{preset} {number}", found.image))
            marks.append((found.masks[0], found.landmarks))
    return tiles, marks


def _images_per_second(
    image: Float[Array, "h w"], config: training.RandomisationConfig, key: Array, count: int
) -> float:
    """Measure the images per second of a batch by lax.map, without compilation."""
    run = jax.jit(
        lambda keys: jax.lax.map(lambda k: jnp.sum(training.randomise(image, config, key=k)), keys)
    )
    keys = jax.random.split(key, count)
    run(keys).block_until_ready()
    started = time.perf_counter()
    run(jax.random.split(jax.random.fold_in(key, 1), count)).block_until_ready()
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    launch.run(main, Settings)
