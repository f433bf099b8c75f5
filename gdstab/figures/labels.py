"""Where orbits end, by label: colours of attractors, and what share of the initial points each of them takes."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from gdstab.basins import Attractors
from gdstab.figures import style
from gdstab.outcomes import Outcome

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#f0e442", "#7a4fa3", "#8c510a", "#b2df8a")
"""From the palette of Okabe and Ito and near it, apart from those of the verdicts; neighbours differ in lightness."""
OTHERS = "#6b6b6b"
_MARKS = "osD^vP<>"
_TEXTURES = (None, "///", "...", "xxx")
_DARKEST = 0.5
"""What is left of a colour where an orbit is slowest."""
_PALER = 0.55
_NAMED = 14  # entries of a legend
_ROOM = 0.05  # of a band, as a share, that has room for its number
_VERDICTS = {
    Outcome.CYCLING: "cycle, without a label",
    Outcome.UNDECIDED: "undecided at the last update",
    Outcome.DIVERGED: "diverges",
    Outcome.NONFINITE: "not finite",
}


class LabelShares(NamedTuple):
    """Shares at each step size, in ascending order: those of the labels, and of what has none."""

    step_sizes: np.ndarray
    share: np.ndarray  # [steps, labels]
    interval: np.ndarray  # [steps, labels, 2]
    names: tuple[str, ...]
    rest: dict[Outcome, np.ndarray]  # [steps] each
    confidence: float
    critical_step: float | None = None


def colour(number: int, name: str = "") -> str:
    """That of a label; beyond eight of them they come again, paler each time.

    >>> colour(0), colour(8), colour(3, "others") == OTHERS
    ('#0072b2', '#73b1d5', True)
    """
    if name in {"others", "elsewhere"}:
        return OTHERS
    again, place = divmod(number, len(COLOURS))
    return to_hex(1 - (1 - np.array(to_rgb(COLOURS[place]))) * _PALER**again)


def shaded(label: np.ndarray, names: tuple[str, ...], darkness: np.ndarray) -> np.ndarray:
    """Colours `[..., 3]`, 8 bits each, of labels from 0 on; darker, from 0 to 1, where an orbit is slow."""
    table = np.array([to_rgb(colour(number, name)) for number, name in enumerate(names)] or [(1, 1, 1)])
    whole = table[np.maximum(label, 0)] * (1 - (1 - _DARKEST) * np.clip(darkness, 0, 1))[..., None]
    return (255 * whole + 0.5).astype(np.uint8)


SHADES = ListedColormap(np.linspace(1, _DARKEST, 256)[:, None] * np.array(to_rgb("#d0d0d0")), "shades")
"""What `shaded` does, of a grey."""


def swatch(number: int, name: str) -> Patch:
    """An entry of a legend."""
    return Patch(
        facecolor=colour(number, name), edgecolor="black", linewidth=0.5, hatch=_TEXTURES[number // len(COLOURS) % 4]
    )


def named(sizes: np.ndarray) -> list[int]:
    """The labels that a legend has room for, in order: those of the largest size, if there are any of it."""
    order = np.argsort(-sizes, kind="stable")[:_NAMED]
    return sorted(int(number) for number in order if sizes[number] > 0)


def number_attractors(axes: Axes, attractors: Attractors, cells: int, box, names: tuple[str, str]) -> list[tuple]:
    """Number the attractors that lie in the plane of a map, where it shows two of two parameters.

    What comes back is for the legend: their names, and which share of the cells each has.
    """
    shares = 100 * attractors.lanes[0] / cells
    whole = [f"{share:.1f} %" if share >= 0.1 else "below 0.1 %" for share in shares]
    if attractors.point.shape[1] == 2 and names[0].startswith("x"):
        places = attractors.point[:, [int(name[1:]) for name in names]]
        for number, place in enumerate(places, 1):
            if all(low < x < high for x, (low, high) in zip(place, box, strict=True)):
                axes.annotate(
                    str(number), place, (4, 4), textcoords="offset points", fontsize=9,
                    path_effects=style.casing("white", 2.2),
                )  # fmt: skip
    return [
        (swatch(number, attractors.names[number]), f"{number + 1}:  {attractors.names[number]},  {whole[number]}")
        for number in named(shares)
    ]


def draw_label_shares(shares: LabelShares, *, figure: FigureBase | None = None) -> FigureBase:
    """Bands that add up to all initial points above; below, the share of each label with its interval."""
    with style.style():
        figure = style.new_figure(5.4, 5.4, figure)
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
        entries = _draw_bands(top, shares)
        _draw_intervals(bottom, shares)
        for axes in (top, bottom):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if axes.get_ylim()[1] > 0.05 else None))
            marked = _mark_critical(axes, shares)
        entries += marked
        top.set_ylabel("share of the initial points")
        bottom.set_ylabel(f"share of each attractor,\nwith {100 * shares.confidence:g} % interval")
        bottom.set_xlabel(r"step size $\eta$")
        handles, said = zip(*entries, strict=True)
        figure.legend(handles, said, loc="outside lower center", ncols=2 if len(said) > 3 else 1, handlelength=1.8)
        style.letter(figure.axes)
    return figure


def _draw_bands(axes: Axes, shares: LabelShares) -> list[tuple]:
    """The bands from below, and their entries of the legend; they change half way between step sizes."""
    eta, below, entries = shares.step_sizes, np.zeros(len(shares.step_sizes)), []
    edges = _edges(eta)
    shown = named(shares.share.max(axis=0))
    bands = [
        (shares.share[:, number], swatch(number, name), f"{number + 1}:  {name}", str(number + 1), number in shown)
        for number, name in enumerate(shares.names)
    ]
    for verdict, words in _VERDICTS.items():
        patch = Patch(facecolor=style.OUTCOME_COLOURS[verdict], edgecolor="black", linewidth=0.5)
        bands.append((shares.rest[verdict], patch, words, "", True))
    for share, patch, words, number, has_entry in bands:
        if share.any():
            look = {"facecolor": patch.get_facecolor(), "hatch": patch.get_hatch(), "edgecolor": "white"}
            low, high = (np.append(values, values[-1]) for values in (below, below + share))
            axes.fill_between(edges, low, high, step="post", linewidth=0.6, **look)
            wide = np.flatnonzero(share > 0.8 * share.max())
            widest = int(wide[len(wide) // 2])
            if number and share[widest] > _ROOM:
                height = (below + share / 2)[widest]
                casing = style.casing("white", 2.2)
                axes.text(eta[widest], height, number, ha="center", va="center", fontsize=9, path_effects=casing)
            entries += [(patch, words)] if has_entry else []
            below = below + share
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1))
    axes.plot(eta, np.zeros(len(eta)), "|", color="black", markersize=5, clip_on=False)  # where it was measured
    return entries


def _edges(eta: np.ndarray) -> np.ndarray:
    """Half way between the step sizes, and as far beyond the first and the last."""
    if len(eta) == 1:
        return eta * np.array([0.9, 1.1])
    middles = (eta[:-1] + eta[1:]) / 2
    return np.concatenate([[1.5 * eta[0] - 0.5 * eta[1]], middles, [1.5 * eta[-1] - 0.5 * eta[-2]]])


def _draw_intervals(axes: Axes, shares: LabelShares) -> None:
    eta, step = shares.step_sizes, 0.01 * float(shares.step_sizes[0])
    if len(eta) > 1:  # bars beside each other, not one above the other
        step = 0.12 * float(np.diff(eta).min()) / max(len(shares.names), 3)
    for number, name in enumerate(shares.names):
        some = shares.share[:, number] > 0
        if not some.any():
            continue
        share = np.where(some, shares.share[:, number], np.nan)
        low, high = shares.interval[:, number].T
        axes.errorbar(
            eta + (number - (len(shares.names) - 1) / 2) * step, share, yerr=np.maximum([share - low, high - share], 0),
            color=colour(number, name), marker=_MARKS[number % len(_MARKS)], markersize=3.4, markeredgecolor="black",
            markeredgewidth=0.4, linewidth=0.9, elinewidth=1.0, capsize=2, zorder=3,
        )  # fmt: skip
    axes.set_ylim(-0.025 * axes.get_ylim()[1], None)


def _mark_critical(axes: Axes, shares: LabelShares) -> list[tuple[Line2D, str]]:
    """The critical step size where it is in sight; its entry of the legend."""
    step, (low, high) = shares.critical_step, axes.get_xlim()
    if step is None or not low < step < high:
        return []
    return [(axes.axvline(step, color="black", linewidth=1.0, linestyle="--"), rf"critical step $\eta_C = {step:.4g}$")]
