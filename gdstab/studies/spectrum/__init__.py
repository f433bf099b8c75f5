"""The spectrum of the Hessian at a point, along an orbit, or at random minima."""

import dataclasses
from typing import Literal

from gdstab.studies import run as run
from gdstab.studies.options.base import LossOptions, RunOptions, SeedOptions, study_options
from gdstab.studies.options.losses import Linear, Loss


@study_options
class Spectrum(LossOptions, RunOptions, SeedOptions):
    """The spectrum of the Hessian at a point, along an orbit of descent, or at random minima."""

    where: Literal["point", "orbit", "minima"] = "orbit"
    """at the start, along the orbit from there, or at random minima"""
    step_sizes: tuple[float, ...] = (0.5,)
    """step sizes whose thresholds 2 / step size are marked; the orbit takes the first"""
    start: tuple[float, ...] = ()
    """the initial point; by default a random one"""
    spread: float = 0.5
    """standard deviation of what is random"""
    num_steps: int = 60
    """updates of the orbit"""
    every: int = 1
    """take the spectrum after so many updates each"""
    samples: int = 1000
    """random minima"""
    dense_limit: int = 512
    """up to this many parameters all eigenvalues are computed; above, the two ends and the density"""
    num_matvecs: int = 64
    """Hessian-vector products of Lanczos, above that limit"""
    num_probes: int = 16
    """random vectors of the density, above that limit"""
    loss: Loss = dataclasses.field(default_factory=lambda: Linear(widths=(3, 3, 3)))
    """what is minimised: any of these, after all other options"""
