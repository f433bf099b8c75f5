"""Functions in files of the user's own: `--loss.path my.py:fn`.

A file is executed as a module of a package that has its folder as its path, so that it can import what lies beside it,
relatively too, and what it defines can be pickled. The name of that package is made of the folder, and nothing else has
it.
"""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path

_FOREIGN = {"site-packages", "dist-packages"}
_ROOM = str(Path(__file__).parents[1])
_loaded: dict[str, tuple[str, dict[str, Path]]] = {}  # by name: the digest, and the modules of the user's it imports
_on_path: list[str] = []  # folders that are on the path for the file that was executed last


def load_function(path: str) -> Callable:
    """The function named by `FILE.py:FUNCTION`; of a folder with an `__init__.py`, by `FOLDER:FUNCTION`.

    The same object as before, unless the text of the file, or of a module beside it that it imports, has changed.

    Raises
    ------
    ValueError
        If there is no such file or function in it, or if the file itself fails: where, and why.
    """
    file, name = split(path)
    module = _load(file)
    found = getattr(module, name, None)
    if not callable(found):
        there = _own_functions(module)
        close = difflib.get_close_matches(name, there, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"{shown(file)} has no function {name!r}; it has {', '.join(there) or 'none'}.{hint}")
    return found


def digest(path: str) -> str:
    """A checksum of the text of the file and of the modules beside it that it imports."""
    file, _ = split(path)
    return _loaded[_load(file).__name__][0]


def split(path: str) -> tuple[Path, str]:
    """The file, with its whole path, and the name of the function.

    Raises
    ------
    ValueError
        If the words are no file and no name, or there is no such file.
    """
    words, colon, name = path.rpartition(":")
    file = Path(words).expanduser()
    if not (colon and words and name.isidentifier() and (file.suffix == ".py" or file.is_dir())):
        raise ValueError(f"--loss.path takes FILE.py:FUNCTION, such as my.py:fn, but got {path!r}")
    file = (file / "__init__.py" if file.is_dir() else file).absolute()
    if not file.is_file():
        raise ValueError(f"--loss.path names the file {words}, which is not there (looked for {file})")
    return file, name


def shown(file: Path | str) -> str:
    """A file as the user would write it: from the working directory, where it lies below it."""
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return str(file)


def complaint(error: BaseException) -> str:
    """An error of the user's code in one line: file, line, type, and the first line of what it says."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return ": ".join(filter(None, (_place(error), type(error).__name__, said.strip().partition("\n")[0])))


def _place(error: BaseException) -> str:
    """The innermost line of the user's own code through which an error came."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}, line {error.lineno}"
    mine = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{shown(mine[-1].filename)}, line {mine[-1].lineno}" if mine else ""


def _load(file: Path) -> types.ModuleType:
    base = file.parent
    while (base / "__init__.py").is_file() and base != base.parent:  # a package: its imports begin above it
        base = base.parent
    root = f"gdstab_user_{hashlib.sha256(str(base).encode()).hexdigest()[:12]}"
    parts = [part.replace(".", "_") for part in file.relative_to(base).with_suffix("").parts]
    name = ".".join([root, *(parts[:-1] if parts[-1] == "__init__" else parts)])
    known = _loaded.get(name)
    if known is not None and name in sys.modules and known[0] == _digest(file, known[1].values()):
        return sys.modules[name]
    for _, helpers in _loaded.values():  # another file may have one of the same name beside it
        for helper in helpers:
            sys.modules.pop(helper, None)
    _loaded.pop(name, None)
    _put_on_path(dict.fromkeys(map(str, (file.parent, base))))
    sys.modules.setdefault(root, types.ModuleType(root, "The folder of a file of the user's.")).__path__ = [str(base)]
    before = set(sys.modules)
    module = _execute(file, name)
    helpers = {new: Path(place) for new in sorted(set(sys.modules) - before) if (place := _beside(new, base, file))}
    _loaded[name] = _digest(file, helpers.values()), helpers
    return module


def _execute(file: Path, name: str) -> types.ModuleType:
    """The module, made of the text as it is now: compiled files of a second ago may be of another text."""
    package = file.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(file.parent)] if package else None
    )
    module = importlib.util.module_from_spec(spec)
    importlib.invalidate_caches()
    try:
        with _no_compiled_files():
            parent = name.rpartition(".")[0]
            importlib.import_module(parent)
            sys.modules[name] = module
            exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise ValueError(f"{shown(file)} cannot be imported: {complaint(error)}; correct that line") from error
    return module


@contextlib.contextmanager
def _no_compiled_files() -> Iterator[None]:
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _put_on_path(folders) -> None:
    """As Python does for a script; what was there for another file goes."""
    for folder in _on_path:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
    _on_path[:] = [folder for folder in folders if folder not in sys.path]
    sys.path[:0] = _on_path


def _digest(file: Path, helpers) -> str:
    """Of the file alone where it imports nothing of the user's."""
    texts = [hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest() for path in (file, *helpers)]
    return texts[0] if len(texts) == 1 else hashlib.sha256("".join(texts).encode()).hexdigest()


def _beside(name: str, base: Path, file: Path) -> str | None:
    """The file of a module that lies below the folder."""
    place = getattr(sys.modules.get(name), "__file__", None)
    mine = place and place != str(file) and Path(place).is_relative_to(base) and _is_users(place)
    return place if mine else None


def _is_users(place: str) -> bool:
    """Whether code is the user's: of no package that is installed, not of this one, and not of Python's own library."""
    path = Path(place)
    strange = place.startswith("<") or path.is_relative_to(_ROOM) or path.is_relative_to(Path(inspect.__file__).parent)
    return not (strange or _FOREIGN & set(path.parts))


def _own_functions(module: types.ModuleType) -> list[str]:
    """Names of what can be called, without what was imported."""
    return sorted(
        name for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "").startswith(module.__name__)
    )  # fmt: skip
