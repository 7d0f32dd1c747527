"""Every operation of domain randomisation on one radiograph, and random draws of the presets.

  python -m experiments.randomisation_sheet --out=OUT
      OUT receives operations.png (each operation at the middle of its range), draws.png (what
      training would see, with a mask and landmarks that follow) and images per second.

The radiograph is simulated from the synthetic torso. About a minute on 2 cores.
"""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from dartjax import camera as cameras
from dartjax import cli, synthverse, training, transforms
from dartjax.render import drr
from dartjax.report import silhouette_contours
from dartjax.training import _image_ops as ops
from dartjax.training import _warps as warps

_DRAWS = flags.DEFINE_integer("draws", 12, "Random draws shown per preset.", lower_bound=1)
_COUNT = flags.DEFINE_integer("count", 200, "Images timed per preset.", lower_bound=1)

SIZE = (256, 256)
LANDMARKS = jnp.array([[96.0, 96.0], [160.0, 96.0], [128.0, 128.0], [96.0, 160.0], [160.0, 160.0]])
_BACKGROUND, _INK, _MARK = "#0b0d10", "#f4f4f5", "#e11d48"
Picture = Float[Array, "h w"]


def main(ctx: cli.RunContext) -> None:
    """Draw both sheets and measure."""
    image = _radiograph()
    unit = (image - jnp.min(image)) / (jnp.max(image) - jnp.min(image))
    key = jax.random.key(ctx.seed)
    _save(ctx, "operations.png", _operations(unit, key), "every operation", (0.0, 1.0))
    _draw_presets(ctx, image, key)
    with cli.progress("timing", len(training.RANDOMISATIONS)) as step:
        rates = {}
        for preset, config in training.RANDOMISATIONS.items():
            rates[f"images_per_second_{preset}"] = _rate(image, config, key)
            step(f"{preset}: {rates[f'images_per_second_{preset}']:.0f} images per second")
    record = ctx.record(
        dataset="synthetic-torso",
        dataset_kind="synthetic",
        subjects=["synth0000"],
        n_vertebrae=0,
        ssm_excludes=[],
        nsd_tolerance_mm=None,
    )
    ctx.save_metrics(record, rates | {"image_pixels": int(image.size)}, [])


def _radiograph() -> Picture:
    """Line integrals of the synthetic torso from the front."""
    with cli.progress("synthetic torso") as step:
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


def _operations(x: Picture, key: Array) -> list[tuple[str, Picture]]:
    """Title and result of every operation."""
    still = warps.no_displacement(SIZE)
    turn = warps.affine_about_center(
        SIZE, shift_px=jnp.array([20.0, -10.0]), rotation=0.087, shear=0.035, scale=0.95
    )
    crop = warps.crop_and_resize(SIZE, share=0.8, place=jnp.array([0.5, 0.5]))
    bend = warps.elastic_displacement(SIZE, 3.5, key=key)
    results = {
        "as it is": x,
        "invert": ops.invert(x),
        "Gaussian noise .01": ops.gaussian_noise(x, 0.01, key=key),
        "gamma 0.7": ops.gamma_contrast(x, 0.7),
        "noise boxes": ops.noise_boxes(x, 5.0, key=key),
        "Gaussian blur 3 px": ops.gaussian_blur(x, 3.0),
        "average blur 6 px": ops.average_blur(x, 6.0),
        "dropout 12 %": ops.dropout(x, 0.12, key=key),
        "coarse dropout 12 %": ops.coarse_dropout(x, 0.12, 0.12, key=key),
        "sharpen": ops.sharpen(x, 0.75, 1.25),
        "emboss": ops.emboss(x, 0.75, 1.5),
        "average pool 4": ops.pool(x, 4, "average"),
        "max pool 4": ops.pool(x, 4, "max"),
        "min pool 4": ops.pool(x, 4, "min"),
        "median pool 4": ops.pool(x, 4, "median"),
        "multiply 0.5": ops.multiply(x, 0.5),
        "multiply pixels .5-1.5": ops.multiply_elementwise(x, 0.5, 1.5, key=key),
        "impulse noise 10 %": ops.impulse_noise(x, 0.1, key=key),
        "salt and pepper 10 %": ops.salt_and_pepper(x, 0.1, key=key),
        "coarse salt, pepper 5 %": ops.coarse_salt_and_pepper(x, 0.05, 0.05, key=key),
        "linear contrast 2": ops.linear_contrast(x, 2.0),
        "gamma contrast 2": ops.gamma_contrast(x, 2.0),
        "log contrast 1.4": ops.log_contrast(x, 1.4),
        "sigmoid contrast 10": ops.sigmoid_contrast(x, 10.0, 0.5),
        "affine": warps.warp_image(x, warps.Warp(jnp.linalg.inv(turn), still)),
        "crop": warps.warp_image(x, warps.Warp(jnp.linalg.inv(crop), still)),
        "elastic 3.5 px": warps.warp_image(x, warps.Warp(jnp.eye(3), bend)),
        "elastic x 5": warps.warp_image(x, warps.Warp(jnp.eye(3), 5.0 * bend)),
    }
    return list(results.items())


