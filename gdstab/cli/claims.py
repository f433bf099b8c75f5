"""`gdstab claims`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gdstab.cli import process, report


@dataclasses.dataclass(frozen=True)
class Claims:
    """Every numbered statement of the papers, tested."""

    paper: str | None = None
    """only this paper, such as A"""
    only: str | None = None
    """only this statement, such as A.thm12"""
    out: Path = Path("runs/claims")
    """directory of the report"""


def main(arguments: Sequence[str]) -> int:
    """Test the statements and print their verdicts; exit code 1 if one of them could not be tested for an error."""
    options = process.parse(Claims, arguments, "claims")
    process.configure(64)
    from gdstab import claims  # noqa: PLC0415 (JAX is configured first)

    rows = claims.run_report(options.paper, options.only, options.out)
    print(report.table([("statement", "verdict", "seconds"), *map(_line, rows)]))
    failed = [row for row in rows if row.get("error")]
    for row in failed:
        print(f"{row['id']}: {row['error']}")
    print(f"Results: {options.out}")
    return 1 if failed else 0


def _line(row: dict) -> tuple[str, str, str]:
    return row["id"], "error" if row.get("error") else row["verdict"], f"{row['seconds']:.2f}"
