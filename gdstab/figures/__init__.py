"""Figures of results: the only importers of matplotlib. Each function returns a `matplotlib.figure.Figure`.

No global state: figures are made with the object interface and know nothing of pyplot.
"""

from gdstab.figures.basin import Shares as Shares
from gdstab.figures.basin import draw_basin as draw_basin
from gdstab.figures.bifurcation import ClosedForm as ClosedForm
from gdstab.figures.bifurcation import Density as Density
from gdstab.figures.bifurcation import Marks as Marks
from gdstab.figures.bifurcation import draw_bifurcation as draw_bifurcation
from gdstab.figures.boundary import draw_boundary as draw_boundary
from gdstab.figures.centre_stable import CentreStablePicture as CentreStablePicture
from gdstab.figures.centre_stable import draw_centre_stable as draw_centre_stable
from gdstab.figures.closeness import Closeness as Closeness
from gdstab.figures.closeness import draw_closeness as draw_closeness
from gdstab.figures.critical import Stable as Stable
from gdstab.figures.critical import draw_critical as draw_critical
from gdstab.figures.critical_map import CriticalMap as CriticalMap
from gdstab.figures.critical_map import draw_critical_map as draw_critical_map
from gdstab.figures.cycle import Branches as Branches
from gdstab.figures.cycle import BranchMark as BranchMark
from gdstab.figures.cycle import Track as Track
from gdstab.figures.cycle import draw_cycle as draw_cycle
from gdstab.figures.escape import EscapeTimes as EscapeTimes
from gdstab.figures.escape import LadderShares as LadderShares
from gdstab.figures.escape import Plateaus as Plateaus
from gdstab.figures.escape import SaddlePlane as SaddlePlane
from gdstab.figures.escape import draw_escape as draw_escape
from gdstab.figures.flow import FlowPicture as FlowPicture
from gdstab.figures.flow import draw_flow as draw_flow
from gdstab.figures.heatmap import Overlay as Overlay
from gdstab.figures.heatmap import draw_heatmap as draw_heatmap
from gdstab.figures.lyapunov import Exponents as Exponents
from gdstab.figures.lyapunov import draw_lyapunov as draw_lyapunov
from gdstab.figures.multipliers import MultiplierMap as MultiplierMap
from gdstab.figures.multipliers import StabilityEdge as StabilityEdge
from gdstab.figures.multipliers import StabilityPlane as StabilityPlane
from gdstab.figures.multipliers import draw_edge as draw_edge
from gdstab.figures.multipliers import draw_multipliers as draw_multipliers
from gdstab.figures.overfitting import Staircase as Staircase
from gdstab.figures.overfitting import draw_overfitting as draw_overfitting
from gdstab.figures.relu import Realisation as Realisation
from gdstab.figures.relu import Training as Training
from gdstab.figures.relu import draw_networks as draw_networks
from gdstab.figures.relu import draw_training as draw_training
from gdstab.figures.spectrum import Spectra as Spectra
from gdstab.figures.spectrum import draw_spectrum as draw_spectrum
from gdstab.figures.style import save as save
from gdstab.figures.trajectories import Panel as Panel
from gdstab.figures.trajectories import draw_trajectories as draw_trajectories
from gdstab.figures.worst_case import Hills as Hills
from gdstab.figures.worst_case import Paths as Paths
from gdstab.figures.worst_case import Separation as Separation
from gdstab.figures.worst_case import draw_separation as draw_separation
from gdstab.figures.worst_case import draw_worst_case as draw_worst_case

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
    "draw_basin",
    "draw_bifurcation",
    "draw_boundary",
    "draw_centre_stable",
    "draw_closeness",
    "draw_critical",
    "draw_critical_map",
    "draw_cycle",
    "draw_edge",
    "draw_escape",
    "draw_flow",
    "draw_heatmap",
    "draw_lyapunov",
    "draw_multipliers",
    "draw_networks",
    "draw_overfitting",
    "draw_separation",
    "draw_spectrum",
    "draw_training",
    "draw_trajectories",
    "draw_worst_case",
    "save",
]
