"""`gdstab bifurcation`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Bifurcation, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the doublings, where chaos begins and where bounded orbits end."""
    options = process.parse(Bifurcation, arguments, "bifurcation")
    process.configure(options.precision)
    from gdstab.studies import bifurcation  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(bifurcation.phases(options)) as progress:
        study = bifurcation.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print(_doublings(summary), "", *_ends(summary), *_hysteresis(summary["hysteresis"]), sep="\n")
    note = "Results" if study.diagram is not None else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _doublings(summary: dict) -> str:
    """The doublings with the step sizes of the diagram that they lie between, and what is known exactly."""
    exact = (summary["exact"] or {"doublings": []})["doublings"]
    rows = [("doubling of period", "step size", "exact", "seen between", "and", "ratio of gaps")]
    for i, (period, step_size) in enumerate(zip(summary["periods"], summary["doublings"], strict=True)):
        ratios = summary["feigenbaum_ratios"]
        rows.append((
            str(period), f"{step_size:.10f}", f"{exact[i]:.10f}" if i < len(exact) else "-",
            *map(_number, summary["seen_between"][i]), f"{ratios[i - 2]:.4f}" if i >= 2 else "-",
        ))  # fmt: skip
    for number, other in enumerate(summary.get("others", []), start=2):  # of runs made before there was none
        for period, step_size in zip(other["periods"], other["doublings"], strict=True):
            rows.append((f"{period}, attractor {number}", f"{step_size:.10f}", "-", "-", "-", "-"))
    return report.table(rows) if len(rows) > 1 else f"no period doublings: {summary['ended']}"


def _ends(summary: dict) -> list[str]:
    exact = summary["exact"] or {"accumulation": None, "last_bounded": None}
    rows = [("", "found", "exact")]
    for name, text in (("accumulation", "doublings accumulate at"), ("last_bounded", "bounded orbits end at")):
        rows.append((text, _number(summary[name]), _number(exact[name])))
    bounded = sum(row["bounded"] for row in summary["rows"]) / len(summary["rows"])
    about = (
        f"{summary['orbits']:,} orbits, {100 * bounded:.4g} % of them bounded; {summary['lane_steps']:.4g} lane-steps "
        f"in {summary['run_seconds']:.2f} s with compilation"
    )
    return [report.table(rows), about]


def _hysteresis(found: dict | None) -> list[str]:
    if found is None:
        return []
    text = f"up and down again: {100 * found['share_different']:.3g} % of {found['step_sizes']} step sizes end apart"
    if found["different"]:
        text += f" (most at {found['at']:.4g}, by {found['largest_gap']:.4g})"
    return [text]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.10g}"
