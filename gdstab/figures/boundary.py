"""Basins with the mesh that found their edges, and how uncertainty shrinks with distance."""

import re
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import FigureBase
from matplotlib.patches import Patch, Rectangle

from gdstab.boundaries import AdaptiveHeatmap, UncertaintyExponent
from gdstab.figures import style
from gdstab.figures.heatmap import LABELS

_BASINS = ("#0072b2", "#f0e442", "#009e73", "#56b4e9", "#332288", "#ddcc77", "#44aa99", "#117733")
"""Of the palettes of Okabe and Ito and of Tol, apart from the colours of the other outcomes."""
_MOST_PIXELS = 1400
_WINDOW = 2  # coarse squares along the window that is enlarged
_FIT = "#d55e00"


def draw_boundary(
    picture: AdaptiveHeatmap,
    exponent: UncertaintyExponent,
    names: Mapping[int, str] | None = None,
    *,
    figure: FigureBase | None = None,
) -> FigureBase:
    """The basins, the mesh in a window at an edge, and the fit of the uncertainty exponent with the range used.

    `names` says what the labels of the picture mean.
    """
    with style.style():
        figure = style.new_figure(8.0, 3.15, figure)
        figure.set_layout_engine("constrained", wspace=0.04)  # compressed, squares rise into the note above them
        whole, window, fit = figure.subplots(1, 3)
        _draw_basins(whole, picture)
        _draw_window(window, whole, picture)
        _draw_fit(fit, exponent)
        entries = _entries(picture, names or {0: "converges"})
        figure.legend(handles=entries, loc="outside lower left", ncols=min(len(entries), 4), handlelength=1.6)
    return figure


