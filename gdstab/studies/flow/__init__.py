"""How far descent strays from gradient flow, the curvature along it, and the bound of paper D."""

import dataclasses

from gdstab.studies import run as run
from gdstab.studies.options.base import LossOptions, RunOptions, SeedOptions, study_options
from gdstab.studies.options.losses import Linear, Loss


@study_options
class Flow(LossOptions, RunOptions, SeedOptions):
    """How far does gradient descent stray from gradient flow, and what does the curvature along the flow allow?"""

    step_size: float = 0.02
    """the largest step size, eta"""
    ratios: tuple[int, ...] = (2, 5, 10, 20)
    """descent with eta / r runs beside it, for each of these r"""
    time: float = 20.0
    """how far flow and descent go; eta times the number of updates"""
    points: int = 200
    """times that are recorded beside 0, at the most"""
    start: tuple[float, ...] = ()
    """starting points, one after the other; by default random ones"""
    starts: int = 1
    """number of random starting points"""
    spread: float | None = None
    """standard deviation of the random ones, by default 0.3; of networks the factor of Xavier's distribution, 1"""
    curvature_points: int = 50
    """recorded times at which the curvature is measured, at the most"""
    radius: float = 0.1
    """epsilon: the bound takes its constants within this distance of the flow, and holds as long as it is below"""
    samples: int = 16
    """random points of every ball around the flow in which the constants are measured"""
    dense_limit: int = 512
    """up to this many parameters eigenvalues come from the whole Hessian; above, from Lanczos"""
    num_matvecs: int = 64
    """Hessian-vector products of Lanczos, above that limit"""
    rtol: float = 1e-8
    """relative tolerance of the flow's solver"""
    atol: float = 1e-10
    """absolute tolerance of the flow's solver"""
    flow_step: float | None = None
    """constant steps of the flow's solver instead of tolerances; by default eta / 256 for networks with kinks"""
    max_steps: int = 100_000
    """steps of the solver between two recorded times, at the most"""
    escape_radius: float = 1e6
    """the flow has escaped when the norm of the parameters exceeds this"""
    loss: Loss = dataclasses.field(default_factory=lambda: Linear(widths=(3, 3, 3)))
    """what is minimised: any of these, after all other options"""
