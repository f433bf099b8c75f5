"""`gdstab flow`."""

from collections.abc import Sequence

from gdstab.cli import process, report
from gdstab.studies.options import Flow, describe


def main(arguments: Sequence[str]) -> int:
    """Run the study, or read it back; print distances, curvature and bounds for every start."""
    options = process.parse(Flow, arguments, "flow")
    process.configure(options.precision)
    from gdstab.studies import flow  # noqa: PLC0415 (JAX is configured first)

    with report.Progress(flow.phases(options)) as progress:
        study = flow.run(options, progress=progress)
    summary = study.record.summary
    print(describe(options), end="\n\n")
    print("\n\n".join(_start(number, way, summary) for number, way in enumerate(summary["ways"])))
    note = "Results" if study.fresh else "This run was complete already; nothing was computed. Results"
    print(f"\n{note}: {study.record.path}")
    return 0


def _start(number: int, way: dict, summary: dict) -> str:
    flow, curvature = way["flow"], way["curvature"]
    lines = [
        f"Start {number}, {summary['parameters']:,} parameters. Flow: {flow['said']}",
        f"Error of the flow {_error(flow)}; along it the Hessian lies "
        f"between {_short(curvature['smallest'])} and {_short(curvature['largest'])} (residual "
        f"{_short(curvature['residual'])})",
        "",
        _table(way["rows"]),
        "",
    ]
    if way["order"] is not None:
        lines.append(f"The largest distance grows with the step size to the power {way['order']:.3f}")
    lines += [
        f"Within epsilon = {summary['configuration']['radius']:g} of the flow: beta {_short(curvature['beta'])}, gamma "
        f"{_short(curvature['gamma'])}, integral of m {_short(curvature['integral_of_m'])} (measured at samples, so "
        "from below)",
        f"Theorem 3, corrected, keeps descent within epsilon until the end for step sizes below "
        f"{_short(way['max_step'])}",
        *_warnings(way["rows"], summary["kinks"]),
        *_unknown(curvature),
    ]
    return "\n".join(lines)


def _error(flow: dict) -> str:
    if not flow["steps"]:
        return "-"
    return _short(flow["error"] or "not resolved (lower --rtol)")


def _unknown(curvature: dict) -> list[str]:
    if None not in (curvature["beta"], curvature["gamma"]):
        return []
    return ["The gradient or the Hessian is not finite somewhere within epsilon: there is no bound; lower --radius"]


def _table(rows: list[dict]) -> str:
    header = (
        "step size", "distance at most", "at the end", "travelled", "loss", "bound until", "local bound until",
        "bound / distance",
    )  # fmt: skip
    names = ("largest", "end", "travelled", "loss", "bound_until", "local_bound_until", "looseness")
    return report.table([header, *((f"{row['step_size']:g}", *(_short(row[name]) for name in names)) for row in rows)])


def _warnings(rows: list[dict], kinks: bool | None) -> list[str]:
    lines = [
        f"Step size {row['step_size']:g} is above the stability threshold 2/lambda_max of the flow from time "
        f"{row['above_threshold_from']:.4g} on: descent does not follow the flow there, and the bound is void"
        for row in rows if row["above_threshold_from"] is not None
    ]  # fmt: skip
    lines += [
        f"Step size {row['step_size']:g}: the distance is above the bound: its constants, measured at samples, are too "
        "small; raise --samples and --curvature-points"
        for row in rows if not row["bound_holds"]
    ]  # fmt: skip
    if kinks:
        lines.append("The gradient jumps at kinks, where the theorems do not apply: the bound is an indication only")
    return lines


def _short(value: float | str | None) -> str:
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4g}"
