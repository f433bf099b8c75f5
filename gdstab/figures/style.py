"""What all figures share: fonts, sizes, colours that survive colour blindness and grey prints, and how to save them."""

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import matplotlib as mpl
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gdstab.outcomes import Outcome

ITERATIONS = mpl.colormaps["viridis"]
"""Perceptually uniform, its lightness monotone."""

OUTCOME_COLOURS = {
    Outcome.DIVERGED: "#f2f2ef",  # lighter than anything in the map of iterations
    Outcome.CYCLING: "#d55e00",
    Outcome.UNDECIDED: "#e79fc4",
    Outcome.NONFINITE: "#9c9c9c",
}
"""From the palette of Okabe and Ito, apart in hue from the map of iterations and in lightness from each other."""

MINIMA = "#000000"
STABLE = "#d62728"
ELLIPSE = "#c2185b"

_PARAMETERS = {
    "font.family": "serif",
    "font.serif": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "pdf.fonttype": 42,
}


def style() -> AbstractContextManager:
    """The settings of all figures, for a `with` statement."""
    return mpl.rc_context(_PARAMETERS)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn without a display."""
    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def casing(colour: str, width: float) -> list:
    """Path effects that set a line off from any background by an edge of `colour`."""
    return [patheffects.Stroke(linewidth=width, foreground=colour), patheffects.Normal()]


def save(figure: Figure, place, name: str = "figure") -> tuple[Path, Path]:
    """Write the figure as PNG (200 dpi) and PDF; their paths.

    `place` is a directory, made if it is not there, whose files of the same names are replaced; or the record of a run,
    which lists what is written there.
    """
    keep = place.write if hasattr(place, "write") else partial(_write, Path(place))
    with style():
        return tuple(
            keep(f"{name}.{ending}", partial(figure.savefig, format=ending, dpi=200)) for ending in ("png", "pdf")
        )


def _write(directory: Path, name: str, write) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / name, "wb") as file:
        write(file)
    return directory / name
