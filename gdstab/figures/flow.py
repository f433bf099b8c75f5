"""Descent beside gradient flow: distances with their bounds, both ends of the spectrum, and losses, over time.

`draw_closeness` are Figures 1 and 3 of paper D: networks, with smaller and smaller steps, and, beside them, the flow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from gdstab.figures import style

STEPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of the palette of Okabe and Ito, one for each step size."""
FLOW = "#000000"
_ERROR = "#999999"
_MARKERS = "osD^v<>"
_LEAST = 1e-15  # share of the first loss below which there is only rounding


class FlowPicture(NamedTuple):
    """One start; the first step size is the largest."""

    step_sizes: np.ndarray
    times: np.ndarray
    distance: np.ndarray  # [steps, times], between descent and flow
    travelled: np.ndarray  # [times], by descent with the largest step size
    flow_error: np.ndarray  # [times]
    loss: np.ndarray  # [steps, times]
    flow_loss: np.ndarray  # [times]
    grid: np.ndarray  # times at which the curvature is known
    bound: np.ndarray  # [steps, times], inf where it says nothing
    local: np.ndarray  # [steps, times]
    radius: float  # beyond which no bound says anything
    smallest: np.ndarray  # [2, grid], along the flow and along descent with the largest step size
    largest: np.ndarray  # [2, grid]
    growth: np.ndarray  # [grid], m: the largest of minus the least eigenvalue around the flow


def draw_flow(picture: FlowPicture, *, figure: FigureBase | None = None) -> FigureBase:
    """Four panels: distances and bounds, least eigenvalue, largest one against 2 / eta, loss."""
    with style.style():
        figure = style.new_figure(7.4, 5.8, figure)
        (apart, loss), (low, high) = figure.subplots(2, 2)
        _draw_distance(apart, picture)
        _draw_loss(loss, picture)
        _draw_smallest(low, picture)
        _draw_largest(high, picture)
        titles = ("distance from gradient flow", "loss", "least eigenvalue", "largest eigenvalue")
        for letter, axes, title in zip("abcd", (apart, loss, low, high), titles, strict=True):
            axes.set(xlim=(0, picture.times[-1] or 1), xlabel="time $t$")
            axes.set_title(f"({letter}) {title}")
        figure.legend(handles=_steps(picture), loc="outside lower center", ncols=6)
    return figure


def step_label(step_sizes: np.ndarray, number: int) -> str:
    r"""The largest step size in full, the others as $\eta / r$.

    >>> step_label(np.array([0.1, 0.05]), 1)
    '$\\eta/2$'
    """
    if number == 0:
        return rf"$\eta = {step_sizes[0]:g}$"
    return rf"$\eta/{step_sizes[0] / step_sizes[number]:.3g}$"


def colour(number: int) -> str:
    """Of a step size, by its number."""
    return STEPS[number % len(STEPS)]


def _steps(picture: FlowPicture) -> list[Line2D]:
    lines = [Line2D([], [], color=colour(i), label=step_label(picture.step_sizes, i))
             for i in range(len(picture.step_sizes))]  # fmt: skip
    return [*lines, Line2D([], [], color=FLOW, label="gradient flow")]


