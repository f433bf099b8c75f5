"""Lyapunov exponents: against the step size, over initial points, and what bounded orbits do."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import FigureBase
from matplotlib.ticker import PercentFormatter

from gdstab.figures import style

_MEASURED, _EXACT, _ACROSS, _GREY = "#0072b2", "#000000", "#d55e00", "#999999"
_REGIMES = {
    "converged": ("#009e73", "converges", ""),
    "periodic": ("#f0e442", "cycle", "///"),
    "quasi_periodic": ("#56b4e9", "quasi-periodic", "..."),
    "chaotic": ("#d55e00", "chaotic", ""),
    "undecided": ("#d9d9d9", "undecided", "xxx"),
}
"""Colours of Okabe and Ito, hatched where two of them are close in lightness."""


class Exponents(NamedTuple):
    """What there is to draw, sorted by step size; NaN where nothing is known."""

    step_sizes: np.ndarray
    exponent: np.ndarray  # [steps, 3]: 5 %, median, 95 % of the bounded orbits
    shares: dict[str, np.ndarray]  # of the bounded orbits, by regime
    bounded: np.ndarray  # share of all orbits
    closed_form: np.ndarray | None
    along: np.ndarray | None  # [steps, 3]: on the symmetric line, value and interval
    across: np.ndarray | None
    critical_step: float | None
    field: np.ndarray  # [n0, n1] exponents of the heatmap, NaN where an orbit left
    box: tuple
    axes: tuple[str, str]
    map_step_size: float
    map_steps: int
    confidence: float


def draw_lyapunov(found: Exponents, *, figure: FigureBase | None = None) -> FigureBase:
    """Exponents and regimes against the step size on the left, the heatmap on the right."""
    with style.style():
        figure = style.new_figure(9.6, 4.0, figure)
        panels = figure.subplot_mosaic([["a", "c"], ["b", "c"]], width_ratios=(1.2, 1), height_ratios=(1.75, 1))
        panels["a"].sharex(panels["b"])
        panels["a"].tick_params(labelbottom=False)
        _draw_exponents(panels["a"], found)
        _draw_shares(panels["b"], found)
        eta = found.step_sizes
        if len(eta) > 1:
            panels["b"].set_xlim(eta[0], eta[-1])
        panels["b"].set_xlabel(r"step size $\eta$")
        _draw_field(figure, panels["c"], found)
    return figure


def _draw_exponents(axes: Axes, found: Exponents) -> None:
    eta = found.step_sizes
    low, middle, high = found.exponent.T
    axes.axhline(0, color=_GREY, linewidth=0.8)
    axes.fill_between(eta, low, high, color=_MEASURED, alpha=0.35, linewidth=0)
    few = len(eta) < 25
    axes.plot(eta, middle, "o-" if few else "-", color=_MEASURED, linewidth=1.1, markersize=3,
              label="random starts: median, 5 to 95 %")  # fmt: skip
    if found.across is not None:
        value, below, above = found.across.T
        axes.fill_between(eta, below, above, color=_ACROSS, alpha=0.35, linewidth=0)
        axes.plot(eta, value, color=_ACROSS, linewidth=1.1, linestyle=(0, (4, 1.5)), label="on $x = y$, across it")
    if found.closed_form is not None and np.isfinite(found.closed_form).any():
        axes.plot(eta, found.closed_form, color=_EXACT, linewidth=1.0, linestyle=":", label="closed form", zorder=4)
        alone = np.isfinite(found.closed_form) & ~np.isfinite(np.insert(found.closed_form, 0, np.nan)[:-1])
        alone &= ~np.isfinite(np.append(found.closed_form, np.nan)[1:])
        if alone.any():  # without one, a line that is not clipped takes the layout down
            axes.plot(eta[alone], found.closed_form[alone], "*", color=_EXACT, markersize=7, zorder=4, clip_on=False,
                      label="closed form, at one step size")  # fmt: skip
    _mark_critical(axes, found, label=True)
    drawn = [middle] if found.across is None else [middle, found.across[:, 0]]
    seen = np.concatenate([part[np.isfinite(part)] for part in drawn])
    if seen.size:
        bottom, top = max(seen.min(), -1.2), max(seen.max(), 0.1)
        axes.set_ylim(min(bottom, -0.1) - 0.05 * (top - bottom), top + 0.45 * (top - bottom))
    axes.set_ylabel(r"exponent $\lambda$ per update")
    axes.legend(
        fontsize=7, loc="upper left", ncols=2, handlelength=2.2, columnspacing=1.0, frameon=True, edgecolor="none"
    )
    axes.set_title("(a) largest Lyapunov exponent of bounded orbits")


def _draw_shares(axes: Axes, found: Exponents) -> None:
    """Stacked bars, as wide as the gaps between step sizes; below none where no orbit is bounded."""
    eta, base = found.step_sizes, np.zeros(len(found.step_sizes))
    gaps = np.diff(eta)
    width = np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0])) if len(eta) > 1 else np.array([0.05])
    for name, (colour, label, hatch) in _REGIMES.items():
        share = np.nan_to_num(found.shares[name])
        if share.any():
            axes.bar(eta, share, width, base, color=colour, hatch=hatch or None, edgecolor="#00000055", linewidth=0,
                     label=label)  # fmt: skip
            base = base + share
    axes.plot(eta, found.bounded, color=_EXACT, linewidth=1.3, label="bounded, of all starts")
    _mark_critical(axes, found)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylabel="share of the\nbounded orbits", ylim=(0, 1.02))
    axes.legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, 1.26), ncols=6, handlelength=1.4, columnspacing=1.0
    )
    axes.text(-0.02, 1.13, "(b)", transform=axes.transAxes, fontsize=10, ha="right", va="center")


def _mark_critical(axes: Axes, found: Exponents, *, label: bool = False) -> None:
    step, eta = found.critical_step, found.step_sizes
    if step is not None and eta[0] <= step <= eta[-1]:
        name = rf"critical step $\eta_C = {step:.4g}$" if label else None
        axes.axvline(step, color=_GREY, linewidth=1.0, linestyle="--", label=name, zorder=0)


def _draw_field(figure: FigureBase, axes: Axes, found: Exponents) -> None:
    """Blue shrinks, red grows, white is neither; the ground shows where orbits leave."""
    known = found.field[np.isfinite(found.field)]
    reach = float(np.quantile(np.abs(known), 0.99)) if known.size else 1.0
    axes.set_facecolor(style.OUTCOME_COLOURS[style.Outcome.DIVERGED])
    field = np.where(np.isneginf(found.field), -reach, found.field)
    image = style.draw_image(
        axes, np.ma.masked_invalid(field), found.box, found.axes, interpolation="nearest", cmap="RdBu_r",
        norm=CenteredNorm(0, max(reach, 1e-12)),
    )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=28, pad=0.02, extend="both")
    bar.set_label("exponent over these updates only")
    leaves = " (grey: leaves)" if np.isnan(found.field).any() else ""
    axes.set_title(rf"(c) the first {found.map_steps} updates, $\eta = {found.map_step_size:g}$" + leaves)
