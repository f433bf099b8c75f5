"""The figures of the papers, drawn again: each module is one, and `run` finds it by name.

A module has `run(options, progress=None) -> Reproduction` and `phases(options)`; its options stand in
`gdstab.studies.options.reproduce.FIGURES`.
"""

import importlib
from collections.abc import Callable

from gdstab.studies.options.reproduce import options_of
from gdstab.studies.phases import Phase
from gdstab.studies.reproduce.outcome import Reproduction as Reproduction

__all__ = ["Reproduction", "phases", "run"]


def run(name: str, options=None, *, progress: Callable | None = None) -> Reproduction:
    """Draw a figure again, by default with the numbers of the paper, or read it back where that was done before.

    Raises
    ------
    ValueError
        If there is no figure of that name, or its study refuses the options.
    """
    options = options_of(name)() if options is None else options
    return _module(name).run(options, progress=progress)


def phases(name: str, options) -> dict[str, Phase]:
    """What the run of a figure goes through."""
    return _module(name).phases(options)


def _module(name: str):
    return importlib.import_module(f"gdstab.studies.reproduce.{name.lower().replace('.', '_')}")
