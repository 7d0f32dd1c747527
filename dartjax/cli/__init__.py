"""Start jobs: the command `dartjax`, settings as flags, run folders and exit codes.

It does not import JAX, so that help is shown at once.
"""

from dartjax.cli import _launch
from dartjax.cli._console import main as main
from dartjax.cli._job import RunSettings as RunSettings
from dartjax.cli._launch import RunContext as RunContext
from dartjax.cli._launch import commit as commit
from dartjax.cli._launch import progress as progress
from dartjax.cli._launch import run as run
from dartjax.cli._launch import warn as warn
from dartjax.cli._settings import setting as setting

launch = _launch  # experiments use this name
