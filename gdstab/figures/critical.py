"""Figure 1(b) of paper A: how much of the minima is stable, how much of the plane is trapped; thresholds of minima."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from gdstab.figures import style

_AREA, _LENGTH, _SHARE = "#0072b2", "#d55e00", "#009e73"


class Stable(NamedTuple):
    """What is stable at each step size."""

    step_sizes: np.ndarray
    share: np.ndarray  # of the sampled minima that are stable
    interval: np.ndarray  # [steps, 2]
    thresholds: np.ndarray  # 2 / sharpness of each sample
    critical_step: float
    exact_critical_step: float | None
    measured: dict[str, np.ndarray] | None  # the ratios of Figure 1(b), for a product of two scalars
    exact: dict[str, np.ndarray] | None  # the same from closed forms, at step sizes of their own


def draw_critical(stable: Stable, *, figure: FigureBase | None = None) -> FigureBase:
    """Shares against the step size on the left, the law of the thresholds on the right."""
    with style.style():
        alone = figure is None
        figure = style.new_figure(7.2, 3.1, figure)
        if alone:
            figure.get_layout_engine().set(wspace=0.05)
        left, right = figure.subplots(1, 2)
        if stable.measured is None:
            _draw_share(left, stable)
        else:
            _draw_figure_1b(left, stable)
        left.set(xlabel=r"step size $\eta$", xlim=(0, float(stable.step_sizes.max()) * 1.03), ylim=(-0.03, 1.03))
        _mark_critical(left, stable, height=0.52)  # below the legend
        left.set_xlim(0, float(stable.step_sizes.max()) * 1.03)
        left.legend(fontsize=7, loc="upper right")
        left.set_title("(a) what is stable")
        _draw_thresholds(right, stable)
        right.set_title("(b) thresholds of random minima")
    return figure


def _draw_figure_1b(axes: Axes, stable: Stable) -> None:
    """Lines are exact, marks are measured."""
    exact, measured = stable.exact, stable.measured
    trapped, converges = exact["trapped"], exact["converged"] > 0
    axes.plot(exact["step_size"], np.where(converges, trapped, np.nan), color=_AREA, linewidth=1.4,
              label="trapping region, exact area")  # fmt: skip
    if not converges.all():
        axes.plot(exact["step_size"], np.where(converges, np.nan, trapped), color=_AREA, linewidth=1.2,
                  linestyle=(0, (3, 2)), label="where nothing converges")  # fmt: skip
    axes.plot(stable.step_sizes, measured["trapped"], "o", color=_AREA, markersize=3.6, markerfacecolor="white",
              label="measured by descent")  # fmt: skip
    axes.plot(exact["step_size"], exact["stable_length"], color=_LENGTH, linewidth=1.4,
              label="stable minima, exact length")  # fmt: skip
    axes.plot(stable.step_sizes, measured["stable_length"], "s", color=_LENGTH, markersize=3.2,
              label="measured along the curve")  # fmt: skip
    axes.set_ylabel("share in the box")


def _draw_share(axes: Axes, stable: Stable) -> None:
    axes.fill_between(stable.step_sizes, *stable.interval.T, color=_SHARE, alpha=0.3, linewidth=0)
    label = "random minima that are stable"
    axes.plot(stable.step_sizes, stable.share, "o-", color=_SHARE, markersize=3, linewidth=1.1, label=label)
    axes.set_ylabel("share of the minima")


def _mark_critical(axes: Axes, stable: Stable, height: float = 1.0) -> None:
    known = stable.exact_critical_step
    step = stable.critical_step if known is None else known
    label = rf"$\eta_C = {step:.4g}$" + ("" if step <= axes.get_xlim()[1] else ", further right")
    axes.axvline(step, 0, height, color="black", linewidth=0.9, linestyle=":", label=label)


def _draw_thresholds(axes: Axes, stable: Stable) -> None:
    """A histogram on a logarithmic axis; nothing lies beyond the critical step."""
    low, high = np.quantile(stable.thresholds, 0.002), max(stable.thresholds.max(), stable.critical_step)
    bins = np.geomspace(low, high * 1.0001, 60) if high > 1.001 * low else np.linspace(0.9 * low, 1.1 * high, 20)
    weights = np.full(stable.thresholds.size, 1 / stable.thresholds.size)
    axes.hist(stable.thresholds, bins=bins, weights=weights, color="#8fb8d8", edgecolor="#0072b2", linewidth=0.4)
    _mark_critical(axes, stable)
    axes.set(xscale="log", xlabel=r"threshold $2 / \lambda_{\max}$", ylabel="share of the minima")
    style.thin_out(axes.xaxis, bins[0], bins[-1])
    axes.legend(fontsize=7, loc="upper left")
