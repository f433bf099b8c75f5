"""`gdstab lyapunov`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Lyapunov, describe

_REGIMES = ("converged", "periodic", "quasi_periodic", "chaotic", "undecided")
_MOST_ROWS = 36


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print exponents and shares against the step size."""
    options = process.parse(Lyapunov, arguments, "lyapunov")
    process.configure(options.precision)
    from gdstab.studies import lyapunov  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(lyapunov.phases(options)) as progress:
        study = lyapunov.run(options, progress=progress)
    print(describe(options), end="\n\n")
    print(_text(study.record.summary))
    note = "Results" if study.regimes is not None else "This run was complete already; nothing was computed. Results"
    print(f"{note}: {study.record.path}")
    return 0


def _text(summary: dict) -> str:
    rows = summary["rows"]
    known = "reduced" in rows[0]
    header = ["step size", "bounded", "exponent", "5 %", "95 %", *(name.replace("_", "-") for name in _REGIMES)]
    lines = [(*header, "on the line", "exact", "along", "across") if known else header]
    shown = rows[:: -(-len(rows) // _MOST_ROWS)]
    lines += [_line(row, known) for row in shown]
    text = [report.table(lines), ""]
    if len(shown) < len(rows):
        text.append(f"{len(shown)} of {len(rows)} step sizes; all are in summary.json")
    text.append(f"{summary['starts']:,} points each; exponents are per update, shares are those of the bounded orbits")
    field = summary["map"]
    text.append(
        f"heatmap at step size {field['step_size']:g}: {field['bounded']:,} of {field['cells']:,} cells bounded, "
        f"{field['positive']:,} with a positive exponent over their first {field.get('steps', 'few')} updates "
        "(the table has those of the long run)"
    )
    seconds = summary["run_seconds"]
    text.append(f"{summary['lane_steps']:.4g} lane-steps; {seconds + summary['compile_seconds']:.1f} s for the table")
    return "\n".join(text)


def _line(row: dict, known: bool) -> tuple[str, ...]:
    exponent = row["exponent"] or {}
    cells = [f"{row['step_size']:.6g}", f"{row['bounded']:,}"]
    cells += [_number(exponent.get(name)) for name in ("median", "low", "high")]
    cells += ["-" if share is None else f"{share['value']:.4f}" for share in map(row["shares"].get, _REGIMES)]
    if known:
        cells.append(f"{row['collapsed']:,} of {row['moving']:,}" if row["moving"] else "-")
        cells += [_number(row["closed_form"]), *(_number(row.get(name, [None])[0]) for name in ("along", "across"))]
    return tuple(cells)


def _number(value: float | None) -> str:
    """Four digits behind the point, without the sign of a zero."""
    return "-" if value is None else f"{value:.4f}".replace("-0.0000", "0.0000")
