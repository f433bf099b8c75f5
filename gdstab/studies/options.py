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


@dataclasses.dataclass(frozen=True)
class Critical:
    """How flat can a minimum be, up to which step size is one stable, and how much of the minima is?"""

    step_sizes: str = "0.02:0.6:30"
    """step sizes, as low:high:number, or with commas between them"""
    samples: int = 20_000
    """random minima whose sharpness is taken"""
    spread: float = 1.0
    """standard deviation of what is drawn to make them"""
    starts: int = 8
    """from how many of them the flattest minimum is sought"""
    box: Box = ((-4.0, 4.0), (-4.0, 4.0))
    """the rectangle of Figure 1(b), for a product of two scalars"""
    resolution: tuple[int, int] = (400, 400)
    """cells along its two axes"""
    max_steps: int = 4000
    """updates at the most from each of them"""
    seed: int = 0
    """of all that is random"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/critical")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""
    loss: Scalar | Vector | Linear = dataclasses.field(default_factory=lambda: Scalar(scale=1.0))
    """what is minimised: any of these, after all other options"""


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The spectrum of the Hessian at a point, along an orbit of descent, or at random minima."""

    where: Literal["point", "orbit", "minima"] = "orbit"
    """at the start, along the orbit from there, or at random minima"""
    step_sizes: tuple[float, ...] = (0.5,)
    """step sizes whose thresholds 2 / step size are marked; the orbit takes the first"""
    start: tuple[float, ...] = ()
    """the initial point; by default a random one"""
    spread: float = 0.5
    """standard deviation of what is random"""
    num_steps: int = 60
    """updates of the orbit"""
    every: int = 1
    """take the spectrum after so many updates each"""
    samples: int = 1000
    """random minima"""
    dense_limit: int = 512
    """up to this many parameters all eigenvalues are computed; above, the two ends and the density"""
    num_matvecs: int = 64
    """Hessian-vector products of Lanczos, above that limit"""
    num_probes: int = 16
    """random vectors of the density, above that limit"""
    seed: int = 0
    """of all that is random"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/spectrum")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """begin an interrupted run again (it is short)"""
    loss: Loss = dataclasses.field(default_factory=lambda: Linear(widths=(3, 3, 3)))
    """what is minimised: any of these, after all other options"""


@dataclasses.dataclass(frozen=True)
class Overfitting:
    """Where do gradient flow and descent of deep linear networks end: at a global minimum, or at which saddle?"""

    hidden_layers: tuple[int, ...] = (1, 2)
    """numbers of hidden layers, one network for each"""
    inputs: int = 4
    """input width"""
    hidden: int = 3
    """width of every hidden layer"""
    outputs: int = 3
    """output width"""
    datasets: int = 4
    """random targets; inputs are whitened"""
    starts: int = 100_000
    """random starts of descent for each number of hidden layers, shared among the targets"""
    flow_starts: int = 600
    """the same for gradient flow"""
    spread: float = 0.5
    """standard deviation of the entries of a random start"""
    step_share: float = 0.2
    """the step size of descent as a share of the critical one"""
    special_starts: int = 60
    """starts in each set that leads to saddles"""
    nudge: float = 1e-3
    """how far from these sets they are started once more"""
    lingering_spreads: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)
    """standard deviations of the starts whose time near saddles is taken"""
    lingering_starts: int = 40
    """orbits of gradient flow for each of them, for each target and number of hidden layers"""
    band: float = 0.1
    """near a saddle is a loss within this share of the distance to the next critical value"""
    time: float = 20_000.0
    """how long gradient flow runs at the most"""
    loss_tol: float = 1e-12
    """descent has come to a global minimum when the loss is this close to its infimum"""
    grad_tol: float = 1e-9
    """descent has come to a critical point when the norm of the gradient is at most this"""
    flow_tol: float = 1e-10
    """the tolerance of the loss for gradient flow; its square root is that of the gradient, divided by 100"""
    escape_radius: float = 1e3
    """diverged when the norm of the parameters exceeds this"""
    max_steps: int = 200_000
    """updates of descent at the most"""
    seed: int = 0
    """of targets and starts"""
    precision: Literal[32, 64] = 64
    """bits of a number"""
    out: Path = Path("runs/overfitting")
    """directory of the results"""
    overwrite: bool = False
    """replace the run that is in the directory"""
    resume: bool = False
    """continue the interrupted run that is in the directory"""


STUDIES = {
    "heatmap": Heatmap,
    "orbit": Orbit,
    "critical": Critical,
    "spectrum": Spectrum,
    "overfitting": Overfitting,
}
_NOT_IDENTITY = {"out", "overwrite", "resume"}  # where a result lies is no part of what it is


def configuration(options) -> dict:
    """All that decides a run's result, as plain JSON values.

    >>> configuration(Heatmap())["loss"]
    {'name': 'scalar', 'depth': 2, 'target': 1.0, 'scale': 1.0}
    """
    fields = {name: value for name, value in dataclasses.asdict(options).items() if name not in _NOT_IDENTITY}
    if "loss" in fields:
        fields["loss"] = {"name": type(options.loss).__name__.lower(), **fields["loss"]}
    return {"study": type(options).__name__.lower(), **_plain(fields)}


def parse_range(text: str) -> list[float]:
    """Numbers from `low:high:number`, both ends included, or from a list with commas.

    >>> parse_range("0.1:0.5:3"), parse_range("0.5,2")
    ([0.1, 0.3, 0.5], [0.5, 2.0])
    """
    words = text.split(":")
    try:
        if len(words) == 1:
            return [float(word) for word in text.split(",")]
        low, high, number = float(words[0]), float(words[1]), int(words[2]) if len(words) == 3 else 0
    except ValueError:
        number = 0
    if number < 2 or not low < high:
        raise ValueError(
            f"expected low:high:number with low < high and at least two numbers, such as 0.02:0.6:30, or numbers with "
            f"commas between them, but got {text!r}"
        )
    return [(low * (number - 1 - i) + high * i) / (number - 1) for i in range(number)]


def _plain(value):
    """Tuples as lists, as JSON reads them back; numbers JSON does not know as words."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
