"""What the figures show, from what a run wrote: `data` is its dataset, or the arrays of that by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdstab import figures
from gdstab.studies.escape import Escape
from gdstab.studies.escape.relu_levels import Ladder, level_name
from gdstab.theory import relu

_POINTS = 401  # of a realisation
_CURVES = 5  # orbits with a plateau, at the most
_NEAR = 0.1  # relative to a level


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
