"""`gdstab claims`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gdstab.cli import process, report


def main(arguments: Sequence[str]) -> int:
    """Test the statements and print their verdicts; exit code 1 if one of them could not be tested for an error."""
    parser = argparse.ArgumentParser("gdstab claims", description="Every numbered statement of the papers, tested.")
    parser.add_argument("--paper", help="only this paper, such as A")
    parser.add_argument("--only", help="only this statement, such as A.thm12")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="directory of the report")
    options = parser.parse_args(list(arguments))
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
