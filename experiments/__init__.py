"""Experiments: one thin absl main per job."""

import os

# The small eigenproblems of the shape models run up to ten times slower when the threads of
# OpenBLAS compete with those of XLA. Read by NumPy when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
