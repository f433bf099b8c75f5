"""Optimisers as maps: multipliers, thresholds found and predicted, the edge of stability."""

from gdstab.studies import run as run
from gdstab.studies.options.base import (
    Interval,
    LossOptions,
    RuleName,
    RunOptions,
    SeedOptions,
    StoppingOptions,
    Update,
    study_options,
)


@study_options
class Multipliers(Update, LossOptions, RunOptions, SeedOptions, StoppingOptions):
    """Up to which step size is a minimum stable under an optimiser, and does theory say the same?"""

    rule: RuleName = "heavy-ball"
    """the optimiser; all but descent come from optax"""
    step_size: float = 0.3
    """the step size of the multipliers and of the orbit"""
    point: tuple[float, ...] = ()
    """a critical point of the loss is sought near these parameters; by default the flattest minimum where it is known,
    elsewhere near the end of the orbit"""
    nu: float | None = None
    """the second moment of every parameter at which adaptive rules are held; by default the last one of the orbit"""
    betas: Interval = (0.0, 0.95)
    """first and last momentum of the stability diagram"""
    resolution: tuple[int, int] = (160, 160)
    """step sizes and momenta of the stability diagram"""
    displacement: float = 1e-3
    """how far from the minimum its orbits start"""
    max_steps: int = 20_000
    """updates at the most for each of them; who has no verdict then is undecided"""
    loss_tol: float | None = None
    """converged when the loss is this close to its infimum"""
    grad_tol: float | None = 1e-9
    """converged when the norm of the gradient is at most this; 32 bits need about 1e-5"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    start: tuple[float, ...] = ()
    """where the orbit starts; by default drawn at random"""
    spread: float = 0.5
    """standard deviation of the start that is drawn"""
    num_steps: int = 10_000
    """updates of the orbit"""
    every: int = 10
    """the curvature along the orbit is taken every so many updates"""
