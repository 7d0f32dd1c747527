"""`import dartjax`: what it offers, and what it costs."""

import inspect
import subprocess
import sys
import time

import pytest

import dartjax
from dartjax import pipeline


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_front_door_costs_nothing():
    code = "import sys, dartjax; print(dartjax.reconstruct, dartjax.__version__); "
    code += "print([name for name in ('jax', 'numpy', 'equinox') if name in sys.modules])"
    took = []
    for _ in range(3):
        started = time.monotonic()
        shown = run(code)
        took.append(time.monotonic() - started)
    assert shown.endswith("[]\n")
    assert min(took) < 1.0  # .1 s on an idle core


def test_every_name_is_there():
    for name in dartjax.__all__:
        assert getattr(dartjax, name) is not None
    assert set(dartjax.__all__) <= set(dir(dartjax))
    assert dartjax.Spine is pipeline.Spine and dartjax.ReconstructOptions().recipe == "classical"
    with pytest.raises(AttributeError, match="no attribute 'reconstrukt'"):
        _ = dartjax.reconstrukt


def test_the_front_door_and_the_pipeline_take_the_same():
    doors = (dartjax.reconstruct, pipeline.reconstruct)
    outside, inside = (inspect.signature(door).parameters for door in doors)
    assert list(outside) == list(inside)
    assert [p.default for p in outside.values()] == [p.default for p in inside.values()]
