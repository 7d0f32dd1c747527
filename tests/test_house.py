"""The rules of the house, read from the source: who may import whom, and what is documented."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dartjax"
MAX_LINES = 600

# Floors of the house. A part may import the floors below it, and within one floor nothing
# but what the pairs of SAME_FLOOR allow.
FLOORS = (
    ("_types", "_numerics"),
    ("transforms",),
    ("camera", "mesh", "image", "observations"),
    ("render", "ssm", "models", "metrics"),
    ("registration",),
    ("planning",),
    ("robot",),
    ("training",),
)
SAME_FLOOR = {("image", "camera"), ("observations", "camera"), ("_numerics", "_types")}
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
CORE = {part for parts in FLOORS[:3] for part in parts}
# Host side: they import the types of the floors below them, only experiments import them.
EDGE = {"data": CORE | {"ssm"}, "report": CORE}
FORBIDDEN = {("registration", "models")}

SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_CODE = SOURCES + sorted(
    path
    for folder in ("experiments", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path):
    """Full dotted names of everything a file imports, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_allowed(importer, imported):
    if importer in (imported, "__init__"):
        return True
    if imported in EDGE or (importer, imported) in FORBIDDEN:
        return False
    if importer in EDGE:
        return imported in EDGE[importer]
    below = FLOOR_OF[imported] < FLOOR_OF[importer]
    return below or (importer, imported) in SAME_FLOOR


def violations(path):
    importer = part_of(path)
    for module in imported_modules(path):
        top, _, rest = module.partition(".")
        imported = rest.split(".")[0]
        in_the_house = top == "dartjax" and imported in FLOOR_OF.keys() | EDGE.keys()
        if top == "experiments" or (in_the_house and not is_allowed(importer, imported)):
            yield module


def test_every_part_has_a_place_in_the_house():
    unknown = (
        {part_of(path) for path in SOURCES} - FLOOR_OF.keys() - EDGE.keys() - {"__init__", "assets"}
    )
    assert not unknown, f"name the floor of {unknown} in this test and in the docs"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down(path):
    assert not list(violations(path))


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("camera", "transforms", True),
        ("transforms", "camera", False),
        ("image", "camera", True),
        ("camera", "image", False),
        ("render", "ssm", False),
        ("registration", "render", True),
        ("registration", "models", False),
        ("training", "models", True),
        ("planning", "registration", True),
        ("registration", "planning", False),
        ("data", "mesh", True),
        ("data", "render", False),
        ("robot", "data", False),
    ],
)
def test_the_rule_itself(importer, imported, allowed):
    assert is_allowed(importer, imported) == allowed


@pytest.mark.parametrize("path", ALL_CODE, ids=name_of)
def test_files_are_short_and_unpickle_nothing(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= MAX_LINES
    modules = {module.split(".")[0] for module in imported_modules(path)}
    assert not modules & {"pickle", "cPickle", "dill", "joblib", "shelve"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


def definitions(path):
    """Top-level functions and classes of a file by name."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def public_definitions():
    """(id, node) of every public function and class: the modules' own, and what the packages'
    `__init__` re-export."""
    for path in PACKAGE.glob("*.py"):
        for name, node in definitions(path).items():
            if not path.stem.startswith("_") and not name.startswith("_"):
                yield f"{path.stem}.{name}", node
    for init in PACKAGE.glob("*/__init__.py"):
        for node in ast.parse(init.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dartjax."):
                source = ROOT / (node.module.replace(".", "/") + ".py")
                found = definitions(source)
                for alias in node.names:
                    if alias.name in found:
                        yield f"{init.parent.name}.{alias.name}", found[alias.name]


PUBLIC = dict(public_definitions())


def unannotated(function):
    """What a function's signature leaves without a type."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    missing = [a.arg for a in [*named, *starred] if a.annotation is None]
    missing = [name for name in missing if name not in ("self", "cls")]
    return missing + (["return"] if function.returns is None else [])


def public_methods(node):
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            yield method


def test_public_names_are_found():
    assert {"camera.project", "metrics.nsd", "render.ncc", "planning.clearance"} <= PUBLIC.keys()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_and_annotated(name):
    node = PUBLIC[name]
    functions = list(public_methods(node)) if isinstance(node, ast.ClassDef) else [node]
    for definition in {node, *functions}:
        assert ast.get_docstring(definition), f"{definition.name} has no docstring"
    for function in functions:
        assert not unannotated(function), f"{function.name}: {unannotated(function)}"
