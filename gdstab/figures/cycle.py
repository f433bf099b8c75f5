"""Branches of cycles over the step size, solid where they attract, with their bifurcation points."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from gdstab.figures import style

_PERIODS = {1: "#000000", 2: "#0072b2", 4: "#d55e00", 8: "#009e73", 16: "#cc79a7"}
_OTHERS = ("#56b4e9", "#e69f00", "#882255", "#999933")
"""Of the palettes of Okabe and Ito and of Tol."""
_MARKERS = {"flip": "o", "fold": "s", "branch": "^", "neimark-sacker": "D"}
_NAMES = {"flip": "flip", "fold": "fold", "branch": "branch point", "neimark-sacker": "Neimark-Sacker"}
_SPOT = {"linestyle": "none", "markersize": 4.6, "markerfacecolor": "white", "markeredgewidth": 1.1, "zorder": 4}
_HIGHEST = 3.0  # of the moduli that are drawn


class BranchMark(NamedTuple):
    """A bifurcation point."""

    kind: str
    step_size: float
    values: np.ndarray  # [period], of the parameter that is drawn
    radius: float  # largest modulus of the multipliers


class Track(NamedTuple):
    """A branch of cycles of one period."""

    period: int
    step_sizes: np.ndarray  # [points]
    values: np.ndarray  # [points, period], of the parameter that is drawn
    stable: np.ndarray  # [points]
    radius: np.ndarray  # [points], largest modulus of the multipliers
    marks: Sequence[BranchMark]


class Branches(NamedTuple):
    """What a search at one step size found, and the branches followed from there."""

    step_size: float
    cycles: Sequence[np.ndarray]  # [period] each
    tracks: Sequence[Track]
    coordinate: int
    limits: tuple[float, float]  # of the step size


def draw_cycle(found: Branches, *, figure: FigureBase | None = None) -> FigureBase:
    """The parameter along the cycles on the left, the largest multiplier on the right."""
    with style.style():
        figure = style.new_figure(7.2, 3.7, figure)
        left, right = figure.subplots(1, 2)
        colours = _colours(found.tracks)
        for track in found.tracks:
            colour = colours[track.period]
            for column in track.values.T:
                _draw_by_stability(left, track.step_sizes, column, track.stable, colour)
            _draw_marks(left, track, colour)
        for track in _without_mirror_images(found.tracks):
            colour = colours[track.period]
            _draw_by_stability(right, track.step_sizes, track.radius, track.stable, colour)
            for mark in track.marks:
                right.plot(mark.step_size, mark.radius, _MARKERS[mark.kind], color=colour, **_SPOT)
        for axes in (left, right):
            axes.axvline(found.step_size, color="#777777", linewidth=0.8, linestyle=":", zorder=0)
            axes.set(xlabel=r"step size $\eta$", xlim=found.limits)
        for cycle in found.cycles:
            spot = {"color": "black", "markersize": 5, "markeredgewidth": 1.0, "linestyle": "none"}
            left.plot(np.full(len(cycle), found.step_size), cycle, "x", zorder=5, **spot)
        if not found.tracks:
            for axes in (left, right):
                said = axes.text(0.5, 0.5, "no cycle was found", transform=axes.transAxes, ha="center", color="#777777")
                said.set_bbox({"facecolor": "white", "edgecolor": "none"})
        right.axhline(1, color="#777777", linewidth=0.8, zorder=0)
        right.set_ylim(0, min(_HIGHEST, 1.05 * max([1.2, *(float(track.radius.max()) for track in found.tracks)])))
        left.set_ylabel(rf"parameter $x_{{{found.coordinate}}}$ along the cycle")
        right.set_ylabel(r"largest $|\mu|$")
        left.set_title("(a) cycles")
        right.set_title("(b) their multipliers")
        handles = _entries(found, colours)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), handlelength=2.2)
    return figure


def _colours(tracks: Sequence[Track]) -> dict[int, str]:
    others = sorted({track.period for track in tracks} - set(_PERIODS))
    return _PERIODS | {period: _OTHERS[i % len(_OTHERS)] for i, period in enumerate(others)}


def _draw_by_stability(axes: Axes, x, y, stable, colour: str) -> None:
    """Solid where stable, dashed elsewhere; a point where that changes belongs to both."""
    change = np.flatnonzero(np.diff(stable.astype(int))) + 1
    ends = [0, *change.tolist(), len(x)]
    for start, stop in itertools.pairwise(ends):
        part = slice(max(start - 1, 0), stop)
        solid = bool(stable[start])
        axes.plot(
            x[part], y[part], color=colour, linewidth=1.5 if solid else 1.0, linestyle="-" if solid else (0, (3.5, 2))
        )


def _draw_marks(axes: Axes, track: Track, colour: str) -> None:
    for mark in track.marks:
        axes.plot(np.full(len(mark.values), mark.step_size), mark.values, _MARKERS[mark.kind], color=colour, **_SPOT)


def _without_mirror_images(tracks: Sequence[Track]) -> list[Track]:
    """One of those tracks that bifurcate at the same step sizes, whose multipliers are the same."""
    known = {}
    for track in tracks:
        place = (track.period, *sorted(round(mark.step_size, 8) for mark in track.marks))
        known.setdefault(place if track.marks else id(track), track)
    return list(known.values())


def _entries(found: Branches, colours: dict[int, str]) -> list[Line2D]:
    periods = sorted({track.period for track in found.tracks})
    lines = [Line2D([], [], color=colours[period], linewidth=1.5, label=f"period {period}") for period in periods]
    if any(not track.stable.all() for track in found.tracks):
        lines.append(Line2D([], [], color="#555555", linewidth=1.0, linestyle=(0, (3.5, 2)), label="unstable"))
    kinds = {mark.kind for track in found.tracks for mark in track.marks}
    spot = {"linestyle": "none", "color": "#555555", "markerfacecolor": "white", "markersize": 4.6}
    lines += [Line2D([], [], marker=_MARKERS[kind], label=_NAMES[kind], **spot) for kind in _MARKERS if kind in kinds]
    if found.cycles:
        where = rf"found at $\eta = {found.step_size:g}$"
        lines.append(Line2D([], [], linestyle="none", marker="x", color="black", markersize=5, label=where))
    return lines
