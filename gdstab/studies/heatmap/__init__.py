"""Where gradient descent ends, and how fast, from every cell of a rectangle (Figure 1a of paper A)."""

from gdstab.studies import run as run
from gdstab.studies.options.base import (
    Box,
    LabelOptions,
    LossOptions,
    PlaneOptions,
    RunOptions,
    StoppingOptions,
    study_options,
)


@study_options
class Heatmap(LossOptions, RunOptions, StoppingOptions, PlaneOptions, LabelOptions):
    """Where does gradient descent end, and how fast, from every cell of a rectangle?"""

    step_size: float = 0.3
    """the step size of gradient descent"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle: low and high end of its first axis, then of its second"""
    resolution: tuple[int, int] = (1000, 1000)
    """cells along the two axes; orbits start at their centres"""
    ellipse: bool = True
    """draw the exact trapping ellipse, where it is known"""
