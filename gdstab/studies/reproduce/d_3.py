"""Figure 3 of paper D: as Figure 1, with both convolutional networks."""

from gdstab.studies.reproduce.d_1 import compare, draw, measure, phases, prepare, shows

__all__ = ["compare", "draw", "measure", "phases", "prepare", "shows"]
