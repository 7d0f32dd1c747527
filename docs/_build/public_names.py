"""Reference pages: a line `PUBLIC dartjax.render` becomes an entry for every function and class
that the package offers in its `__init__.py`, from its docstring. A hook of mkdocs."""

import ast
import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def on_page_markdown(markdown: str, **_) -> str:
    """Write out the entries of a page."""
    return re.sub(r"^PUBLIC ([\w.]+)$", _entries, markdown, flags=re.MULTILINE)


def public_names(package: str) -> list[str]:
    """The documented names that a package offers (`from x import y as y`), in the order of its
    file. Plain constants have no docstring and are left out."""
    offered = _imports(package)
    return [name for name in offered if not name.startswith("_") and _is_documented(package, name)]


def _entries(found: re.Match[str]) -> str:
    package = found[1]
    return "\n\n".join(f"::: {package}.{name}" for name in public_names(package))


def _imports(module: str) -> dict[str, str]:
    """Where each name of a module that is imported under its own name comes from."""
    return {
        alias.asname: node.module or ""
        for node in ast.walk(_parsed(module))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


def _is_documented(module: str, name: str) -> bool:
    """Whether a name is a function or class, wherever it is defined."""
    if (origin := _imports(module).get(name)) is not None:
        return _is_documented(origin, name)
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in _parsed(module).body)


@functools.cache
def _parsed(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
