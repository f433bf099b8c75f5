"""Where shallow ReLU networks end: at which level of the loss, and how saddles are left (paper C)."""

import dataclasses
from typing import Literal

from gdstab.studies import run as run
from gdstab.studies.options.base import LossOptions, RunOptions, SeedOptions, study_options
from gdstab.studies.options.losses import Relu


@study_options
class Escape(LossOptions, RunOptions, SeedOptions):
    """On which level of the loss does descent on a shallow ReLU network end, and how does it leave a saddle?"""

    step_sizes: str = "0.1,0.2,0.3"
    """step sizes, as low:high:number, or with commas between them; all of them run from the same starts"""
    samples: int = 20_000
    """random starts, for every step size"""
    distribution: Literal["gaussian", "box"] = "gaussian"
    """of the parameters at the start: normal, or uniform between minus and plus --spread"""
    spread: float = 1.0
    """standard deviation of the normal starts, half width of the box"""
    rtol: float = 1e-3
    """on a level is a loss within this share of it; at zero is one below this share of the lowest level"""
    band: float = 0.1
    """near a level is a loss within this share of it"""
    saddle: tuple[str, ...] = ()
    """the saddle that is looked at closely, a word per neuron: the number of its breakpoint, or its role, such as
    inactive; by default as many breakpoints as there can be, and inactive neurons"""
    saddle_step: float = 0.2
    """step size of all orbits that start at the saddle"""
    radii: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)
    """radii of balls around the saddle"""
    ball_starts: int = 500
    """random starts in each ball"""
    reach: float = 1.5
    """half the side of the square through the saddle whose points are run"""
    manifold: tuple[str, ...] = ()
    """the saddle whose centre-stable manifold is computed, for up to 3 neurons, a word per neuron as for --saddle; by
    default one semi-active neuron and inactive ones"""
    manifold_cells: int = 17
    """points of that manifold along each of two axes; 0 leaves it out"""
    cells: int = 120
    """cells along its sides; an even number keeps the saddle itself out"""
    walks: int = 4
    """orbits with the longest stays near a level, of those that come to zero, that are walked again step by step"""
    walk_steps: int = 20_000
    """their updates at the most"""
    grad_tol: float = 1e-9
    """converged when the norm of the gradient is at most this"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    max_period: int | None = 8
    """look for cycles up to this period"""
    max_steps: int = 20_000
    """updates at the most; who has no verdict then is reported as not converged"""
    chunk: int = 65_536
    """starts that are classified and written down together, at the most; fewer, where that takes longer than seconds"""
    loss: Relu = dataclasses.field(default_factory=Relu)
    """the network and its affine target"""
