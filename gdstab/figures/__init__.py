"""Figures of results: the only importers of matplotlib. Each function returns a `matplotlib.figure.Figure`.

No global state: figures are made with the object interface and know nothing of pyplot.
"""

from gdstab.figures.critical import Stable as Stable
from gdstab.figures.critical import draw_critical as draw_critical
from gdstab.figures.heatmap import Overlay as Overlay
from gdstab.figures.heatmap import draw_heatmap as draw_heatmap
from gdstab.figures.overfitting import Staircase as Staircase
from gdstab.figures.overfitting import draw_overfitting as draw_overfitting
from gdstab.figures.spectrum import Spectra as Spectra
from gdstab.figures.spectrum import draw_spectrum as draw_spectrum
from gdstab.figures.style import save as save
from gdstab.figures.trajectories import Panel as Panel
from gdstab.figures.trajectories import draw_trajectories as draw_trajectories

__all__ = [
    "Overlay",
    "Panel",
    "Spectra",
    "Stable",
    "Staircase",
    "draw_critical",
    "draw_heatmap",
    "draw_overfitting",
    "draw_spectrum",
    "draw_trajectories",
    "save",
]
