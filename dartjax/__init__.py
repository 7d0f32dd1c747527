"""dartjax: vertebrae in 3D from two X-rays, needle paths through them, in JAX."""
