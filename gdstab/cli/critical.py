"""`gdstab critical`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Critical, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the critical step size and what is stable below it."""
    options = process.parse(Critical, arguments, "critical")
    process.configure(options.precision)
    from gdstab.studies import critical  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(critical.PHASES) as progress:
        study = critical.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print(_critical(summary), _thresholds(summary), _shares(summary["rows"]), sep="\n\n")
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _critical(summary: dict) -> str:
    def text(value):
        return "-" if value is None else f"{value:.10g}"

    return report.table([
        ("", "found", "exact"),
        ("sharpness of the flattest minimum", text(summary["flattest"]), text(summary["exact_flattest"])),
        ("critical step size", text(summary["critical_step"]), text(summary["exact_critical_step"])),
    ])  # fmt: skip


def _thresholds(summary: dict) -> str:
    quantiles = summary["thresholds"]
    header = (f"{summary['minima']:,} random minima", *(f"{100 * float(q):g} %" for q in quantiles))
    return report.table([header, ("2 / sharpness", *(f"{value:.4g}" for value in quantiles.values()))])


def _shares(rows: list[dict]) -> str:
    curves = "trapped" in rows[0]
    header = ("step size", "stable samples", "95 % from", "to")
    lines = [(*header, "trapped area", "exact", "stable length", "exact") if curves else header]
    for row in rows:
        line = (f"{row['step_size']:.4g}", f"{row['share']:.4f}", *(f"{end:.4f}" for end in row["wilson"]))
        names = ("trapped", "exact_trapped", "stable_length", "exact_stable_length")
        lines.append((*line, *(f"{row[name]:.4f}" for name in names)) if curves else line)
    return report.table(lines)
