"""Measure the time of the fit per vertebra in two views, against the batch size.

    python -m benchmarks.reconstruct --out runs/reconstruct.json
    python -m benchmarks.reconstruct --batches 1,4,16,64,256 --starts 8

The views are splatted from known instances of the shape models (T1 to L1, repeated), so this
measures only speed; experiments.reconstruct measures accuracy on a real CT. A batch is one compiled
program over that many vertebrae, split over the devices of this machine. On a CPU there is one
device per core; a batch of 1 is padded to all devices, and so costs as much as one vertebra per
core. The time excludes compilation and is the best of --repeats. CPU seconds are summed over all
threads and depend little on other load of the machine.
"""

import argparse
import os
import sys
import time
from typing import Any

from benchmarks._timing import machine_info, print_table, versions, write_json


def main() -> int:
    """Time all batch sizes, print the table and write the JSON."""
    options = _parse_options()
    import jax

    if jax.config.jax_platforms in (None, "cpu"):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    sizes = [int(size) for size in options.batches.split(",")]
    cases = _cases(min(max(sizes), 13))
    results = [_time(cases, size, options) for size in sizes]
    rows = [
        [
            str(r["batch"]),
            f"{r['compilation_seconds']:.1f}",
            f"{r['seconds']:.2f}",
            f"{r['seconds_per_vertebra']:.3f}",
            f"{r['cpu_seconds_per_vertebra']:.3f}",
        ]
        for r in results
    ]
    columns = ["vertebrae at once", "compilation s", "fitting s", "s a vertebra", "CPU s"]
    title = f"Fit of two views of 128 x 128, {options.starts} starts, {jax.default_backend()}"
    print_table(title, columns, rows)
    record = {"machine": machine_info(), "versions": versions("jax", "jaxlib", "dartjax")}
    devices = [device.device_kind for device in jax.local_devices()]
    write_json(
        options.out, {**record, "devices": devices, "starts": options.starts, "results": results}
    )
    return 0


def _time(cases: list[Any], size: int, options) -> dict[str, Any]:
    import jax

    from dartjax.registration import ALONE, FIT_OPTIONS, fit_from_starts, map_cases, stack

    chosen = [cases[i % len(cases)] for i in range(size)]
    arguments = [stack([case[i] for case in chosen]) for i in range(3)]
    keys = jax.random.split(jax.random.key(0), size)

    def fit_one(model, seen, start, key):
        return fit_from_starts(
            model, seen, start, FIT_OPTIONS[ALONE], num_starts=options.starts, key=key
        )

    compilation, best, best_cpu = 0.0, float("inf"), float("inf")
    for repeat in range(options.repeats):
        clock, busy = [time.perf_counter()], [time.process_time()]

        def on_chunk(done: int, total: int, clock=clock, busy=busy) -> None:
            clock.append(time.perf_counter())
            busy.append(time.process_time())

        map_cases(fit_one, *arguments, keys, chunk=size, on_chunk=on_chunk)
        if repeat == 0:
            compilation = clock[1] - clock[0]
        best = min(best, clock[-1] - clock[1])
        best_cpu = min(best_cpu, busy[-1] - busy[1])
    return {
        "batch": size,
        "compilation_seconds": compilation,
        "seconds": best,
        "seconds_per_vertebra": best / size,
        "cpu_seconds_per_vertebra": best_cpu / size,
    }


def _cases(number: int) -> list[Any]:
    levels = [*(f"T{i}" for i in range(1, 13)), "L1"]
    return [_case(level) for level in levels[:number]]


def _case(level: str):
    """Make model, noise-free observations and disturbed start of one level."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dartjax import data, ssm, transforms
    from dartjax.image import Radiograph
    from dartjax.registration import CROP_PIXELS, CROP_WIDTH_MM, crop_cameras, observe
    from dartjax.render import SplatOptions, splat, two_compartment
    from dartjax.simulation import CarmSetup, Disturbance, disturbed_pose, random_views

    rng = np.random.default_rng(data.label_of(level))
    model = data.load_shape_model(level)
    pose = transforms.SE3.from_translation(jnp.array([0.0, 0.0, 100.0]))
    shape = ssm.posed(model, pose, jnp.asarray(0.5 * rng.normal(size=15), jnp.float32))
    start = disturbed_pose(pose, rng, Disturbance())
    center = start.apply(jnp.mean(model.mean_shape, axis=0))
    views = random_views(rng, np.array([0.0, 0.0, 100.0]), CarmSetup())
    crops = crop_cameras(views, center, width_mm=CROP_WIDTH_MM, num_pixels=CROP_PIXELS)
    render = jax.jit(lambda c: splat(shape, model.faces, c, SplatOptions(window=15)))
    channels = [render(crop) for crop in crops]
    seen = observe(
        [Radiograph(two_compartment(x), c) for x, c in zip(channels, crops, strict=True)],
        crops,
        masks=np.stack([np.asarray(x.silhouette) for x in channels]),
        landmarks_world=ssm.landmarks(model, shape),
    )
    return model, seen, start


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/reconstruct.json", help="JSON file to write")
    parser.add_argument("--batches", default="1,4,16", help="vertebrae fitted at once")
    parser.add_argument("--starts", type=int, default=1, help="starts per vertebra")
    parser.add_argument(
        "--repeats", type=int, default=2, help="number of timings; the best is used"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
