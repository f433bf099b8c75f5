"""Critical points of a loss of two parameters, by kind, on its level lines."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from gdstab import ensembles, sampling
from gdstab.basins import CriticalKind, CriticalPoints
from gdstab.figures import style

_LOOKS = {
    CriticalKind.MINIMUM: ("o", "#0072b2", "minimum", "minima"),
    CriticalKind.SADDLE: ("X", "#d55e00", "saddle", "saddles"),
    CriticalKind.MAXIMUM: ("^", "#009e73", "maximum", "maxima"),
    CriticalKind.DEGENERATE: ("s", "#e69f00", "degenerate", "degenerate"),
}
_CELLS, _LEVELS, _MARGIN = 200, 24, 0.08


def draw_critical_points(
    found: CriticalPoints,
    loss: Callable | None = None,
    box: Any = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    cmap: Any = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Mark the points by kind, in shape and colour; under them level lines of the loss, evenly filled.

    Parameters
    ----------
    found
        Of two parameters.
    loss
        Whose level lines are drawn; no lines without.
    box
        That is shown, `((low, high), (low, high))`; by default what the points fill, and a margin.
    ax
        Axes to draw into; by default those of a new figure.
    cmap
        Of the level lines; by default greys.
    figure
        To draw on, or a part of one; by default a new one, or that of `ax`.

    Returns
    -------
    The figure.
    """
    if found.point.shape[1] != 2:
        raise ValueError(f"expected critical points in the plane, got {found.point.shape[1]} parameters; draw others")
    with style.style():
        figure = style.new_figure(5.0, 4.6, figure) if ax is None else ax.figure
        axes = figure.add_subplot() if ax is None else ax
        sides = np.asarray(box, float) if box is not None else _sides(found.point)
        if loss is not None:
            _draw_levels(axes, loss, sides, found.point.dtype, cmap)
        entries = []
        for kind, (marker, colour, one, many) in _LOOKS.items():
            some = found.kind == kind
            if some.any():
                drawn = axes.scatter(
                    *found.point[some].T, s=44, marker=marker, facecolor=colour, edgecolor="white", linewidth=0.9,
                    zorder=4,
                )  # fmt: skip
                entries.append((drawn, f"{some.sum()} {one if some.sum() == 1 else many}"))
        axes.set(xlim=sides[0], ylim=sides[1], xlabel=style.axis_name("x0"), ylabel=style.axis_name("x1"))
        axes.set_title(title or "critical points")
        if ax is None:
            style.legend_below(figure, entries, 4)
        elif entries:
            axes.legend(*zip(*entries, strict=True), loc="best", fontsize=7, frameon=True, framealpha=0.9)
    return figure


def _sides(points: np.ndarray) -> np.ndarray:
    if not len(points):
        return np.array([[-1.0, 1.0], [-1.0, 1.0]])
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.maximum(_MARGIN * (high - low), _MARGIN * max(float(np.max(high - low)), 1e-300))
    return np.stack([low - room, high + room], axis=1)


def _draw_levels(axes: Axes, loss: Callable, sides: np.ndarray, dtype, cmap) -> None:
    """Filled level lines, as many cells of the picture between any two."""
    points = np.asarray(sampling.grid(sides, (_CELLS, _CELLS), dtype=dtype))
    values = ensembles.map_points(jax.tree_util.Partial(loss), points).reshape(_CELLS, _CELLS)
    x, y = points[::_CELLS, 0], points[:_CELLS, 1]
    levels = np.unique(np.quantile(values[np.isfinite(values)], np.linspace(0, 1, _LEVELS)))
    if len(levels) > 1:
        heights, steps = np.interp(values.T, levels, np.arange(len(levels))), np.arange(len(levels))
        axes.contourf(x, y, heights, levels=steps, cmap="Greys" if cmap is None else cmap, alpha=0.45, zorder=0)
        axes.contour(x, y, heights, levels=steps, colors="#606060", linewidths=0.4, zorder=1)
