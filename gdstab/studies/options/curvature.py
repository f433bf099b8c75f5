"""Curvature and critical steps: `gdstab critical`, `gdstab spectrum`."""

import dataclasses
from pathlib import Path
from typing import Literal

from gdstab.studies.options.losses import Linear, Loss, Scalar, Vector
from gdstab.studies.options.parsing import Box


@dataclasses.dataclass(frozen=True)
class Critical:
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
    seed: int = 0
    """of all that is random"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/critical")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""
    loss: Scalar | Vector | Linear = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, after all other options"""


@dataclasses.dataclass(frozen=True)
class Spectrum:
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
    seed: int = 0
    """of all that is random"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/spectrum")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """begin an interrupted run again (it is short)"""
    loss: Loss = dataclasses.field(default_factory=lambda: Linear(widths=(3, 3, 3)))
    """what is minimised: any of these, after all other options"""