def _draw_presets(ctx: cli.RunContext, image: Picture, key: Array) -> None:
    u, v = jnp.meshgrid(jnp.arange(SIZE[1]) + 0.5, jnp.arange(SIZE[0]) + 0.5)
    masks = (jnp.maximum(jnp.abs(u - 128.0), jnp.abs(v - 128.0)) < 32.0).astype(jnp.float32)[None]
    tiles, marks = [], []
    for preset in ("mild", "synthex"):
        config = training.RANDOMISATIONS[preset]
        draw = jax.jit(
            lambda key, config=config: training.randomise_with_labels(
                image, masks, LANDMARKS, config, key=key
            )
        )
        for number, own in enumerate(jax.random.split(key, _DRAWS.value)):
            found = draw(own)
            tiles.append((f"{preset} {number}", found.image))
            marks.append((found.masks[0], found.landmarks))
    _save(ctx, "draws.png", tiles, "random draws; a square and landmarks follow", None, marks)


def _rate(image: Picture, config: training.RandomisationConfig, key: Array) -> float:
    """Images per second of a batch by lax.map, without compilation."""
    run = jax.jit(
        lambda keys: jax.lax.map(lambda k: jnp.sum(training.randomise(image, config, key=k)), keys)
    )
    keys = jax.random.split(key, _COUNT.value)
    run(keys).block_until_ready()
    started = time.perf_counter()
    run(jax.random.split(jax.random.fold_in(key, 1), _COUNT.value)).block_until_ready()
    return _COUNT.value / (time.perf_counter() - started)


def _save(
    ctx: cli.RunContext,
    file: str,
    tiles: Sequence[tuple[str, Picture]],
    title: str,
    limits: tuple[float, float] | None,
    marks: Sequence[tuple[Picture, Float[Array, "n 2"]]] = (),
) -> None:
    columns = 7
    rows = -(-len(tiles) // columns)
    figure = Figure((2.1 * columns, 2.3 * rows + 0.4), dpi=80)
    figure.set_facecolor(_BACKGROUND)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for number, (name, picture) in enumerate(tiles):
        axes, pixels = grid[number], np.asarray(picture)
        low, high = limits or tuple(np.percentile(pixels, [0.5, 99.5]))
        axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, extent=(0, SIZE[1], SIZE[0], 0))
        axes.set_title(name, color=_INK, fontsize=8)
        if marks:
            mask, landmarks = marks[number]
            for line in silhouette_contours(mask):
                axes.plot(line[:, 0], line[:, 1], color=_MARK, linewidth=0.8)
            axes.plot(landmarks[:, 0], landmarks[:, 1], ".", color=_MARK, markersize=3)
            axes.set(xlim=(0, SIZE[1]), ylim=(SIZE[0], 0))
    height = figure.get_figheight()
    heading = f"SYNTHETIC ANATOMY: {title}"
    figure.text(0.01, 1.0 - 0.2 / height, heading, color=_INK, fontsize=11, va="center")
    figure.subplots_adjust(0.005, 0.005, 0.995, 1.0 - 0.6 / height, 0.04, 0.14)
    figure.savefig(ctx.out / file, facecolor=figure.get_facecolor())


if __name__ == "__main__":
    cli.run(main)
