"""How fast neighbouring orbits part, and what stays bounded: cycles, quasi-periodic or chaotic orbits."""

from gdstab.studies import run as run
from gdstab.studies.options.base import (
    Box,
    LossOptions,
    RunOptions,
    SeedOptions,
    StoppingOptions,
    Update,
    study_options,
)


@study_options
class Lyapunov(Update, LossOptions, RunOptions, SeedOptions, StoppingOptions):
    """How fast do neighbouring orbits part, and is what stays bounded periodic, quasi-periodic or chaotic?"""

    step_sizes: str = "0.3:1.0:141"
    """step sizes, as low:high:number, or with commas between them; all of them run from the same points"""
    starts: int = 400
    """random initial points, uniform in the box"""
    box: tuple[float, ...] = (-2.0, 2.0)
    """low and high end of every parameter, or of all of them"""
    num_steps: int = 4000
    """updates behind an exponent, counted from where the verdict fell"""
    transient: int | None = None
    """how many of these to discard; by default a tenth"""
    max_steps: int = 4000
    """updates at the most until the verdict"""
    loss_tol: float | None = None
    """converged when the loss is this close to its infimum; chaotic orbits come close by chance, so use a small one"""
    max_period: int = 64
    """look for cycles up to this period"""
    line_starts: int = 64
    """random initial points on the symmetric line, for the exponents along and across it (product of two scalars)"""
    line_steps: int = 20_000
    """updates from each of them"""
    map_step_size: float = 0.65
    """the step size of the heatmap of exponents"""
    map_steps: int = 64
    """updates behind each exponent of the heatmap, counted from the initial point"""
    map_box: Box = ((-2.0, 2.0), (-2.0, 2.0))
    """the rectangle of the heatmap: low and high end of its first axis, then of its second"""
    resolution: tuple[int, int] = (400, 400)
    """cells along the two axes"""
    plane: tuple[float, ...] = ()
    """the slice of parameter space for the heatmap: two indices of parameters (the others are 0), or a point and two
    directions, one after the other; by default the first two parameters"""
    confidence: float = 0.95
    """of every interval"""