def _draw_distance(axes: Axes, picture: FlowPicture) -> None:
    for i, distance in enumerate(picture.distance):
        axes.plot(picture.times[1:], distance[1:], color=colour(i), linewidth=1.3)
        axes.plot(picture.times[1:], _finite(picture.bound[i, 1:]), color=colour(i), linewidth=1.0, linestyle="--")
        axes.plot(picture.times[1:], _finite(picture.local[i, 1:]), color=colour(i), linewidth=1.0, linestyle=":")
    axes.plot(picture.times[1:], picture.travelled[1:], color="#555555", linewidth=1.0, linestyle="-.")
    axes.plot(picture.times[1:], picture.flow_error[1:], color=_ERROR, linewidth=0.8)
    axes.axhline(picture.radius, color="#bbbbbb", linewidth=0.7, zorder=0)
    known = [values[np.isfinite(values) & (values > 0)] for values in (picture.distance[:, 1:], picture.travelled[1:])]
    axes.set(yscale="log", ylabel=r"$\|\theta_k - \theta(k\eta)\|$")
    bounds = (("Theorem 3", "--", picture.bound), ("with constants of each time", ":", picture.local))
    words = [(text, line, "#333333") for text, line, values in bounds if np.isfinite(values[:, 1:]).any()]
    words.append((r"travelled, $\eta$", "-.", "#555555"))
    if all(values.size for values in known):
        low, high = known[0].min(), max(values.max() for values in known)
        error = np.nanmax(picture.flow_error, initial=0.0)
        shown = error > low / 100
        axes.set_ylim(error / 3 if shown else low / 3, min(high, 1e6 * picture.radius) * 60)
        words += [("error of the flow", "-", _ERROR)] if shown else []
    axes.legend(
        handles=[Line2D([], [], color=tone, linestyle=line, linewidth=1.0, label=text) for text, line, tone in words],
        loc="upper left", ncols=2, fontsize=7, columnspacing=1.0, handlelength=2.2,
    )  # fmt: skip
    axes.annotate(r"$\epsilon$", (1, picture.radius), (2, 0), xycoords=("axes fraction", "data"),
                  textcoords="offset points", va="center", fontsize=8, annotation_clip=True)  # fmt: skip


