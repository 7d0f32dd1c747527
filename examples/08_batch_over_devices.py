"""Fit three vertebrae from six starts each in one batch that is shared between two devices."""

import sys
import time
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

from dartjax import metrics, registration, simulation, ssm, synthverse
from dartjax.mesh import TriangleMesh

# A CPU counts as one device unless asked for more, before anything is computed. GPUs just count.
jax.config.update("jax_num_cpu_devices", 2)
case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# The last three whole vertebrae of the CT, in two X-rays at random C-arm angles.
known = simulation.true_vertebrae(case, case.levels[-3:])
rng, setup = np.random.default_rng(0), simulation.CarmSetup()
views = simulation.random_views(rng, simulation.middle_of(known), setup)
radiographs = simulation.simulate(case.ct, views, setup)

# Six starts of each with their own errors. The models share one triangulation: all cases stack.
truths = [truth for truth in known for _ in range(6)]
errors = simulation.Disturbance()
seen = [simulation.disturbed_observations(each, radiographs, rng, errors) for each in truths]
models, (observations, starts) = map(registration.stack, ([t.model for t in truths], seen))


def fit(model, observed, start):
    """One case. map_cases makes it a batch: vmap, and a share for each device."""
    return registration.fit(model, observed, start, registration.FIT_OPTIONS[registration.ALONE])


clock = []  # one time once the program is compiled, then one after each chunk
timed = {"chunk": 6, "on_chunk": lambda done, total: clock.append(time.perf_counter())}
found = registration.map_cases(fit, models, observations, starts, **timed)
print(f"{(clock[-1] - clock[0]) / len(truths):.2f} s per fit on {jax.local_device_count()} devices")

figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
for name, colour, poses, scale in (
    ("start", "orange", starts, 0.0),
    ("fit", "green", found.pose, 1.0),
):
    shapes = jax.vmap(ssm.posed)(models, poses, scale * found.coefficients)
    surfaces = [TriangleMesh(shape, models.faces[0]) for shape in shapes]
    pairs = zip(surfaces, truths, strict=True)
    masd = [metrics.masd(metrics.surface_distances(each, true.surface)) for each, true in pairs]
    print(f"{name}: MASD {np.mean(masd):.2f} mm, spread (SD) {np.std(masd):.2f} mm")
    axis.plot([truth.level for truth in truths], masd, "o", color=colour, alpha=0.6, label=name)
axis.set(ylabel="MASD to the truth [mm]", ylim=(0, None), title="six starts of each vertebra")
axis.legend()
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
