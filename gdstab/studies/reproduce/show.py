"""What a figure of a paper shows, with its numbers beside ours; and the figure."""

from gdstab import records
from gdstab.studies.options import read
from gdstab.studies.reproduce.study import Row, figure_of
from gdstab.studies.tables import columns


def table(summary: dict) -> str:
    """What the figure shows, and a row for each quantity."""
    found = summary["reproduction"]
    return found["shows"] + "\n\n" + columns([("", "paper", "here"), *(Row(**row) for row in found["rows"])])


def draw(record: records.Record) -> dict:
    """The figure."""
    return figure_of(read(record.configuration)).draw(record)
