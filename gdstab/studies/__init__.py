"""Studies, a folder each: `__init__.py` its options, `study.py` what it measures, `show.py` its table and figures.

`run(options)` runs any of them, by one lifecycle, which the command line, the claims and the notebooks share.
"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = [
    "all_options",
    "class_name",
    "names",
    "options_of",
    "phases",
    "room_of",
    "run",
    "tables",
]
__dir__ = __all__.copy  # nothing else is for users

_FIGURES = "reproduce"
"""The folder of the figures of the papers, which are one command together."""


@functools.cache
def names() -> tuple[str, ...]:
    """All studies by the names of their commands: the folders that hold a `study.py`.

    >>> "critical-map" in names()
    True
    """
    found = sorted(path.parent.name for path in Path(__file__).parent.glob("*/study.py"))
    return tuple(name.replace("_", "-") for name in found if name != _FIGURES)


def class_name(name: str) -> str:
    """The class of the options of a study.

    >>> class_name("critical-map")
    'CriticalMap'
    """
    return "".join(word.capitalize() for word in name.split("-"))


def options_of(name: str) -> type:
    """The options of a study, by the name of its command.

    >>> options_of("critical-map").__name__
    'CriticalMap'
    """
    return getattr(importlib.import_module(f"gdstab.studies.{name.replace('-', '_')}"), class_name(name))


def all_options() -> list[type]:
    """The options of all studies, and of the figures of the papers, which are studies with the papers' numbers."""
    figures = importlib.import_module("gdstab.studies.options.reproduce").FIGURES
    return [*(options_of(name) for name in names()), *figures.values()]


def room_of(options: Any) -> str:
    """The folder, as a module, of the study that options belong to.

    >>> room_of(options_of("heatmap")())
    'gdstab.studies.heatmap'
    """
    if type(options).__module__.endswith(".options.reproduce"):
        return f"{__name__}.{_FIGURES}"
    rooms = (kind.__module__ for kind in type(options).__mro__)
    return next(room for room in rooms if room.startswith(f"{__name__}.") and ".options" not in room)


def run(options: Any, *, progress: Callable[[int, int], None] | None = None, **team: Any):
    """Run the study that the options belong to, or read it back: see `gdstab.studies.lifecycle.run`."""
    return importlib.import_module("gdstab.studies.lifecycle").run(options, progress=progress, **team)
