"""Figure 2 of paper A: single orbits on the level sets of a loss of two parameters, on both sides of the threshold."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from gdstab.figures import style
from gdstab.figures.heatmap import Overlay

_ORBITS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7b5aa6")


class Panel(NamedTuple):
    """What one panel shows."""

    step_size: float
    box: tuple[tuple[float, float], tuple[float, float]]
    paths: Sequence[np.ndarray]  # orbits [steps + 1, 2] each, the initial point first
    attractors: Sequence[np.ndarray] = ()  # cycles [period, 2] that orbits end in
    overlay: Overlay = Overlay()
    background: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # x [n], y [m], excess loss [m, n]
    names: tuple[str, str] = ("$x$", "$y$")  # of the axes


def draw_trajectories(panels: Sequence[Panel], *, figure: FigureBase | None = None) -> FigureBase:
    """One panel for each step size, orbits as dots joined in the order of their updates."""
    with style.style():
        figure = style.new_figure(0.4 + 3.6 * len(panels), 4.3, figure)
        entries = {}
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for number, (axes, panel) in enumerate(zip(row, panels, strict=True)):
            entries |= _draw_panel(axes, panel)
            mark = f"({chr(97 + number)}) " if len(panels) > 1 else ""
            axes.set_title(rf"{mark}$\eta = {panel.step_size:g}$")
        if entries:
            figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries))
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> dict:
    """Draw one panel; the entries of the legend by their labels."""
    (left, right), (bottom, top) = panel.box
    if panel.background is not None:
        x, y, loss = panel.background
        known = loss[np.isfinite(loss)]
        if known.max(initial=0) > 0:
            levels = LogLocator(subs=(1.0, 3.0)).tick_values(max(known.min(), 1e-4 * known.max()), known.max())
            axes.contour(x, y, np.ma.masked_invalid(loss), levels=levels, colors="#cccccc", linewidths=0.5, zorder=1)
    entries = _draw_minima(axes, panel.overlay)
    begin = {"linestyle": "none", "marker": "o", "markersize": 5.0, "markerfacecolor": "white", "markeredgewidth": 1.2}
    cycle = {"linestyle": "none", "marker": "D", "markersize": 4.6, "color": "black", "markeredgecolor": "white"}
    for number, path in enumerate(panel.paths):
        colour, points = _ORBITS[number % len(_ORBITS)], _cut(path, panel.box)
        axes.add_collection(_fading(points, colour))
        axes.plot(*points[1:].T, "o", color=colour, markersize=2.2, markeredgewidth=0, zorder=4)
        axes.plot(*points[0], **begin, markeredgecolor=colour, zorder=6)
    if len(panel.paths):
        entries["initial point"] = Line2D([], [], **begin, markeredgecolor="#555555")
        entries["updates"] = Line2D([], [], color="#555555", marker="o", markersize=2.6, linewidth=0.7)
    for points in panel.attractors:
        axes.plot(*points.T, **cycle, zorder=7)
        entries["attracting cycle"] = Line2D([], [], **cycle)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xlabel=panel.names[0], ylabel=panel.names[1])
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return entries


def _draw_minima(axes: Axes, overlay: Overlay) -> dict:
    entries = {}
    for line in overlay.minima:
        axes.plot(*line.T, color=style.MINIMA, linewidth=1.3, zorder=2)
        entries["minima"] = Line2D([], [], color=style.MINIMA, linewidth=1.3)
    for line in overlay.stable:
        axes.plot(*line.T, color=style.STABLE, linewidth=3.0, solid_capstyle="butt", zorder=2.5)
        entries["stable minima"] = Line2D([], [], color=style.STABLE, linewidth=3.0)
    return entries


def _fading(points: np.ndarray, colour: str) -> LineCollection:
    """Lines from point to point that fade: the late updates of a slow orbit would cover everything else."""
    strength = np.exp(-np.arange(len(points) - 1) / 5)
    pieces = np.stack([points[:-1], points[1:]], axis=1)
    return LineCollection(pieces, colors=[to_rgba(colour, alpha) for alpha in strength], linewidths=0.9, zorder=3)


def _cut(path: np.ndarray, box) -> np.ndarray:
    """The path up to its first point that is far outside of the box: what follows would only blow up the picture."""
    low, high = np.transpose(box)
    far = ~(np.abs(path - (low + high) / 2) < 10 * (high - low)).all(axis=1)
    return path[: int(np.argmax(far))] if far.any() else path
