"""`gdstab claims`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from gdstab.cli import process, report
from gdstab.studies.phases import Phase
from gdstab.studies.tables import table


@dataclasses.dataclass(frozen=True)
class Claims:
    """Every numbered statement of the papers, tested."""

    paper: str | None = None
    """only this paper, such as A"""
    only: str | None = None
    """only this statement, such as A.thm12"""
    out: Path = Path("runs/claims")
    """directory of the report"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""


def main(arguments: Sequence[str]) -> int:
    """Test the statements and print their verdicts; exit code 1 if one is not as expected, or raised an error."""
    options = process.parse(Claims, arguments, "claims")
    process.configure(64)
    from gdstab import claims  # noqa: PLC0415 (JAX is configured first)

    names = [each.id for each in claims.registered(options.paper, options.only)]
    with report.Progress(dict.fromkeys(names, Phase())) as progress:
        rows = claims.run_report(
            options.paper, options.only, options.out, progress=progress, overwrite=options.overwrite,
            resume=options.resume,
        )  # fmt: skip
    print(table([("statement", "verdict", "seconds"), *map(_line, rows)]))
    for row in claims.unexpected(rows):
        print(f"{row['id']}: {row.get('error') or _surprise(row)}")
    print(f"Results: {options.out}")
    return claims.exit_code(rows)


def _line(row: dict) -> tuple[str, str, str]:
    return row["id"], "error" if row.get("error") else row["verdict"], f"{row['seconds']:.2f}"


def _surprise(row: dict) -> str:
    return f"{row['verdict']}, but expected: {row['expected']}"
