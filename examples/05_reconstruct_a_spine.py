"""Reconstruct three vertebrae and their needle paths from two X-rays, and save them."""

import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import dartjax
from dartjax import camera, metrics, simulation, synthverse, transforms
from dartjax.image import silhouette_contours
from dartjax.render import splat

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# Two X-rays of the chest. In practice: data.load_radiographs(files, data.load_cameras(file)).
truths = simulation.true_vertebrae(case, case.levels[-3:])
rng, setup = np.random.default_rng(0), simulation.CarmSetup()
views = simulation.random_views(rng, simulation.middle_of(truths), setup)
radiographs = simulation.simulate(case.ct, views, setup)

# Where each vertebra roughly is. In practice: data.load_starts("init.json").
turn, shift = jnp.array([0.05, 0.0, 0.05]), jnp.array([3.0, -2.0, 2.0])  # rad, mm
starts = {truth.level: transforms.perturb(truth.pose, turn, shift) for truth in truths}

# The shape models leave this patient out, since the answer is graded.
options = dartjax.ReconstructOptions(exclude=(case.subject,))
spine = dartjax.reconstruct(radiographs, starts=starts, options=options)

for vertebra, truth in zip(spine, truths, strict=True):
    grades = metrics.reconstruction_metrics(vertebra.surface, truth.surface, truth.solid)
    print(f"{vertebra.level}: {vertebra.status}, Dice {grades['dice']:.2f}", end=", paths leave ")
    print(" and ".join(f"{path.clearance_mm:.1f} mm" for path in vertebra.paths or ()))
with tempfile.TemporaryDirectory() as folder:
    size = spine.save(folder).stat().st_size
    print(f"spine.json has {size} bytes, beside {[v.level + '.ply' for v in spine]}")

figure, axes = plt.subplots(1, 2, figsize=(11, 5.8), layout="constrained")
outline = jax.jit(lambda mesh, view: splat(mesh.vertices, mesh.faces, view).silhouette)
for axis, xray in zip(axes, radiographs, strict=True):
    axis.imshow(xray.image, cmap="gray", extent=(0, *xray.image.shape, 0))
    for vertebra in spine:
        for line in silhouette_contours(np.asarray(outline(vertebra.surface, xray.camera))):
            axis.plot(*line.T, color="lime")
        for planned in vertebra.paths or ():
            ends = jnp.stack([planned.path.entry_point, planned.path.target_point])
            axis.plot(*camera.project(xray.camera, ends).T, color="red", marker=".")
    around = spine.vertebrae[0].pose.translation() + 60.0 * jnp.eye(3)
    for letter, place in zip("RAS", camera.project(xray.camera, around), strict=True):
        axis.text(*place, letter, color="yellow", weight="bold", clip_on=True)
    axis.set(xlabel="R, A, S: patient's right, front, head", xticks=[], yticks=[])
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
