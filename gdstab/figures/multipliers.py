"""Optimisers as maps: the plane of step size and momentum, multipliers in the complex plane, the edge of stability."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from gdstab.figures import style
from gdstab.outcomes import Outcome
from gdstab.theory import optimisers

_OTHERS = (  # in the order of the verdicts; the first, returning, is a colour by the number of updates
    (1, "converges elsewhere", "#e0b04c"),
    (2, "cycle", style.OUTCOME_COLOURS[Outcome.CYCLING]),
    (3, "diverges", style.OUTCOME_COLOURS[Outcome.DIVERGED]),
    (4, "undecided", style.OUTCOME_COLOURS[Outcome.UNDECIDED]),
)
_EDGE = "#d55e00"
_SEEN = "#0072b2"


class StabilityPlane(NamedTuple):
    """What the engine found for every step size and momentum; one momentum only for rules that have none."""

    step_sizes: np.ndarray  # [steps]
    betas: np.ndarray  # [betas]
    verdict: np.ndarray  # [steps, betas]: 0 returns, 1 leaves, 2 cycles, 3 diverges, 4 undecided
    updates: np.ndarray  # [steps, betas]
    threshold: np.ndarray  # [betas]


class MultiplierMap(NamedTuple):
    """The multipliers of one map."""

    rule: str
    step_size: float
    beta: float
    multipliers: np.ndarray  # complex
    numerical_range: np.ndarray  # complex, points of its edge


class StabilityEdge(NamedTuple):
    """One orbit, and the curvature that its rule sees."""

    rule: str
    step_size: float
    steps: np.ndarray
    loss: np.ndarray
    curvature: np.ndarray
    limit: float  # above it a minimum is unstable


def draw_multipliers(plane: StabilityPlane, found: MultiplierMap, *, figure: FigureBase | None = None) -> FigureBase:
    """Which orbits return to the minimum, with the threshold over it; and the multipliers of one of the maps."""
    with style.style():
        figure = style.new_figure(8.4, 4.0, figure)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        handles = _draw_plane(figure, left, plane, found)
        handles += _draw_circle(right, found)
        style.letter((left, right))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.0)
    return figure


def _draw_plane(figure: FigureBase, axes: Axes, plane: StabilityPlane, found: MultiplierMap) -> list:
    returns = plane.verdict == 0
    updates = np.maximum(plane.updates[returns], 1) if returns.any() else np.array([1, 10])
    norm = LogNorm(updates.min(), max(updates.max(), 2 * updates.min()))
    picture = style.ITERATIONS(norm(np.maximum(plane.updates, 1)))[..., :3]
    handles = []
    for number, words, colour in _OTHERS:
        if (plane.verdict == number).any():
            picture[plane.verdict == number] = to_rgb(colour)
            handles.append(style.swatch(colour, words))
    even = np.allclose(np.diff(plane.step_sizes), plane.step_sizes[1] - plane.step_sizes[0])
    if len(plane.betas) > 1:
        across, label, curve = _edges(plane.betas), r"momentum $\beta$", (plane.betas, plane.threshold)
    else:
        across, label, curve = np.array([0.0, 1.0]), "", (np.array([0.0, 1.0]), plane.threshold.repeat(2))
        axes.set_xticks([])
    axes.pcolormesh(across, _edges(plane.step_sizes, even=even), picture, rasterized=True)
    line = {"color": "white", "linewidth": 1.6, "linestyle": (0, (4, 2))}
    axes.plot(*curve, **line, path_effects=style.casing("black", 3.0))
    handles.insert(0, Line2D([], [], label="threshold, closed form", **line, path_effects=style.casing("black", 3.0)))
    here = found.beta if len(plane.betas) > 1 else 0.5
    if across[0] <= here <= across[-1] and plane.step_sizes[0] <= found.step_size <= plane.step_sizes[-1]:
        mark = {"marker": "*", "markersize": 11, "color": "white", "markeredgecolor": "black", "linestyle": "none"}
        axes.plot(here, found.step_size, **mark)
        handles.append(Line2D([], [], label="the map on the right", **mark))
    axes.set(yscale="linear" if even else "log", xlabel=label, ylabel=r"step size $\eta$", title=_title(found.rule))
    axes.set_xlim(across[0], across[-1])
    axes.set_ylim(*_edges(plane.step_sizes, even=even)[[0, -1]])
    if returns.any():
        bar = figure.colorbar(ScalarMappable(norm, style.ITERATIONS), ax=axes, pad=0.02, aspect=28)
        bar.set_label("updates until back at the minimum")
    return handles


def _edges(centres: np.ndarray, *, even: bool = True) -> np.ndarray:
    """Edges of cells about centres that are evenly spaced, or geometrically."""
    values = centres if even else np.log(centres)
    step = (values[1] - values[0]) / 2
    edges = np.concatenate([values - step, values[-1:] + step])
    return edges if even else np.exp(edges)


def _draw_circle(axes: Axes, found: MultiplierMap) -> list:
    """Multipliers, the unit circle, and the numerical range of the Jacobian where it fits; entries of the legend."""
    values = found.multipliers
    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="black", linewidth=1.0))
    largest = max(1.0, float(np.abs(values).max()))
    width = float(np.abs(found.numerical_range).max())
    fits = width <= 4 * largest
    reach = 1.1 * (max(largest, width) if fits else largest)
    edge = np.append(found.numerical_range, found.numerical_range[:1])
    handles = []
    if fits:
        grey = {"color": "#888888", "linewidth": 1.0, "linestyle": "--"}
        handles += axes.plot(edge.real, edge.imag, label="edge of the numerical range", **grey)
    inside = np.abs(values) <= 1 + 1e-9
    for some, marker, colour, words in (
        (inside, "o", _SEEN, "multiplier"),
        (~inside, "s", _EDGE, "unstable multiplier"),
    ):
        if some.any():
            handles += axes.plot(values[some].real, values[some].imag, marker, color=colour, markersize=5, label=words)
    axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    axes.axvline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel=r"$\mathrm{Re}\,\mu$")
    axes.set_ylabel(r"$\mathrm{Im}\,\mu$", labelpad=0)
    momentum = rf", $\beta = {found.beta:g}$" if found.rule in optimisers.MOMENTUM else ""
    axes.set_title(rf"$\eta = {found.step_size:g}$" + momentum)
    return handles


def draw_edge(found: StabilityEdge, *, figure: FigureBase | None = None) -> FigureBase:
    """Loss along one orbit, and below it the curvature that the rule sees against the limit of stability."""
    with style.style():
        figure = style.new_figure(5.6, 4.4, figure)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.3))
        loss = np.where(np.isfinite(found.loss) & (found.loss > 0), found.loss, np.nan)
        top.plot(found.steps, loss, color="black", linewidth=0.9)
        if np.isfinite(loss).any():
            top.set_yscale("log")
        top.set(ylabel="loss", title=rf"{_title(found.rule)}, $\eta = {found.step_size:g}$")
        seen = np.where(np.isfinite(found.curvature) & (found.curvature > 0), found.curvature, np.nan)
        bottom.plot(found.steps, seen, color=_SEEN, linewidth=1.1, label="largest curvature the rule sees")
        limit = rf"limit of stability, {found.limit:.4g}"
        bottom.axhline(found.limit, color=_EDGE, linewidth=1.3, linestyle="--", label=limit)
        known = seen[np.isfinite(seen)]
        if known.size and known.max() > 20 * known.min():
            bottom.set_yscale("log")
        symbol = r"P^{-1/2} H P^{-1/2}" if found.rule in optimisers.ADAPTIVE else "H"
        bottom.set(xlabel="updates", ylabel=rf"$\lambda_{{\max}}({symbol})$")
        bottom.legend(loc="best")
        bottom.set_xlim(found.steps[0], found.steps[-1])
        bottom.set_title("curvature that it sees")
        style.letter((top, bottom))
    return figure


def _title(rule: str) -> str:
    names = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "adagrad": "Adagrad", "nesterov": "Nesterov"}
    return names.get(rule, {"descent": "gradient descent"}.get(rule, rule.replace("-", " ")))
