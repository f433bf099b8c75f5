"""Where orbits start: grids, boxes, balls, Sobol points; whole in memory, or as sources that make them when asked.

Random points are drawn in logical groups of 4096: group g has the key fold_in(fold_in(key, g >> 32), g & 0xffffffff).
Point i is therefore the same whatever the number of points, the block, the device or the process that asks for it.
"""

from gdstab.sampling.sources import GROUP, GridSource, PointSource, RandomSource, ball, box, gaussian, grid, sobol

__all__ = ["GROUP", "GridSource", "PointSource", "RandomSource", "ball", "box", "gaussian", "grid", "sobol"]
