"""Every example runs from the installed package alone, is short, and leaves a picture."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9][0-9]_*.py"))
MAX_LINES = 60


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_leaves_a_picture(example, tmp_path):
    picture = tmp_path / "picture.png"
    # From another folder: neither the experiments nor the tests can be imported there.
    done = subprocess.run(
        [sys.executable, str(example), str(picture)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout), "an example prints its result"
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), float)
    assert min(pixels.shape[:2]) >= 300
    # A figure in which something is drawn: many colours, and not white almost everywhere.
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 16
    assert np.mean(np.any(pixels < 250.0, axis=2)) > 0.01


def test_there_are_eight_examples_numbered_in_order():
    assert [path.stem[:2] for path in EXAMPLES] == [f"{number:02d}" for number in range(1, 9)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_what_it_shows(example):
    source = example.read_text(encoding="utf-8")
    assert len(source.splitlines()) < MAX_LINES
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring
    assert docstring.endswith(".")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_imports_only_what_dartjax_depends_on(example):
    allowed = {"dartjax", "jax", "matplotlib", "mpl_toolkits", "numpy", "optax", "scipy"}
    imported = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    assert imported <= allowed | set(sys.stdlib_module_names)


def test_page_of_examples_names_every_one():
    page = (Path(__file__).parent.parent / "docs" / "examples.md").read_text(encoding="utf-8")
    missing = [path.name for path in EXAMPLES if path.name not in page]
    assert not missing
