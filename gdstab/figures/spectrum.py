"""Spectra of Hessians: at one point, along an orbit, over many minima, or as a density; thresholds 2 / eta marked."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from gdstab.figures import style

_TOP, _REST, _THRESHOLDS = "#d55e00", "#7f9fb8", ("--", ":", "-.")


class Spectra(NamedTuple):
    """Eigenvalues, ascending, of one or more points."""

    where: str  # point, orbit or minima
    steps: np.ndarray  # [points]
    values: np.ndarray  # [points, n], or the two ends [points, 2] where there is a density
    step_sizes: np.ndarray  # whose thresholds are marked
    density: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # grid, density, standard error; last point


def draw_spectrum(spectra: Spectra, *, figure: FigureBase | None = None) -> FigureBase:
    """One panel, and the density of the last point in a second where there is one."""
    draw = {"point": _draw_point, "orbit": _draw_orbit, "minima": _draw_minima}[spectra.where]
    panels = ([draw] if spectra.density is None or spectra.where != "point" else []) + (
        [] if spectra.density is None else [_draw_density]
    )
    with style.style():
        figure = style.new_figure(3.9 * len(panels), 3.4, figure)
        row, entries = figure.subplots(1, len(panels), squeeze=False)[0], {}
        for axes, fill in zip(row, panels, strict=True):
            fill(axes, spectra)
            handles, labels = axes.get_legend_handles_labels()
            entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
        if len(row) > 1:
            row[0].set_title("ends of the spectrum")
            row[1].set_title("density at the last point")
            style.letter(row)
        columns = 3 * len(panels)
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(columns, len(entries)))
    return figure


def _draw_point(axes: Axes, spectra: Spectra) -> None:
    """Every eigenvalue, largest first."""
    values = spectra.values[0][::-1]
    axes.plot(np.arange(1, values.size + 1), values, "o", color=_REST, markersize=4, label="eigenvalues")
    _mark_zero(axes)
    _mark_thresholds(axes.axhline, spectra)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="number, the largest first", ylabel="eigenvalue of the Hessian")


def _draw_orbit(axes: Axes, spectra: Spectra) -> None:
    """All eigenvalues against the step, the largest stands out."""
    for values in spectra.values.T[:-1]:
        axes.plot(spectra.steps, values, color=_REST, linewidth=0.7)
    rest = "smallest" if spectra.density is not None else "the others"
    axes.plot([], [], color=_REST, linewidth=0.7, label=rest)
    axes.plot(spectra.steps, spectra.values[:, -1], color=_TOP, linewidth=1.6, label=r"$\lambda_{\max}$")
    _mark_zero(axes)
    _mark_thresholds(axes.axhline, spectra)
    axes.set(xlabel="updates", ylabel="eigenvalue of the Hessian", xlim=(spectra.steps[0], max(spectra.steps[-1], 1)))


def _draw_minima(axes: Axes, spectra: Spectra) -> None:
    """The law of the largest eigenvalue and of the other positive ones, on a logarithmic axis."""
    top = spectra.values[:, -1]
    rest = spectra.values[:, :-1] if spectra.density is None else np.empty(0)
    rest = rest[rest > 1e-9 * top.max()]
    both = np.concatenate([rest, top[top > 0]])
    bins = np.geomspace(np.quantile(both, 0.001), both.max() * 1.001, 60)
    if rest.size:
        axes.hist(rest, bins=bins, weights=np.full(rest.size, 1 / top.size), color=_REST, label="other positive")
    axes.hist(top, bins=bins, weights=np.full(top.size, 1 / top.size), histtype="step", color=_TOP, linewidth=1.4,
              label=r"$\lambda_{\max}$")  # fmt: skip
    _mark_thresholds(axes.axvline, spectra)
    axes.set(xscale="log", xlabel="eigenvalue of the Hessian", ylabel="eigenvalues per minimum")
    low, high = axes.get_xlim()
    if high < 100 * low:  # powers of ten alone would be too few
        axes.xaxis.set(
            major_locator=FixedLocator(style.round_numbers(low, high)), major_formatter="{x:g}",
            minor_formatter=NullFormatter(),
        )  # fmt: skip


def _draw_density(axes: Axes, spectra: Spectra) -> None:
    """On a logarithmic axis, with two standard errors on both sides; the ends of the spectrum as ticks."""
    grid, density, sem = spectra.density
    floor = 1e-4 * density.max()
    low, high = np.maximum(density - 2 * sem, floor), np.maximum(density + 2 * sem, floor)
    axes.fill_between(grid, low, high, color=_REST, alpha=0.5, linewidth=0, label=r"$\pm 2$ standard errors")
    axes.plot(grid, np.maximum(density, floor), color="#0072b2", linewidth=1.2, label="spectral density")
    for value in spectra.values[-1]:
        axes.plot([value, value], [0, 0.05], color=_TOP, linewidth=1.6, transform=axes.get_xaxis_transform())
    axes.plot([], [], color=_TOP, linewidth=1.6, label=r"$\lambda_{\min}$, $\lambda_{\max}$")
    _mark_thresholds(axes.axvline, spectra)
    axes.set(yscale="log", ylim=(floor, 3 * density.max()), xlabel="eigenvalue of the Hessian", ylabel="density")


def _mark_zero(axes: Axes) -> None:
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)


def _mark_thresholds(line, spectra: Spectra) -> None:
    for eta, dashes in zip(spectra.step_sizes, _THRESHOLDS * len(spectra.step_sizes), strict=False):
        line(2 / eta, color="black", linewidth=0.9, linestyle=dashes, label=rf"$2/\eta$, $\eta = {eta:g}$")
