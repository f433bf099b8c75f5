"""What the figures of `gdstab escape` show."""

import numpy as np

from gdstab import figures
from gdstab.studies.escape import saddle_manifold
from gdstab.studies.escape.relu_levels import Ladder, level_name
from gdstab.studies.options import Escape, describe
from gdstab.theory import relu

_POINTS = 401  # of a realisation
_CURVES = 5  # orbits with a plateau, at the most
_NEAR = 0.1  # relative to a level


def save(options: Escape, setting, summary: dict, around: dict, manifold: dict | None, record) -> list[str]:
    """Draw all figures and save them with the record of the run; their names."""
    levels = summary["levels"]
    shares = [ladder_shares(row) for row in summary["rows"]]
    main = figures.draw_escape(shares, levels, plane(options, around), times(summary), plateaus(options, around))
    figures.save(main, record, note=describe(options))
    figures.save(figures.draw_training(training(setting, levels, around)), record, "network", note=describe(options))
    if manifold is None:
        return ["figure", "network"]
    figures.save(saddle_manifold.draw(manifold), record, "manifold", note=describe(options))
    return ["figure", "network", "manifold"]


def ladder_shares(row: dict) -> figures.LadderShares:
    """Counts and intervals of one step size."""
    counts = {name: found["count"] for name, found in row["levels"].items()}
    intervals = {name: tuple(found["clopper_pearson"]) for name, found in row["levels"].items()}
    return figures.LadderShares(row["step_size"], counts, intervals, row["runs"])


def plane(options: Escape, around: dict) -> figures.SaddlePlane:
    """The square through the saddle, its levels by name."""
    codes, inverse = np.unique(around["square_level"], return_inverse=True)
    names = np.array([level_name(int(code)) for code in codes])[inverse].reshape(around["square_level"].shape)
    return figures.SaddlePlane(options.reach, names, around["square_stay"], options.saddle_step)


def times(summary: dict) -> figures.EscapeTimes:
    """Stays near the saddle's level from every ball that some orbit left."""
    rows = [row for row in summary["balls"]["rows"] if row["stay"]]
    stays = np.array([row["stay"] for row in rows]).reshape(-1, 3)
    return figures.EscapeTimes(np.array([row["radius"] for row in rows]), stays, summary["balls"]["predicted_slope"])


def plateaus(options: Escape, around: dict) -> figures.Plateaus:
    """One orbit from each of some balls, the largest first."""
    order = np.argsort(-np.asarray(options.radii), kind="stable")[:_CURVES]
    labels = [_power(options.radii[number]) for number in order]
    return figures.Plateaus([around["walk_close_loss"][number] for number in order], labels)


def _power(radius: float) -> str:
    power = np.log10(radius)
    return rf"$10^{{{round(power)}}}$" if abs(power - round(power)) < 1e-9 else f"{radius:g}"


def training(setting, levels: dict[str, float], around: dict) -> figures.Training:
    """Of the random starts that were walked again, the one that came nearest to a saddle: the least gradient there."""
    ladder, loss = setting.ladder, around["walk_far_loss"]
    near = (np.abs(loss[..., None] - ladder.values) < _NEAR * ladder.values).any(axis=-1)
    steepness = np.where(near, around["walk_far_gradient"], np.inf)
    chosen, plateau = np.unravel_index(np.argmin(steepness), steepness.shape)
    end = int(np.argmax(loss[chosen] <= ladder.zero)) or loss.shape[1] - 1
    theta, loss = around["walk_far_theta"][chosen, : end + 1], loss[chosen, : end + 1]
    moments = sorted({0, max(int(plateau) // 8, 1), int(plateau), end})
    types = relu.neuron_types(theta, interval=ladder.loss.interval)
    shots = [realisation(ladder, theta[moment], _title(moment)) for moment in moments]
    return figures.Training(shots, moments, loss, types, levels, float(setting.step_sizes[0]))


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
