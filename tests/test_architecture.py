"""Layers, import cycles, rim imports, public names: the folder listing must keep reading like DESIGN's sentence."""

import ast
import functools
import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import gdstab

PACKAGE = pathlib.Path(gdstab.__file__).parent
LAYERS = [
    {"_types", "_validate", "_numerics", "_sorting", "_staging", "_identity", "_guard", "_compiling", "_reads"}
    | {"_arguments", "_trials", "_clocks"},
    {"losses", "data", "updates", "sampling", "outcomes", "curvature", "theory", "estimators"},
    {"orbits", "stability", "minima", "flow", "lyapunov"},
    {"ensembles"},
    {"basins", "boundaries", "bifurcation"},
    {"records", "figures"},
    {"studies"},
    {"claims"},
    {"cli", "__main__"},
]
ONLY_IN = {
    "matplotlib": {"figures"},
    "zarr": {"records"},
    "tqdm": {"cli"},
    "tyro": {"cli"},
    "diffrax": {"flow"},
    "contourpy": {"stability"},
    "optimistix": {"minima"},
    "sklearn": {"data"},
}


def room(path):
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@functools.cache
def tree(path):
    """The file, parsed once for all tests."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path):
    """Every module named by an import statement in a file, wherever it stands."""
    return tuple(named(path))


def named(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            if node.module == "gdstab":
                yield from (f"gdstab.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.name != "__init__.py"]


def layer(name):
    found = [number for number, rooms in enumerate(LAYERS) if name in rooms]
    assert found, f"{name} belongs to no layer: place it in DESIGN's list"
    return found[0]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    here = room(path)
    for name in imports(path):
        if name.startswith("gdstab."):
            there = name.split(".")[1]
            assert there == here or layer(there) <= layer(here), f"{here} may not import {there}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path):
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in ONLY_IN or room(path) in ONLY_IN[top], f"{top} may be imported only in {ONLY_IN[top]}"


def test_what_is_imported_is_what_an_installation_brings():
    """Not only what the extras for tests, notebooks and benchmarks bring."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    brought = {re.split(r"[<>=\[]", line)[0].replace("scikit-learn", "sklearn") for line in project["dependencies"]}
    for path in files():
        tops = {name.split(".")[0] for name in imports(path)}
        assert tops - brought - sys.stdlib_module_names <= {"gdstab", "mpl_toolkits"}, path  # of matplotlib


def test_systems_and_questions_never_meet():
    """They meet as arguments: in studies, notebooks and user code."""
    forbidden = {
        "basins": {"losses"}, "boundaries": {"losses"}, "stability": {"losses", "updates"}, "theory": {"ensembles"},
        "ensembles": {"losses", "curvature", "stability"},
    }  # fmt: skip
    no_system = {"gdstab.losses.contract", "gdstab.losses.pullback"}  # what all losses have in common
    for path in files():
        theirs = {name.split(".")[1] for name in set(imports(path)) - no_system if name.startswith("gdstab.")}
        assert not theirs & forbidden.get(room(path), set()), path


def test_no_cycles():
    graph = {}
    for path in files():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tops = [n for n in tree(path).body if isinstance(n, ast.ImportFrom) and n.module]
        stems = {f"{n.module}.{alias.name}" for n in tops for alias in n.names} | {n.module for n in tops}
        graph[name] = {stem.removeprefix("gdstab.") for stem in stems} - {name}
    facades = {path.parent.name for path in files() if path.name == "__init__.py"}
    graph = {name: others - facades for name, others in graph.items() if name not in facades}
    done, stack = set(), []

    def visit(name):
        assert name not in stack, " -> ".join([*stack[stack.index(name) :], name])
        if name in done or name not in graph:
            return
        stack.append(name)
        for other in graph[name]:
            visit(other)
        stack.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_importing_the_package_imports_neither_jax_nor_matplotlib():
    code = "import sys, gdstab; dir(gdstab); print(sorted({'jax', 'matplotlib', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_are_frozen():
    """A change here is a change for users: write it into the changelog."""
    assert gdstab.__all__ == [
        "Outcome", "StoppingRule", "UpdateRule", "basins", "bifurcation", "boundaries", "claims", "curvature",
        "data", "ensembles", "estimators", "figures", "flow", "from_optax", "gradient_descent", "losses", "lyapunov",
        "minima", "orbits", "outcomes", "records", "rollout", "run", "sampling", "settle", "stability", "studies",
        "theory", "updates",
    ]  # fmt: skip
    for name in gdstab.__all__:
        assert getattr(gdstab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gdstab.nonsense  # noqa: B018


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_objects_have_docstrings(path):
    assert ast.get_docstring(tree(path)), path
    for node in tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if any(getattr(decorator, "id", "") == "overload" for decorator in node.decorator_list):
                continue
            assert ast.get_docstring(node), f"{path}: {node.name}"


def test_each_module_can_be_imported_alone():
    for name in gdstab._MODULES:
        assert importlib.import_module(f"gdstab.{name}").__doc__
