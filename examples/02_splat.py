"""Splat a vertebra of a shape model into an X-ray view, beside the ray-cast DRR of the real one."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from dartjax import camera, data, image, render, ssm, synthverse, transforms

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# A shape model of L1 that has not seen this patient, brought onto the L1 of the CT's mask.
label = case.label_of("L1")
bone = data.surface_of(case.labels, np.asarray(case.ct.world_from_voxel), label)
model = data.load_shape_model("L1", exclude=[case.subject])
fitted = ssm.register_surface(model, np.asarray(bone.vertices), np.asarray(bone.faces))

# A C-arm turned by 45 degrees, its image cropped to 80 mm about the vertebra.
middle = fitted.vertices.mean(axis=0)
carm = camera.from_carm(transforms.carm_rotation(0.75 * np.pi, 0.0), middle)
view = camera.region_around(carm, middle, width_mm=80.0, num_pixels=200)

# The splat draws the surface alone: how far each ray runs through it. The DRR sums up the voxels.
depth = float(camera.depth(view, middle[None])[0])
options = render.SplatOptions(window=render.suggest_window(view, depth))
splat = jax.jit(render.splat, static_argnames="options")
splatted = splat(fitted.vertices, model.faces, view, options=options)
raycast = jax.jit(render.drr)(render.label_volume(case.ct, case.labels, label), view)

# Trabecular bone for all of the thickness and cortical bone for the shell give a radiograph.
attenuation = render.two_compartment(splatted)
ncc = render.ncc(attenuation, raycast, jnp.ones_like(raycast))
print(f"correlation of the splat with the DRR of the vertebra alone: {ncc:.3f}")

panels = [
    ("splat: shell [mm]", splatted.shell),
    ("splat: thickness [mm]", splatted.thickness),
    ("splat: silhouette", splatted.silhouette),
    ("splat: attenuation", attenuation),
    ("DRR of the CT, outline of the splat", raycast),
]
figure, axes = plt.subplots(1, 5, figsize=(17, 3.8), layout="constrained")
for axis, (title, channel) in zip(axes, panels, strict=True):
    shown = axis.imshow(channel, cmap="gray")
    figure.colorbar(shown, ax=axis, shrink=0.8)
    axis.set(title=title, xlabel="back right  <  patient  >  front left", xticks=[], yticks=[])
for outline in image.silhouette_contours(np.asarray(splatted.silhouette)):
    axes[4].plot(*(outline - 0.5).T, color="tab:green")
figure.suptitle("L1, all panels 80 mm wide at the vertebra")
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
