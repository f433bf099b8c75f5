"""Up to which step size descent converges, for every initial point of a rectangle."""

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
class CriticalMap(LossOptions, RunOptions, StoppingOptions, PlaneOptions, LabelOptions):
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
    max_steps: int = 20_000
    """updates at the most; who has no verdict then is undecided, and counts as not converging"""
    loss_tol: float | None = None
    """converged when the loss is this close to its infimum; chaotic orbits come close by chance, so use a small one"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    nudge: float = 1e-6
    """cells whose centre is a critical point are moved by this much"""
    kinds: bool = True
    """tell minima from saddles where the orbits end, by the Hessian"""
