"""Figures of results: the only importers of matplotlib. Each function returns a `matplotlib.figure.Figure`.

No global state: figures are made with the object interface and know nothing of pyplot.
"""

from gdstab.figures.heatmap import Overlay as Overlay
from gdstab.figures.heatmap import draw_heatmap as draw_heatmap
from gdstab.figures.style import save as save
from gdstab.figures.trajectories import Panel as Panel
from gdstab.figures.trajectories import draw_trajectories as draw_trajectories

__all__ = ["Overlay", "Panel", "draw_heatmap", "draw_trajectories", "save"]
