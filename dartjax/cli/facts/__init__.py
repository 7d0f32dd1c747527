"""What dartjax reads from a file or folder, as plain values for `dartjax info`.

Imports no JAX, and what reads a kind of file only when such a file is looked into.
"""

from dartjax.cli.facts._assets import asset_facts as asset_facts
from dartjax.cli.facts._facts import FileFacts as FileFacts
from dartjax.cli.facts._read import read_facts as read_facts
