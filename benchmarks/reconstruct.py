"""Throughput of the fit: 13 vertebrae x 8 starts, two views each, in one batch.

    python -m benchmarks.reconstruct --out runs/reconstruct.json

The views are splatted from known instances of the shape models (T1 to L1), so this measures
speed and nothing else; accuracy is measured on a real CT by experiments.reconstruct. Time is
given after compilation, and per vertebra and start.
"""

import argparse
import os
import sys
import time

from benchmarks._timing import machine_info, print_table, versions, write_json


def main() -> int:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="runs/reconstruct.json", help="JSON file to write")
    parser.add_argument("--starts", type=int, default=8, help="starts per vertebra")
    options = parser.parse_args()
    import jax

    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    from dartjax.registration import fit_from_starts, map_cases, stack
    from experiments.methods import FIT_OPTIONS, OURS

    cases = [_case(level) for level in _levels()]
    models, observations, starts = (stack([case[i] for case in cases]) for i in range(3))
    keys = jax.random.split(jax.random.key(0), len(cases))
    clock = [time.perf_counter()]

    def fit_one(model, seen, start, key):
        return fit_from_starts(
            model, seen, start, FIT_OPTIONS[OURS], num_starts=options.starts, key=key
        )

    map_cases(
        fit_one,
        models,
        observations,
        starts,
        keys,
        chunk=2,
        on_chunk=lambda done, total: clock.append(time.perf_counter()),
    )
    compilation, fitting = clock[1] - clock[0], clock[-1] - clock[1]
    each = fitting / (len(cases) * options.starts)
    row = [f"{len(cases)} x {options.starts}", *(f"{t:.2f}" for t in (compilation, fitting, each))]
    columns = ["vertebrae x starts", "compilation s", "fitting s", "s per start"]
    print_table("Reconstruction from two views of 128 x 128", columns, [row])
    result = {"compilation_seconds": compilation, "fitting_seconds": fitting}
    record = {"machine": machine_info(), "versions": versions("jax", "jaxlib", "dartjax")}
    write_json(options.out, {**record, **result, "seconds_per_start": each})
    return 0


def _levels() -> list[str]:
    return [*(f"T{i}" for i in range(1, 13)), "L1"]


def _case(level: str):
    """Model, noise-free observations and a disturbed start of one level."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dartjax import data, ssm, transforms
    from dartjax.image import Radiograph
    from dartjax.registration import Disturbance, crop_cameras, disturbed_pose, observe
    from dartjax.render import SplatOptions, splat, two_compartment
    from experiments.scene import CROP_PIXELS, CROP_WIDTH_MM, CarmSetup, random_views

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


if __name__ == "__main__":
    sys.exit(main())
