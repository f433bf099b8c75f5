"""Orbits against the step size: density, closed forms, doublings, periods, and hysteresis."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gdstab.bifurcation import Hysteresis, OrbitDiagram
from gdstab.figures import style
from gdstab.theory import symmetric_line

_DENSITY = ListedColormap(mpl.colormaps["magma_r"](np.linspace(0.12, 1.0, 256)))
_EXACT = "#0072b2"
_MARK = "#3f3f3f"
_UP, _DOWN, _BOTH = "#0072b2", "#d55e00", "#8c8c8c"
_HALF = 0.5  # of the observations and more, in one bin, are black
_CELLS = 120  # of the picture of a sweep, from bottom to top
_HEADROOM = 0.25  # of its height: room for the legend above a sweep
_COLUMNS = 1600
_POINTS = 801  # of a closed form
_BINS = 400  # of the picture of a diagram, from bottom to top
_POWERS = {1: "#0072b2", 2: "#56b4e9", 4: "#009e73", 8: "#f0e442", 16: "#e69f00"}
_THREE, _FIVE, _OTHER, _NONE, _ESCAPED = "#d55e00", "#cc79a7", "#332288", "#dedede", "#ffffff"
_CLOSEST = 0.035  # of the width: labels of doublings that are nearer to each other are left out


_PLACES = tuple((left, bottom, 0.48, 0.36) for left in (0.09, 0.48) for bottom in (0.085, 0.6))
"""Where an enlarged part may be drawn: left, bottom, width, height, as shares of the axes."""
_LOW = 1e-6  # of the whole height: a part that is lower is a line
_ROOM = 0.01  # share of the bins there that orbits may visit


class Density(NamedTuple):
    """A part of a diagram, looked at more closely."""

    step_sizes: np.ndarray  # [steps]
    counts: np.ndarray  # [steps, bins]
    edges: np.ndarray  # [bins + 1]


class ClosedForm(NamedTuple):
    """A cycle that is known exactly."""

    label: str
    step_sizes: np.ndarray  # [points]
    values: np.ndarray  # [points, period], as observed
    stable: np.ndarray  # [points]


class Marks(NamedTuple):
    """What is known of a diagram beside its orbits."""

    observed: str  # label of the axis of what is observed
    doublings: Sequence[tuple[float, int]] = ()  # step size, and the period that doubles there
    accumulation: float | None = None
    last_bounded: float | None = None
    curves: Sequence[ClosedForm] = ()
    per_step: float | None = None  # the number on the upper axis is this times the step size
    number: str = "k"  # what that number is called


def closed_forms(step_sizes: Sequence[float], per_step: float, unit: float = 1.0) -> list[ClosedForm]:
    """The orbits of period 1 and 2 of `theory.symmetric_line` over a range of step sizes, for target 1 in `unit`.

    `per_step` is $K$ over the step size.
    """
    k = per_step * np.linspace(step_sizes[0], step_sizes[-1], _POINTS)
    fixed = np.full((k.size, 1), unit)
    stable = np.abs(symmetric_line.fixed_point_multipliers(k)[0]) < 1
    curves = [ClosedForm("minimum", k / per_step, fixed, stable)]
    k = k[k > symmetric_line.PERIOD_TWO]
    if k.size:
        orbit = unit * np.array([symmetric_line.period_two(number) for number in k]) / np.sqrt(k)[:, None]
        stable = np.abs(symmetric_line.period_two_multipliers(k)[0]) < 1
        curves.append(ClosedForm("period 2", k / per_step, orbit, stable))
    return curves


def draw_bifurcation(
    diagram: OrbitDiagram,
    marks: Marks,
    zoom: Density | None = None,
    hysteresis: Hysteresis | None = None,
    *,
    figure: FigureBase | None = None,
) -> FigureBase:
    """The density of the orbits on a logarithmic scale, with a strip of their periods; both ways of a sweep below.

    `zoom` is a part of the same diagram, drawn into the space below its window.

    Raises
    ------
    ValueError
        If a diagram has no counts (`bins`), or fewer than two increasing step sizes.
    """
    for some in (diagram, zoom):
        if some is not None and not _can_be_drawn(some):
            raise ValueError("expected a diagram with bins, over two increasing step sizes or more: pass `bins`, sort")
    with style.style():
        figure = style.new_figure(7.2, 4.9 if hysteresis is None else 6.4, figure)
        heights = [1.0, 0.05] if hysteresis is None else [1.0, 0.05, 0.4]
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        bar = _draw_density(axes[0], diagram)
        _draw_curves(axes[0], marks.curves)
        _mark(axes[0], marks)
        if zoom is not None:
            _draw_zoom(axes[0], diagram, zoom, marks)
        if marks.per_step is not None:
            _draw_upper_axis(axes[0], marks)
        periods = _draw_periods(axes[1], diagram)
        if hysteresis is not None:
            _draw_hysteresis(axes[2], hysteresis, axes[0].get_ylim(), marks.observed)
            for name, panel in (("(a)", axes[0]), ("(b)", axes[2])):
                panel.text(-0.1, 1.0, name, transform=panel.transAxes, fontsize=10, ha="left", va="top")
        axes[0].set_ylabel(marks.observed)
        axes[-1].set_xlabel(r"step size $\eta$")
        colours = figure.colorbar(bar, ax=axes[0], shrink=0.9, aspect=30, pad=0.012)
        style.label_logarithmic(colours, bar.norm.vmin, bar.norm.vmax)
        colours.set_label("share of the observations in a bin")
        figure.legend(handles=periods, loc="outside lower center", ncols=min(len(periods), 5), handlelength=1.2)
    return figure


def _can_be_drawn(diagram: OrbitDiagram | Density) -> bool:
    sizes = diagram.step_sizes
    return diagram.counts is not None and len(sizes) > 1 and bool((np.diff(sizes) > 0).all())


def _columns(step_sizes: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """For evenly spaced columns the row of the nearest step size, and the ends of the picture."""
    half_first, half_last = (step_sizes[1] - step_sizes[0]) / 2, (step_sizes[-1] - step_sizes[-2]) / 2
    left, right = float(step_sizes[0] - half_first), float(step_sizes[-1] + half_last)
    number = max(len(step_sizes), 2)
    number *= max(_COLUMNS // number, 1)  # whole columns for each step size, or the image would smear them
    number = number if number <= 2 * _COLUMNS else _COLUMNS
    if not np.allclose(np.diff(step_sizes), np.diff(step_sizes)[0], rtol=1e-3):
        number = _COLUMNS
    places = left + (np.arange(number) + 0.5) * (right - left) / number
    middles = (step_sizes[1:] + step_sizes[:-1]) / 2
    return np.searchsorted(middles, places), (left, right)


def _draw_density(axes: Axes, diagram: OrbitDiagram | Density) -> ScalarMappable:
    """An image of colours; bins that no orbit visits stay white."""
    rows, (left, right) = _columns(diagram.step_sizes)
    counts = _pooled(diagram.counts)[rows]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    positive = share[share > 0]
    low = np.clip(float(np.quantile(positive, 0.02)) / 3, 1e-5, _HALF / 10) if positive.size else 1e-3
    norm = LogNorm(low, _HALF, clip=True)
    picture = style.shades(norm(np.maximum(share, low)), _DENSITY)
    picture[share == 0] = 255
    bottom, top = float(diagram.edges[0]), float(diagram.edges[-1])
    bins = diagram.counts.shape[1]
    end = bottom + (top - bottom) * counts.shape[1] * -(-bins // _BINS) / bins  # the last one may reach beyond
    style.draw_image(axes, picture, ((left, right), (bottom, end)), aspect="auto")
    axes.set_ylim(bottom, top)
    return ScalarMappable(norm, _DENSITY)


def _pooled(counts: np.ndarray) -> np.ndarray:
    """Counts `[steps, bins]` of so few bins that each is seen: a cycle, which fills one bin, would fade otherwise."""
    together = -(-counts.shape[1] // _BINS)
    padded = np.pad(counts, ((0, 0), (0, -counts.shape[1] % together)))
    return padded.reshape(len(counts), -1, together).sum(axis=2)


def _draw_curves(axes: Axes, curves: Sequence[ClosedForm]) -> None:
    """Thin lines, solid where a cycle attracts and dotted where it repels."""
    for curve in curves:
        for part, line in ((curve.stable, "-"), (~curve.stable, (0, (1.2, 1.4)))):
            values = np.where(part[:, None], curve.values, np.nan)
            axes.plot(
                curve.step_sizes, values, color=_EXACT, linewidth=0.8, linestyle=line,
                path_effects=style.casing("white", 1.6) if line == "-" else None,
            )  # fmt: skip
    if curves:
        lines = (("-", "exact, attracting"), (":", "exact, repelling"))
        handles = [Line2D([], [], color=_EXACT, linewidth=1.0, linestyle=line, label=text) for line, text in lines]
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.8), fontsize=7, handlelength=1.2)


def _mark(axes: Axes, marks: Marks, first: str = "period ") -> None:
    """Dashed lines at doublings, with the period that is born; the accumulation; where bounded orbits end."""
    left, right = axes.get_xlim()
    last = left
    for step_size, period in marks.doublings:
        if not left < step_size < right:
            continue
        axes.axvline(step_size, color=_MARK, linewidth=0.7, linestyle=(0, (4, 2.5)))
        if step_size - last > _CLOSEST * (right - left):
            _name(axes, step_size, f"{first}{2 * period}", "right")
            first = ""
        last = step_size
    if marks.accumulation is not None and left < marks.accumulation < right:
        axes.axvline(marks.accumulation, color=_MARK, linewidth=0.8, linestyle=":")
        _name(axes, marks.accumulation, r"$\eta_\infty$", "left")
    if marks.last_bounded is not None and left < marks.last_bounded < right:
        axes.axvline(marks.last_bounded, color=_MARK, linewidth=1.0)


def _name(axes: Axes, step_size: float, text: str, side: str) -> None:
    """A label at the top, on one side of a line."""
    axes.annotate(
        text, (step_size, 1.0), xycoords=axes.get_xaxis_transform(), xytext=(-2 if side == "right" else 2, -3),
        textcoords="offset points", ha=side, va="top", fontsize=8, color=_MARK,
    )  # fmt: skip


def _draw_zoom(axes: Axes, diagram: OrbitDiagram, zoom: Density, marks: Marks) -> None:
    """The part in an inset of its own, and its window in the whole; nothing where there is no room for it."""
    rows, _ = _columns(diagram.step_sizes)
    visited = diagram.counts[rows] > 0
    taken = [_share_visited(visited, place) for place in _PLACES]
    if min(taken) > _ROOM or not np.ptp(zoom.edges) > _LOW * np.ptp(diagram.edges):
        return
    inset = axes.inset_axes(_PLACES[int(np.argmin(taken))])
    _draw_density(inset, zoom)
    _mark(inset, marks, first="")
    inset.tick_params(labelsize=7, pad=2)
    inset.locator_params(nbins=4)
    for label in inset.get_xticklabels():
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    axes.indicate_inset_zoom(inset, edgecolor=_MARK, alpha=1.0, linewidth=0.8)


def _share_visited(visited: np.ndarray, place: tuple[float, float, float, float]) -> float:
    """Of the bins in a part of the picture."""
    left, bottom, width, height = place
    columns, bins = visited.shape
    part = visited[int(left * columns) : int((left + width) * columns)]
    part = part[:, int(bottom * bins) : int((bottom + height) * bins)]
    return float(part.mean()) if part.size else 1.0


def _draw_upper_axis(axes: Axes, marks: Marks) -> None:
    """The same step sizes as multiples that do not depend on the scale of the loss."""
    factor = marks.per_step
    upper = axes.secondary_xaxis("top", functions=(lambda eta: eta * factor, lambda number: number / factor))
    upper.set_xlabel(marks.number)


def _draw_periods(axes: Axes, diagram: OrbitDiagram) -> list[Patch]:
    """A colour for the period that most orbits have; the entries of the legend."""
    rows, (left, right) = _columns(diagram.step_sizes)
    found = [_kind(int(period)) for period in diagram.common_period[rows]]
    colours = np.array([[style.rgb(colour) for _, colour, _ in found]], np.uint8)
    axes.imshow(colours, extent=(left, right, 0, 1), aspect="auto", interpolation="nearest", rasterized=True)
    axes.set_yticks([])
    axes.set_ylabel("period", rotation=0, ha="right", va="center", fontsize=8)
    kinds = sorted(set(found))
    return [style.swatch(colour, label) for _, colour, label in kinds]


def _kind(period: int) -> tuple[int, str, str]:
    """Place in the legend, colour and label of a period."""
    if period < 1:
        return (90, _NONE, "none found") if period == 0 else (99, _ESCAPED, "all escape")
    odd = period
    while odd % 2 == 0:
        odd //= 2
    if odd == 1:
        shown = min(period, max(_POWERS))
        label = f"period {shown}" + (", 32, ..." if shown == max(_POWERS) else "")
        return shown, _POWERS[shown], label
    labels = {3: (_THREE, r"$3 \cdot 2^n$"), 5: (_FIVE, r"$5 \cdot 2^n$")}
    return 30 + min(odd, 7), *labels.get(odd, (_OTHER, "other periods"))


def _draw_hysteresis(axes: Axes, found: Hysteresis, limits: tuple[float, float], observed: str) -> None:
    """Where each way of the sweep was seen, below a legend of its own: the periods have these colours, too."""
    rows, (left, right) = _columns(found.step_sizes)
    seen = [_visits(values[rows], limits) for values in (found.up, found.down)]
    image = np.full((*seen[0].shape, 3), 255, np.uint8)
    entries = []
    for both, colour, label in (
        ((seen[0] & ~seen[1]), _UP, "seen on the way up only"),
        ((seen[1] & ~seen[0]), _DOWN, "seen on the way down only"),
        ((seen[0] & seen[1]), _BOTH, "seen on both ways"),
    ):
        image[both] = style.rgb(colour)
        entries.append(style.swatch(colour, label))
    axes.imshow(
        image.swapaxes(0, 1), origin="lower", extent=(left, right, *limits), aspect="auto",
        interpolation="antialiased", rasterized=True,
    )  # fmt: skip
    low, high = limits
    axes.set(ylabel=observed, ylim=(low, high + _HEADROOM * (high - low)))
    axes.legend(handles=entries, loc="upper left", ncols=3, fontsize=7, handlelength=1.2, frameon=False)


def _visits(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Whether any observation of a column is in each of some cells, [columns, cells]."""
    low, high = limits
    flat = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore"):
        place = np.floor((flat - low) / (high - low) * _CELLS)
    inside = (place >= 0) & (place < _CELLS)
    visited = np.zeros((len(values), _CELLS), bool)
    column = np.broadcast_to(np.arange(len(values))[:, None], flat.shape)
    visited[column[inside], place[inside].astype(int)] = True
    return visited
