"""The table of descent beside gradient flow, and a figure for every start."""

import numpy as np

from gdstab import figures, records
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number


def table(summary: dict) -> str:
    """Distances, curvature and bounds for every start."""
    return "\n\n".join(_start(i, way, summary) for i, way in enumerate(summary["ways"]))


def _start(i: int, way: dict, summary: dict) -> str:
    flow, curvature = way["flow"], way["curvature"]
    lines = [
        f"Start {i}, {summary['parameters']:,} parameters. Flow: {flow['said']}",
        f"Error of the flow {_error(flow)}; along it the Hessian lies "
        f"between {_short(curvature['smallest'])} and {_short(curvature['largest'])} (residual "
        f"{_short(curvature['residual'])})",
        "",
        _rows(way["rows"]),
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
        *unknown(curvature),
    ]
    return "\n".join(lines)


def _error(flow: dict) -> str:
    if not flow["steps"]:
        return "-"
    return _short(flow["error"]) if flow["error"] else "not resolved (lower --rtol)"


def unknown(curvature: dict) -> list[str]:
    """What is said where there is no bound."""
    if None not in (curvature["beta"], curvature["gamma"]):
        return []
    return ["The gradient or the Hessian is not finite somewhere within epsilon: there is no bound; lower --radius"]


def _rows(rows: list[dict]) -> str:
    header = (
        "step size", "distance at most", "at the end", "travelled", "loss", "bound until", "local bound until",
        "bound / distance",
    )  # fmt: skip
    names = ("largest", "end", "travelled", "loss", "bound_until", "local_bound_until", "looseness")
    return columns([header, *((f"{row['step_size']:g}", *(_short(row[name]) for name in names)) for row in rows)])


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


def _short(value: float | None) -> str:
    return number(value, ".4g")


def draw(record: records.Record) -> dict:
    """A figure for every start, the first by the name that a single one has."""
    radius, dataset = read(record.configuration).radius, record.dataset
    starts = (dataset.isel(start=i) for i in range(dataset.sizes["start"]))
    drawn = [figures.draw_flow(_picture(one, radius)) for one in starts]
    return dict(zip(record.summary["figures"], drawn, strict=True))


def _picture(one, radius: float) -> figures.FlowPicture:
    """What the dataset of one start shows, of the times to which its flow came."""
    known, rows = one["flow_loss"].values, one["tube_rows"].values
    upto, grid = slice(0, int(np.isfinite(known).sum()) or 1), slice(0, int((rows >= 0).sum()))
    along = {name: one[name].values[:, upto] for name in ("distance", "loss", "bound", "local")}
    tube = {name: one[f"tube_{name}"].values[..., grid] for name in ("smallest", "largest", "growth")}
    times = one["time"].values[upto]
    return figures.FlowPicture(
        step_sizes=one["step_size"].values, times=times, travelled=one["travelled"].values[0, upto],
        flow_error=one["flow_error"].values[upto], flow_loss=known[upto], grid=times[rows[grid]], radius=radius,
        **along, **tube,
    )  # fmt: skip
