"""Basins: where descent ends from every cell of a plane or from random points, how large each basin is, how surely."""

from gdstab.basins.heatmaps import ORDER, Heatmap, Kinds, Patch, heatmap, parse_plane, refine

__all__ = ["ORDER", "Heatmap", "Kinds", "Patch", "heatmap", "parse_plane", "refine"]
