"""What every reproduction ends with: the run, and its numbers beside those that the paper prints."""

from collections.abc import Sequence
from typing import NamedTuple

from gdstab import records


class Row(NamedTuple):
    """A quantity as the paper prints it ("-" where it does not) and as it came out here."""

    quantity: str
    paper: str
    here: str


class Reproduction(NamedTuple):
    """A complete run on disk; its summary has the entry `reproduction`: what was drawn, and the rows."""

    record: records.Record
    fresh: bool  # made just now, not read back

    @property
    def shows(self) -> str:
        """What the figure shows."""
        return self.record.summary["reproduction"]["shows"]

    @property
    def rows(self) -> list[Row]:
        """The numbers of the paper and ours."""
        return [Row(**row) for row in self.record.summary["reproduction"]["rows"]]


def conclude(record: records.Record, fresh: bool, shows: str, rows: Sequence[Row]) -> Reproduction:
    """Add the comparison to the summary of a complete run of a study."""
    if "reproduction" not in record.summary:
        found = {"shows": shows, "rows": [row._asdict() for row in rows]}
        record = record.finish({**record.summary, "reproduction": found})
    return Reproduction(record, fresh)
