"""The centre-stable manifold of a saddle: the graph, orbits on it and beside it, and how soon those leave."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from gdstab.boundaries import Neighbourhood
from gdstab.figures import style

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"
_STARTS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00")
_MARKERS = ("o", "s", "^", "D")
_SURFACE = "#9ecae1"
_HEADROOM = 2.5  # of the axis along E^u, in units of the height of the graph


class CentreStablePicture(NamedTuple):
    """Coordinates are one or two along E^cs, then that along the leading unstable direction."""

    graph: np.ndarray  # [points, 2] or [points, points, 3]
    on: np.ndarray  # [starts, steps + 1, k + 1], orbits that start on the graph
    off: np.ndarray  # [starts, distances, steps + 1, k + 1]
    distances: np.ndarray  # [distances]
    threshold: float
    escape: np.ndarray  # [starts, distances], -1 where an orbit did not leave
    mu: np.ndarray  # [starts], the leading modulus, which predicts the slope 1 / log(mu)

    @classmethod
    def of(cls, found: Neighbourhood) -> "CentreStablePicture":
        """Coordinates along the axes of the surface, and along the leading unstable vector."""
        count, dim = found.surface.axes.shape
        onto = np.zeros((found.manifold.basis.shape[0], count + 1))
        onto[:dim, :count], onto[dim, count] = found.surface.axes.T, 1.0
        leaving = found.leaving
        return cls(
            found.surface.points @ onto, leaving.on @ onto, leaving.off @ onto, leaving.distances,
            leaving.threshold, leaving.escape, leaving.mu,
        )  # fmt: skip


def draw_centre_stable(found: CentreStablePicture | Neighbourhood, *, figure: FigureBase | None = None) -> FigureBase:
    """The graph with orbits on the left, escape times against the distance from the graph on the right."""
    found = CentreStablePicture.of(found) if isinstance(found, Neighbourhood) else found
    with style.style():
        figure = style.new_figure(7.4, 3.7, figure)
        grid = figure.add_gridspec(1, 2, width_ratios=(1.15, 1))
        if found.graph.shape[-1] == 2:
            left = figure.add_subplot(grid[0])
            _draw_curve(left, found)
        else:
            left = figure.add_subplot(grid[0], projection="3d", computed_zorder=False)
            _draw_surface(left, found)
        left.set_title("(a) the manifold, orbits on it and leaving it")
        right = figure.add_subplot(grid[1])
        _draw_escape(right, found)
        right.set_title("(b) escape times")
        figure.legend(handles=_entries(found), loc="outside lower center", ncols=3, handlelength=1.8)
    return figure


def _draw_curve(axes: Axes, found: CentreStablePicture) -> None:
    axes.axhline(0, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
    axes.plot(*found.graph.T, color=_SURFACE, linewidth=4.0, solid_capstyle="round", zorder=1)
    for path in _leaving(found):
        axes.plot(*path.T, "o-", color=ORANGE, markersize=2.4, linewidth=0.8, zorder=3)
    for path in _staying(found):
        axes.plot(*path.T, "o-", color=BLUE, markersize=2.6, linewidth=0.8, zorder=4)
    axes.plot(0, 0, "x", color="black", markersize=6, markeredgewidth=1.4, zorder=5)
    axes.set(xlabel=r"$y$ along $E^{cs}$", ylabel=r"$u$ along $E^{u}$", ylim=(-_limit(found), _limit(found)))


def _draw_surface(axes: Axes3D, found: CentreStablePicture) -> None:
    axes.plot_surface(
        *np.moveaxis(found.graph, -1, 0), rstride=1, cstride=1, color=_SURFACE, alpha=0.6, linewidth=0.25, shade=False,
        edgecolor="#5b9bc8", zorder=1,
    )  # fmt: skip
    for path in _leaving(found):
        axes.plot(*path.T, "o-", color=ORANGE, markersize=1.8, linewidth=0.8, zorder=3)
    for path in _staying(found):
        axes.plot(*path.T, "o-", color=BLUE, markersize=2.0, linewidth=0.8, zorder=4)
    axes.plot([0], [0], [0], "x", color="black", markersize=6, markeredgewidth=1.4, zorder=5)
    axes.set_xlabel(r"$y_1$ along $E^{cs}$", labelpad=-5)
    axes.set_ylabel(r"$y_2$ along $E^{cs}$", labelpad=-4)
    top = _limit(found)
    corner = found.graph[..., :2].max(axis=(0, 1))
    axes.text(*(1.15 * corner), 1.35 * top, r"$u$ along $E^{u}$", ha="center", fontsize=10)
    axes.set_zlim(-top, top)
    axes.tick_params(labelsize=7, pad=-2)
    axes.tick_params(axis="z", pad=2)
    axes.view_init(elev=22, azim=-58)
    axes.set_box_aspect((1, 1, 0.85), zoom=0.98)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.pane.set_facecolor("white")
        axis.pane.set_edgecolor("#dddddd")
        axis._axinfo["grid"].update(color="#e4e4e4", linewidth=0.6)
        axis.set_major_locator(MaxNLocator(3))


def _draw_escape(axes: Axes, found: CentreStablePicture) -> None:
    for number, (times, mu) in enumerate(zip(found.escape, found.mu, strict=True)):
        colour = _STARTS[number % len(_STARTS)]
        left = times >= 0
        axes.semilogx(
            found.distances[left], times[left], _MARKERS[number % len(_MARKERS)], color=colour, markersize=4.0,
            markerfacecolor="white", zorder=3,
        )  # fmt: skip
        if left.any():
            anchor = int(np.flatnonzero(left)[left.sum() // 3])
            line = times[anchor] + np.log(found.distances[anchor] / found.distances) / np.log(mu)
            axes.plot(found.distances, line, color=colour, linewidth=1.0, zorder=2)
    axes.invert_xaxis()
    axes.set(xlabel=r"distance $\delta$ from the manifold", ylabel=f"steps until $|u| > {found.threshold:.2g}$")
    axes.set_ylim(bottom=0)
    low, high = f"{found.mu.min():.3f}", f"{found.mu.max():.3f}"
    handles = [
        Line2D(
            [], [], linestyle="none", marker="o", color=GREY, markerfacecolor="white", label="one colour for each start"
        ),
        Line2D([], [], color=GREY, linewidth=1.0, label=r"predicted slope $1/\log\mu$"),
        Line2D([], [], linestyle="none", label=rf"$\mu = {low}$" + ("" if low == high else rf" to ${high}$")),
    ]
    axes.legend(handles=handles, loc="upper left")


def _limit(found: CentreStablePicture) -> float:
    """How far the axis along E^u goes: so that the graph is seen to bend, if it does."""
    height = float(np.abs(found.graph[..., -1]).max())
    return min(_HEADROOM * height, found.threshold) if height > 1e-3 * found.threshold else found.threshold


def _shown(found: CentreStablePicture) -> int:
    """The distance whose orbits are drawn: the largest that is small on the axis along E^u."""
    small = found.distances <= _limit(found) / 10
    return int(np.argmax(np.where(small, found.distances, 0)))


def _until(path: np.ndarray, limit: float) -> np.ndarray:
    """An orbit as long as it is on the axis along E^u."""
    beyond = ~(np.abs(path[:, -1]) <= limit)
    return path[: int(beyond.argmax())] if beyond.any() else path


def _staying(found: CentreStablePicture) -> list[np.ndarray]:
    """Orbits on the graph, up to the step at which they move least: from there on rounding drives them."""
    paths = [_until(path, _limit(found)) for path in found.on]
    return [path[: 1 + int(np.linalg.norm(np.diff(path, axis=0), axis=1).argmin())] for path in paths]


def _leaving(found: CentreStablePicture) -> list[np.ndarray]:
    """Orbits that start at the distance shown, until they have left."""
    return [_until(path, _limit(found)) for path in found.off[:, _shown(found)]]


def _entries(found: CentreStablePicture) -> list[Line2D]:
    spot, off = {"marker": "o", "markersize": 3, "linewidth": 0.8}, style.scientific(found.distances[_shown(found)])
    return [
        Line2D([], [], color=_SURFACE, linewidth=4, label="centre-stable manifold"),
        Line2D([], [], color=BLUE, label="orbits on it", **spot),
        Line2D([], [], color=ORANGE, label=rf"orbits off it by ${off}$", **spot),
    ]
