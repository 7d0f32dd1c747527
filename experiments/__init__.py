"""Experiments: one thin main per study, started by `python -m experiments.NAME`."""

import os

# The small eigenproblems of the shape models are up to ten times slower when the threads of
# OpenBLAS compete with those of XLA. NumPy reads this variable when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