def _draw_loss(axes: Axes, picture: FlowPicture) -> None:
    for i, loss in enumerate(picture.loss):
        axes.plot(picture.times, loss, color=colour(i), linewidth=1.1)
    axes.plot(picture.times, picture.flow_loss, color=FLOW, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.set(ylabel=r"$L$")
    top, bottom = np.max(picture.flow_loss), np.min(picture.flow_loss)  # NaN where the start is outside the domain
    if bottom > 0 and top > 20 * bottom:
        axes.set_yscale("log")
        axes.set_ylim(max(bottom / 3, _LEAST * top), min(3 * np.nanmax(_finite(picture.loss)), 100 * top))


def _draw_smallest(axes: Axes, picture: FlowPicture) -> None:
    axes.axhline(0, color="#bbbbbb", linewidth=0.7, zorder=0)
    axes.plot(picture.grid, picture.smallest[1], color=colour(0), linewidth=2.6, alpha=0.6, label=r"descent, $\eta$")
    axes.plot(picture.grid, picture.smallest[0], color=FLOW, linewidth=1.3, label="flow")
    axes.plot(picture.grid, -picture.growth, color=FLOW, linewidth=0.9, linestyle=":",
              label=r"least within $\epsilon$ of the flow")  # fmt: skip
    axes.set_ylabel(r"$\lambda_{\min}$")
    axes.legend(loc="best", fontsize=7)


def _draw_largest(axes: Axes, picture: FlowPicture) -> None:
    axes.plot(picture.grid, picture.largest[1], color=colour(0), linewidth=2.6, alpha=0.6, label=r"descent, $\eta$")
    axes.plot(picture.grid, picture.largest[0], color=FLOW, linewidth=1.3, label="flow")
    threshold = 2 / picture.step_sizes[0]
    axes.axhline(threshold, color=colour(0), linewidth=0.9, linestyle="--", label=rf"$2/\eta = {threshold:.4g}$")
    axes.set_ylabel(r"$\lambda_{\max}$")
    if np.min(picture.largest[0]) > 0:
        axes.set_yscale("log")
        axes.yaxis.set(
            major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter()
        )
    axes.legend(loc="best", fontsize=7)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


class Closeness(NamedTuple):
    """One network; the first step size is the largest."""

    title: str
    step_sizes: np.ndarray
    iterations: np.ndarray  # [times], of descent with the largest step size
    loss: np.ndarray  # [steps, times]
    flow_loss: np.ndarray  # [times]
    travelled: np.ndarray  # [times], from the start
    drift: np.ndarray  # [steps, times], of descent with the largest step size from the others
    distance: np.ndarray  # [times], of descent with the largest step size from the flow
    finest: np.ndarray  # [times], of descent with the smallest step size from the flow
    flow_error: np.ndarray  # [times]


def draw_closeness(networks: Sequence[Closeness], *, figure: FigureBase | None = None) -> FigureBase:
    """For each network a row: losses, distances as the paper draws them, and the same on a logarithmic axis."""
    with style.style():
        figure = style.new_figure(7.4, 0.5 + 2.45 * len(networks), figure)
        rows = figure.subplots(len(networks), 3, squeeze=False)
        for (loss, apart, fine), network in zip(rows, networks, strict=True):
            _draw_training(loss, network)
            _draw_distances(apart, network)
            _draw_small(fine, network)
            apart.set_title(network.title)
            for axes in (loss, apart, fine):
                axes.set(xlim=(0, network.iterations[-1]))
        style.letter(rows.ravel())
        for axes in rows[-1]:
            axes.set_xlabel(r"iterations with $\eta$")
        figure.legend(handles=_entries(networks[0]), loc="outside lower center", ncols=5)
    return figure


def _entries(network: Closeness) -> list[Line2D]:
    """What the lines of all panels are; distances of eta from eta/r have the colour of eta/r."""
    numbers = range(len(network.step_sizes))
    steps = [
        Line2D(
            [], [], color=colour(i), label=step_label(network.step_sizes, i), **{**_marks(i, network), "markevery": 1}
        )
        for i in numbers
    ]
    last = step_label(network.step_sizes, len(network.step_sizes) - 1)
    others = (
        ("gradient flow", FLOW, "-", 1.2),
        (r"$\eta$ from the start", FLOW, "-.", 1.2),
        (r"$\eta$ from the flow", FLOW, "-", 0.8),
        (f"{last} from the flow", FLOW, ":", 1.0),
        ("error of the flow", _ERROR, "-", 0.8),
    )
    return [*steps, *(Line2D([], [], color=c, linestyle=s, linewidth=w, label=text) for text, c, s, w in others)]


def _draw_training(axes: Axes, network: Closeness) -> None:
    axes.plot(network.iterations, network.flow_loss, color=FLOW, linewidth=1.2)
    for i, loss in enumerate(network.loss):
        axes.plot(network.iterations, loss, color=colour(i), **_marks(i, network))
    axes.set(ylabel="training loss", ylim=(0, None), title="losses")


def _draw_distances(axes: Axes, network: Closeness) -> None:
    axes.plot(network.iterations, network.travelled, color=FLOW, linewidth=1.2, linestyle="-.")
    _draw_drifts(axes, network)
    axes.set(ylabel=r"distance of $\eta$ from $\eta/r$", ylim=(-0.02 * _largest(network.travelled), None))


def _draw_small(axes: Axes, network: Closeness) -> None:
    later = slice(1, None)  # at the start all distances are 0
    times = network.iterations[later]
    axes.plot(times, network.travelled[later], color=FLOW, linewidth=1.2, linestyle="-.")
    axes.plot(times, network.flow_error[later], color=_ERROR, linewidth=0.8)
    _draw_drifts(axes, network)
    axes.plot(times, network.distance[later], color=FLOW, linewidth=0.8)
    axes.plot(times, network.finest[later], color=FLOW, linewidth=1.0, linestyle=":")
    early = len(network.iterations) // 20 + 1
    lines = [values[early:] for values in (network.finest, network.drift[1], network.flow_error)]
    top = _largest(network.travelled)
    low = min(values[values > 0].min(initial=top) for values in lines)
    axes.set(ylabel="distance, logarithmic", ylim=(max(low / 2, 1e-9 * top), 3 * top), yscale="log", title="distances")


def _draw_drifts(axes: Axes, network: Closeness) -> None:
    for i, drift in enumerate(network.drift[1:], start=1):
        axes.plot(network.iterations[1:], drift[1:], color=colour(i), **_marks(i, network))


def _largest(values: np.ndarray) -> float:
    """Of those that are finite: descent with too large a step overflows."""
    return float(values[np.isfinite(values) & (values > 0)].max(initial=0)) or 1.0


def _marks(number: int, network: Closeness) -> dict:
    """Markers at some of the times, at others for each step size: the lines lie on each other."""
    every = max(len(network.iterations) // 6, 1)
    first = round(number * every / len(network.step_sizes))
    return {"linewidth": 0.9, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 3, "markevery": (first, every)}
