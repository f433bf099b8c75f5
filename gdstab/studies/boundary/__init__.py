"""Where basins meet, drawn at the cost of their edges, and how rough these are: entropy, dimension."""

import dataclasses

from gdstab.studies import run as run
from gdstab.studies.options.base import (
    Box,
    LossOptions,
    PlaneOptions,
    RunOptions,
    SeedOptions,
    StoppingOptions,
    study_options,
)
from gdstab.studies.options.losses import Loss, Regularised


@study_options
class Boundary(LossOptions, RunOptions, SeedOptions, StoppingOptions, PlaneOptions):
    """Where do the basins of gradient descent meet in a rectangle, and how rough are their edges?"""

    step_size: float = 1.0
    """the step size of gradient descent"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle: low and high end of its first axis, then of its second"""
    resolution: tuple[int, int] = (4096, 4096)
    """cells along the two axes; only those near an edge are computed"""
    coarse: tuple[int, int] | None = None
    """coarse squares along the two axes, to begin with: the resolution over one power of two; by default 128 or more"""
    reach: int = 1
    """how many squares around one that disagrees are refined with it"""
    contrast: int | None = None
    """refine also where numbers of updates differ by more than this, say 2: finds filaments thinner than a cell"""
    probe: int = 1
    """random cells per coarse square, to look for what the refinement overlooked"""
    signs: tuple[int, ...] = (0,)
    """tell minima apart by the signs of these parameters; with none, all that converge are one basin"""
    entropy_side: int = 5
    """cells along a box of the basin entropy"""
    scales: tuple[int, int] = (3, 18)
    """distances of the uncertainty exponent: the shorter side of the rectangle halved so many times, first and last"""
    samples: int = 65_536
    """pairs of points per distance"""
    max_steps: int = 20_000
    """updates at the most; who has no verdict then is undecided, which counts as a basin of its own"""
    loss_tol: float | None = None
    """converged when the loss is this close to its infimum; orbits that pass by a minimum come close, so use none"""
    grad_tol: float | None = 1e-9
    """converged when the norm of the gradient is at most this; 32 bits need about 1e-5"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    loss: Loss = dataclasses.field(default_factory=Regularised)
    """what is minimised: any of these, after all other options"""
