"""The critical step of every initial point: `gdstab critical-map`."""

import dataclasses
from pathlib import Path
from typing import Literal

from gdstab.studies.options.losses import Loss, Scalar
from gdstab.studies.options.parsing import Box


@dataclasses.dataclass(frozen=True)
class CriticalMap:
    """Up to which step size does gradient descent converge, from every cell of a rectangle?"""

    low: float = 0.02
    """the smallest step size that is tried"""
    high: float = 1.0
    """the largest step size that is tried"""
    scan: int = 16
    """step sizes between them that are tried from every cell before the bisection: what shows a gap"""
    rtol: float = 1e-6
    """relative width to which the critical steps are bracketed"""
    undecided_rtol: float = 1e-3
    """the same where the upper end of a bracket is undecided: closer, the budget would be measured"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle: low and high end of its first axis, then of its second"""
    resolution: tuple[int, int] = (500, 500)
    """cells along the two axes; orbits start at their centres"""
    plane: tuple[float, ...] = ()
    """the slice of parameter space: two indices of parameters (the others are 0), or a point and two directions, one
    after the other; by default the first two parameters"""
    max_steps: int = 20_000
    """updates at the most; who has no verdict then is undecided, and counts as not converging"""
    loss_tol: float | None = None
    """converged when the loss is this close to its infimum; chaotic orbits come close by chance, so use a small one"""
    grad_tol: float | None = 1e-10
    """converged when the norm of the gradient is at most this; 32 bits need about 1e-5"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    max_period: int | None = 8
    """look for cycles up to this period"""
    nudge: float = 1e-6
    """cells whose centre is a critical point are moved by this much"""
    kinds: bool = True
    """tell minima from saddles where the orbits end, by the Hessian"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/critical-map")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""
    loss: Loss = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, after all other options"""
