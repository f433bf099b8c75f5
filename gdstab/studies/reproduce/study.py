"""What a figure of a paper measures: what its module does, and then the numbers of the paper beside ours."""

import importlib
from types import ModuleType
from typing import Any

from gdstab.studies.lifecycle import plain
from gdstab.studies.options.reproduce import FIGURES
from gdstab.studies.phases import Phase
from gdstab.studies.work import Work


def figure_of(options: Any) -> ModuleType:
    """The module that draws a figure, by its options.

    >>> figure_of(FIGURES["D.2"]()).__name__
    'gdstab.studies.reproduce.d_2'
    """
    name = next(name for name, kind in FIGURES.items() if type(options) is kind)
    return importlib.import_module(f"gdstab.studies.reproduce.{name.lower().replace('.', '_')}")


def prepare(options: Any):
    """Build and check everything."""
    return figure_of(options).prepare(options)


def phases(options: Any) -> dict[str, Phase]:
    """What a run goes through."""
    return figure_of(options).phases(options)


def measure(options: Any, setting: Any, work: Work):
    """What the figure shows; its summary has the entry `reproduction`, what was drawn and the rows."""
    figure = figure_of(options)
    dataset, summary = figure.measure(options, setting, work)
    rows = [row._asdict() for row in figure.compare(options, plain(summary), dataset)]
    return dataset, {**summary, "reproduction": {"shows": figure.shows(options), "rows": rows}}
