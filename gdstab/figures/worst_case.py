"""Figure 2 of paper D: the hills of its worst case, the way of flow and descent over them, and how these part."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from gdstab.figures import style

_FLOW, _HILL, _STEEP = "#000000", "#555555", "#f0e6c8"
_DESCENT = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")
_MARKERS = "os^Dv"


class Hills(NamedTuple):
    """Both functions, drawn; coordinates of the first in units of its cut point."""

    first: np.ndarray  # [points, 2], z / z_c and phi / phi(0)
    foot: np.ndarray  # [points, 2], z - z_c and phi / phi(z_c)
    second: np.ndarray  # [points, 2], z and phi-bar / a
    steep: Sequence[tuple[float, float]]  # where the second has curvature -a
    step_size: float  # of the descent that is shown on the second, and its times
    flow: np.ndarray  # [times, 2], on the second
    descent: np.ndarray
    labels: Sequence[str]  # of the times


class Separation(NamedTuple):
    """How descent parts from flow, for several step sizes."""

    curvature: float
    extent: float  # b
    step_sizes: np.ndarray
    times: np.ndarray
    window: tuple[float, float]  # of Proposition 20
    accuracy: float
    nearest: np.ndarray  # [steps, times], from theta(t) to the nearest iterate
    off: np.ndarray  # [steps, times], from theta(t) to the line on which the iterates lie
    printed: np.ndarray  # [steps, times], the lower bound of the proof
    exponents: np.ndarray  # fitted to `off`


class Paths(NamedTuple):
    """Both ways in the plane of the first two coordinates, the second counted from the top of its hill."""

    flow: np.ndarray  # [points, 2]
    descent: Sequence[np.ndarray]
    step_sizes: Sequence[float]
    isotropic: float  # the second coordinate from which both curvatures are -a


def draw_worst_case(
    hills: Hills, paths: Paths, separation: Separation, *, figure: FigureBase | None = None
) -> FigureBase:
    """Four panels: both hills, the paths, the distances."""
    with style.style():
        figure = style.new_figure(7.4, 6.2, figure)
        (first, second), (plane, apart) = figure.subplots(2, 2)
        _draw_first(first, hills)
        _draw_second(second, hills)
        _draw_paths(plane, paths)
        _draw_separation(apart, separation)
        style.letter((first, second, plane, apart))
    return figure


def draw_separation(separation: Separation, *, figure: FigureBase | None = None) -> FigureBase:
    """The distances alone."""
    with style.style():
        figure = style.new_figure(4.8, 3.8, figure)
        _draw_separation(figure.add_subplot(), separation)
    return figure


def _draw_first(axes: Axes, hills: Hills) -> None:
    axes.plot(*hills.first.T, color=_HILL, linewidth=1.4)
    axes.set(xlabel="$z / z_c$", ylabel=r"$\varphi(z) / \varphi(0)$", ylim=(-0.06, 1.3))
    axes.set_title(r"$\varphi$, cut off at $z_c = b\,e^{30} + 1$")
    inset = axes.inset_axes((0.35, 0.24, 0.3, 0.27))
    inset.plot(*hills.foot.T, color=_HILL, linewidth=1.2)
    inset.axvspan(0, 1, color="#d9e8f3", linewidth=0)
    inset.set(xlabel="$z - z_c$", xticks=(-1, 0, 1, 2), yticks=(0, 1), xlim=(-1, 2))
    inset.set_ylabel(r"$\varphi / \varphi(z_c)$", labelpad=1)
    inset.xaxis.labelpad = 1
    inset.tick_params(labelsize=7, length=2)
    inset.xaxis.label.set_size(8)
    inset.yaxis.label.set_size(8)
    axes.annotate("", (1.0, 0.0), (0.68, 0.25), xycoords="data", textcoords="axes fraction",
                  arrowprops={"arrowstyle": "->", "linewidth": 0.7, "color": _HILL})  # fmt: skip


def _draw_second(axes: Axes, hills: Hills) -> None:
    for span in hills.steep:
        axes.axvspan(*span, color=_STEEP, linewidth=0)
    axes.plot(*hills.second.T, color=_HILL, linewidth=1.4)
    flow = {"linestyle": "none", "marker": "o", "markersize": 5, "color": _FLOW}
    descent = {"linestyle": "none", "marker": "s", "markersize": 6, "markerfacecolor": "none",
               "markeredgecolor": _DESCENT[0], "markeredgewidth": 1.3}  # fmt: skip
    axes.plot(*hills.descent.T, **descent, zorder=4)
    axes.plot(*hills.flow.T, **flow, zorder=3)
    for points, colour, shift in ((hills.flow, _FLOW, (3, 5)), (hills.descent, _DESCENT[0], (-11, -12))):
        for (x, y), label in zip(points[1:], hills.labels[1:], strict=True):  # the first is the start
            axes.annotate(label, (x, y), xytext=shift, textcoords="offset points", fontsize=7, color=colour)
    axes.set(xlabel="$z$", ylabel=r"$\bar\varphi(z) / a$", xlim=hills.second[[0, -1], 0])
    axes.set_ylim(-0.06 * hills.second[:, 1].max(), 1.42 * hills.second[:, 1].max())
    axes.set_title(r"$\bar\varphi$, cut off at $\bar z_c = b + 1$")
    axes.legend(
        [Line2D([], [], **flow), Line2D([], [], **descent), axes.patches[0]],
        ["flow, at times $at$", rf"descent there, $a\eta = {hills.step_size:.3g}$", "curvature $-a$"],
        loc="upper left", ncols=2, fontsize=7, columnspacing=1.0, handletextpad=0.5,
    )  # fmt: skip


def _draw_paths(axes: Axes, paths: Paths) -> None:
    axes.axhspan(paths.isotropic, 1e9, color=_STEEP, linewidth=0)
    axes.loglog(*paths.flow.T, color=_FLOW, linewidth=1.4, label="flow")
    for path, eta, colour, marker in zip(paths.descent, paths.step_sizes, _DESCENT, _MARKERS, strict=False):
        axes.loglog(*path.T, color=colour, marker=marker, markersize=3, markevery=0.08, linewidth=0.9,
                    label=rf"descent, $a\eta = {eta:.3g}$")  # fmt: skip
    axes.set(xlabel="$q_1$", ylabel=r"$q_2 + 1 - \bar\rho/2$", xlim=paths.flow[[0, -1], 0])
    axes.set_ylim(paths.flow[0, 1] / 2, 3 * paths.flow[-1, 1])
    axes.text(0.03, 0.95, "isotropic: slope 1", transform=axes.transAxes, va="top", fontsize=8)
    axes.text(0.97, 0.30, "slope 1/2", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_title("the way in the plane")
    axes.legend(loc="lower right", fontsize=7)


def _draw_separation(axes: Axes, separation: Separation) -> None:
    a = separation.curvature
    time = a * separation.times
    axes.axvspan(*(a * end for end in separation.window), color="#eeeeee", linewidth=0)
    for i, eta in enumerate(separation.step_sizes):
        colour = _DESCENT[i % len(_DESCENT)]
        label = rf"$a\eta = {a * eta:.3g}$, exponent ${separation.exponents[i] / a:.4f}\,a$"
        axes.semilogy(time, separation.off[i], color=colour, linewidth=1.5, label=label)
        axes.semilogy(time, separation.printed[i], color=colour, linewidth=1.0, linestyle=":")
    largest = int(np.argmax(separation.step_sizes))
    axes.semilogy(time, separation.nearest[largest], color=_DESCENT[largest % len(_DESCENT)], linewidth=0.6)
    axes.axhline(separation.accuracy, color="black", linewidth=0.8, linestyle="--")
    axes.annotate(r"$\epsilon$", (time[-1], separation.accuracy), xytext=(3, -3), textcoords="offset points",
                  annotation_clip=False)  # fmt: skip
    axes.set(xlabel=r"time $a\tilde t$", ylabel=r"distance from $\theta(\tilde t)$", xlim=time[[0, -1]])
    top = separation.nearest.max()
    axes.set_ylim(separation.printed.min() / 2, top * 1e6)
    axes.set_title(f"how they part, $b = {separation.extent:g}$")
    fine = [Line2D([], [], color="#555555", linewidth=width, linestyle=line) for width, line in
            ((1.5, "-"), (0.6, "-"), (1.0, ":"))]  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    words = [
        "to the line of the iterates",
        rf"to the nearest iterate, $a\eta = {a * separation.step_sizes[largest]:.3g}$",
        r"bound of the proof, $10^{-14} a\eta\,e^{at}$",
    ]
    axes.legend(handles + fine, labels + words, loc="upper left", fontsize=6.5, ncols=2, columnspacing=0.9,
                handlelength=1.6, handletextpad=0.5)  # fmt: skip
