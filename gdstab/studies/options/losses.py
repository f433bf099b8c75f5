"""Which loss: one frozen dataclass for each family."""

import dataclasses
from typing import TypeAlias


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
class Regularised:
    """scale * (target - xy)^2 + (decay / 2) (x^2 + y^2): with decay > 0 the edges of its basins are fractal."""

    decay: float = 0.2
    """weight of the penalty; 0 gives the product alone, whose basin has a smooth edge"""
    target: float = 1.0
    """what the product should be"""
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


Loss: TypeAlias = Scalar | Vector | Regularised | Linear | Quadratic | Rosenbrock | Himmelblau | Doublewell | Custom
