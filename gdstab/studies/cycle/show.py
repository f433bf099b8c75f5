"""The table of the cycles and their bifurcations, and their figure."""

import numpy as np
import xarray as xr

from gdstab import figures, records
from gdstab.studies.cycle.study import limits
from gdstab.studies.options import read
from gdstab.studies.tables import columns, counted


def table(summary: dict) -> str:
    """The cycles with their shares, and where their branches bifurcate."""
    lines = [f"{summary['starts']:,} starts at step size {summary['step_size']:g}: {counted(summary['outcomes'])}", ""]
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
        first = cycle["theta"][0]
        at = ", ".join(f"{value:.4g}" for value in first[:3]) + (", ..." if len(first) > 3 else "")
        name = f"period {cycle['period']}" + (f", {cycle['neutral']}-dimensional family" if cycle["neutral"] else "")
        shares = (f"{value:.4f}" for value in (cycle["share"], *cycle["interval"]))
        rows.append((name, f"({at})", *shares, f"{cycle['radius']:.6g}", "stable" if cycle["stable"] else "unstable"))
    return columns(rows)


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
    return columns(rows)


def draw(record: records.Record) -> dict:
    """The branches of the cycles."""
    options, summary = read(record.configuration), record.summary
    at, rows = options.coordinate, record.dataset.load()
    tracks = [_track(rows.isel(row=rows["branch"].values == i), one, at) for i, one in enumerate(summary["branches"])]
    cycles = [np.array(found["theta"])[:, at] for found in summary["cycles"] if not found["neutral"]]
    picture = figures.Branches(options.step_size, cycles, tracks, at, limits(options))
    return {"figure": figures.draw_cycle(picture)}


def _track(rows: xr.Dataset, branch: dict, at: int) -> figures.Track:
    """A branch and its bifurcation points, from its rows: a cycle after the other."""
    period = branch["period"]
    step_sizes, stable, radius = (rows[name].values[::period] for name in ("step_size", "stable", "radius"))
    theta = rows["theta"].values.reshape(len(step_sizes), period, -1)
    marks = [_mark(step_sizes, theta, point, at) for point in branch["bifurcations"]]
    return figures.Track(period, step_sizes, theta[..., at], stable.astype(bool), radius, marks)


def _mark(step_sizes: np.ndarray, theta: np.ndarray, point: dict, at: int) -> figures.BranchMark:
    """A bifurcation point at every point of its cycle; of a birth, whose cycle is another, at the one that is known."""
    if point["birth"]:
        values = np.array(point["theta"][at : at + 1])
    else:
        same = np.flatnonzero(step_sizes == point["step_size"])
        here = np.linalg.norm(theta[same, -1] - np.array(point["theta"]), axis=-1)
        values = theta[same[here.argmin()], :, at]
    radius = max(abs(complex(*value)) for value in point["multipliers"])
    return figures.BranchMark(point["kind"], point["step_size"], values, radius)
