"""Boundaries of basins: drawn at the cost of their length, found and followed, and how mixed and how rough they are."""

from gdstab.boundaries.adaptive import AdaptiveHeatmap, Probes, adaptive_heatmap, check_coarse
from gdstab.boundaries.critical_steps import CriticalPart, CriticalSteps, check_search, critical_step
from gdstab.boundaries.edges import Edges, bisect_edge
from gdstab.boundaries.entropy import BasinEntropy, basin_entropy
from gdstab.boundaries.fractal import UncertaintyExponent, uncertainty_exponent
from gdstab.boundaries.saddles import Neighbourhood, saddle_neighbourhood
from gdstab.boundaries.tracking import EdgeOrbits, track_edge
from gdstab.boundaries.verdicts import Classifier, label_of, outcome_of

__all__ = [
    "AdaptiveHeatmap",
    "BasinEntropy",
    "Classifier",
    "CriticalPart",
    "CriticalSteps",
    "EdgeOrbits",
    "Edges",
    "Neighbourhood",
    "Probes",
    "UncertaintyExponent",
    "adaptive_heatmap",
    "basin_entropy",
    "bisect_edge",
    "check_coarse",
    "check_search",
    "critical_step",
    "label_of",
    "outcome_of",
    "saddle_neighbourhood",
    "track_edge",
    "uncertainty_exponent",
]
__dir__ = __all__.copy  # nothing else is for users
