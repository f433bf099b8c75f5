"""What all figures share: fonts, sizes, colours that survive colour blindness and grey prints, and how to save them."""

import math
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

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

_LABELS = 3  # along a colour bar, at the least

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


def new_figure(width: float, height: float, figure=None) -> FigureBase:
    """An empty figure of that many inches, drawn without a display; or the one given, a `SubFigure` say, as it is."""
    if figure is not None:
        if not isinstance(figure, FigureBase):
            raise ValueError(
                f"expected a matplotlib Figure or SubFigure to draw on, got {type(figure).__name__}; "
                "make some by Figure(layout='compressed').subfigures(2, 2)"
            )
        return figure
    figure = Figure(figsize=(width, height), layout="compressed")
    FigureCanvasAgg(figure)
    return figure


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones, for a logarithmic scale: three at the least, however narrow it is.

    >>> round_numbers(1, 1000), round_numbers(3, 50), [round(float(x), 6) for x in round_numbers(61, 69)]
    ([1.0, 10.0, 100.0, 1000.0], [5.0, 10.0, 20.0, 50.0], [62.0, 64.0, 66.0, 68.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 2, 3, 4, 5, 6, 8)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= _LABELS:
            return ticks
    return [tick for tick in MaxNLocator(_LABELS + 1).tick_values(low, high) if low <= tick <= high]


def label_logarithmic(bar, low: float, high: float) -> None:
    """Label a logarithmic colour bar with round numbers."""
    bar.set_ticks(round_numbers(low, high))
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.minorticks_off()


def thin_out(axis, low: float, high: float) -> None:
    """As many labels on a logarithmic axis as there is room for, and none in between."""
    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_minor_formatter(NullFormatter())
    if decades < 2:
        axis.set_major_formatter("{x:g}")


def axis_name(name: str) -> str:
    """A parameter such as `x0` in mathematics: $x_0$."""
    return f"${name[0]}_{{{name[1:]}}}$"


def scientific(value: float, digits: int = 2) -> str:
    """A positive number in mathematics, as so many digits times a power of ten."""
    power = int(np.floor(np.log10(value)))
    return rf"{value / 10.0**power:.{digits}g} \times 10^{{{power}}}"


def draw_image(axes: Axes, image, box, names=None, *, labelpad=None, interpolation="antialiased", **more) -> AxesImage:
    """An image over a box, its first axis to the right, its sides as long as they are; `names` of the parameters."""
    (left, right), (bottom, top) = box
    drawn = axes.imshow(
        image.swapaxes(0, 1), origin="lower", extent=(left, right, bottom, top), interpolation=interpolation,
        rasterized=True, **more,
    )  # fmt: skip
    axes.set(xlim=(left, right), ylim=(bottom, top))
    if names is not None:
        axes.set_xlabel(axis_name(names[0]), labelpad=labelpad)
        axes.set_ylabel(axis_name(names[1]), labelpad=labelpad)
    return drawn


def shades(values: np.ndarray, colours: Colormap = ITERATIONS) -> np.ndarray:
    """An image of 8 bits `[..., 3]`, from values between 0 and 1."""
    return (255 * colours(values)[..., :3] + 0.5).astype(np.uint8)


def rgb(colour: str) -> np.ndarray:
    """A colour of such an image."""
    return np.round(255 * np.array(to_rgb(colour))).astype(np.uint8)


def swatch(colour: str, label: str | None = None) -> Patch:
    """A field of a colour, for a legend."""
    return Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=label)


def extend(below, above) -> str:
    """Which ends of a colour bar are pointed: those beyond which there is something."""
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]


def legend_below(figure: FigureBase, entries: Sequence[tuple], ncols: int, **more) -> None:
    """A legend of (handle, label) under all panels, if there is something in it."""
    if entries:
        handles, labels = zip(*entries, strict=True)
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), ncols), **more)


def letter(panels) -> None:
    """Number the panels of a figure by letters, in front of their titles."""
    for name, axes in zip("abcdefghijklmnop", panels, strict=False):
        axes.set_title(f"({name}) {axes.get_title()}".rstrip())


def casing(colour: str, width: float) -> list:
    """Path effects that set a line off from any background by an edge of `colour`."""
    return [patheffects.Stroke(linewidth=width, foreground=colour), patheffects.Normal()]


def save(figure: Figure, place, name: str = "figure", note: str | None = None) -> tuple[Path, Path]:
    """Write the figure as PNG (200 dpi) and PDF; their paths. A note, such as what was run, stands above everything.

    `place` is a directory, made if it is not there, whose files of the same names are replaced; or the record of a run,
    which lists what is written there.
    """
    if note is not None:
        room = int(15 * figure.get_figwidth())  # letters in a line
        with style():
            figure.suptitle(textwrap.fill(note, room), fontsize=8, color="#555555")
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
