"""What a study is given while it measures, and what it says beforehand that it will take."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gdstab import records
from gdstab.studies.phases import enter
from gdstab.studies.teams import Team

ALONE = Team()


class Needs(NamedTuple):
    """What a run takes: it is refused beforehand where that is not there."""

    memory: Mapping[str, int] = {}
    """Bytes of the arrays that an option makes large, by its field."""
    disk: int = 0
    """Bytes of the results, figures aside."""


class Work(NamedTuple):
    """What a study has at hand while it measures."""

    record: records.Record
    progress: Callable[[int, int], None] | None = None
    team: Team = ALONE

    def enter(self, phase: str) -> None:
        """Say that a phase begins."""
        enter(self.progress, phase)

    def parts(self, kind: Callable[..., Any] = dict) -> tuple[list, Callable[[Any], None]]:
        """The parts that an interrupted run kept, from number 0 on, and how to keep the next one.

        `kind` makes a part of its arrays by name, scalars as numbers: a named tuple, or a dictionary.
        """
        kept = [kind(**{name: _plain(array) for name, array in part.items()}) for part in self.record.parts()]
        numbers = iter(range(len(kept), 2**31))

        def keep(part: Any) -> None:
            self.record.commit(next(numbers), **(part if isinstance(part, dict) else part._asdict()))

        return kept, keep


def _plain(array: np.ndarray):
    """A number where it is one."""
    return array if array.ndim else array.item()
