"""Plan a needle path through each pedicle of L1: from the shape model, then the best corridor."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.ndimage import map_coordinates

from dartjax import data, planning, ssm, synthverse

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# A surface to plan in, here that of the CT's mask; a reconstruction from X-rays serves as well.
affine = np.asarray(case.ct.world_from_voxel)
bone = data.surface_of(case.labels, affine, case.label_of("L1"))
field = planning.distance_field_from_mesh(bone)  # signed distance to the surface, mm

# The shape model knows where paths run: fitted to the surface, it carries its own there.
model = data.load_shape_model("L1", exclude=[case.subject])
fitted = ssm.register_surface(model, np.asarray(bone.vertices), np.asarray(bone.faces))

plan, plans = jax.jit(planning.best_corridor), []
for side, (entry, target) in zip(("left", "right"), fitted.paths, strict=True):
    carried = data.needle(entry, target)  # a cylinder of 2.5 mm radius
    room = planning.clearance(carried, field).clearance
    best, found = plan(carried, field)
    print(f"{side}: clearance {room:.1f} mm as carried, {found.clearance:.1f} mm at best")
    plans.append((side, carried, best))

# Cut CT and bone along each best path, toward the patient's left and toward the head.
u, v = jnp.meshgrid(jnp.arange(-20.0, 60.0, 0.5), jnp.arange(-30.0, 30.0, 0.5))
figure, axes = plt.subplots(2, 2, figsize=(10, 8), layout="constrained", subplot_kw={"aspect": 1})
for i, axis in enumerate(axes.flat):
    side, carried, best = plans[i // 2]
    along = (best.target_point - best.entry_point) / best.length
    across = jnp.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]][i % 2])
    across = across - (across @ along) * along
    plane = jnp.stack([along, across / jnp.linalg.norm(across)])
    points = best.entry_point + jnp.stack([u, v], axis=-1) @ plane
    voxels = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    cut = map_coordinates(case.ct.values, list(jnp.moveaxis(voxels, -1, 0)), order=1)
    axis.pcolormesh(u, v, cut, cmap="gray", vmin=0.015, vmax=0.035)
    wall = planning.signed_distance(field, points.reshape(-1, 3)).reshape(u.shape)
    axis.contour(u, v, wall, [0.0], colors="cyan")
    for name, path, colour in (("carried", carried, "orange"), ("best", best, "lime")):
        ends = jnp.stack([path.entry_point, path.target_point]) - best.entry_point
        axis.plot(*(ends @ plane.T).T, color=colour, linewidth=2, label=name)
    toward = ("patient's left", "head")[i % 2]
    axis.set(title=f"{side} pedicle", xlabel="back > front [mm]", ylabel=f"> {toward} [mm]")
axes[0, 0].legend()
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
