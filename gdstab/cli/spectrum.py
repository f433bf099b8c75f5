"""`gdstab spectrum`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Spectrum, describe

_LINES = 12


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the ends of the spectra."""
    options = process.parse(Spectrum, arguments, "spectrum")
    process.configure(options.precision)
    from gdstab.studies import spectrum  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(spectrum.PHASES) as progress:
        study = spectrum.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print(_table(summary))
    how = "all eigenvalues" if summary["dense"] else "the two ends by Lanczos, the density of the last point"
    print(f"\n{summary['parameters']} parameters: {how}")
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"{note}: {study.record.path}")
    return 0


def _table(summary: dict) -> str:
    names = {"point": "point", "orbit": "update", "minima": "minimum"}
    above = [f"above {threshold:.4g}" for threshold in summary["thresholds"]]
    lines = [(names[summary["where"]], "loss", "smallest", "largest", "threshold", "inertia", *above)]
    rows = summary["rows"]
    shown = rows if len(rows) <= _LINES else [rows[i * (len(rows) - 1) // (_LINES - 1)] for i in range(_LINES)]
    for row in shown:
        numbers = ("-" if row[name] is None else f"{row[name]:.6g}" for name in ("loss", "smallest", "largest"))
        threshold = "-" if row["threshold"] is None else f"{row['threshold']:.6g}"
        inertia = "-" if row["inertia"] is None else ", ".join(map(str, row["inertia"]))
        lines.append((row["number"], *numbers, threshold, inertia, *row["above"]))
    return report.table(lines)
