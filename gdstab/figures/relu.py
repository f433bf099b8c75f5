"""Shallow ReLU networks: their realisations against the target, and the types of their neurons while they learn."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from gdstab.figures import style
from gdstab.theory.relu import NeuronType

TYPES = {
    NeuronType.DEGENERATE: "#000000", NeuronType.INACTIVE: "#d9d9d9", NeuronType.SEMI_INACTIVE: "#8c8c8c",
    NeuronType.SEMI_ACTIVE: "#cc79a7", NeuronType.TYPE_1: "#0072b2", NeuronType.TYPE_2: "#e69f00",
}  # fmt: skip
"""From grey, which does nothing, to colour."""
_NETWORK = "#0072b2"
_COLUMNS = 2000  # of a strip at the most; between two of them neurons keep the type of the first


class Realisation(NamedTuple):
    """A network and its target on an interval."""

    title: str
    x: np.ndarray  # [points]
    network: np.ndarray  # [points]
    target: np.ndarray  # [points]
    breakpoints: np.ndarray  # those inside the interval


class Training(NamedTuple):
    """A network along one orbit."""

    snapshots: Sequence[Realisation]
    updates: Sequence[int]  # when they were taken
    loss: np.ndarray  # [updates + 1]
    types: np.ndarray  # [updates + 1, neurons], `NeuronType`
    levels: Mapping[str, float]  # losses of critical points by name
    step_size: float


def draw_networks(realisations: Sequence[Realisation], *, figure: FigureBase | None = None) -> FigureBase:
    """A panel per network: its realisation, the target, a tick at every breakpoint."""
    with style.style():
        figure = style.new_figure(1.9 * len(realisations) + 0.5, 2.2, figure)
        row = np.atleast_1d(figure.subplots(1, len(realisations), sharey=True))
        _draw_row(row, realisations)
    return figure


def draw_training(training: Training, *, figure: FigureBase | None = None) -> FigureBase:
    """Realisations at some updates, the loss with its levels, and a strip with the type of every neuron."""
    with style.style():
        neurons, shots = training.types.shape[1], len(training.snapshots)
        figure = style.new_figure(7.0, 4.6 + 0.15 * neurons, figure)
        grid = figure.add_gridspec(3, shots, height_ratios=(1.9, 1.9, 0.25 * neurons))
        row = [figure.add_subplot(grid[0, 0])]
        row += [figure.add_subplot(grid[0, column], sharey=row[0]) for column in range(1, shots)]
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
        _draw_row(row, training.snapshots)
        loss = figure.add_subplot(grid[1, :])
        _draw_loss(loss, training)
        strips = figure.add_subplot(grid[2, :], sharex=loss)
        _draw_strips(strips, training)
        style.letter([*row, loss, strips])
    return figure


def _draw_row(row: Sequence[Axes], realisations: Sequence[Realisation]) -> None:
    for axes, found in zip(row, realisations, strict=True):
        axes.plot(found.x, found.target, color="black", linewidth=0.9, linestyle="--", label="target")
        axes.plot(found.x, found.network, color=_NETWORK, linewidth=1.5, label="network")
        values = np.interp(found.breakpoints, found.x, found.network)
        axes.plot(found.breakpoints, values, "o", color=_NETWORK, markerfacecolor="white", markersize=4.5,
                  label="breakpoint")  # fmt: skip
        axes.set(xlim=(found.x[0], found.x[-1]), title=found.title, xlabel="$x$")
        axes.xaxis.set_major_locator(MaxNLocator(2))
        axes.xaxis.set_major_formatter("{x:g}")  # short: the last label of a panel is close to the first of the next
    row[0].set_ylabel(r"$N_\theta(x)$")
    row[0].legend(fontsize=7, loc="best", handlelength=1.4, borderaxespad=0.2)


def _draw_loss(axes: Axes, training: Training) -> None:
    last = len(training.loss) - 1
    axes.plot(np.arange(1, last + 1), training.loss[1:], color="black", linewidth=1.1)
    for name, value in training.levels.items():
        axes.axhline(value, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        axes.annotate(
            f"${name}$", (1.0, value), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.plot(np.maximum(training.updates, 1), training.loss[np.maximum(training.updates, 1)], "o", color=_NETWORK,
              markersize=4.5, clip_on=False, zorder=3)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(1, last), ylabel="loss $L$")
    axes.set_title(rf"descent with $\eta = {training.step_size:g}$; dots: the networks above")
    axes.tick_params(labelbottom=False)


def _draw_strips(axes: Axes, training: Training) -> None:
    """Columns evenly spaced on the logarithmic axis of the updates."""
    last, neurons = len(training.types) - 1, training.types.shape[1]
    edges = np.unique(np.geomspace(1, max(last, 2), _COLUMNS).astype(np.int64))
    types = training.types[edges[:-1]]
    shades = ListedColormap(list(TYPES.values()))
    axes.pcolormesh(
        edges, np.arange(neurons + 1) + 0.5, types.T, cmap=shades, vmin=-0.5, vmax=len(TYPES) - 0.5, rasterized=True
    )
    for number in range(1, neurons):
        axes.axhline(number + 0.5, color="white", linewidth=2)
    axes.set(xscale="log", xlim=(1, last), ylim=(neurons + 0.5, 0.5), xlabel="updates", ylabel="neuron")
    axes.set_title("types of the neurons")
    axes.set_yticks(range(1, neurons + 1))
    seen = [kind for kind in TYPES if (training.types == kind).any()]
    entries = [style.swatch(TYPES[kind], kind.name.lower().replace("_", "-")) for kind in seen]
    axes.figure.legend(handles=entries, loc="outside lower center", ncols=len(seen), handlelength=1.4)
