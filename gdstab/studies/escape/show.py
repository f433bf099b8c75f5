"""The tables of where ReLU networks end, and the figures of that, of one network that learns, and of a manifold.

What is drawn comes from what a run wrote: `data` is its dataset, or the arrays of that by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdstab import figures, records
from gdstab.studies import building
from gdstab.studies.escape import Escape, saddle_manifold
from gdstab.studies.escape.relu_levels import Ladder, level_name, make_ladder
from gdstab.studies.options import read
from gdstab.studies.tables import columns, number
from gdstab.theory import relu

_POINTS = 401  # of a realisation
_CURVES = 5  # orbits with a plateau, at the most
_NEAR = 0.1  # relative to a level
_MOST_PATTERNS = 8  # rows of the table of neuron types, for each step size


def table(summary: dict) -> str:
    """The ladder, the neurons, who did not converge, what the theorems say, and how the saddle is left."""
    rows = summary["rows"]
    parts = [_ladder(summary), _patterns(rows), _open(rows), _theorem(summary), _near(rows), _saddle(summary)]
    return "\n\n".join([*parts, _manifold(summary["manifold"])] if "manifold" in summary else parts)


def draw(record: records.Record) -> dict:
    """Where random starts end and how a saddle is left; a network that learns; a manifold, where there is one."""
    options, summary, data = read(record.configuration), record.summary, record.dataset
    levels, shares = summary["levels"], [ladder_shares(row) for row in summary["rows"]]
    ladder = make_ladder(building.build_loss(options.loss)[0], options.rtol)
    saddle = plane(options, data), times(summary), plateaus(options, data)
    found = {
        "figure": figures.draw_escape(shares, levels, *saddle),
        "network": figures.draw_training(training(ladder, float(data["step_size"][0]), levels, data)),
    }
    return found | ({"manifold": saddle_manifold.draw(data)} if "manifold_graph" in data else {})


def _ladder(summary: dict) -> str:
    names = list(summary["rows"][0]["levels"])
    lines = [("ends", "loss", *(f"eta {row['step_size']:g}" for row in summary["rows"]))]
    for name in names:
        loss = summary["levels"].get(name, summary["zero_below"] if name == "zero" else None)
        value = f"{'< ' if name == 'zero' else ''}{number(loss, '.6g')}"
        lines.append((name, value, *(_share(row["levels"][name]) for row in summary["rows"])))
    runs = summary["rows"][0]["runs"]
    return f"{runs:,} random starts for each step size (limits at 95 %, Clopper and Pearson):\n" + columns(lines)


def _share(found: dict) -> str:
    low, high = found["clopper_pearson"]
    return f"{found['count']:,} [{low:.3g}, {high:.3g}]"


def _patterns(rows: list[dict]) -> str:
    lines = [("step size", "level", "neurons", "runs")]
    for row in rows:
        most = sorted(row["patterns"], key=lambda found: -found["count"])[:_MOST_PATTERNS]
        lines += [(f"{row['step_size']:g}", found["level"], found["neurons"], f"{found['count']:,}") for found in most]
    return "Most frequent types of neurons at the ends:\n" + columns(lines)


def _open(rows: list[dict]) -> str:
    lines = [("step size", "not converged", "loss: median", "largest", "gradient: least", "median", "largest")]
    for row in rows:
        found = row["not_converged"]
        loss, gradient = found["loss"], found["gradient"]
        values = (loss.get("0.5"), loss.get("1"), gradient.get("0"), gradient.get("0.5"), gradient.get("1"))
        lines.append((f"{row['step_size']:g}", f"{found['count']:,}", *(number(value, ".3g") for value in values)))
    return "Who did not converge:\n" + columns(lines)


def _theorem(summary: dict) -> str:
    if summary["configuration"]["loss"]["leak"] > 0:
        lines = [("step size", "converged", "at a positive loss", "at most")]
        for row in summary["rows"]:
            found, most = row["theorem"], row["theorem"]["positive_rate"]["clopper_pearson"][1]
            lines.append((f"{row['step_size']:g}", f"{found['converged']:,}", f"{found['positive']:,}", f"{most:.3g}"))
        return "Corollary 5.5, with a leak no limit has a positive loss:\n" + columns(lines)
    lines = [("step size", "limit below", "at a saddle", "at most", "at local minima", "passed a saddle slowly")]
    for row in summary["rows"]:
        found, most = row["theorem"], row["theorem"]["rate"]["clopper_pearson"][1]
        numbers = (
            f"{found['below']:,}",
            f"{found['saddles']:,}",
            f"{most:.3g}",
            f"{found['local_minima']:,}",
            row["passed_saddles"],
        )
        lines.append((f"{row['step_size']:g}", *numbers))
    return f"Theorem 1.2, no limit below {summary['threshold']:.6g} is a saddle:\n" + columns(lines)


def _near(rows: list[dict]) -> str:
    lines = [("step size", "level", "came to zero", "passed near", "median updates", "90 %", "99 %", "longest")]
    for row in rows:
        for found in row["near"]:
            quantiles = (found[name] for name in ("median", "quantile_90", "quantile_99"))
            stays = (number(value, "g") for value in quantiles)
            counts = (f"{found['orbits']:,}", f"{found['visits']:,}")
            lines.append((f"{row['step_size']:g}", found["level"], *counts, *stays, found["longest"]))
    return "Updates with the loss near a level, of those that come to zero:\n" + columns(lines)


def _saddle(summary: dict) -> str:
    found, saddle = summary["balls"], summary["saddle"]
    lines = [("radius", "runs", "ends", "updates near: 10 %", "median", "90 %")]
    for row in found["rows"]:
        ends = ", ".join(f"{count:,} {name}" for name, count in row["levels"].items())
        stay = ("-",) * 3 if row["stay"] is None else (f"{value:g}" for value in row["stay"])
        lines.append((f"{row['radius']:g}", f"{row['runs']:,}", ends, *stay))
    return (
        f"Balls around the {saddle['kind'].replace('_', ' ')} of neurons {' '.join(saddle['pattern'])}, curvature "
        f"{saddle['curvature']:.6g}:\n{columns(lines)}\n"
        f"updates per factor e: {number(found['slope'], '.5g')}, predicted {found['predicted_slope']:.5g}"
    )


def _manifold(found: dict) -> str:
    slopes, predicted = ((min(found[name]), max(found[name])) for name in ("slopes", "predicted_slopes"))
    return (
        f"Centre-stable manifold of the saddle of neurons {' '.join(found['pattern'])}: one update leads "
        f"{found['off_the_graph']:.2g} off it;\nbeside it orbits leave in {slopes[0]:.4g} to {slopes[1]:.4g} updates "
        f"per factor e of the distance, predicted {predicted[0]:.4g} to {predicted[1]:.4g}"
    )


def ladder_shares(row: dict) -> figures.LadderShares:
    """Counts and intervals of one step size."""
    counts = {name: found["count"] for name, found in row["levels"].items()}
    intervals = {name: tuple(found["clopper_pearson"]) for name, found in row["levels"].items()}
    return figures.LadderShares(row["step_size"], counts, intervals, row["runs"])


def plane(options: Escape, data: Mapping[str, Any]) -> figures.SaddlePlane:
    """The square through the saddle, its levels by name."""
    level, stay = (np.asarray(data[f"square_{name}"]) for name in ("level", "stay"))
    codes, inverse = np.unique(level, return_inverse=True)
    names = np.array([level_name(int(code)) for code in codes])[inverse].reshape(level.shape)
    return figures.SaddlePlane(options.reach, names, stay, options.saddle_step)


def times(summary: dict) -> figures.EscapeTimes:
    """Stays near the saddle's level from every ball that some orbit left."""
    rows = [row for row in summary["balls"]["rows"] if row["stay"]]
    stays = np.array([row["stay"] for row in rows]).reshape(-1, 3)
    return figures.EscapeTimes(np.array([row["radius"] for row in rows]), stays, summary["balls"]["predicted_slope"])


