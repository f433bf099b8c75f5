"""Figure 1(a) of paper A: how many updates until convergence, and where there is none."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from gdstab.basins import Heatmap
from gdstab.figures import labels, style
from gdstab.outcomes import Outcome

LABELS = {
    Outcome.DIVERGED: "diverges",
    Outcome.CYCLING: "cycle",
    Outcome.UNDECIDED: "undecided",
    Outcome.NONFINITE: "not finite",
}


_OWN = ("#e69f00", "#c2185b", "#56b4e9", "#8c510a")
"""Apart from the map of iterations and from the colours of the verdicts."""


class Overlay(NamedTuple):
    """What to lay over a heatmap, in the coordinates of its box: sequences of polylines `[points, 2]`, and spots."""

    minima: Sequence[np.ndarray] = ()
    stable: Sequence[np.ndarray] = ()  # the part of the minima that is linearly stable
    ellipse: Sequence[np.ndarray] = ()  # the exact boundary of the basin
    spots: np.ndarray = np.zeros((0, 2))  # single minima, or points close together on a curve of them
    stable_spots: np.ndarray = np.zeros((0, 2))


def draw_heatmap(
    result: Heatmap,
    overlay: Overlay = Overlay(),  # noqa: B008
    *,
    title: str | None = None,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Updates until convergence on a logarithmic scale; every other verdict in a colour of its own.

    With labels the colour is that of the attractor, and darker where it takes more updates to come there.
    """
    with style.style():
        figure = style.new_figure(5.6, 5.0, figure)
        axes = figure.add_subplot()
        norm = _norm(result)
        # As an image of colours, so that cells are averaged as they are seen where a pixel holds several.
        style.draw_image(axes, _colours(result, norm), result.box, result.axes)
        entries = _draw_curves(axes, overlay)
        if result.attractors is not None:
            entries = labels.number_attractors(axes, result.attractors, result.cells, result.box, result.axes) + entries
        axes.set_title(title or rf"$\eta = {result.step_size:g}$")
        if result.counts["converged"]:
            image = ScalarMappable(norm, style.ITERATIONS if result.label is None else labels.SHADES)
            bar = figure.colorbar(image, ax=axes, shrink=0.86, aspect=28, pad=0.02, extend=_extend(result, norm))
            bar.set_label("updates until convergence")
            style.label_logarithmic(bar, norm.vmin, norm.vmax)
        nowhere = result.outcome if result.label is None else np.where(result.label < 0, result.outcome, -1)
        present = [verdict for verdict in LABELS if (nowhere == verdict).any()]
        entries += [(style.swatch(style.OUTCOME_COLOURS[verdict]), LABELS[verdict]) for verdict in present]
        own = [code for code in range(len(Outcome), len(result.outcomes)) if (nowhere == code).any()]
        entries += [(style.swatch(_own_colour(code)), result.outcomes[code].replace("_", " ")) for code in own]
        style.legend_below(figure, entries, 4 if result.label is None else 2, handlelength=2.4)
    return figure


def _norm(result: Heatmap) -> LogNorm:
    """Without the fastest and the slowest cell in a thousand, which would leave little contrast to all others."""
    steps = result.steps[result.outcome == Outcome.CONVERGED]
    if not steps.size:
        return LogNorm(1, 10)
    low, high = np.quantile(np.maximum(steps, 1), (0.001, 0.999))
    return LogNorm(low, max(high, 2 * low))


def _extend(result: Heatmap, norm: LogNorm) -> str:
    """Which ends of the colour bar have cells beyond them."""
    steps = np.maximum(result.steps[result.outcome == Outcome.CONVERGED], 1)
    return style.extend(steps.min() < norm.vmin, steps.max() > norm.vmax)


def _colours(result: Heatmap, norm: LogNorm) -> np.ndarray:
    """Colours `[n0, n1, 3]`, 8 bits each."""
    darkness = norm(np.maximum(result.steps, 1))
    if result.label is None:
        picture, nowhere = style.shades(darkness), np.ones(result.outcome.shape, bool)
    else:
        picture, nowhere = labels.shaded(result.label, result.attractors.names, np.asarray(darkness)), result.label < 0
    for verdict, colour in style.OUTCOME_COLOURS.items():
        picture[nowhere & (result.outcome == verdict)] = style.rgb(colour)
    for code in range(len(Outcome), len(result.outcomes)):
        picture[nowhere & (result.outcome == code)] = style.rgb(_own_colour(code))
    return picture


def _own_colour(code: int) -> str:
    """Of a verdict of one's own, which stand behind the five."""
    return _OWN[(code - len(Outcome)) % len(_OWN)]


def _draw_curves(axes: Axes, overlay: Overlay) -> list:
    """Draw the curves, each with an edge that sets it off; their entries of the legend."""
    solid = {"color": style.MINIMA, "linewidth": 1.5}
    track = {"color": style.MINIMA, "linewidth": 3.0, "solid_capstyle": "butt"}
    dashes = {"color": "white", "linewidth": 1.7, "linestyle": (0, (2.4, 1.6)), "dash_capstyle": "butt"}
    edge = {"color": style.ELLIPSE, "linewidth": 1.4}
    for line in overlay.ellipse:
        axes.plot(*line.T, **edge, path_effects=style.casing("white", 2.6))
    for line in overlay.minima:
        axes.plot(*line.T, **solid, path_effects=style.casing("white", 2.7))
    for line in overlay.stable:  # dashes on a black track, legible on any ground
        axes.plot(*line.T, **track, path_effects=style.casing("white", 4.0))
        axes.plot(*line.T, **dashes)
    spot = {"linestyle": "none", "marker": "o", "markeredgecolor": "white", "markeredgewidth": 0.6, "markersize": 4.2}
    spot |= {"markerfacecolor": style.MINIMA}
    stable_spot = spot | {"markerfacecolor": "white", "markeredgecolor": style.MINIMA, "markeredgewidth": 1.0}
    axes.plot(*overlay.spots.T, **spot)
    axes.plot(*overlay.stable_spots.T, **stable_spot)
    entries = []
    if len(overlay.spots):
        entries.append((Line2D([], [], **spot), "minima, unstable" if len(overlay.stable_spots) else "minima"))
    if len(overlay.stable_spots):
        entries.append((Line2D([], [], **stable_spot), "stable minima"))
    if len(overlay.minima):
        entries.append((Line2D([], [], **solid), "minima"))
    if len(overlay.stable):
        entries.append(((Line2D([], [], **track), Line2D([], [], **dashes)), "stable minima"))
    if len(overlay.ellipse):
        entries.append((Line2D([], [], **edge), "trapping ellipse (exact)"))
    return entries
