"""Describe files and folders as plain values, for `dartjax info`.

JAX is not imported. The reader of a kind of file is imported when such a file is read.
"""

from dartjax.cli.facts._assets import asset_facts as asset_facts
from dartjax.cli.facts._facts import FileFacts as FileFacts
from dartjax.cli.facts._facts import plain as plain
from dartjax.cli.facts._read import read_facts as read_facts
