"""Stand a robot beside the patient so that it reaches both pedicles, and follow the paths."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from dartjax import data, simulation, synthverse
from dartjax.robot import arms

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")

# Two needle paths through L1, a torso around them, and the robot with its tool.
(truth,) = simulation.true_vertebrae(case, ["L1"])
paths = arms.stack_paths([data.needle(entry, target) for entry, target in truth.paths])
patient = simulation.PlannedPatient(("L1",), paths, {})
robot, tool, torso = arms.spine_hybrid(), arms.guide_tool(), simulation.torso_distance(patient)

# The cart stands badly at first. place_base moves it by gradient until both paths are reached.
reach = jax.jit(jax.vmap(partial(arms.plan_approach, body=torso, tool=tool), (0, None, None)))
away = jnp.array([-300.0, 250.0, 100.0, 0.0, 0.0, 0.2])  # mm and rad
first = arms.moved_base(simulation.prone_placement(patient), away, jnp.zeros(3))
placed = jax.jit(partial(arms.place_base, body=torso, tool=tool))(paths, first, robot)
for name, base in (("at first", first), ("placed", placed.T_base_patient)):
    approach, _ = reach(paths, base, robot)
    print(f"{name}: margin {approach.margin.min():.2f} of half a joint's range (in reach if > 0)")

# Follow: joints to the retreat, the guide straight to 10 mm before the bone, then the wire alone.
home, limits = 0.5 * (robot.lower + robot.upper)[:5], arms.spine_motion_limits()
motion = jax.jit(jax.vmap(lambda each: arms.follow(each, home, robot, limits)))(approach)
end = motion.positions[:, -1]  # the five joints and the feed of the wire
pose, _ = jax.vmap(lambda q: arms.hybrid_forward(q[:5], robot))(end)
tips = jax.vmap(arms.wire_tip)(pose, end[:, 5])
off = jnp.linalg.norm(tips - approach.target_point, axis=1).max()
print(f"after {motion.duration.max():.0f} s the wire tips are within {off:.4f} mm of their targets")

# Draw in the base's y-z plane. The arm's links follow from its joints, here in the left pedicle.
lift, swing = jnp.array([0.0, -end[0, 1]]), pose[0, 3] - robot.theta - end[0, 3]
hinge = lift + robot.l13 * jnp.array([jnp.cos(swing - robot.gamma), jnp.sin(swing - robot.gamma)])
wrist = hinge + robot.L1 * jnp.array([jnp.cos(swing), jnp.sin(swing)])
arm = jnp.stack([jnp.array([-end[0, 0], 0.0]), hinge, lift, hinge, wrist, pose[0, 1:3]])
bone = jax.vmap(base.apply)(truth.dense)
figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
for axis in axes:
    axis.triplot(*bone[:, 1:].T, truth.model.faces, color="tan", linewidth=0.3)
    axis.plot(*arm.T, "o-", linewidth=3)
    axis.plot([pose[:, 1], tips[:, 1]], [pose[:, 2], tips[:, 2]], color="crimson")
    axis.set(xlabel="patient's right < y of the base [mm] > left", ylabel="z [mm]", aspect="equal")
y, z = bone[:, 1:].mean(axis=0)
axes[1].set(xlim=(y - 70, y + 70), ylim=(z - 60, z + 60))
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
