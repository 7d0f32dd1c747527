"""Write one self-contained HTML page per run: numbers, table, figures and a 3D view.

The page loads no other file (a content security policy forbids it), so it also opens from a disk,
an archive or a mail attachment.
"""

import base64
import dataclasses
import html
import importlib.metadata
import pathlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, TypeGuard

import numpy as np
from matplotlib.figure import Figure as MatplotlibFigure

from dartjax.report._viewer import ViewerMesh, ViewerPath, scene_json

SYNTHETIC_BANNER = "SYNTHETIC ANATOMY - not VerSe, not a patient"
_KIND_BANNERS = {
    "synthetic": ("warn", SYNTHETIC_BANNER),
    "real_ct_drr": ("", "X-rays simulated from a real CT, not acquired on an X-ray machine."),
    "real_xray": ("", "Acquired X-rays."),
}
_DASH = "\u2013"
_LEAK_BANNER = "The shape model has seen this subject: these numbers do not hold for a new patient."
_UNITS = {"mm": "mm", "deg": "°", "px": "px", "seconds": "s", "percent": "%"}
_ACRONYMS = {"nsd", "hd95", "masd", "ssm", "drr", "ct", "mtre", "gpu", "cpu", "hd"}


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of the table: the key in each row, its heading, unit and number of decimals."""

    key: str
    heading: str
    unit: str = ""
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class Figure:
    """PNG with its caption."""

    png: bytes
    caption: str


def save_figures(
    pictures: Mapping[str, tuple[MatplotlibFigure, str]],
    folder: pathlib.Path,
    dpi: int | float = 100,
) -> list[Figure]:
    """Write every picture (figure, caption) to NAME.png and return them for a page."""
    figures = []
    for name, (figure, caption) in pictures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=dpi)
        figures.append(Figure(path.read_bytes(), caption))
    return figures


@dataclasses.dataclass(frozen=True)
class ReportCase:
    """Section of a page: figures, and the surfaces and needle paths of a 3D view."""

    title: str
    figures: Sequence[Figure] = ()
    meshes: Sequence[ViewerMesh] = ()
    paths: Sequence[ViewerPath] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """Content of a page: `record` is the provenance, `summary` and `rows` are as in metrics.json.

    Banners on the page state the kind of data (`record["dataset_kind"]`), prominently if it is
    synthetic, and warn if `record["ssm_leak"]` is set; `banner` adds a line. A value that is None
    or not finite is shown as a dash with its `<key>_reason`.
    """

    title: str
    record: Mapping[str, Any]
    summary: Mapping[str, Any]
    columns: Sequence[Column] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    cases: Sequence[ReportCase] = ()
    subtitle: str = ""
    banner: str = ""


def write_html(report: Report, path: str | pathlib.Path) -> pathlib.Path:
    """Write the page and return its path. The folder must exist."""
    template = _package_text("report.html")
    parts = {
        "title": html.escape(report.title),
        "subtitle": html.escape(report.subtitle),
        "navigation": _navigation(report),
        "banners": _banners(report),
        "tiles": _tiles(report.summary),
        "table": _table(report),
        "cases": "\n".join(_case(i, case) for i, case in enumerate(report.cases)),
        "record": "".join(
            f"<dt>{_label(key)[0]}</dt><dd>{_text(value)}</dd>"
            for key, value in _plain_values(report.record).items()
        ),
        "version": html.escape(importlib.metadata.version("dartjax")),
        "scenes": _scenes(report.cases),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    target = pathlib.Path(path)
    target.write_text(page, encoding="utf-8")
    return target


def _package_text(name: str) -> str:
    return resources.files("dartjax.report").joinpath(name).read_text(encoding="utf-8")


def _navigation(report: Report) -> str:
    links = [("results", "Results")] if report.rows else []
    if len(report.cases) == 1:
        links.append(("case-0", "3D and X-rays"))
    links.append(("provenance", "Provenance"))
    return "".join(f'<a href="#{anchor}">{text}</a>' for anchor, text in links)


def _banners(report: Report) -> str:
    banners = [_KIND_BANNERS.get(report.record.get("dataset_kind", ""), ("", ""))]
    if report.record.get("ssm_leak"):
        banners.append(("bad", _LEAK_BANNER))
    banners.append(("", report.banner))
    return "\n".join(
        f'<p class="banner {css}" role="note">{html.escape(text)}</p>'
        for css, text in banners
        if text
    )


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert scalars of numpy or jax to Python numbers; keep all other values."""
    scalar = {k for k, v in values.items() if hasattr(v, "item") and np.ndim(v) == 0}
    return {key: v.item() if key in scalar else v for key, v in values.items()}