def plateaus(options: Escape, data: Mapping[str, Any]) -> figures.Plateaus:
    """One orbit from each of some balls, the largest first."""
    order = np.argsort(-np.asarray(options.radii), kind="stable")[:_CURVES]
    loss = np.asarray(data["walk_close_loss"])
    return figures.Plateaus([loss[number] for number in order], [_power(options.radii[number]) for number in order])


def _power(radius: float) -> str:
    power = np.log10(radius)
    return rf"$10^{{{round(power)}}}$" if abs(power - round(power)) < 1e-9 else f"{radius:g}"


def training(ladder: Ladder, step_size: float, levels: dict[str, float], data: Mapping[str, Any]) -> figures.Training:
    """Of the random starts that were walked again, the one that came nearest to a saddle: the least gradient there."""
    theta, loss, gradient = (np.asarray(data[f"walk_far_{name}"]) for name in ("theta", "loss", "gradient"))
    near = (np.abs(loss[..., None] - ladder.values) < _NEAR * ladder.values).any(axis=-1)
    steepness = np.where(near, gradient, np.inf)
    chosen, plateau = np.unravel_index(np.argmin(steepness), steepness.shape)
    end = int(np.argmax(loss[chosen] <= ladder.zero)) or loss.shape[1] - 1
    theta, loss = theta[chosen, : end + 1], loss[chosen, : end + 1]
    moments = sorted({0, max(int(plateau) // 8, 1), int(plateau), end})
    types = relu.neuron_types(theta, interval=ladder.loss.interval)
    shots = [realisation(ladder, theta[moment], _title(moment)) for moment in moments]
    return figures.Training(shots, moments, loss, types, levels, step_size)


def _title(update: int) -> str:
    return "start" if update == 0 else f"after {update:,} update{'s' if update > 1 else ''}"


def realisation(ladder: Ladder, theta: np.ndarray, title: str) -> figures.Realisation:
    """A network with its target and breakpoints on the interval."""
    low, high = ladder.loss.interval
    x = np.linspace(low, high, _POINTS)
    target = np.polynomial.polynomial.polyval(x, ladder.loss.target.coefficients)
    kinks = relu.breakpoints(theta)
    inside = kinks[(low < kinks) & (kinks < high)]
    return figures.Realisation(title, x, relu.realise(theta, x, leak=float(ladder.loss.leak)), target, inside)
