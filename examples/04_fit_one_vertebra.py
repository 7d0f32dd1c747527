"""Fit one vertebra to two X-rays of a chest, from a disturbed start, and grade it in 3D."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from dartjax import camera, metrics, registration, simulation, ssm, synthverse
from dartjax.image import silhouette_contours
from dartjax.mesh import TriangleMesh
from dartjax.render import splat

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# The truth: L1 of the CT's own mask. The shape model that comes with it never saw this patient.
(truth,) = simulation.true_vertebrae(case, ["L1"])

# Two X-rays at random C-arm angles, with all other anatomy in the way.
rng, setup = np.random.default_rng(0), simulation.CarmSetup()
views = simulation.random_views(rng, simulation.middle_of([truth]), setup)
radiographs = simulation.simulate(case.ct, views, setup)

# What is known (the defaults of Disturbance): a pose off by 5 mm per axis and 7 degrees, ten
# landmarks with 3 mm noise, masks of Dice 0.9. The images become crops about the vertebra.
seen, start = simulation.disturbed_observations(truth, radiographs, rng, simulation.Disturbance())
fit = jax.jit(registration.fit, static_argnames="options")
found = fit(truth.model, seen, start, options=registration.FIT_OPTIONS[registration.ALONE])
print(f"status: {registration.STATUS_MEANING[int(found.status)]}")
shapes = {
    "start": ssm.posed(truth.model, start, jnp.zeros(truth.model.num_modes)),
    "fit": ssm.posed(truth.model, found.pose, found.coefficients),
    "truth": truth.dense,  # the mesh of the model laid onto the surface of the mask
}
figure, axes = plt.subplots(1, 2, figsize=(11, 5.8), layout="constrained")
for (name, shape), colour in zip(shapes.items(), ("orange", "lime", "cyan"), strict=True):
    surface = TriangleMesh(shape, truth.model.faces)
    grades = metrics.reconstruction_metrics(surface, truth.surface, truth.solid)
    print(f"{name}: MASD {grades['masd_mm']:.2f} mm, Dice {grades['dice']:.2f}")
    channels = jax.vmap(splat, (None, None, 0))(shape, surface.faces, seen.cameras)
    for axis, silhouette in zip(axes, channels.silhouette, strict=True):
        for line in silhouette_contours(np.asarray(silhouette)):
            axis.plot(*line.T, color=colour, label=name)
around = found.pose.translation() + 40.0 * jnp.eye(3)  # to the patient's right, front and head
letters = jax.vmap(camera.project, (0, None))(seen.cameras, around)
for axis, image, places in zip(axes, seen.images, letters, strict=True):
    axis.imshow(image, cmap="gray", extent=(0, 128, 128, 0))
    for letter, place in zip("RAS", places, strict=True):
        axis.text(*place, letter, color="yellow", weight="bold", clip_on=True)
    axis.set(xlabel="110 mm wide; R, A, S: patient's right, front, head", xticks=[], yticks=[])
axes[0].legend()
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
