"""Where orbits start: whole in memory, or as sources that make points when asked.

Grids, boxes, balls, normal points, Sobol points, strata, and the layers of networks. Random points are drawn in logical
groups of 4096: group g has the key fold_in(fold_in(key, g >> 32), g & 0xffffffff). Point i is therefore the same
whatever the number of points, the block, the device or the process that asks for it.
"""

from gdstab.sampling.grids import GridSource, grid
from gdstab.sampling.quasi import SobolSource, sobol
from gdstab.sampling.randoms import RandomSource, ball, box, gaussian
from gdstab.sampling.shaped import ShapedSource, shaped
from gdstab.sampling.sources import GROUP, PointSource
from gdstab.sampling.strata import StratifiedSource

__all__ = [
    "GROUP",
    "GridSource",
    "PointSource",
    "RandomSource",
    "ShapedSource",
    "SobolSource",
    "StratifiedSource",
    "ball",
    "box",
    "gaussian",
    "grid",
    "shaped",
    "sobol",
]
__dir__ = __all__.copy  # nothing else is for users
