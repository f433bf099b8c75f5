"""Figures 1 and 3 of paper D: descent on networks with smaller and smaller steps, and, beside it, gradient flow."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gdstab.figures import style
from gdstab.figures.flow import FLOW, colour, step_label

_MARKERS = "osD^v<>"
_ERROR = "#999999"


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


def draw_closeness(networks: Sequence[Closeness]) -> Figure:
    """For each network a row: losses, distances as the paper draws them, and the same on a logarithmic axis."""
    with style.style():
        figure = style.new_figure(7.4, 0.5 + 2.45 * len(networks))
        rows = figure.subplots(len(networks), 3, squeeze=False)
        for (loss, apart, fine), network in zip(rows, networks, strict=True):
            _draw_loss(loss, network)
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


def _draw_loss(axes: Axes, network: Closeness) -> None:
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
