"""Basins: where descent ends from every cell of a plane or from random points, how large each basin is, how surely."""

from gdstab.basins.attractors import Attractors, Found
from gdstab.basins.critical_points import CriticalKind, CriticalPoints, critical_points
from gdstab.basins.grouping import find_attractors, match_labels
from gdstab.basins.heatmaps import Heatmap, Kinds, Patch, flat_plane, heatmap, parse_plane, refine
from gdstab.basins.labels import Labels, label_ends
from gdstab.basins.measures import SequentialMeasure, chunks, measure, measure_until
from gdstab.basins.pictures import ORDER, Picture
from gdstab.basins.refined import BOUNDED, Regime, Regimes, exponents, regimes
from gdstab.basins.shares import Measure
from gdstab.basins.tallies import Tally, merge
from gdstab.basins.volumes import Volume, volume

__all__ = [
    "BOUNDED",
    "ORDER",
    "Attractors",
    "CriticalKind",
    "CriticalPoints",
    "Found",
    "Heatmap",
    "Kinds",
    "Labels",
    "Measure",
    "Patch",
    "Picture",
    "Regime",
    "Regimes",
    "SequentialMeasure",
    "Tally",
    "Volume",
    "chunks",
    "critical_points",
    "exponents",
    "find_attractors",
    "flat_plane",
    "heatmap",
    "label_ends",
    "match_labels",
    "measure",
    "measure_until",
    "merge",
    "parse_plane",
    "refine",
    "regimes",
    "volume",
]
__dir__ = __all__.copy  # nothing else is for users