def _tiles(summary: Mapping[str, Any]) -> str:
    tiles = []
    for key, value in _plain_values(summary).items():
        if key.endswith("_reason"):
            continue
        name, unit = _label(key)
        number = _missing(summary, key) if _is_missing(value) else _text(value)
        tiles.append(
            f'<div class="tile"><div class="name">{name}</div>'
            f'<div class="value">{number}{_unit(unit)}</div></div>'
        )
    return "".join(tiles)


def _table(report: Report) -> str:
    if not report.rows:
        return ""
    rows = [_plain_values(row) for row in report.rows]
    numeric = {c.key: _is_numeric(rows, c.key) for c in report.columns}
    css = {key: ' class="number"' if yes else "" for key, yes in numeric.items()}
    head = "".join(
        f"<th{css[c.key]}>{html.escape(c.heading)}{_unit(c.unit)}</th>" for c in report.columns
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(row, c, css[c.key]) for c in report.columns) + "</tr>"
        for row in rows
    )
    return (
        '<section id="results"><h2>Results</h2><div class="card scroll"><table class="data">'
        f"<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div></section>"
    )


def _cell(row: Mapping[str, Any], column: Column, css: str) -> str:
    value = row.get(column.key)
    if _is_missing(value):
        return f'<td{css} data-sort="">{_missing(row, column.key)}</td>'
    sort = float(value) if _is_number(value) else html.escape(str(value))
    return f'<td{css} data-sort="{sort}">{_text(value, column.digits)}</td>'


def _case(index: int, case: ReportCase) -> str:
    parts = [f'<section id="case-{index}"><h2>{html.escape(case.title)}</h2>']
    if case.note:
        parts.append(f'<p class="note">{html.escape(case.note)}</p>')
    if case.meshes or case.paths:
        parts.append(
            f'<div class="viewer" data-scene="scene-{index}">'
            "<noscript>The 3D view needs JavaScript.</noscript></div>"
        )
    if case.figures:
        parts.append(f'<div class="figures">{"".join(map(_figure, case.figures))}</div>')
    return "\n".join([*parts, "</section>"])


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode("ascii")
    caption = html.escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _scenes(cases: Sequence[ReportCase]) -> str:
    scenes = [
        f'<script type="application/json" id="scene-{i}">{scene_json(c.meshes, c.paths)}</script>'
        for i, c in enumerate(cases)
        if c.meshes or c.paths
    ]
    if not scenes:
        return ""
    return "\n".join([*scenes, f"<script>\n{_package_text('viewer.js')}</script>"])


def _label(key: str) -> tuple[str, str]:
    """Split a key into name and unit: "masd_start_mm" -> ("MASD start", "mm")."""
    stem, _, last = key.rpartition("_")
    unit = _UNITS.get(last, "") if stem else ""
    words = (stem if unit else key).split("_")
    text = " ".join(word.upper() if word in _ACRONYMS else word for word in words)
    return html.escape(text[:1].upper() + text[1:]), unit


def _unit(unit: str) -> str:
    return f' <span class="unit">{html.escape(unit)}</span>' if unit else ""


def _text(value: Any, digits: int = 2) -> str:
    """Format a value as HTML text: numbers rounded, lists joined, None as a dash."""
    if value is None:
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        number = float(value)
        return str(int(number)) if isinstance(value, int) else f"{number:.{digits}f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return html.escape(str(value))


def _is_number(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, int | float)


def _is_missing(value: Any) -> bool:
    return value is None or (_is_number(value) and not np.isfinite(value))


def _missing(values: Mapping[str, Any], key: str) -> str:
    reason = html.escape(str(values.get(f"{key}_reason", "not available")))
    return f'<span class="missing" title="{reason}">{_DASH}</span>'


def _is_numeric(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [row.get(key) for row in rows]
    return all(_is_missing(v) or _is_number(v) for v in values)
