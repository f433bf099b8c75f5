"""What a figure of a paper measures: what its module does, and then the numbers of the paper beside ours."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from gdstab import records
from gdstab.studies.options.reproduce import FIGURES
from gdstab.studies.phases import Phase
from gdstab.studies.tables import plain
from gdstab.studies.work import Work


class Row(NamedTuple):
    """A quantity as the paper prints it ("-" where it does not) and as it came out here."""

    quantity: str
    paper: str
    here: str


class Reproduction(NamedTuple):
    """A complete run on disk; its summary has the entry `reproduction`: what was drawn, and the rows."""

    record: records.Record
    fresh: bool
    """Made just now, not read back."""

    @property
    def shows(self) -> str:
        """What the figure shows."""
        return self.record.summary["reproduction"]["shows"]

    @property
    def rows(self) -> list[Row]:
        """The numbers of the paper and ours."""
        return [Row(**row) for row in self.record.summary["reproduction"]["rows"]]


class Figure(NamedTuple):
    """How a figure is made: as a study is, and held against the paper."""

    prepare: Callable
    phases: Callable
    measure: Callable
    draw: Callable
    shows: Callable
    compare: Callable


def figure_of(options: Any) -> ModuleType | Figure:
    """How a figure is made, by its options: a module, or what has the same functions.

    >>> figure_of(FIGURES["D.2"]()).__name__
    'gdstab.studies.reproduce.d_2'
    """
    kinds = type(options).__mro__
    name = [name for kind in kinds for name, known in FIGURES.items() if kind is known][-1]  # D.3 is a kind of D.1
    if name.startswith("A."):
        return importlib.import_module("gdstab.studies.reproduce.a").FIGURES[name]
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
