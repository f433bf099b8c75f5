"""On which cycles orbits end, and their branches over the step size with all bifurcation points."""

from gdstab.studies import run as run
from gdstab.studies.options.base import Interval, LossOptions, RunOptions, SeedOptions, Update, study_options


@study_options
class Cycle(Update, LossOptions, RunOptions, SeedOptions):
    """On which cycles do orbits end at one step size, and what becomes of these as the step size changes?"""

    step_size: float = 0.55
    """the step size at which cycles are looked for"""
    max_period: int = 8
    """the longest period looked for"""
    starts: int = 256
    """number of random starting points"""
    box: Interval = (-2.0, 2.0)
    """every parameter of a random starting point is between these"""
    start: tuple[float, ...] = ()
    """starting points given, one after the other; then none are drawn"""
    cycles: int = 16
    """how many different cycles are told apart"""
    follow: int = 4
    """how many of them are followed over the step size, the most frequented first"""
    step_sizes: Interval | None = None
    """over which step sizes; by default from half of the step size to 1.4 times it"""
    doublings: int = 2
    """how many times in a row a flip is left for the cycle of twice the period"""
    branches: int = 24
    """branches at the most"""
    largest_step: float = 0.01
    """along a branch: in units of the whole range of step sizes, and of one more than the norm of the state"""
    coordinate: int = 0
    """the parameter that is drawn"""
    max_steps: int = 20_000
    """updates at the most, to find a cycle"""
    grad_tol: float | None = None
    """an orbit rests when the norm of the gradient is at most this; by default sqrt(eps) times what it is at the
    starts, to a power of ten"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