def _draw_basins(axes: Axes, picture: AdaptiveHeatmap) -> None:
    """Every k-th cell where there are more than pixels: a mean of colours would be the colour of something else."""
    stride = -(-max(picture.outcome.shape) // _MOST_PIXELS)
    _show(axes, picture, slice(None, None, stride), slice(None, None, stride), picture.box)
    axes.set_title(rf"(a) basins, $\eta = {picture.step_size:g}$")


def _draw_window(axes: Axes, whole: Axes, picture: AdaptiveHeatmap) -> None:
    """A few coarse squares at an edge, with the squares that they were cut into; marked in the whole picture."""
    (row, column), side = _window(picture), _WINDOW << picture.tree.levels
    rows, columns = min(side, picture.outcome.shape[0] - row), min(side, picture.outcome.shape[1] - column)
    (low0, _), (low1, _) = picture.box
    step0, step1 = picture.cell_sides
    left, bottom = low0 + row * step0, low1 + column * step1
    box = (left, left + rows * step0), (bottom, bottom + columns * step1)
    _show(axes, picture, slice(row, row + rows), slice(column, column + columns), box)
    squares = []
    for level in range(picture.tree.levels + 1):
        first = picture.leaves(level)
        inside = ((first >= (row, column)) & (first < (row + rows, column + columns))).all(axis=1)
        squares += [
            Rectangle((low0 + i * step0, low1 + j * step1), step0 * 2**level, step1 * 2**level)
            for i, j in first[inside]
        ]
    axes.add_collection(PatchCollection(squares, facecolor="none", edgecolor="black", linewidth=0.25))
    mark = {"facecolor": "none", "edgecolor": "black", "linewidth": 0.9, "path_effects": style.casing("white", 2.0)}
    width, height = rows * step0, columns * step1
    # The window itself may be smaller than a line is wide.
    pad0, pad1 = (
        max(0.0, 0.02 * (high - low) - size / 2) for (low, high), size in zip(picture.box, (width, height), strict=True)
    )
    whole.add_patch(Rectangle((left - pad0, bottom - pad1), width + 2 * pad0, height + 2 * pad1, **mark))
    axes.set_title(f"(b) mesh, {100 * picture.share_computed:.2g} % of all cells computed")
    axes.locator_params(nbins=4)


def _window(picture: AdaptiveHeatmap) -> tuple[int, int]:
    """First cell of a window of coarse squares that has as many cells at an edge as three in four that have any."""
    side = _WINDOW << picture.tree.levels
    across = -(-picture.outcome.shape[1] // side)
    row, column = np.divmod(picture.boundary, picture.outcome.shape[1])
    places, counts = np.unique(row // side * across + column // side, return_counts=True)
    if not places.size:
        return 0, 0
    chosen = places[np.argsort(counts, kind="stable")[(3 * (counts.size - 1)) // 4]]
    return int(chosen // across) * side, int(chosen % across) * side


def _show(axes: Axes, picture: AdaptiveHeatmap, rows: slice, columns: slice, box) -> None:
    colours = _colours(picture, rows, columns)
    style.draw_image(axes, colours, box, picture.axes, labelpad=1, interpolation="nearest")


def _colours(picture: AdaptiveHeatmap, rows: slice, columns: slice) -> np.ndarray:
    """Colours `[n0, n1, 3]`, 8 bits each."""
    outcome = picture.outcome[rows, columns]
    label = np.zeros(outcome.shape, np.int16) if picture.label is None else picture.label[rows, columns]
    palette = np.array([style.rgb(colour) for colour in _BASINS], np.uint8)
    image = palette[label % len(_BASINS)]
    for verdict, colour in style.OUTCOME_COLOURS.items():
        image[outcome == verdict] = style.rgb(colour)
    return image


def _entries(picture: AdaptiveHeatmap, names: Mapping[int, str]) -> list[Patch]:
    """A swatch for each basin that occurs."""
    found = [style.swatch(_BASINS[label % len(_BASINS)], _math(meaning)) for label, meaning in names.items()]
    if not picture.counts["converged"]:
        found = []
    present = [verdict for verdict in LABELS if picture.counts[verdict.name.lower()]]
    return found + [style.swatch(style.OUTCOME_COLOURS[v], LABELS[v]) for v in present]


def _math(meaning: str) -> str:
    """Conditions such as `x0 <= 0` in mathematics."""
    symbols = {">": ">", "<=": r"\leq"}
    found = re.sub(r"([a-z])(\d+) (>|<=) 0", lambda m: f"${m[1]}_{{{m[2]}}} {symbols[m[3]]} 0$", meaning)
    return found if found == meaning else f"converges to {found}"


def _draw_fit(axes: Axes, exponent: UncertaintyExponent) -> None:
    """Shares on logarithmic axes with their standard errors; the line on its range, and the slope of a smooth edge."""
    scales, share, used = exponent.scales, exponent.share, exponent.used
    error = np.sqrt(share * (1 - share) / exponent.samples)
    limited = exponent.precision_limited & (share > 0)
    left_out = ~used & ~limited & (share > 0)
    common = {"linestyle": "none", "color": "black", "elinewidth": 0.8, "markersize": 3.6, "markeredgewidth": 0.8}
    for some, marker, fill, label in (
        (used, "o", "black", "used"),
        (left_out, "o", "white", "left out"),
        (limited, "x", "black", "set by rounding"),
    ):
        if some.any():
            axes.errorbar(
                scales[some], share[some], np.minimum(error[some], 0.999 * share[some]), marker=marker, label=label,
                markerfacecolor=fill, **common,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=r"distance $\varepsilon$", ylabel="share of pairs that end differently")
    style.thin_out(axes.xaxis, scales.min(), scales.max())
    if (share > 0).any():
        style.thin_out(axes.yaxis, share[share > 0].min(), share.max())
    axes.set_box_aspect(1)
    axes.yaxis.labelpad = 1
    if (share > 0).any():
        axes.set_ylim(0.4 * share[share > 0].min(), 3 * share.max())
    if used.any():
        ends = np.array([scales[used].min(), scales[used].max()])
        axes.axvspan(*ends, color=_FIT, alpha=0.12, linewidth=0)
        axes.plot(ends, exponent.amplitude * ends**exponent.exponent, color=_FIT, linewidth=1.3, label="fit")
        start = exponent.amplitude * ends[1] ** exponent.exponent
        axes.plot(ends, start * ends / ends[1], color="#777777", linewidth=0.9, linestyle=":", label="slope 1 (smooth)")
        (low, high), alpha = exponent.interval, exponent.exponent
        axes.set_title(rf"(c) $\alpha = {alpha:.3f}$ [{low:.3f}, {high:.3f}]")
    else:
        axes.set_title("(c) no range could be fitted")
    if (share > 0).any():
        axes.legend(fontsize=7, loc="upper left", handlelength=1.4, borderaxespad=0.2)
