"""Helpers of all benchmarks: machine, medians, tables and JSON files."""

import json
import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from typing import Any


def machine_info() -> dict[str, Any]:
    """Return processor, cores, memory and load of this machine."""
    return {
        "machine": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def versions(*names: str) -> dict[str, str]:
    """Return the versions of those named distributions that are installed."""
    installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
    return {name: metadata.version(name) for name in names if name.lower() in installed}


def summarize(seconds: Sequence[float]) -> dict[str, Any]:
    """Return median and minimum of repeated timings, and the timings."""
    return {
        "median_seconds": statistics.median(seconds),
        "fastest_seconds": min(seconds),
        "seconds": list(seconds),
    }


def write_json(path: str | pathlib.Path, payload: dict[str, Any]) -> None:
    """Write results as JSON; make the folder if it is missing."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(payload, indent=1) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on the terminal, with numbers aligned to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
