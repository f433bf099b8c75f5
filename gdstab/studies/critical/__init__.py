"""The flattest minimum, the critical step size, how much of the minima is stable (Figure 1b of paper A)."""

import dataclasses

from gdstab.studies import run as run
from gdstab.studies.options.base import Box, LossOptions, RunOptions, SeedOptions, study_options
from gdstab.studies.options.losses import Linear, Scalar, Vector


@study_options
class Critical(LossOptions, RunOptions, SeedOptions):
    """How flat can a minimum be, up to which step size is one stable, and how much of the minima is?"""

    step_sizes: str = "0.02:0.6:30"
    """step sizes, as low:high:number, or with commas between them"""
    samples: int = 20_000
    """random minima whose sharpness is taken"""
    spread: float = 1.0
    """standard deviation of what is drawn to make them"""
    starts: int = 8
    """from how many of them the flattest minimum is sought"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle of Figure 1(b), for a product of two scalars"""
    resolution: tuple[int, int] = (400, 400)
    """cells along its two axes"""
    max_steps: int = 4000
    """updates at the most from each of them"""
    loss: Scalar | Vector | Linear = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, after all other options"""
