"""`dartjax info`: show what dartjax reads from files, as tables or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from dartjax._errors import DataError
from dartjax.cli._commands import Info
from dartjax.cli._tables import print_facts
from dartjax.cli.facts import FileFacts, plain, read_facts


def main(settings: Info) -> None:
    """Describe every file that can be read. DataError for all others, raised at the end."""
    found: list[FileFacts] = []
    problems: list[tuple[str, str]] = []
    for name in settings.files:
        try:
            found.append(read_facts(Path(name)))
        except DataError as error:
            problems.append((name, str(error)))
    if settings.json:
        print(_document(found, problems))
    else:
        print_facts(found)
    if problems:
        raise DataError("\n".join(message for _, message in problems))


def _document(found: Sequence[FileFacts], problems: Sequence[tuple[str, str]]) -> str:
    files = [
        {
            "path": each.path,
            "kind": each.kind,
            "facts": plain(each.facts),
            "warnings": list(each.warnings),
            "notes": list(each.notes),
        }
        for each in found
    ]
    errors = [{"path": path, "error": error} for path, error in problems]
    return json.dumps({"files": [*files, *errors]}, indent=1, allow_nan=False)
