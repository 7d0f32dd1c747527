"""The examples in the README and the quickstart run."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_example_runs(name):
    example = re.search(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert example is not None
    assert len([line for line in example[1].splitlines() if line.strip()]) <= 15
    names: dict = {}
    exec(example[1], names)
    assert float(names["value"]) > 0.0
    assert names["gradient"].shape == (15,)
    assert bool(jnp.isfinite(names["gradient"]).all())
