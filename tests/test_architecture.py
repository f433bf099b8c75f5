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
    {"_types", "_validate", "_numerics", "_staging", "_identity", "_guard", "_compiling", "_reads"}
    | {"_arguments", "_contract", "_results", "_datasets", "_shapes", "_verdicts", "_trials", "_clocks"},
    {"losses", "data", "updates", "sampling", "outcomes", "curvature", "theory", "estimators"},
    {"orbits", "stability", "minima", "flow", "lyapunov"},
    {"ensembles"},
    {"basins", "boundaries", "bifurcation"},
    {"records", "figures", "testing"},
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


@functools.cache
def chain(name):
    """The longest chain of modules that a module needs when it is imported, itself first; facades are skipped."""
    assert name not in chain.under_way, " -> ".join([*chain.under_way, name])
    chain.under_way.append(name)
    longest = max((chain(other) for other in graph()[name]), key=len, default=())
    chain.under_way.pop()
    return (name, *longest)


chain.under_way = []


@functools.cache
def graph():
    """What every module imports at its top, of the package and facades left out."""
    found = {}
    for path in (path for path in files() if path.name != "__init__.py"):
        tops = [node for node in tree(path).body if isinstance(node, ast.ImportFrom) and node.module]
        stems = {f"{node.module}.{alias.name}" for node in tops for alias in node.names} | {
            node.module for node in tops
        }
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = {
            stem.removeprefix("gdstab.") for stem in stems
        }
    return {name: sorted(others & found.keys() - {name}) for name, others in found.items()}


def test_no_cycles_and_no_long_chains():
    longest = max((chain(name) for name in graph()), key=len)
    assert len(longest) <= 9, " -> ".join(longest)


def test_a_study_is_a_folder():
    """Options, what is measured, what is shown; whatever the command line needs is found there."""
    from gdstab import studies  # noqa: PLC0415

    assert len(studies.names()) >= 14
    for name in studies.names():
        room = PACKAGE / "studies" / name.replace("-", "_")
        options = studies.options_of(name)
        assert options.__module__ == f"gdstab.studies.{room.name}"
        for module, wanted in (("study", {"prepare", "phases", "measure"}), ("show", {"table", "draw"})):
            there = tree(room / f"{module}.py").body
            bound = {node.name for node in there if isinstance(node, ast.FunctionDef)}
            bound |= {
                alias.asname or alias.name for node in there if isinstance(node, ast.ImportFrom) for alias in node.names
            }
            assert wanted <= bound, f"{room.name}/{module}.py"


def test_what_is_known_of_a_loss_is_asked_in_one_place():
    """Not by the class of its options, but where these are made into a loss."""
    kinds = {"Scalar", "Vector", "Regularised", "Linear", "Quadratic", "Factorisation"}
    for path in files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                named = {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.args[1])}
                assert not named & kinds or room(path) in {"losses", "theory"}, f"{path}:{node.lineno}"


def test_no_claim_leans_on_another_papers_claims():
    """Those of E may: it restates what A says."""
    for path in sorted((PACKAGE / "claims").glob("?/*.py")):
        others = {name.split(".")[2] for name in imports(path) if name.startswith("gdstab.claims.")}
        assert not others & (set("abcde") - {path.parent.name}), path


def test_claims_lean_on_the_library_and_on_no_study():
    """All science that they need lies below; of what the studies share they take words, and no numbers."""
    words = {"gdstab.studies.phases", "gdstab.studies.tables", "gdstab.studies.tables.plain"}
    for path in sorted((PACKAGE / "claims").rglob("*.py")):
        theirs = {name for name in imports(path) if name.startswith("gdstab.studies")}
        theirs |= {f"gdstab.studies.{alias.name}" for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)
                   and node.module == "gdstab.studies" for alias in node.names}  # fmt: skip
        assert theirs - {"gdstab.studies"} <= words, path


def test_importing_the_package_imports_neither_jax_nor_matplotlib():
    code = "import sys, gdstab; dir(gdstab); print(sorted({'jax', 'matplotlib', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_public_names_are_frozen():
    """A change here is a change for users: write it into the changelog."""
    assert gdstab.__all__ == [
        "Outcome", "StoppingRule", "UpdateRule", "basins", "bifurcation", "boundaries", "claims", "curvature",
        "data", "ensembles", "estimators", "figures", "flow", "from_optax", "gradient_descent", "losses", "lyapunov",
        "minima", "orbits", "outcomes", "records", "rollout", "run", "sampling", "settle", "stability", "studies",
        "testing", "theory", "updates",
    ]  # fmt: skip
    for name in gdstab.__all__:
        assert getattr(gdstab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gdstab.nonsense  # noqa: B018


def test_modules_list_what_is_for_users_and_nothing_else():
    for name in gdstab._MODULES:
        module = getattr(gdstab, name)
        assert dir(module) == sorted(module.__all__), name
        for one in module.__all__:
            assert getattr(module, one) is not None


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
