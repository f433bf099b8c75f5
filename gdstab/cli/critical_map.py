"""`gdstab critical-map`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import CriticalMap, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the law of the critical steps and how it agrees with the theory."""
    options = process.parse(CriticalMap, arguments, "critical-map")
    process.configure(options.precision)
    from gdstab.studies import critical_map  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(critical_map.phases(options)) as progress:
        study = critical_map.run(options, progress=progress)
    print(describe(options), end="\n\n")
    print(_text(study.record.summary))
    note = "Results" if study.steps is not None else "This run was complete already; nothing was computed. Results"
    print(f"{note}: {study.record.path}")
    return 0


def _text(summary: dict) -> str:
    quantiles = {share: value for share, value in summary["quantiles"].items() if value is not None}
    header = (f"{summary['cells']:,} cells", *(f"{100 * float(share):g} %" for share in quantiles))
    lines = [report.table([header, ("critical step", *(f"{value:.4g}" for value in quantiles.values()))]), ""]
    above = ", ".join(f"{count:,} {name}" for name, count in summary["above"].items() if count)
    lines.append(f"just above it: {above or 'nothing seen'}")
    if summary["kinds"] is not None:
        kinds = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in summary["kinds"].items() if count)
        lines.append(f"just below it they converge to: {kinds or 'nothing'}")
    lines.append(
        f"the converging step sizes are no interval: {summary['flagged']:,} cells; none converges: "
        f"{summary['none_converges']:,}; all converge: {summary['all_converge']:,}"
    )
    lines += _against_theory(summary["theory"])
    rate = summary["lane_steps"] / max(summary["run_seconds"], 1e-9)
    lines.append(
        f"{summary['orbits']:,} orbits, {summary['lane_steps']:.4g} lane-steps in {summary['run_seconds']:.2f} s "
        f"({rate:.3g}/s), after {summary['compile_seconds']:.2f} s of compilation"
    )
    return "\n".join(lines)


def _against_theory(theory: dict) -> list[str]:
    lines = []
    if theory["critical_step"] is not None:
        lines.append(f"critical step of the minima: {theory['critical_step']:.10g}")
    for name, words in (("below", "below 0.98 of it"), ("elsewhere", "elsewhere")):
        error = theory[f"max_relative_error_{name}"]
        if error is not None:
            error, cells = float(error), theory[f"cells_{name}"]
            lines.append(f"largest relative error against the closed form, {words}: {error:.3g} ({cells:,} cells)")
    return lines
