"""What every reproduction ends with: the run, and its numbers beside those that the paper prints."""

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
