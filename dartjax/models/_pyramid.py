"""Feature pyramid over the maps of a backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class FeaturePyramid(nn.Module):
    """Feature pyramid (Lin et al. 2017), top-down into its finest map."""

    channels: int

    @nn.compact
    def __call__(self, maps: list[Float[Array, "_ _ _"]]) -> Float[Array, "_ _ _"]:
        """Compute the finest map from maps of which each has half the sides of the one before."""
        x = nn.Dense(self.channels, name=f"lateral{len(maps) - 1}")(maps[-1])
        for level in reversed(range(len(maps) - 1)):
            height, width = maps[level].shape[:2]
            finer = jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)[:height, :width]
            x = finer + nn.Dense(self.channels, name=f"lateral{level}")(maps[level])
        x = nn.LayerNorm(name="norm")(x)
        return x + nn.gelu(nn.Conv(self.channels, (3, 3), name="smooth")(x))
