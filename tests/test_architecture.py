"""The rules of the library, read from the source: who may import whom, and what is documented."""

import ast
import collections
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dartjax"
MAX_LINES = 600  # of a file
MAX_FILES = 22  # Python modules in a folder, `__init__.py` not counted
MAX_FUNCTION = 60  # lines of a function, its docstring not counted

# Layers of the library, from the ground up. A package may import the layers below it, and within
# one layer nothing but what SAME_LAYER allows.
LAYERS = (
    ("_types", "_numerics", "_errors", "_progress", "_locks"),
    ("_least_squares", "_documents", "_arrays", "anatomy"),
    ("transforms", "_pixels"),
    ("camera", "mesh", "image", "observations", "metrics"),
    ("render", "ssm", "models"),
    ("registration", "planning"),
    ("robot",),
    ("data",),
    ("synthverse",),
    ("simulation",),
    ("training",),
    ("pipeline",),
    ("report",),
    ("cli",),
)
SAME_LAYER = {
    ("_numerics", "_types"),
    ("image", "camera"),
    ("observations", "camera"),
    ("observations", "image"),
    ("metrics", "mesh"),
}
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
TYPES = {package for packages in LAYERS[:4] for package in packages}
# Packages that may import less than their layer says.
ONLY = {
    "data": TYPES | {"ssm", "models"},  # reads and writes types, models and parameters
    "models": TYPES,
    "planning": TYPES | {"ssm"},
    "robot": TYPES | {"render", "planning"},
}
FORBIDDEN = {("registration", "models")}  # it takes a similarity as a callable

SOURCES = sorted(PACKAGE.rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))
ALL_CODE = (
    SOURCES
    + EXPERIMENTS
    + sorted(path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob("*.py"))
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES + EXPERIMENTS}


def package_of(module):
    """The package a module of the library stands in; "__init__" for the front door."""
    return module.split(".")[1] if "." in module else "__init__"


def imported_names(path):
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
    """May a package import another?"""
    if importer in (imported, "__init__", "__main__"):
        return True
    if (importer, imported) in FORBIDDEN or imported not in ONLY.get(importer, {imported}):
        return False
    return LAYER_OF[imported] < LAYER_OF[importer] or (importer, imported) in SAME_LAYER


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def upward(path):
    """What a module of the library imports from where it may not."""
    importer = package_of(module_of(path))
    for name in imported_names(path):
        top, _, rest = name.partition(".")
        package = rest.split(".")[0]
        if top == "experiments" or (
            top == "dartjax" and package in LAYER_OF and not is_allowed(importer, package)
        ):
            yield name


def trespasses(path):
    """What a file imports that is private to another package or another module."""
    importer = module_of(path)
    for name in imported_names(path):
        parts = name.split(".")
        if parts[0] not in ("dartjax", "experiments"):
            continue
        for depth, part in enumerate(parts):
            owner = ".".join(parts[:depth])
            is_module = f"{owner}.{part}" in MODULES
            inside = is_module and f"{importer}.".startswith(f"{owner}.")
            if depth and is_private(part) and not inside:
                yield name


def test_every_part_has_a_place_in_the_house():
    packages = {package_of(module_of(path)) for path in SOURCES}
    unknown = packages - LAYER_OF.keys() - {"__init__", "__main__", "assets"}
    assert not unknown, f"name the layer of {unknown} in this test and in CONTRIBUTING.md"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down(path):
    assert not list(upward(path))


@pytest.mark.parametrize("path", SOURCES + EXPERIMENTS, ids=name_of)
def test_what_is_private_stays_at_home(path):
    assert not list(trespasses(path))


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
        ("registration", "data", False),
        ("planning", "registration", False),
        ("training", "models", True),
        ("data", "mesh", True),
        ("data", "render", False),
        ("data", "synthverse", False),
        ("robot", "data", False),
        ("robot", "registration", False),
        ("simulation", "robot", True),
        ("pipeline", "simulation", True),
        ("pipeline", "report", False),
        ("report", "pipeline", True),
        ("report", "cli", False),
    ],
)
def test_the_rule_itself(importer, imported, allowed):
    assert is_allowed(importer, imported) == allowed


def test_no_module_imports_itself_in_a_circle():
    graph = {}
    for module, path in MODULES.items():
        names = imported_names(path)
        found = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        graph[module] = (found & MODULES.keys()) - {module}
    while leaves := {module for module, imported in graph.items() if not imported & graph.keys()}:
        graph = {module: imported for module, imported in graph.items() if module not in leaves}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("path", ALL_CODE, ids=name_of)
def test_files_are_short_and_unpickle_nothing(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= MAX_LINES
    modules = {name.split(".")[0] for name in imported_names(path)}
    assert not modules & {"pickle", "cPickle", "dill", "joblib", "shelve"}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


def lines_of(function):
    """Lines of a function without those of its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", SOURCES + EXPERIMENTS, ids=name_of)
def test_functions_are_short(path):
    functions = (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    )
    assert not [each.name for each in functions if lines_of(each) > MAX_FUNCTION]


def test_no_folder_holds_two_subjects():
    files = [path for path in SOURCES + EXPERIMENTS if path.name != "__init__.py"]
    count = collections.Counter(name_of(path.parent) for path in files)
    assert not {folder: number for folder, number in count.items() if number > MAX_FILES}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_experiments_have_flags_only_while_they_run(path):
    assert not [name for name in imported_names(path) if name.startswith("absl")]


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
    for init in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(init.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                found = definitions(MODULES[node.module])
                package = init.parent.relative_to(PACKAGE).as_posix().replace("/", ".")
                for alias in node.names:
                    if alias.name in found:
                        yield f"{package}.{alias.name}", found[alias.name]


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


def messages(path):
    """Every text of a message that a file raises, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def test_errors_of_the_library_name_what_its_reader_has():
    """Python calls and `dartjax` commands: the wheel has no experiments, and no flags of them."""
    wrong = [
        f"{name_of(path)}:{line}: {text!r}"
        for path in SOURCES
        if package_of(module_of(path)) != "cli"
        for line, text in messages(path)
        if "experiments" in text or (re.search(r"(^|[ (`])--[a-z]", text) and "pip" not in text)
    ]
    assert not wrong, "\n".join(wrong)
