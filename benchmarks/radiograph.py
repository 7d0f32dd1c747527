"""Measure the cost of simulated radiographs: plain DRR, basis materials, masks, full physics.

    python -m benchmarks.radiograph --out runs/radiograph.json

The scene is a synthetic torso of 1 mm voxels (350 x 250 x 500) with 18 labelled vertebrae, in one
view of 256 x 256 pixels with 3 energies. All programs are compiled before. They are timed in turn
in every repeat, so that other load of the machine affects all of them.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._timing import machine_info, print_table, summarize, versions, write_json

SDD, SOURCE_TO_ISOCENTER = 1020.0, 600.0
SHAPE, NUM_VERTEBRAE = (350, 250, 500), 18
TARGET_PER_SECOND = 2.0


def main() -> int:
    """Build the torso, time every program, print the table and write the JSON."""
    options = _parse_options()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    calls = _calls(options)
    timings: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        print(f"compiling: {name}", file=sys.stderr)
        call()
    for _ in range(options.repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            timings[name].append(time.perf_counter() - start)
    _report({name: summarize(seconds) for name, seconds in timings.items()}, options)
    return 0


def _calls(options) -> dict[str, Callable[[], Any]]:
    """Return one function per program, without arguments, that waits for its result."""
    import jax
    import jax.numpy as jnp

    from dartjax import camera, transforms
    from dartjax.image import Volume
    from dartjax.render import (
        Tool,
        basis_thickness,
        drr,
        kirschner_wire,
        place_along,
        project_solids,
        simulate_radiograph,
        solid_masks,
        vertebra_solids,
        xray_body,
        xray_settings,
    )

    values, labels, affine = torso()
    volume = Volume(jnp.asarray(values), jnp.asarray(affine))
    solids = vertebra_solids(labels, affine, list(range(1, NUM_VERTEBRAE + 1)))
    body, key, samples = xray_body(volume), jax.random.key(0), options.samples
    settings = xray_settings("standard", num_samples=samples)
    cam = camera.from_carm(
        transforms.view_rotation(options.view),
        volume.center,
        sdd=SDD,
        source_to_isocenter=SOURCE_TO_ISOCENTER,
        pixel_spacing=options.pixel,
        image_size=(options.size, options.size),
    )
    tool = Tool(kirschner_wire(), place_along(volume.center, jnp.array([0.3, 1.0, 0.2])))

    @jax.jit
    def plain(body, cam):
        return drr(body.volume, cam, num_samples=samples)

    @jax.jit
    def basis(body, cam):
        return basis_thickness(body, cam, num_samples=samples)

    @jax.jit
    def masks(solids, cam):
        return solid_masks(project_solids(solids, cam))

    @jax.jit
    def physics(body, cam, key):
        return simulate_radiograph(body, cam, settings, key=key).image

    @jax.jit
    def with_masks(body, solids, cam, key):
        return physics(body, cam, key), masks(solids, cam)

    @jax.jit
    def with_tool(body, cam, tool, key):
        return simulate_radiograph(body, cam, settings, key=key, tools=[tool]).image

    wait = jax.block_until_ready
    return {
        "plain DRR": lambda: wait(plain(body, cam)),
        "two basis materials": lambda: wait(basis(body, cam)),
        "radiograph": lambda: wait(physics(body, cam, key)),
        "masks of all vertebrae": lambda: wait(masks(solids, cam)),
        "radiograph and masks": lambda: wait(with_masks(body, solids, cam, key)),
        "radiograph with a K-wire": lambda: wait(with_tool(body, cam, tool, key)),
    }


def torso() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make attenuation (1/mm), labels 1 to 18 and affine (RAS+ mm) of a simple torso."""
    rng = np.random.default_rng(0)
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    body = ((x - 175) / 165) ** 2 + ((y - 125) / 115) ** 2 < 1
    values = np.zeros(SHAPE, np.float32)
    values[body] = 0.0196 + 0.0004 * rng.standard_normal((int(body.sum()), SHAPE[2]), np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    dx, dy, dz = np.ogrid[-175:175, -125:125, -26:27]
    centrum = (dx / 23) ** 4 + ((dy - 15) / 16) ** 4 + (dz / 11) ** 4 < 1
    transverse = (dx / 45) ** 2 + ((dy + 15) / 5) ** 2 + (dz / 5) ** 2 < 1
    spinous = (dx / 4) ** 2 + ((dy + 35) / 30) ** 2 + ((dz + 5) / 8) ** 2 < 1
    vertebra = centrum | transverse | spinous
    for number in range(NUM_VERTEBRAE):
        middle = 28 + 26 * number
        low, high = max(0, middle - 26), min(SHAPE[2], middle + 27)
        part = vertebra[:, :, low - middle + 26 : high - middle + 26]
        space = labels[:, :, low:high]
        space[part & (space == 0)] = number + 1
    values[labels > 0] += 0.008
    affine = np.diag([1.0, 1.0, 1.0, 1.0]).astype(np.float32)
    affine[:3, 3] = -0.5 * (np.array(SHAPE) - 1)
    return values, labels, affine


def _report(results: dict[str, Any], options) -> None:
    plain = results["plain DRR"]["median_seconds"]
    rays = options.size**2
    rows = []
    for name, result in results.items():
        seconds = result["median_seconds"]
        cells = [f"{1e3 * seconds:.0f}", f"{seconds / plain:.2f}", f"{1e6 * seconds / rays:.2f}"]
        rows.append([name, *cells, f"{1.0 / seconds:.1f}"])
    title = (
        f"{options.size} x {options.size}, {options.samples} samples a ray, {options.view}, "
        f"{options.threads} threads"
    )
    print_table(title, ["", "ms", "x plain DRR", "us a ray", "per second"], rows)
    rate = 1.0 / results["radiograph and masks"]["median_seconds"]
    print(f"radiographs with masks per second: {rate:.1f} (target: {TARGET_PER_SECOND:g})")
    if options.out:
        payload = {
            "settings": {
                "volume_shape": list(SHAPE),
                "num_vertebrae": NUM_VERTEBRAE,
                "image_size": [options.size] * 2,
                "num_samples": options.samples,
                "num_bins": 3,
                "view": options.view,
                "threads": options.threads,
                "sdd_mm": SDD,
                "source_to_isocenter_mm": SOURCE_TO_ISOCENTER,
                "pixel_spacing_mm": options.pixel,
            },
            "machine": machine_info(),
            "versions": versions("dartjax", "jax", "jaxlib"),
            "results": results,
            "ratio_to_plain_drr": {
                name: result["median_seconds"] / plain for name, result in results.items()
            },
            "radiographs_with_masks_per_second": rate,
        }
        write_json(options.out, payload)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", help="JSON file for the results")
    parser.add_argument("--size", type=int, default=256, help="pixels along each side")
    parser.add_argument("--pixel", type=float, default=1.2, help="pixel spacing, mm")
    parser.add_argument("--samples", type=int, default=350, help="samples per ray")
    parser.add_argument("--view", default="AP", choices=("AP", "LAT_L"), help="direction")
    parser.add_argument(
        "--repeats", type=int, default=9, help="number of timings; the median is shown"
    )
    parser.add_argument("--threads", type=int, default=2, help="cores to use")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
