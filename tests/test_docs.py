"""The reference pages name every package and function; every page stands in the navigation."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def hook():
    spec = importlib.util.spec_from_file_location("names", DOCS / "_build" / "public_names.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packages():
    """Every package of the library that offers names."""
    return [
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in sorted((ROOT / "dartjax").rglob("__init__.py"))
    ]


# Their names have entries elsewhere: on a page of their own, below them, or in the package above.
ELSEWHERE = (
    "dartjax",
    "dartjax.robot",
    "dartjax.cli.facts",
    "dartjax.data.cohorts",
    "dartjax.data.formats",
    "dartjax.data.packaged",
    "dartjax.pipeline.detection",
    "dartjax.pipeline.studies",
)


def test_every_public_package_has_its_entries():
    text = "\n".join((DOCS / page).read_text() for page in PAGES if page.startswith("api/"))
    listed = set(re.findall(r"^PUBLIC ([\w.]+)$", text, re.MULTILINE))
    public = {name for name in packages() if hook().public_names(name)}
    assert public - listed - set(ELSEWHERE) == set()
    assert listed <= public


def test_the_entries_of_a_page_are_functions_and_classes():
    names = hook().public_names("dartjax.render")
    assert {"drr", "splat", "SplatOptions", "ncc"} <= set(names)
    page = hook().on_page_markdown("# x\n\nPUBLIC dartjax.render\n")
    assert "::: dartjax.render.splat\n" in page and "PUBLIC" not in page
    assert "DISTURBED" not in hook().public_names("dartjax.pipeline")  # a constant


@pytest.mark.parametrize("page", PAGES)
def test_every_page_stands_in_the_navigation(page):
    assert f": {page}\n" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("page", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_links_between_pages_lead_somewhere(page):
    folder = (DOCS / page).parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert (folder / target).exists(), target
