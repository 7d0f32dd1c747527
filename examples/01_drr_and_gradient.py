"""Find where a C-arm stood: descend the gradient of an image similarity in the camera's pose."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

from dartjax import camera, render, synthverse, transforms

case, why_synthetic = synthverse.demo_case()  # a real chest CT (34 MB), fetched once by pip
if why_synthetic:
    print(f"{why_synthetic}\nRunning on SYNTHETIC anatomy instead.")


@jax.jit
def xray(x):
    """The DRR with the C-arm off its true place by 0.1 rad * x[:3] and 10 mm * x[3:]."""
    rotation = transforms.carm_rotation(jnp.pi + 0.1 * x[0], 0.1 * x[1], 0.1 * x[2])  # pi is AP
    center = case.ct.center + 10.0 * x[3:]
    view = camera.from_carm(rotation, center, pixel_spacing=3.5, image_size=(128, 128))
    return render.drr(case.ct, view, num_samples=250)


def dissimilarity(x):
    """1 - normalised cross-correlation with the observed X-ray."""
    return 1.0 - render.ncc(xray(x), observed, jnp.ones_like(observed))


def descend(carry, _):
    """One step of Adam along the gradient, which JAX carries through the ray casting."""
    x, state = carry
    update, state = optimizer.update(jax.grad(dissimilarity)(x), state)
    return (x + update, state), x


observed = xray(jnp.zeros(6))
start = jnp.array([0.8, -0.5, 0.6, 1.5, -1.0, 2.0])
optimizer = optax.adam(optax.cosine_decay_schedule(0.15, 120))
(end, _), steps = jax.lax.scan(descend, (start, optimizer.init(start)), length=120)
angle, position = jnp.degrees(0.1 * abs(steps[:, :3])).max(1), 10.0 * abs(steps[:, 3:]).max(1)
print(f"start: off by up to {angle[0]:.1f} deg and {position[0]:.1f} mm")
print(f"end:   off by up to {angle[-1]:.2f} deg and {position[-1]:.2f} mm")

figure, axes = plt.subplots(1, 4, figsize=(15, 4), layout="constrained")
axes[0].imshow(observed, cmap="gray")
axes[1].imshow(xray(start) - observed, cmap="RdBu", vmin=-2.0, vmax=2.0)
axes[2].imshow(xray(end) - observed, cmap="RdBu", vmin=-2.0, vmax=2.0)
for axis, title in zip(axes, ("observed", "start - observed", "end - observed"), strict=False):
    axis.set(title=title, xlabel="right  <  patient  >  left", xticks=[], yticks=[])
axes[3].semilogy(jnp.stack([angle, position], axis=1), label=["angle [deg]", "position [mm]"])
axes[3].set(title="largest error of the C-arm's pose", xlabel="step of the descent")
axes[3].legend()
here = Path(__file__)
figure.savefig(sys.argv[1] if sys.argv[1:] else here.parent / "pictures" / f"{here.stem}.png")
