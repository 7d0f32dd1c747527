"""Print facts of files as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dartjax.cli.facts import FileFacts

_UNITS = {"mm": "mm", "deg": "deg", "cm3": "cm³", "mb": "MB", "percent": "%"}
_INDENT = (0, 0, 0, 2)
_SHOWN = 8  # entries of a list of names that are printed
_PLAIN_WIDTH = 120  # where the output is not a terminal


def print_facts(found: Sequence[FileFacts]) -> None:
    """Print one table per file on stdout, followed by its notes and warnings."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for number, each in enumerate(found):
        if number:
            console.print()
        _print_one(console, each)


def _print_one(console: Console, each: FileFacts) -> None:
    console.print(Text.assemble((each.path, "bold"), ": ", each.kind), soft_wrap=True)
    plain = {key: value for key, value in each.facts.items() if not _is_table(value)}
    tables = {key: value for key, value in each.facts.items() if _is_table(value)}
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in plain.items():
        grid.add_row(f"  {_label(key)}", Text(_text(value)))
    console.print(grid)
    for key, rows in tables.items():
        console.print(_table(key, rows))
    for note in each.notes:
        console.print(Padding(Text(note, style="dim"), _INDENT, expand=False))
    for warning in each.warnings:
        console.print(Padding(Text(f"warning: {warning}", style="yellow"), _INDENT, expand=False))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make a table with a row per entry, or a column per entry if the rows would be long."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_label(key) for key in keys]]
    cells += [[_text(row.get(key)) for key in keys] for row in rows]
    if len(rows) < len(keys) - 1:
        cells = [list(column) for column in zip(*cells, strict=True)]
    table = Table(
        title=f"  {_label(name)}", title_justify="left", title_style="cyan", box=box.SIMPLE_HEAD
    )
    for heading in cells[0]:
        table.add_column(heading, overflow="fold")
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    return table


def _label(key: str) -> str:
    """Make a label from a key: "spacing_mm" -> "spacing (mm)"."""
    name, _, unit = key.rpartition("_")
    if name and unit in _UNITS:
        return f"{name.replace('_', ' ')} ({_UNITS[unit]})"
    return key.replace("_", " ").removeprefix("num ")


def _text(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "\n".join(f"{_label(str(key))}: {_text(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return _list_text(value)
    return str(value)


def _list_text(value: list[Any]) -> str:
    if all(isinstance(each, str) for each in value):
        sentences = any(" " in each for each in value)
        shown = value if sentences else value[:_SHOWN]
        more = f", ... ({len(value)} in all)" if len(shown) < len(value) else ""
        return ("\n" if sentences else ", ").join(shown) + more
    return ", ".join(_text(each) for each in value)
