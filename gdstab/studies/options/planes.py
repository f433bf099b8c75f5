"""Pictures of a plane and of orbits: `gdstab heatmap`, `gdstab orbit`."""

import dataclasses
from pathlib import Path
from typing import Literal

from gdstab.studies.options.losses import Loss, Scalar
from gdstab.studies.options.parsing import Box


@dataclasses.dataclass(frozen=True)
class Heatmap:
    """Where does gradient descent end, and how fast, from every cell of a rectangle?"""

    step_size: float = 0.3
    """the step size of gradient descent"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle: low and high end of its first axis, then of its second"""
    resolution: tuple[int, int] = (1000, 1000)
    """cells along the two axes; orbits start at their centres"""
    plane: tuple[float, ...] = ()
    """the slice of parameter space: two indices of parameters (the others are 0), or a point and two directions, one
    after the other; by default the first two parameters"""
    max_steps: int = 100_000
    """updates at the most; who has no verdict then is undecided"""
    loss_tol: float | None = 1e-12
    """converged when the loss is this close to its infimum"""
    grad_tol: float | None = 1e-10
    """converged when the norm of the gradient is at most this (saddles too: they are counted apart)"""
    escape_radius: float = 1e6
    """diverged when the norm of the parameters exceeds this"""
    max_period: int | None = 8
    """look for cycles up to this period"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    ellipse: bool = True
    """draw the exact trapping ellipse, where it is known"""
    out: Path = Path("runs/heatmap")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""
    loss: Loss = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, after all other options"""


@dataclasses.dataclass(frozen=True)
class Orbit:
    """Where do single orbits of gradient descent go, step by step?"""

    step_sizes: tuple[float, ...] = (0.2, 0.55)
    """one panel for each step size"""
    boxes: tuple[Box, ...] = ()
    """what each panel shows: low and high end of both axes, panel after panel, or once for all; by default around the
    minima in the first quadrant, and closer above the critical step size of a product of two scalars"""
    start: tuple[float, ...] = ()
    """initial points, one after the other; by default a fan of points in each panel"""
    num_steps: int = 60
    """updates to draw and to keep"""
    max_steps: int = 100_000
    """updates at the most before an orbit counts as undecided"""
    loss_tol: float | None = 1e-12
    """converged when the loss is this close to its infimum"""
    grad_tol: float | None = 1e-10
    """converged when the norm of the gradient is at most this"""
    escape_radius: float = 1e6
    """diverged when the norm of the parameters exceeds this"""
    max_period: int | None = 8
    """look for cycles up to this period"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/orbit")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """begin an interrupted run again (it is short)"""
    loss: Loss = dataclasses.field(default_factory=Scalar)
    """what is minimised: any of these, after all other options"""
