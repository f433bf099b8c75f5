"""The share of the initial points that converges, against the step size, with its interval and what is exact."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import PercentFormatter

from gdstab.figures import style

_MEASURED, _EXACT, _UNDECIDED, _CYCLING, _GREY = "#0072b2", "#000000", "#cc79a7", "#d55e00", "#999999"


class Shares(NamedTuple):
    """Shares at each step size, [steps]."""

    step_sizes: np.ndarray
    converged: np.ndarray
    interval: np.ndarray  # [steps, 2]
    cycling: np.ndarray
    undecided: np.ndarray
    confidence: float
    exact: np.ndarray  # at the same step sizes, nan where nothing is known
    curve: tuple[np.ndarray, np.ndarray] | None  # the exact share on a finer grid of step sizes
    critical_step: float | None
    left: np.ndarray | None = None  # share that diverged or was not finite


def draw_basin(shares: Shares, *, figure: FigureBase | None = None) -> FigureBase:
    """The shares above; below, where something is exact, how far the measured ones are from it."""
    known = np.isfinite(shares.exact)
    with style.style():
        figure = style.new_figure(5.0, 4.9 if known.any() else 3.7, figure)
        if known.any():
            top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.25))
            _draw_errors(bottom, shares, known)
            _mark_critical(bottom, shares)
        else:
            top = bottom = figure.add_subplot()
        _draw_shares(top, shares)
        _mark_critical(top, shares, label=True)
        bottom.set_xlabel(r"step size $\eta$")
        handles, labels = top.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        if top is not bottom:
            style.letter(figure.axes)
    return figure


def _draw_shares(axes: Axes, shares: Shares) -> None:
    eta, converged = shares.step_sizes, shares.converged
    if shares.curve is not None:
        fine, exact = shares.curve
        # Where nothing converges any more there is no curve: the drop is the critical step.
        axes.plot(fine, np.where(exact > 0, exact, np.nan), color=_EXACT, linewidth=1.0, label="exact")
    some = shares.undecided > 0
    if some.any():  # no band between step sizes: how many are undecided can change from one to the next
        axes.vlines(
            eta[some], converged[some], (converged + shares.undecided)[some], color=_UNDECIDED, linewidth=5, alpha=0.55,
            label="undecided at the last update",
        )  # fmt: skip
    if shares.cycling.any():
        cycling = np.where(shares.cycling > 0, shares.cycling, np.nan)
        axes.plot(eta, cycling, "s:", color=_CYCLING, markersize=3, linewidth=0.9, label="ends in a cycle")
    if shares.left is not None:
        axes.plot(eta, shares.left, "x:", color=_GREY, markersize=3, linewidth=0.9, label="diverges", zorder=1)
    low, high = shares.interval.T
    if shares.curve is None:
        axes.fill_between(eta, low, high, color=_MEASURED, alpha=0.3, linewidth=0)
    bars = np.maximum([converged - low, high - converged], 0)
    axes.errorbar(
        eta, converged, yerr=bars, color=_MEASURED, marker="o", markersize=3.6, markerfacecolor="white",
        linestyle="none" if shares.curve is not None else "-", linewidth=1.0, elinewidth=1.0, capsize=2,
        label=f"converges, with its {100 * shares.confidence:g} % interval", zorder=3,
    )  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylabel="share of the initial points", ylim=(-0.025 * axes.get_ylim()[1], None))


def _draw_errors(axes: Axes, shares: Shares, known: np.ndarray) -> None:
    """In percentage points, because a share can be zero."""
    eta, exact = shares.step_sizes[known], 100 * shares.exact[known]
    middle = 100 * shares.converged[known] - exact
    low, high = 100 * shares.interval[known].T - exact
    top = middle + 100 * shares.undecided[known]
    axes.axhline(0, color=_EXACT, linewidth=1.0)
    axes.errorbar(
        eta, middle, yerr=np.maximum([middle - low, high - middle], 0), color=_MEASURED, marker="o", markersize=3.6,
        markerfacecolor="white", linestyle="none", elinewidth=1.0, capsize=2, zorder=3,
    )  # fmt: skip
    decided = shares.undecided[known] < 0.01  # beyond, only the bar of the undecided reaches zero, and is cut off
    reach = 1.4 * max(np.abs([low, high])[:, decided].max(initial=0), 1e-9)
    axes.vlines(eta, middle, top, color=_UNDECIDED, linewidth=3, alpha=0.5, zorder=1)
    axes.set(ylabel="measured $-$ exact\n(percentage points)", ylim=(-reach, reach))


def _mark_critical(axes: Axes, shares: Shares, *, label: bool = False) -> None:
    step, eta = shares.critical_step, shares.step_sizes
    if step is not None and eta.min() - 0.05 * np.ptp(eta) <= step <= eta.max() + 0.05 * np.ptp(eta):
        name = rf"critical step $\eta_C = {step:.4g}$" if label else None
        axes.axvline(step, color=_GREY, linewidth=1.0, linestyle="--", label=name, zorder=0)
