"""A shape model of L1: its first modes, and what five landmarks of a patient make of it."""

import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from dartjax import anatomy, simulation, ssm, synthverse, transforms

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# The patient's own L1 in the vertebra's frame, and a model that has not seen this patient.
(truth,) = simulation.true_vertebrae(case, ["L1"])
model, patient = truth.model, transforms.apply(truth.pose.inverse(), truth.dense)

# Condition the model on five landmarks known to 2 mm. The posterior is a shape model again.
names = anatomy.LANDMARK_NAMES
chosen = np.array([i for i, name in enumerate(names) if "endplate" in name or "tip" in name])
points = jax.tree.map(lambda part: part[chosen], model.landmark_points)
posterior = ssm.posterior(model, points, ssm.carried(points, patient), noise=2.0)


def length(vectors):
    """Root sum of squares over the modes and the axes x, y, z: one value for every vertex, mm."""
    return np.sqrt(np.sum(np.asarray(vectors).reshape(-1, *patient.shape) ** 2, axis=(0, 2)))


panels = []
for name, shape in (("mean shape", model), ("given 5 landmarks", posterior)):
    error, spread = length(shape.mean_shape - patient), length(shape.modes)
    print(f"{name}: {error.mean():.1f} mm from the patient, SD {spread.mean():.1f} mm")
    panels.append((f"{name}:\nstandard deviation", shape.mean_shape, spread))
    panels.append((f"{name}:\ndistance to patient", shape.mean_shape, error))
for number, sign in ((1, -2.0), (1, 2.0), (2, -2.0), (2, 2.0)):
    moved = ssm.instance(model, sign * np.eye(model.num_modes)[number - 1])
    change = length(moved - model.mean_shape)
    panels.append((f"mode {number}, {sign:+.0f} SD:\ndistance to mean", moved, change))

figure = plt.figure(figsize=(13, 7), layout="constrained")
axes = figure.subplots(2, 4, subplot_kw={"projection": "3d"})
scale = plt.cm.ScalarMappable(plt.Normalize(0.0, 6.0), "turbo")
for axis, (title, shape, values) in zip(axes.flat, panels, strict=True):
    colours = scale.to_rgba(values[model.faces].mean(axis=1))
    axis.add_collection3d(Poly3DCollection(shape[model.faces], facecolors=colours, shade=True))
    axis.set(title=title, xlim=(-40, 40), ylim=(-60, 20), zlim=(-45, 35))
    axis.text2D(0.5, 0.0, "left  <  patient  >  right", ha="center", transform=axis.transAxes)
    axis.set_box_aspect(None, zoom=1.3)
    axis.view_init(35, -90)  # from behind and above
    axis.set_axis_off()
figure.colorbar(scale, ax=axes, shrink=0.6, label="mm")
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
