"""dartjax: vertebrae in 3D from two X-rays, needle paths through them, in JAX."""

from dartjax._errors import DataError as DataError
