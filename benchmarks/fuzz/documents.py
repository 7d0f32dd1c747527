"""Damage the structure of documents: JSON, tables, XML, and text with numbers."""

import copy
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from benchmarks.fuzz.mutations import Expects, Mutation

_HUGE = 10**400
_VALUES: Sequence[Any] = (
    *(None, True, False, "", "x", "12", "NaN", [], {}, [[]], [None], {"x": 1}, ["a", "b"]),
    *(0, -1, 1, 0.5, 1e300, -1e300, 1e-300, 10**30, _HUGE, math.nan, math.inf, -math.inf),
)
_TOKENS = ("nan", "inf", "-1", "0", "1e400", "99999999999", "", "x", "1,5", "0x10", "ü", "-0", "2")
_SAME_KEY = "\x00same"


def damaged_json(rng: np.random.Generator, content: bytes) -> Mutation:
    """Change one place of a JSON document, or only how it is written."""
    document = json.loads(content)
    if rng.random() < 0.15:
        indent = int(rng.integers(0, 5)) or None
        text = json.dumps(document, indent=indent, sort_keys=bool(rng.random() < 0.5))
        return Mutation("JSON written otherwise", text.encode(), "same")
    places = list(_places(document))
    parent, key = places[rng.integers(len(places))]
    if isinstance(parent, dict) and rng.random() < 0.25:
        return _repeated_key(rng, document, parent, key)
    kind = str(rng.choice(["dropped", "value", "value", "nested", "repeated", "exchanged", "new"]))
    if kind == "dropped":
        del parent[key]
    elif kind == "value":
        parent[key] = copy.deepcopy(_VALUES[rng.integers(len(_VALUES))])
    elif kind == "nested":
        parent[key] = [parent[key]] if rng.random() < 0.5 else {"value": parent[key]}
    elif kind == "repeated" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == "exchanged":
        other = list(parent)[rng.integers(len(parent))] if isinstance(parent, dict) else 0
        parent[key], parent[other] = parent[other], parent[key]
    else:
        _extend(parent, key)
    return Mutation(f"JSON: {kind}", _dumps(document).encode(), "sound")


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything in a document."""
    keys = document if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


def _dumps(document: Any) -> str:
    return json.dumps(document).replace(str(_HUGE), "1e400")


def _extend(parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        parent[f"{key}_2"] = parent[key]
    else:
        parent.append(copy.deepcopy(parent[key]))


def _repeated_key(rng: np.random.Generator, document: Any, parent: Any, key: str) -> Mutation:
    """Write a key twice: with another value, the reader cannot know which one is meant."""
    same = bool(rng.random() < 0.3)
    parent[_SAME_KEY] = parent[key] if same else _other(parent[key])
    text = json.dumps(document).replace(json.dumps(_SAME_KEY), json.dumps(key))
    kind = "JSON: key twice" + (", same value" if same else "")
    return Mutation(kind, text.encode(), "same or refused" if same else "refused")


def _other(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value + 1
    return None if isinstance(value, dict | list | bool) else f"{value}x"


def damaged_table(rng: np.random.Generator, content: bytes) -> Mutation:
    """Change rows, columns or cells of a table with tabs, or only how it is written."""
    rows = [line.split("\t") for line in content.decode().splitlines()]
    row, column = int(rng.integers(len(rows))), int(rng.integers(len(rows[0])))
    kind, expects = str(rng.choice(list(_TABLE_DAMAGES))), "sound"
    separator = "\t"
    if kind == "commas":
        separator, expects = ",", "same or refused"
        rows = [[f'"{c}"' if "," in c else c for c in cells] for cells in rows]
    elif kind == "quotes":
        rows, expects = [[f'"{c}"' for c in cells] for cells in rows], "same"
    elif kind == "capital heading":
        rows[0], expects = [c.title() for c in rows[0]], "same"
    elif kind == "empty lines":
        rows, expects = [*rows, [""], [""]], "same"
    elif kind == "spaces":
        rows, expects = [[f" {c} " for c in cells] for cells in rows], "same"
    elif kind == "row twice":
        rows, expects = [*rows, list(rows[max(row, 1)])], "same or refused"
    elif kind == "row twice with another value":
        rows.append([*rows[max(row, 1)][:1], *("training" for _ in rows[0][1:])])
        expects = "refused"
    elif kind == "column twice":
        rows = [[*cells, cells[column]] for cells in rows]
    else:
        rows = _cut(rng, kind, rows, row, column)
    text = "\n".join(separator.join(cells) for cells in rows) + "\n"
    return Mutation(f"table: {kind}", text.encode(), expects)


_TABLE_DAMAGES = (
    *("commas", "quotes", "capital heading", "empty lines", "spaces", "row twice"),
    *("row twice with another value", "column twice", "column lost", "row lost", "cell", "cells"),
)


def _cut(
    rng: np.random.Generator, kind: str, rows: list[list[str]], row: int, column: int
) -> list[list[str]]:
    if kind == "column lost":
        return [[c for i, c in enumerate(cells) if i != column] for cells in rows]
    if kind == "row lost":
        return [cells for i, cells in enumerate(rows) if i != row]
    if kind == "cells":
        rows[row] = rows[row][:column] if rng.random() < 0.5 else [*rows[row], "x"]
    else:
        rows[row][column] = _TOKENS[rng.integers(len(_TOKENS))]
    return rows


def damaged_text(rng: np.random.Generator, content: bytes) -> Mutation:
    """Change one number, word or line of a text, or repeat a line."""
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    number = int(rng.integers(len(lines)))
    kind = str(rng.choice(["token", "token", "line lost", "line twice", "lines exchanged"]))
    if kind == "token":
        tokens = re.split(r"([\s/]+)", lines[number])
        tokens[2 * rng.integers((len(tokens) + 1) // 2)] = _TOKENS[rng.integers(len(_TOKENS))]
        lines[number] = "".join(tokens)
    elif kind == "line lost":
        del lines[number]
    elif kind == "line twice":
        lines.insert(number, lines[number])
    else:
        other = int(rng.integers(len(lines)))
        lines[number], lines[other] = lines[other], lines[number]
    text = "\n".join(lines) + "\n"
    return Mutation(f"text: {kind}", text.encode("utf-8", "surrogateescape"), "sound")


def damaged_xml(rng: np.random.Generator, content: bytes) -> Mutation:
    """Change an attribute or an element of an XML document, or only how it is written."""
    root = ElementTree.fromstring(content)
    parents = {child: parent for parent in root.iter() for child in parent}
    elements = list(root.iter())
    element = elements[rng.integers(len(elements))]
    kind = str(rng.choice(["attribute", "attribute", "attribute lost", "lost", "twice", "tag"]))
    if rng.random() < 0.1:
        root.append(ElementTree.Comment(" comment "))
        return Mutation("XML: comment", ElementTree.tostring(root), "same")
    expects: Expects = "sound"
    if kind.startswith("attribute") and element.attrib:
        name = list(element.attrib)[rng.integers(len(element.attrib))]
        if kind == "attribute":
            element.attrib[name] = _attribute(rng, element.attrib[name])
        else:
            del element.attrib[name]
    elif element in parents and kind == "lost":
        parents[element].remove(element)
    elif element in parents and kind == "twice":
        parents[element].append(copy.deepcopy(element))
    else:
        element.tag = str(rng.choice(["joint", "link", "limit", "origin", "unknown"]))
    return Mutation(f"XML: {kind}", ElementTree.tostring(root), expects)


def _attribute(rng: np.random.Generator, value: str) -> str:
    """Change one number of an attribute, or the whole attribute."""
    parts = value.split()
    if len(parts) > 1 and rng.random() < 0.7:
        parts[rng.integers(len(parts))] = _TOKENS[rng.integers(len(_TOKENS))]
        return " ".join(parts)
    return str(rng.choice([*_TOKENS, "0 0 0", "1 2", "1 2 3 4", "fixed", "floating", "a", "b"]))
