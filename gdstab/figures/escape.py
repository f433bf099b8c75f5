"""Where a shallow ReLU network ends: the ladder of loss levels, and how descent leaves a saddle between two rungs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import FigureBase
from matplotlib.ticker import LogLocator

from gdstab.figures import style

STEPS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Of the palette of Okabe and Ito, one for each step size."""
RUNGS = ("#e69f00", "#56b4e9", "#cc79a7", "#332288")
"""The levels from the highest down, where a point is coloured by the level on which it ends."""
OTHERS = {"off the ladder": "#000000", "not converged": "#e79fc4", "cycling": "#d55e00", "diverged": "#f2f2ef"}
"""What has no level, in the colours that outcomes have elsewhere."""
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.4, -0.19)}  # inside it would lie among the marks
_ORBITS = "#0072b2"
_PREDICTED = "#d55e00"


class LadderShares(NamedTuple):
    """Which share of the starts ends on each rung, for one step size."""

    step_size: float
    counts: Mapping[str, int]  # by the name of the rung, in the order in which they are drawn
    intervals: Mapping[str, tuple[float, float]]  # Clopper and Pearson's
    runs: int


class SaddlePlane(NamedTuple):
    """Where the points of a square through a saddle end."""

    reach: float  # half its side
    level: np.ndarray  # [cells, cells], name of the rung on which each cell ends
    stay: np.ndarray  # [cells, cells], updates with the loss near that of the saddle
    step_size: float


class EscapeTimes(NamedTuple):
    """How long orbits from balls around the saddle stay, [radii]."""

    radii: np.ndarray
    times: np.ndarray  # [radii, 3], the quantiles 10 %, 50 %, 90 %
    predicted: float  # updates per factor e


class Plateaus(NamedTuple):
    """The loss along orbits."""

    losses: Sequence[np.ndarray]  # [updates + 1] each
    labels: Sequence[str]


def draw_escape(
    ladder: Sequence[LadderShares], levels: Mapping[str, float], plane: SaddlePlane, times: EscapeTimes,
    plateaus: Plateaus, *, figure: FigureBase | None = None) -> FigureBase:  # fmt: skip
    """Shares on every rung; a square through a saddle; how long orbits stay near it; their loss with its plateau.

    `levels` has the losses of the rungs by name, the highest first.
    """
    with style.style():
        figure = style.new_figure(7.4, 6.4, figure)
        (shares, square), (curves, waits) = figure.subplots(2, 2)
        _draw_ladder(shares, ladder, levels)
        _draw_square(figure, square, plane, levels)
        _draw_plateaus(curves, plateaus, levels)
        _draw_times(waits, times)
        shares.set_title("where random starts end")
        square.set_title(rf"a plane through the saddle, $\eta = {plane.step_size:g}$")
        curves.set_title("orbits that pass the saddle")
        waits.set_title("time near the saddle")
        style.letter((shares, square, curves, waits))
    return figure


def _draw_ladder(axes: Axes, ladder: Sequence[LadderShares], levels: Mapping[str, float]) -> None:
    """A row per rung, a mark per step size; an arrow from the upper limit where nobody ended."""
    names = [name for name in ladder[0].counts if name in {*levels, "zero"} or any(s.counts[name] for s in ladder)]
    least = min(high for shares in ladder for _, high in shares.intervals.values())
    for number, shares in enumerate(ladder):
        colour = STEPS[number % len(STEPS)]
        offset = 0.16 * (number - (len(ladder) - 1) / 2) * min(1, 5 / len(ladder))
        for row, name in enumerate(names):
            low, high = shares.intervals[name]
            if not shares.counts[name]:
                axes.plot([high], [row + offset], marker="|", color=colour, markersize=5)
                axes.annotate(
                    "", (high / 2.2, row + offset), (high, row + offset),
                    arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
                )  # fmt: skip
                continue
            share = shares.counts[name] / shares.runs
            axes.errorbar(
                share, row + offset, xerr=[[share - low], [high - share]], color=colour, marker="o", markersize=3.8,
                markerfacecolor="white", capsize=1.8, elinewidth=1.0, linestyle="none",
            )  # fmt: skip
        axes.plot([], [], "o", color=colour, markerfacecolor="white", markersize=3.8,
                  label=rf"$\eta = {shares.step_size:g}$")  # fmt: skip
    rungs = [f"${name}$\n$L = {style.scientific(levels[name], 3)}$" if name in levels else name for name in names]
    axes.set(xscale="log", xlim=(least / 4, 1.7), ylim=(len(names) - 0.5, -0.5), xlabel="share of the starts, 95 %")
    axes.set_yticks(range(len(names)), rungs)
    axes.tick_params(axis="y", length=0)
    for row in range(1, len(names)):
        line = "-" if row == len({*levels, "zero"} & set(names)) else ":"
        axes.axhline(row - 0.5, color="#999999", linewidth=0.6, linestyle=line)
    axes.legend(**_BELOW, ncols=min(len(ladder), 3), handletextpad=0.1, columnspacing=1.0)


