"""Figures of the claims: what refutes a printed statement, or what a true one looks like."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import FigureBase
from matplotlib.ticker import PercentFormatter

from gdstab.figures import style

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#777777"
_SHARES = {"converged": (BLUE, "o"), "bounded, not converged": (GREEN, "s"), "diverged": (ORANGE, "^")}


def draw_vanishing_path(path: np.ndarray, *, figure: FigureBase | None = None) -> FigureBase:
    """Least and largest positive Hessian eigenvalue against the norm of minima; `path` [points, 3] as in the claim."""
    with style.style():
        figure = style.new_figure(4.6, 3.4, figure)
        axes = figure.add_subplot()
        axes.loglog(path[:, 0], path[:, 2], "s-", color=ORANGE, markersize=3.5, label=r"largest, $\lambda_{\max}$")
        axes.loglog(path[:, 0], path[:, 1], "o-", color=BLUE, markersize=3.5, label="least positive")
        axes.axhline(1e-5, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(r"$10^{-5}$", (path[0, 0], 1e-5), xytext=(2, 3), textcoords="offset points", color=GREY)
        axes.set(xlabel=r"norm of the minimum, $\|\theta\|$", ylabel="Hessian eigenvalue")
        axes.set_title("an eigenvalue that vanishes at infinity on $M$")
        axes.legend(loc="upper left")
    return figure


def draw_invisible_line(distances: np.ndarray, line: np.ndarray, *, figure: FigureBase | None = None) -> FigureBase:
    """Sharpness and norm along a line of minima; `line` [points, 3] as in the claim."""
    with style.style():
        figure = style.new_figure(4.6, 3.2, figure)
        axes = figure.add_subplot()
        axes.plot(distances, line[:, 2], "s-", color=ORANGE, markersize=3.5, label=r"$\lambda_{\max}$")
        axes.plot(distances, line[:, 1], "o-", color=BLUE, markersize=3.5, label="least positive eigenvalue")
        axes.set(xlabel="distance along the line of minima", ylabel="Hessian eigenvalue")
        axes.set_ylim(0, 1.35 * line[:, 2].max())
        axes.set_title("$h = 3$: constant curvature on an unbounded line in $M$")
        axes.legend(loc="upper left")
    return figure


def draw_transition(
    ratios: np.ndarray, shares: Mapping[str, np.ndarray], weak: np.ndarray, *, figure: FigureBase | None = None
) -> FigureBase:
    """Shares `[sizes, 3]` (share, low, high) of each fate against eta / eta_C; below, eta lambda_min on M."""
    with style.style():
        figure = style.new_figure(5.2, 4.6, figure)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for name, values in shares.items():
            colour, marker = _SHARES[name]
            middle, low, high = values.T
            top.errorbar(
                ratios, middle, yerr=(middle - low, high - middle), color=colour, marker=marker, markersize=3.5,
                linewidth=1.0, elinewidth=0.8, capsize=2, label=name,
            )  # fmt: skip
        top.yaxis.set_major_formatter(PercentFormatter(1.0))
        top.set_ylabel("share of initial points")
        top.legend(loc="center left")
        bottom.plot(ratios, weak, "D", color=PURPLE, markersize=3)
        bottom.axhline(2.0, color=GREY, linewidth=0.8, linestyle="--")
        bottom.set(ylim=(0, 2.6), ylabel=r"$\eta\,\lambda_{\min}^{+}$ on $M$", xlabel=r"$\eta / \eta_C$")
        bottom.annotate(
            r"$M_{WS} \neq \emptyset$ below this line", (ratios[-1], 2.0), xytext=(0, -3), textcoords="offset points",
            ha="right", va="top", color=GREY,
        )  # fmt: skip
        for axes in (top, bottom):
            axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    return figure


def draw_ratios(
    step_sizes: np.ndarray,
    exact: np.ndarray,
    measured_at: np.ndarray,
    measured: np.ndarray,
    *,
    figure: FigureBase | None = None,
) -> FigureBase:
    """Figure 1(b) of paper A: `exact` [sizes, 2], `measured` [some, 2], area and length ratios in the rectangle."""
    with style.style():
        figure = style.new_figure(4.8, 3.4, figure)
        axes = figure.add_subplot()
        names = ("area of the trapping region", "length of the stable minima")
        for column, (name, colour, marker) in enumerate(zip(names, (BLUE, ORANGE), "os", strict=True)):
            axes.plot(step_sizes, exact[:, column], color=colour, linewidth=1.2, label=f"{name}, exact")
            axes.plot(
                measured_at, measured[:, column], marker, color=colour, markersize=4, markerfacecolor="white",
                label=f"{name}, measured",
            )  # fmt: skip
        axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
        axes.annotate(r"$\eta_C$", (0.5, 0.97), xycoords=("data", "axes fraction"), xytext=(3, 0),
                      textcoords="offset points", va="top")  # fmt: skip
        axes.set(xlabel=r"step size $\eta$", ylabel="ratio in the rectangle", xlim=(0, None), ylim=(0, None))
        axes.legend()
    return figure


def draw_drift(
    step_sizes: np.ndarray, drift: np.ndarray, slope: float, *, figure: FigureBase | None = None
) -> FigureBase:
    """Drift of balancedness over a fixed time against the step size of descent."""
    with style.style():
        figure = style.new_figure(4.2, 3.2, figure)
        axes = figure.add_subplot()
        axes.loglog(step_sizes, drift, "o", color=BLUE, markersize=4, label=f"measured, slope {slope:.3f}")
        axes.loglog(step_sizes, drift[-1] * step_sizes / step_sizes[-1], color=GREY, linewidth=0.9, label="slope 1")
        axes.set(xlabel=r"step size $\eta$", ylabel=r"$\max_j \|C_j(t) - C_j(0)\|_F$")
        axes.legend()
    return figure
