"""`gdstab cycle`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Cycle, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back, and print the cycles, their shares and where their branches bifurcate."""
    options = process.parse(Cycle, arguments, "cycle")
    process.configure(options.precision)
    from gdstab.studies import cycle  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(cycle.PHASES) as progress:
        study = cycle.run(options, progress=progress)
    print(describe(options), end="\n\n")
    print(_text(study.record.summary))
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _text(summary: dict) -> str:
    ended = ", ".join(f"{count:,} {name}" for name, count in summary["outcomes"].items() if count)
    lines = [f"{summary['starts']:,} starts at step size {summary['step_size']:g}: {ended}", ""]
    if summary["cycles"]:
        lines += [_cycles(summary["cycles"]), ""]
    else:
        lines += [f"No cycle was found: {_advice(summary)}.", ""]
    if summary["unassigned"]:
        lines += [f"{summary['unassigned']:,} orbits ended on none of these", ""]
    low, high = summary["range"]
    lines.append(f"{len(summary['branches'])} branches followed from step size {low:g} to {high:g}")
    if any(branch["bifurcations"] for branch in summary["branches"]):
        lines += ["", _bifurcations(summary["branches"])]
    if summary["theory"] and summary["theory"]["period_two_error"] is not None:
        error = summary["theory"]["period_two_error"]
        lines += ["", f"multipliers of period 2 against the closed form: off by {error:.2g}"]
    return "\n".join(lines)


def _advice(summary: dict) -> str:
    left = sum(summary["outcomes"].get(name, 0) for name in ("diverged", "nonfinite"))
    if left == summary["starts"]:
        return "every start leaves; lower --step-size, or start closer to the minima with --box"
    if left:
        return "those that stay go on without a period; raise --max-period or --max-steps, or lower --step-size"
    return "raise --max-period or --max-steps, or start elsewhere"


def _cycles(cycles: list[dict]) -> str:
    rows = [("cycle", "at", "share", "95 % from", "to", "largest |mu|", "")]
    for cycle in cycles:
        at = ", ".join(f"{value:.4g}" for value in cycle["theta"][0][:3]) + (
            ", ..." if len(cycle["theta"][0]) > 3 else ""
        )
        name = f"period {cycle['period']}" + (f", {cycle['neutral']}-dimensional family" if cycle["neutral"] else "")
        low, high = cycle["interval"]
        verdict = "stable" if cycle["stable"] else "unstable"
        rows.append(
            (name, f"({at})", f"{cycle['share']:.4f}", f"{low:.4f}", f"{high:.4f}", f"{cycle['radius']:.6g}", verdict)
        )
    return report.table(rows)


def _bifurcations(branches: list[dict]) -> str:
    """Every bifurcation point once, by step size; those of mirror images are one line."""
    found = {}
    for branch in branches:
        for point in branch["bifurcations"]:
            found.setdefault((round(point["step_size"], 9), point["kind"], point["period"]), []).append(point)
    rows = [("bifurcation", "of period", "step size", "branches", "criticality", "amplitude^2 per step size")]
    for (_, kind, period), points in sorted(found.items()):
        flip = kind == "flip"
        side = "-" if not flip else "supercritical" if points[0]["supercritical"] else "subcritical"
        slope = f"{points[0]['amplitude_slope']:.6g}" if flip else "-"
        rows.append((kind, period, f"{points[0]['step_size']:.10f}", len(points), side, slope))
    return report.table(rows)
