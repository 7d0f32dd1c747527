"""Check that ignored values have no effect on a result and on its gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

BAD = (jnp.nan, jnp.inf, -jnp.inf, 1e30)


def filled(arguments, ignored, value):
    """Set the ignored entries of some arguments to a value. `ignored` maps a name to booleans over
    the leading axes of every floating-point leaf of the argument of that name."""

    def of(name, mask):
        def leaf_of(leaf):
            if not eqx.is_inexact_array(leaf):
                return leaf
            at = jnp.asarray(mask).reshape(*mask.shape, *(1,) * (leaf.ndim - mask.ndim))
            return jnp.where(at, jnp.asarray(value, leaf.dtype), leaf)

        return jax.tree.map(leaf_of, arguments[name])

    return {**arguments, **{name: of(name, mask) for name, mask in ignored.items()}}


def probe(outputs):
    """Sum all floating-point leaves with weights that differ."""
    leaves = [x for x in jax.tree.leaves(outputs) if eqx.is_inexact_array(x)]
    return sum(
        jnp.sum(x * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)) for x in leaves
    )


def assert_ignored(function, arguments, ignored, *, gradient=True, rtol=1e-5, atol=1e-6):
    """Call `function(**arguments)` with every bad value at the ignored entries: outputs and
    gradient are finite and those of the arguments as given."""
    differentiable, rest = eqx.partition(arguments, eqx.is_inexact_array)

    def value(differentiable):
        outputs = function(**eqx.combine(differentiable, rest))
        return probe(outputs), outputs

    def both(differentiable):
        if not gradient:
            return value(differentiable)[1], None
        slope, outputs = jax.grad(value, has_aux=True)(differentiable)
        return outputs, slope

    both = jax.jit(both)
    expected = both(differentiable)
    for leaf in jax.tree.leaves(expected):
        assert np.isfinite(leaf).all(), "with harmless values"
    for bad in BAD:
        found = both(eqx.filter(filled(arguments, ignored, bad), eqx.is_inexact_array))
        paths, _ = jax.tree_util.tree_flatten_with_path(found)
        for (path, leaf), other in zip(paths, jax.tree.leaves(expected), strict=True):
            message = f"with {bad} at {jax.tree_util.keystr(path)}"
            np.testing.assert_allclose(leaf, other, rtol, atol, err_msg=message)
