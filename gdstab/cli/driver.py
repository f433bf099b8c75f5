"""The driver of all studies: options from words, the study by its lifecycle, its table."""

import dataclasses
import importlib
from collections.abc import Sequence

from gdstab import studies
from gdstab.cli import joining, process, report
from gdstab.studies.options import configuration, describe
from gdstab.studies.options.base import study_options


def main(name: str, arguments: Sequence[str]) -> int:
    """Run a study, or read it back, and print its table."""
    asked = process.parse(command_of(name), arguments, name)
    options, place = _apart(asked, studies.options_of(name))
    process.configure(options.precision)
    if place is not None:
        joining.join(place, asked.join_timeout, configuration(options))
    room = studies.room_of(options)
    study = importlib.import_module(f"{room}.study")  # JAX is configured first, and knows the other processes
    from gdstab.studies import lifecycle, teams  # noqa: PLC0415

    number, size = (0, 1) if place is None else (place.number, place.size)
    if number:
        lifecycle.run(options, team=teams.Team(number, size))
        print(f"process {number} of {size} has done its share; process 0 has the result")
        return 0
    with report.Progress(study.phases(options)) as progress:
        found = lifecycle.run(options, progress=progress, team=teams.Team(0, size))
    print(describe(options), importlib.import_module(f"{room}.show").table(found.record.summary), sep="\n\n")
    print(f"\n{where(found)}")
    return 0


def where(found) -> str:
    """Where the results of a run are, and whether it was run just now."""
    note = "Results" if found.fresh else "This run was complete already; nothing was computed. Results"
    return f"{note}: {found.record.path}"


def command_of(name: str) -> type:
    """What may be asked of a study on the command line: of those that several processes can share, who they are."""
    kind = studies.options_of(name)
    if not getattr(kind, "in_teams", False):
        return kind
    return study_options(type(kind.__name__, (kind, joining.Joining), {"__doc__": kind.__doc__}))


def _apart(asked, kind: type):
    """The options of the study, and the place of this process among others."""
    if type(asked) is kind:
        return asked, None
    fields = dataclasses.fields(kind)
    return kind(**{field.name: getattr(asked, field.name) for field in fields}), joining.find_place(asked)
