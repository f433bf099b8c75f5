"""Figures of results: the only importers of matplotlib. Each function returns a matplotlib `Figure`.

Figures compose: every `draw_*` takes `figure=`, a matplotlib `Figure` or `SubFigure`, draws on it and returns it.

No global state: figures are made with the object interface and know nothing of pyplot.
"""

from gdstab.figures.basin import Shares, draw_basin
from gdstab.figures.bifurcation import ClosedForm, Density, Marks, closed_forms, draw_bifurcation
from gdstab.figures.boundary import draw_boundary
from gdstab.figures.centre_stable import CentreStablePicture, draw_centre_stable
from gdstab.figures.critical import Stable, draw_critical
from gdstab.figures.critical_map import CriticalMap, draw_critical_attractors, draw_critical_map
from gdstab.figures.critical_points import draw_critical_points
from gdstab.figures.cycle import Branches, BranchMark, Track, draw_cycle
from gdstab.figures.escape import EscapeTimes, LadderShares, Plateaus, SaddlePlane, draw_escape
from gdstab.figures.flow import Closeness, FlowPicture, draw_closeness, draw_flow
from gdstab.figures.heatmap import Overlay, draw_heatmap
from gdstab.figures.labels import LabelShares, draw_label_shares
from gdstab.figures.lyapunov import Exponents, draw_lyapunov
from gdstab.figures.multipliers import MultiplierMap, StabilityEdge, StabilityPlane, draw_edge, draw_multipliers
from gdstab.figures.overfitting import Staircase, draw_overfitting
from gdstab.figures.phase_portrait import draw_phase_portrait
from gdstab.figures.relu import Realisation, Training, draw_networks, draw_training
from gdstab.figures.spectrum import Spectra, draw_spectrum
from gdstab.figures.style import save
from gdstab.figures.trajectories import Panel, draw_trajectories
from gdstab.figures.worst_case import Hills, Paths, Separation, draw_separation, draw_worst_case

__all__ = [
    "BranchMark",
    "Branches",
    "CentreStablePicture",
    "ClosedForm",
    "Closeness",
    "CriticalMap",
    "Density",
    "EscapeTimes",
    "Exponents",
    "FlowPicture",
    "Hills",
    "LabelShares",
    "LadderShares",
    "Marks",
    "MultiplierMap",
    "Overlay",
    "Panel",
    "Paths",
    "Plateaus",
    "Realisation",
    "SaddlePlane",
    "Separation",
    "Shares",
    "Spectra",
    "StabilityEdge",
    "StabilityPlane",
    "Stable",
    "Staircase",
    "Track",
    "Training",
    "closed_forms",
    "draw_basin",
    "draw_bifurcation",
    "draw_boundary",
    "draw_centre_stable",
    "draw_closeness",
    "draw_critical",
    "draw_critical_attractors",
    "draw_critical_map",
    "draw_critical_points",
    "draw_cycle",
    "draw_edge",
    "draw_escape",
    "draw_flow",
    "draw_heatmap",
    "draw_label_shares",
    "draw_lyapunov",
    "draw_multipliers",
    "draw_networks",
    "draw_overfitting",
    "draw_phase_portrait",
    "draw_separation",
    "draw_spectrum",
    "draw_training",
    "draw_trajectories",
    "draw_worst_case",
    "save",
]
__dir__ = __all__.copy  # nothing else is for users
