"""The critical step of every initial point, and where its orbit ends there, as maps."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from gdstab.basins import Attractors
from gdstab.figures import labels, style

_FLAGGED, _NONE, _ALL = "#d55e00", "#9c9c9c", "#e79fc4"
"""Apart in hue from the map of critical steps and in lightness from each other (Okabe and Ito)."""


class CriticalMap(NamedTuple):
    """A critical step per cell; the first axis of the arrays is the first of the box."""

    eta: np.ndarray  # [n0, n1], NaN where it is not known
    flagged: np.ndarray  # where the converging step sizes are no interval
    all_converge: np.ndarray  # where every step size tried converges
    box: tuple
    axes: tuple[str, str]
    critical_step: float | None
    minima: Sequence[np.ndarray] = ()
    level_line: Callable[[float], np.ndarray] | None = None  # the exact line of cells with this critical step
    label: np.ndarray | None = None  # of where the orbit ends just below `eta`, -1 of nowhere
    attractors: Attractors | None = None


def draw_critical_map(found: CriticalMap, *, figure: FigureBase | None = None) -> FigureBase:
    """Critical steps in colour, exact level lines over them; flagged cells, and those off the range, stand out."""
    with style.style():
        figure = style.new_figure(5.6, 4.9, figure)
        axes = figure.add_subplot()
        norm = _norm(found)
        style.draw_image(axes, _colours(found, norm), found.box, found.axes)
        levels = _levels(norm)
        entries = _draw_lines(axes, found, levels)
        if np.isfinite(found.eta).any():
            _draw_bar(figure, axes, found, norm, levels)
        style.legend_below(figure, entries + _swatches(found), 3, handlelength=2.2)
    return figure


def draw_critical_attractors(found: CriticalMap, *, figure: FigureBase | None = None) -> FigureBase:
    """Each cell in the colour of the attractor that its orbit ends on just below its critical step."""
    if found.label is None or found.attractors is None:
        raise ValueError("expected a map with label and attractors, got one without; ask for labels")
    nowhere = found.label < 0
    rest = (
        (nowhere & ~found.flagged, _NONE, "none converges"),
        (nowhere & found.flagged, _FLAGGED, "not the smallest, but larger ones converge"),
    )
    with style.style():
        figure = style.new_figure(5.0, 5.2, figure)
        axes = figure.add_subplot()
        picture = labels.shaded(found.label, found.attractors.names, np.zeros(found.label.shape))
        for cells, colour, _ in rest:
            picture[cells] = style.rgb(colour)
        style.draw_image(axes, picture, found.box, found.axes)
        lines = _draw_lines(axes, found._replace(level_line=None), np.zeros(0))
        entries = labels.number_attractors(axes, found.attractors, found.label.size, found.box, found.axes)
        axes.set_title("attractor just below the critical step")
        entries += lines + [(style.swatch(colour), name) for cells, colour, name in rest if cells.any()]
        style.legend_below(figure, entries, 2, handlelength=2.4)
    return figure


def _norm(found: CriticalMap) -> LogNorm:
    """From the smallest to the largest value, a few in a thousand aside; the critical step of the minima is on it."""
    known = found.eta[np.isfinite(found.eta) & ~found.flagged]
    known = known if known.size else found.eta[np.isfinite(found.eta)]
    if not known.size:
        return LogNorm(0.1, 1)
    low, high = np.quantile(known, (0.002, 0.998))
    if found.critical_step is not None and found.critical_step >= low:
        high = max(high, found.critical_step)
    return LogNorm(low, max(high, low * 1.001))


def _levels(norm: LogNorm) -> np.ndarray:
    """Round numbers on the scale, evenly spaced where it is short."""
    ratio = norm.vmax / norm.vmin
    subs = (1, 1.5, 2, 3, 4, 5, 7) if ratio < 15 else (1, 2, 5) if ratio < 1e4 else (1,)
    locator = MaxNLocator(6) if ratio < 3 else LogLocator(subs=subs, numticks=30)
    levels = locator.tick_values(norm.vmin, norm.vmax)
    return levels[(levels >= norm.vmin) & (levels <= norm.vmax)]


def _colours(found: CriticalMap, norm: LogNorm) -> np.ndarray:
    """Colours `[n0, n1, 3]`, 8 bits each."""
    shade = norm(np.where(np.isfinite(found.eta), found.eta, norm.vmin))
    picture = style.shades(shade)
    for cells, colour in ((_without(found), _NONE), (found.all_converge, _ALL), (found.flagged, _FLAGGED)):
        picture[cells] = style.rgb(colour)
    return picture


def _without(found: CriticalMap) -> np.ndarray:
    """Where no step size of the range converges."""
    return ~np.isfinite(found.eta) & ~found.all_converge & ~found.flagged


def _draw_lines(axes: Axes, found: CriticalMap, levels: np.ndarray) -> list:
    """Exact level lines and the minima, set off from the ground; their entries of the legend."""
    entries = []
    thin = {"color": "white", "linewidth": 0.7, "path_effects": style.casing("#404040", 1.7)}
    solid = {"color": style.MINIMA, "linewidth": 1.5}
    if found.level_line is not None:
        bound = np.inf if found.critical_step is None else found.critical_step
        for level in levels[(levels > 0) & (levels < bound)]:
            axes.plot(*found.level_line(level).T, **thin)
        entries.append((Line2D([], [], **thin), "exact level lines, at the ticks"))
    for line in found.minima:
        axes.plot(*line.T, **solid, path_effects=style.casing("white", 2.7))
    if len(found.minima):
        entries.append((Line2D([], [], **solid), "minima"))
    return entries


def _draw_bar(figure: FigureBase, axes: Axes, found: CriticalMap, norm: LogNorm, levels: np.ndarray) -> None:
    """The colour bar, with the critical step of the minima on it."""
    known = found.eta[np.isfinite(found.eta)]
    extend = style.extend(known.min() < norm.vmin, known.max() > norm.vmax)
    image = ScalarMappable(norm, style.ITERATIONS)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=28, pad=0.02, extend=extend)
    bar.set_label(r"critical step $\eta^{*\!}(\theta_0)$")
    bar.set_ticks(levels)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.minorticks_off()
    step = found.critical_step
    if step is not None and norm.vmin <= step <= norm.vmax:
        bar.ax.axhline(step, color="black", linewidth=1.2)
        clear = np.abs(norm(levels) - norm(step)) > 0.03
        bar.set_ticks([*levels[clear], step], labels=[*(f"{x:g}" for x in levels[clear]), rf"$\eta_C = {step:.4g}$"])


def _swatches(found: CriticalMap) -> list:
    cells = (
        (found.flagged, _FLAGGED, "no interval"),
        (_without(found), _NONE, "none converges"),
        (found.all_converge, _ALL, "all converge"),
    )
    return [(style.swatch(colour), name) for some, colour, name in cells if some.any()]
