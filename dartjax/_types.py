"""Array aliases with shapes.

Axis names are the same everywhere: `vertex`, `face`, `mode`, `landmark`, `view`, `h`, `w`.
Every array is for ONE case; batches come from `jax.vmap` in the caller.
"""

from jaxtyping import Array, Bool, Float, Int

Scalar = Float[Array, ""]
Point = Float[Array, "3"]
Points = Float[Array, "n 3"]
Vertices = Float[Array, "vertex 3"]
Faces = Int[Array, "face 3"]
Image = Float[Array, "h w"]
Images = Float[Array, "view h w"]
Pixels = Float[Array, "n 2"]
Coefficients = Float[Array, " mode"]
Matrix2 = Float[Array, "2 2"]
Matrix3 = Float[Array, "3 3"]
Matrix4 = Float[Array, "4 4"]
Mask = Bool[Array, "h w"]