def _draw_square(figure: FigureBase, axes: Axes, plane: SaddlePlane, levels: Mapping[str, float]) -> None:
    """Cells that come to zero by the time that they stay near the saddle, all others by where they end."""
    palette = {**dict(zip(levels, RUNGS * len(levels), strict=False)), **OTHERS}
    arrived = plane.level == "zero"
    norm = LogNorm(1, max(int(plane.stay[arrived].max(initial=10)), 10))
    image = style.ITERATIONS(norm(np.maximum(plane.stay, 1)))[..., :3]
    for name, colour in palette.items():
        image[plane.level == name] = to_rgb(colour)
    reach = plane.reach
    style.draw_image(axes, image, ((-reach, reach),) * 2, interpolation="nearest")
    axes.plot(0, 0, "*", color="white", markeredgecolor="black", markersize=11)
    axes.set_xlabel("along the steepest escape")
    axes.set_ylabel("all biases lowered", labelpad=1)
    bar = figure.colorbar(ScalarMappable(norm, style.ITERATIONS), ax=axes, pad=0.02, aspect=26)
    style.label_logarithmic(bar, norm.vmin, norm.vmax)
    bar.set_label("to zero: updates near the saddle's level")
    seen = [name for name in palette if (plane.level == name).any()]
    if seen:
        entries = [style.swatch(palette[name], f"ends at ${name}$" if name in levels else name) for name in seen]
        axes.legend(handles=entries, **_BELOW, ncols=min(len(seen), 3), handlelength=1.2, columnspacing=1.0)


def _draw_plateaus(axes: Axes, plateaus: Plateaus, levels: Mapping[str, float]) -> None:
    for name, value in levels.items():
        axes.axhline(value, color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        axes.annotate(
            f"${name}$", (1.0, value), (-3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", va="bottom", fontsize=8,
        )  # fmt: skip
    shades = style.ITERATIONS(np.linspace(0.0, 0.85, len(plateaus.losses)))
    for loss, label, colour in zip(plateaus.losses, plateaus.labels, shades, strict=True):
        axes.plot(loss, color=colour, linewidth=1.1, label=label, zorder=2)
    lowest = min(levels.values())
    last = max(int(np.argmax(loss < 1e-3 * lowest)) or len(loss) for loss in plateaus.losses)
    axes.set(yscale="log", xlim=(0, 1.08 * last), ylim=(5e-4 * lowest, 3 * max(levels.values())))
    axes.set(xlabel="updates", ylabel="loss $L$")
    axes.legend(title="radius", title_fontsize=7, fontsize=7, loc="lower left", handlelength=1.2)


def _draw_times(axes: Axes, times: EscapeTimes) -> None:
    if not times.radii.size:
        axes.text(0.5, 0.5, "no orbit left the ball", ha="center", va="center", transform=axes.transAxes)
        return
    radii, (low, median, high) = times.radii, times.times.T
    axes.errorbar(
        radii, median, yerr=[median - low, high - median], color=_ORBITS, marker="o", markersize=4,
        markerfacecolor="white", linestyle="none", capsize=2, elinewidth=1.0, zorder=3,
        label="median, and 10 % to 90 %",
    )  # fmt: skip
    anchor = int(np.argmin(radii))
    ends = np.array([radii.min() / 2, radii.max() * 2])
    line = median[anchor] - times.predicted * np.log(ends / radii[anchor])
    axes.plot(ends, line, color=_PREDICTED, linewidth=1.1,
              label=r"slope $1 / \log(1 + \eta |\lambda_{\min}|)$" + f" = {times.predicted:.4g}")  # fmt: skip
    axes.set(xscale="log", xlim=(ends[1], ends[0]), ylim=(0, 1.35 * high.max()))  # with room for the legend
    axes.set(xlabel="radius of the ball around the saddle", ylabel="updates near its level")
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.legend(loc="upper left", fontsize=7.5)
