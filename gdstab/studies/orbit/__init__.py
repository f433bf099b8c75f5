"""Where single orbits go, step by step (Figure 2 of paper A)."""

from gdstab.studies import run as run
from gdstab.studies.options.base import Box, LossOptions, RunOptions, StoppingOptions, study_options


@study_options
class Orbit(LossOptions, RunOptions, StoppingOptions):
    """Where do single orbits of gradient descent go, step by step?"""

    step_sizes: tuple[float, ...] = (0.2, 0.55)
    """one panel for each step size"""
    boxes: tuple[Box, ...] = ()
    """what each panel shows: low and high end of both axes, panel after panel, or once for all; by default around the
    minima in the first quadrant, and closer above the critical step size of a product of two scalars"""
    start: tuple[float, ...] = ()
    """initial points, one after the other; by default a fan of points in each panel"""
    num_steps: int = 60
    """updates to draw and to keep"""
