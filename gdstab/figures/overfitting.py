"""The staircase of a deep linear network: its loss falls from saddle to saddle, and waits at each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from gdstab.figures import style

_LEVELS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
_NETWORKS = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))


class Staircase(NamedTuple):
    """Some orbits of gradient flow from one law of starts."""

    hidden_layers: int
    spread: float  # standard deviation of the starts
    times: np.ndarray  # [times]
    losses: np.ndarray  # [orbits, times]
    levels: dict[str, float]  # critical values by the set of singular triplets that is fitted


def draw_overfitting(
    staircases: Sequence[Staircase], lingering: Sequence[dict], *, figure: FigureBase | None = None
) -> FigureBase:
    """A panel per network, loss against time; and the time near each saddle against the size of the start."""
    with style.style():
        figure = style.new_figure(3.1 * (len(staircases) + 1), 3.0, figure)
        *panels, last = figure.subplots(1, len(staircases) + 1)
        for number, (axes, stairs) in enumerate(zip(panels, staircases, strict=True)):
            _draw_staircase(axes, stairs)
            axes.set_title(f"({chr(97 + number)}) {_layers(stairs.hidden_layers)}")
        _draw_lingering(last, lingering)
        last.set_title(f"({chr(97 + len(panels))}) time near a saddle")
    return figure


def _layers(number: int) -> str:
    words = {1: "one", 2: "two", 3: "three", 4: "four"}
    return f"{words.get(number, number)} hidden layer{'s' if number > 1 else ''}"


def _draw_staircase(axes: Axes, stairs: Staircase) -> None:
    """Orbits over the critical values; the path of greedy fits, from the largest singular value down, is labelled."""
    path = _greedy(stairs.levels)
    for name, value in stairs.levels.items():
        on_path = name in path
        colour = _LEVELS[path.index(name) % len(_LEVELS)] if on_path else "#c8c8c8"
        axes.axhline(
            value, color=colour, linewidth=1.1 if on_path else 0.6, linestyle="-" if on_path else ":", zorder=1
        )
        if on_path:
            text = r"$\varnothing$" if name == "{}" else rf"$\{{{name[1:-1]}\}}$"
            axes.annotate(
                text, (1.0, value), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
    for loss in stairs.losses:
        axes.plot(stairs.times, loss, color="black", linewidth=0.8, zorder=2)
    top = max(stairs.levels.values())
    begin, end = _window(stairs)
    axes.set(xscale="log", xlim=(begin, end), ylim=(-0.04 * top, 1.08 * top), xlabel="time $t$", ylabel="loss $L$")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if end < 100 * begin else (1.0,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _greedy(levels: dict[str, float]) -> list[str]:
    """The empty set, {1}, {1,2}, ..."""
    names = ["{" + ",".join(str(i + 1) for i in range(size)) + "}" for size in range(len(levels))]
    return [name for name in names if name in levels]


def _window(stairs: Staircase) -> tuple[float, float]:
    """From before the first orbit falls until the slowest has come down, and a little more."""
    low, high = min(stairs.levels.values()), max(stairs.levels.values())
    begin, end = (_first_below(stairs, low + share * (high - low)) for share in (0.98, 0.02))
    return 0.4 * float(begin.min()), 1.5 * float(end.max())


def _first_below(stairs: Staircase, level: float) -> np.ndarray:
    """When each orbit is below a level first; the last time for one that never is."""
    below = stairs.losses <= level
    return stairs.times[np.where(below.any(axis=1), np.maximum(below.argmax(axis=1), 1), len(stairs.times) - 1)]


def _draw_lingering(axes: Axes, lingering: Sequence[dict]) -> None:
    """Median over the orbits, then over the targets."""
    networks = sorted({row["hidden_layers"] for row in lingering})
    path = _greedy({row["fitted"]: row["value"] for row in lingering})
    for network, (line, marker) in zip(networks, _NETWORKS * len(networks), strict=False):
        for colour, name in zip(_LEVELS * len(path), path, strict=False):
            some = [row for row in lingering if (row["hidden_layers"], row["fitted"]) == (network, name)]
            spreads = sorted({row["spread"] for row in some})
            times = [np.median([row["median"] for row in some if row["spread"] == spread]) for spread in spreads]
            axes.plot(spreads, times, color=colour, linestyle=line, marker=marker, markersize=3.5, linewidth=1.1)
    axes.set(
        xscale="log", yscale="log", xlabel=r"standard deviation of $\theta(0)$", ylabel="median time near the level"
    )
    colours = [Line2D([], [], color=c, linewidth=2) for c, _ in zip(_LEVELS, path, strict=False)]
    sets = [r"$\varnothing$" if name == "{}" else rf"$\{{{name[1:-1]}\}}$" for name in path]
    styles = [Line2D([], [], color="#444444", linestyle=line, marker=marker, markersize=3.5)
              for _, (line, marker) in zip(networks, _NETWORKS, strict=False)]  # fmt: skip
    labels = [*sets, *map(_layers, networks)]
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * (top / bottom) ** 0.35)  # room for the legend
    axes.legend([*colours, *styles], labels, fontsize=7, loc="upper right", ncols=2, handlelength=2.6)
