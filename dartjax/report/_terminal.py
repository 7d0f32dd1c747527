"""Print the cases of a run as a table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from dartjax.report._html import Column

_MAX_PRINTED = 60  # rows
_MIN_WIDTH = 130  # also if the output is not a terminal


def console() -> Console:
    """Make a console that is wide enough for a table of cases."""
    return Console(width=max(Console().width, _MIN_WIDTH))


def print_cases(
    cases: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str | None = None
) -> None:
    """Print the columns of the first 60 cases, and how many more metrics.json has."""
    table = Table(title=title)
    for column in columns:
        heading = f"{column.heading} [{column.unit}]" if column.unit else column.heading
        is_text = isinstance(cases[0][column.key], str)
        table.add_column(heading, justify="left" if is_text else "right")
    for case in cases[:_MAX_PRINTED]:
        table.add_row(*[_cell(case[column.key], column.digits) for column in columns])
    console().print(table)
    if len(cases) > _MAX_PRINTED:
        console().print(f"... and {len(cases) - _MAX_PRINTED} more in metrics.json", style="dim")


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{digits}f}" if np.isfinite(value) else "n/a"
