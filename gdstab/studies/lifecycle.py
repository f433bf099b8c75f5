"""The life of a run: validate, begin or read back, run or go on by numbered parts, write, draw, finish.

A study is a folder with two modules. `study.py` has

- `prepare(options) -> setting`, which builds and checks everything, so that a mistake leaves no directory behind, and
  whose `needs` says how much memory and disk it takes;
- `phases(options)`, what it goes through, for the bar;
- `measure(options, setting, work) -> (dataset, summary)`; the parts that it keeps by `work` survive a kill.

`show.py` has `table(summary) -> text` and `draw(record) -> {name: figure}`, which looks at nothing but the record, so
that any finished run can be drawn again.
"""

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from gdstab import figures, records
from gdstab._numerics import check_precision
from gdstab.studies import building, room_of
from gdstab.studies.options import check, describe, read
from gdstab.studies.phases import SAVING, enter
from gdstab.studies.tables import plain
from gdstab.studies.teams import Team
from gdstab.studies.work import ALONE, Work, check_memory

_FIGURES = 20_000_000  # bytes that the figures of a run may take


class Study(NamedTuple):
    """A complete run on disk."""

    record: records.Record
    fresh: bool
    """Made just now, not read back."""


def run(options: Any, *, progress: Callable[[int, int], None] | None = None, team: Team = ALONE) -> Study:
    """Run the study that the options belong to; or read it back, where a complete run of them is there.

    With a team every process calls this with the same options, and does its share; the leading one writes the result,
    and has a complete record.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from gdstab.studies.heatmap import Heatmap
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = run(Heatmap(resolution=(20, 20), max_steps=1000, out=Path(folder)))
    >>> study.record.summary["kinds"]
    {'minimum': 114, 'strict_saddle': 8, 'degenerate': 0}
    """
    study = importlib.import_module(f"{room_of(options)}.study")
    check(options)
    check_precision(options.precision)
    setting = study.prepare(options)
    check_memory(**setting.needs.memory)
    record = team.in_turn(
        lambda: records.begin(
            options.out, building.configuration(options), bytes_needed=setting.needs.disk + _FIGURES,
            overwrite=options.overwrite, resume=options.resume, process=team.number,
        )
    )  # fmt: skip
    if team.told(record.complete):
        record.retire()
        return Study(record, fresh=False)
    try:
        return _run(study, options, setting, Work(record, progress, team))
    finally:
        record.release()


def _run(study: ModuleType, options: Any, setting: Any, work: Work) -> Study:
    """Measure what is missing, and write it down."""
    record, progress, team = work
    dataset, summary = team.together(lambda: study.measure(options, setting, work))
    if "run_seconds" in summary:
        summary["run_seconds"] += record.seconds_before()

    def write():
        enter(progress, SAVING)
        provenance = records.provenance(f"float{options.precision}", seed=getattr(options, "seed", None))
        record.write_dataset(dataset.assign_attrs(provenance=provenance))
        whole = plain({**summary, "provenance": provenance})
        with records.writing(record.path):
            draw(dataclasses.replace(record, summary=whole))
        return record.finish(whole)

    record = team.together(lambda: write() if team.leads else record)
    record.retire()
    return Study(record, fresh=True)


def draw(record: records.Record) -> None:
    """Draw the figures of a run, from what it wrote, into its directory."""
    options = read(record.configuration)
    show = importlib.import_module(f"{room_of(options)}.show")
    for name, figure in show.draw(record).items():
        figures.save(figure, record, name, note=describe(options))
