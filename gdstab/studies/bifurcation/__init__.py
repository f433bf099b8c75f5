"""Orbits against the step size: cycles, doublings, chaos, and where bounded orbits end."""

from typing import Literal

from gdstab.studies import run as run
from gdstab.studies.options.base import Interval, LossOptions, RunOptions, SeedOptions, Update, study_options


@study_options
class Bifurcation(Update, LossOptions, RunOptions, SeedOptions):
    """Past the critical step: where do orbits end, where does their period double, where does chaos, and all, end?"""

    step_sizes: str = "0.4:1.0:2000"
    """step sizes, as low:high:number, or increasing with commas between them"""
    starts: int = 256
    """initial points, the same for every step size"""
    line: Literal["diagonal", "box"] = "diagonal"
    """where they are, at random: all parameters equal, or each for itself"""
    box: Interval = (0.1, 1.25)
    """low and high end of every parameter"""
    observe: Literal["diagonal", "first", "norm", "loss"] = "diagonal"
    """what is drawn: the coordinate along the diagonal (the sum of the parameters over the square root of their
    number), the first parameter, the norm, or the loss"""
    transient: int = 4000
    """updates that are discarded"""
    kept: int = 128
    """updates after them that are drawn"""
    max_period: int = 32
    """look for cycles up to this period"""
    bins: int = 800
    """of the picture, along what is observed"""
    value_range: Interval | None = None
    """low and high end of what is drawn; by default what a few orbits show"""
    doublings: int = 6
    """look for so many period doublings; 0 for none"""
    hysteresis: int = 8
    """starts that are swept up through the step sizes and down again; 0 for none"""
    escape_radius: float = 1e3
    """an orbit has escaped when the norm of the parameters exceeds this"""
    max_steps: int = 100_000
    """updates without an escape that count as bounded, where the end of bounded orbits is sought"""
