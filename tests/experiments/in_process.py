"""Run experiments like a user, but in this process, to avoid a second import."""

import contextlib
import importlib
import io
import os
import subprocess
from unittest import mock

import jax
import pytest

from dartjax.cli import launch


def start(name, *flags, **environment):
    """What `python -m experiments.NAME FLAGS` would give: exit code, stdout and stderr. Programs
    are kept where those of all tests are."""
    main = importlib.import_module(f"experiments.{name}.__main__")
    settings = importlib.import_module(f"experiments.{name}.settings").Settings
    kept = {"JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, kept | environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        launch.run(main.main, settings, [name, *flags], join=getattr(main, "join", None))
    code = stopped.value.code
    return subprocess.CompletedProcess([name, *flags], code, out.getvalue(), err.getvalue())
