"""`gdstab heatmap`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Heatmap, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print its table."""
    options = process.parse(Heatmap, arguments, "heatmap")
    process.configure(options.precision)
    from gdstab.studies import heatmap  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(heatmap.phases(options)) as progress:
        study = heatmap.run(options, progress=progress)
    print(describe(options), end="\n\n")
    print(_table(study.record.summary))
    where = study.record.path
    if study.heatmap is None:
        print(f"This run was complete already; nothing was computed. Results: {where}")
    else:
        print(f"Results: {where} (result.zarr, summary.json, figure.png, figure.pdf)")
    return 0


def _table(summary: dict) -> str:
    rows = [("", "cells", "share")]
    rows += [(name, f"{count:,}", f"{summary['fractions'][name]:.6f}") for name, count in summary["counts"].items()]
    low, high = summary["area_bracket"]
    lines = [report.table(rows), ""]
    kinds = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in summary["kinds"].items() if count)
    lines.append(f"converged to: {kinds or 'nothing'}")
    lines.append(f"area that converged: {summary['area']:.6g}, between {low:.6g} and {high:.6g}")
    theory = summary["theory"]
    if theory["exact_area"] is not None:
        lines.append(f"exact basin of the minima: {theory['exact_area']:.6g}, share {theory['exact_share']:.6f}")
    if theory["contradictions"] is not None:
        lines.append(
            f"verdicts against the theory: {theory['contradictions']}, of them further than a cell diagonal from the "
            f"boundary: {theory['contradictions_beyond_one_diagonal']}"
        )
    seconds, rate = summary["run_seconds"], summary["lane_steps"] / max(summary["run_seconds"], 1e-9)
    lines.append(
        f"{summary['lane_steps']:.4g} lane-steps in {seconds:.2f} s ({rate:.3g}/s), after "
        f"{summary['compile_seconds']:.2f} s of compilation"
    )
    return "\n".join(lines)
