"""What can be asked of each study: frozen dataclasses without JAX or NumPy, so that a parser is built in no time.

The names are those of the Python interface, and a test holds that they stay so. The text under each field is its help
on the command line.
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal, TypeAlias

Interval: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[Interval, Interval]


@dataclasses.dataclass(frozen=True)
class Scalar:
    """scale * (target - w_1 w_2 ... w_depth)^2, a product of scalars."""

    depth: int = 2
    """number of factors"""
    target: float = 1.0
    """what the product should be"""
    scale: float = 0.5
    """the factor in front"""


@dataclasses.dataclass(frozen=True)
class Vector:
    """scale * (target - u.v)^2 for two vectors; parameters are u, then v."""

    dim: int = 2
    """length of u and of v"""
    target: float = 1.0
    """what the inner product should be"""
    scale: float = 0.5
    """the factor in front"""


@dataclasses.dataclass(frozen=True)
class Linear:
    """scale * ||Y - W_h ... W_1 X||^2 on whitened inputs, with targets Y from a random teacher matrix."""

    widths: tuple[int, ...] = (2, 2, 2)
    """input, hidden and output widths; one weight matrix less than widths"""
    seed: int = 0
    """of the teacher"""
    scale: float = 0.5
    """the factor in front"""


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """(1/2) sum of curvature_i theta_i^2: descent converges exactly below 2 / max curvature."""

    curvatures: tuple[float, ...] = (1.0, 10.0)
    """the eigenvalues of the Hessian"""


@dataclasses.dataclass(frozen=True)
class Rosenbrock:
    """The banana valley in the plane, with its minimum at (1, 1)."""


@dataclasses.dataclass(frozen=True)
class Himmelblau:
    """Himmelblau's function in the plane: four minima, all at height 0."""


@dataclasses.dataclass(frozen=True)
class Doublewell:
    """Two wells in the plane, at (-1, 0) and (1, 0), and a saddle at the origin between them."""


@dataclasses.dataclass(frozen=True)
class Custom:
    """Your own loss: a function in a Python file that maps a vector of parameters to a number."""

    path: str
    """FILE.py:FUNCTION; the function is written with jax.numpy, for one vector of parameters"""
    dim: int = 2
    """number of parameters"""
    floor: float = 0.0
    """its infimum: the loss has converged when it is within --loss-tol of this"""


Loss: TypeAlias = Scalar | Vector | Linear | Quadratic | Rosenbrock | Himmelblau | Doublewell | Custom


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
    loss: Loss = dataclasses.field(default_factory=lambda: Scalar(scale=1.0))
    """what is minimised: any of these, after all other options"""


@dataclasses.dataclass(frozen=True)
class Orbit:
    """Where do single orbits of gradient descent go, step by step?"""

    step_sizes: tuple[float, ...] = (0.4, 1.1)
    """one panel for each step size"""
    boxes: tuple[Box, ...] = (((-0.2, 2.5), (0.0, 2.5)), ((0.7, 1.25), (0.65, 1.2)))
    """what each panel shows: low and high end of both axes, panel after panel"""
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


STUDIES = {"heatmap": Heatmap, "orbit": Orbit}
_NOT_IDENTITY = {"out", "overwrite", "resume"}  # where a result lies is no part of what it is


def configuration(options) -> dict:
    """All that decides a run's result, as plain JSON values.

    >>> configuration(Heatmap())["loss"]
    {'name': 'scalar', 'depth': 2, 'target': 1.0, 'scale': 1.0}
    """
    fields = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_IDENTITY}
    fields["loss"] = {"name": type(options.loss).__name__.lower(), **fields["loss"]}
    return {"study": type(options).__name__.lower(), **_plain(fields)}


def _plain(value):
    """Tuples as lists, as JSON reads them back; numbers JSON does not know as words."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
