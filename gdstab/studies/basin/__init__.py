"""What share of random initial points ends where, against the step size, with intervals."""

from typing import ClassVar, Literal

from gdstab.studies import run as run
from gdstab.studies.options.base import (
    LabelOptions,
    LossOptions,
    RunOptions,
    SeedOptions,
    StoppingOptions,
    study_options,
)


@study_options
class Basin(LossOptions, RunOptions, SeedOptions, StoppingOptions, LabelOptions):
    """What share of the initial points ends where, for every step size, and how surely?"""

    in_teams: ClassVar[bool] = True

    step_sizes: str = "0.05:0.6:12"
    """step sizes, as low:high:number, or with commas between them; all of them run from the same points"""
    samples: int = 1_000_000
    """initial points; with --width, at the most"""
    distribution: Literal["box", "sobol", "stratified", "ball", "gaussian", "xavier", "balanced"] = "box"
    """of the initial points: uniform in a box, at random, by scrambled Sobol points, or so many in each of equal
    cells; uniform in a ball around the origin; normal; layers of a linear network, as Xavier or balanced"""
    box: tuple[float, ...] = (-4.0, 4.0)
    """low and high end of every parameter, or of all of them"""
    radius: float = 4.0
    """of the ball"""
    spread: float = 1.0
    """standard deviation of the normal distribution, and scale of the balanced one"""
    replicates: int = 16
    """independent scrambles of the Sobol points, from which their interval comes"""
    cells: tuple[int, ...] = (10,)
    """cells along every axis of a stratified box, or along all of them"""
    width: float | None = None
    """stop as soon as no interval is wider than this, for any step size"""
    confidence: float = 0.95
    """of every interval"""
    max_steps: int = 20_000
    """updates at the most; who has no verdict then is undecided, which no interval hides"""
    chunk: int | None = None
    """points counted and written down together: what a kill can cost; by default as many as take some seconds"""
