"""Shallow ReLU networks in exact rational arithmetic: risk, gradients, modified gradients and their Jacobians.

A network is a list of 3N + 1 fractions (w, b, v, c). Nothing here rounds and nothing is shared with `losses` or
`theory`: a zero found here is zero. For a few networks of a few neurons.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from numbers import Rational
from typing import Any, NamedTuple

import numpy as np

BOOLE = tuple(Fraction(weight, 90) for weight in (7, 32, 12, 32, 7))
"""Weights at five equidistant nodes: exact for polynomials of degree 5."""


class Problem(NamedTuple):
    """An interval, a polynomial target of degree 2 at most (coefficients lowest first), and the leak."""

    low: Fraction
    high: Fraction
    target: tuple[Fraction, ...]
    leak: Fraction = Fraction(0)


class Dual:
    """A number with its derivative along one direction."""

    __slots__ = ("slope", "value")

    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def __add__(self, other):
        return Dual(self.value + value(other), self.slope + slope(other))

    def __mul__(self, other):
        return Dual(self.value * value(other), self.slope * value(other) + self.value * slope(other))

    def __neg__(self):
        return Dual(-self.value, -self.slope)

    def __sub__(self, other):
        return self + -other

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        quotient = self.value / value(other)
        return Dual(quotient, (self.slope - quotient * slope(other)) / value(other))

    def __rtruediv__(self, other):
        return Dual(Fraction(other), Fraction(0)) / self

    __radd__, __rmul__ = __add__, __mul__


def value(x) -> Rational:
    """The number without its derivative."""
    return x.value if isinstance(x, Dual) else x


def slope(x) -> Rational:
    """The derivative; 0 of what is fixed."""
    return x.slope if isinstance(x, Dual) else Fraction(0)


def fractions(numbers: Iterable[Any], denominator: int = 64) -> list[Fraction]:
    """Rounded to a multiple of 1 / `denominator`.

    >>> fractions([0.3, -1.0], 10)
    [Fraction(3, 10), Fraction(-1, 1)]
    """
    return [Fraction(round(float(x) * denominator), denominator) for x in numbers]


def floats(numbers: Sequence[Rational]) -> np.ndarray:
    """The nearest floats."""
    return np.array([float(x) for x in numbers])


def moved(theta: Sequence[Fraction], direction: Sequence[Fraction], length: Fraction) -> list[Fraction]:
    """The point at `length` times `direction`."""
    return [x + length * d for x, d in zip(theta, direction, strict=True)]


def risk(theta: Sequence[Any], problem: Problem) -> Any:
    r"""$L(\theta)$.

    >>> one = Fraction(1)
    >>> risk([one, -one, one, one / 2], Problem(0 * one, one, (0 * one, one)))  # the best constant
    Fraction(1, 12)
    """
    pieces = _pieces(theta, problem, problem.low, problem.high)
    squares = (lambda x, slopes=slopes: _residual(theta, problem, slopes, x) ** 2 for _, _, slopes in pieces)
    return sum(_integral(square, *piece[:2]) for square, piece in zip(squares, pieces, strict=True))


def gradient(theta: Sequence[Any], problem: Problem, rising: Sequence[int] = (), falling: Sequence[int] = ()) -> list:
    r"""The modified gradient $G^J$, J = (`rising`, `falling`), zero at degenerate neurons; G for J empty."""
    w, b, v, _ = split(theta)
    whole = _moments(theta, problem, problem.low, problem.high)
    rows = []
    for j in range(len(w)):
        if j in (*rising, *falling) and value(w[j]) != 0:
            t = -b[j] / w[j]
            moments = _moments(theta, problem, *((t, problem.high) if j in rising else (problem.low, t)))
            level, tilt = (sum(part[k] for part in moments) for k in (0, 1))
        else:
            alive = value(w[j]) != 0 or value(b[j]) != 0
            level, tilt = (sum(part[k] * (part[2][j] * alive) for part in whole) for k in (0, 1))
        rows.append((2 * v[j] * tilt, 2 * v[j] * level, 2 * (w[j] * tilt + b[j] * level)))
    return [row[k] for k in range(3) for row in rows] + [2 * sum(part[0] for part in whole)]


def jacobian(theta: Sequence[Fraction], problem: Problem, rising=(), falling=()) -> list[list[Rational]]:
    r"""The Jacobian of $G^J$ by dual numbers, rows first; where G^J has none, that of one side."""
    columns = [_column(theta, i, problem, rising, falling) for i in range(len(theta))]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(theta, i, problem, rising, falling):
    lifted = [Dual(x, Fraction(1)) if k == i else x for k, x in enumerate(theta)]
    return [slope(entry) for entry in gradient(lifted, problem, rising, falling)]


def determinant(matrix: Sequence[Sequence[Rational]]) -> Fraction:
    """By Gaussian elimination.

    >>> determinant([[Fraction(0), Fraction(2)], [Fraction(3), Fraction(4)]])
    Fraction(-6, 1)
    """
    rows, product = [list(row) for row in matrix], Fraction(1)
    while rows:
        pivot = next((i for i, row in enumerate(rows) if row[0]), None)
        if pivot is None:
            return Fraction(0)
        first = rows.pop(pivot)
        product *= first[0] * (-1) ** pivot
        rows = [[x - row[0] / first[0] * y for x, y in zip(row[1:], first[1:], strict=True)] for row in rows]
    return product


def is_symmetric(matrix: Sequence[Sequence[Rational]]) -> bool:
    """Entry by entry."""
    return all(matrix[i][j] == matrix[j][i] for i in range(len(matrix)) for j in range(i))


def form(matrix: Sequence[Sequence[Rational]], vector: Sequence[Fraction]) -> Rational:
    """The quadratic form of a matrix at a vector."""
    return sum(x * a * y for x, row in zip(vector, matrix, strict=True) for a, y in zip(row, vector, strict=True))


def difference(values: Sequence[Rational]) -> Rational:
    """The finite difference that uses all the values: zero for polynomials of degree below their number less one.

    >>> difference([Fraction(k**2) for k in range(4)])
    Fraction(0, 1)
    """
    values = list(values)
    while len(values) > 1:
        values = [after - before for before, after in itertools.pairwise(values)]
    return values[0]


def split(theta: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Any]:
    """The parts (w, b, v, c)."""
    N = len(theta) // 3
    return theta[:N], theta[N : 2 * N], theta[2 * N : 3 * N], theta[-1]


def _residual(theta, problem, slopes, x):
    """On a piece, where every neuron is a line."""
    w, b, v, c = split(theta)
    network = c + sum(v[n] * slopes[n] * (w[n] * x + b[n]) for n in range(len(w)) if slopes[n])
    power, target = Fraction(1), Fraction(0)
    for coefficient in problem.target:
        target, power = target + coefficient * power, power * x
    return network - target


def _integral(integrand: Callable, start, end):
    nodes = [start + (end - start) * Fraction(k, 4) for k in range(5)]
    return (end - start) * sum(weight * integrand(x) for weight, x in zip(BOOLE, nodes, strict=True))


def _moments(theta, problem, start, end):
    """The integrals of r and of x r over every piece from `start` to `end`, and the neurons' slopes there."""
    sign = 1 if value(start) <= value(end) else -1
    out = []
    for *ends, slopes in _pieces(theta, problem, *((start, end) if sign > 0 else (end, start))):
        level = _integral(lambda x, slopes=slopes: _residual(theta, problem, slopes, x), *ends)
        tilt = _integral(lambda x, slopes=slopes: x * _residual(theta, problem, slopes, x), *ends)
        out.append((sign * level, sign * tilt, slopes))
    return out


def _pieces(theta, problem, start, end):
    """Cut at the breakpoints; equal ones leave an empty piece, whose ends may still move apart."""
    w, b, _, _ = split(theta)
    cuts = [(-b[j] / w[j], j) for j in range(len(w)) if value(w[j]) != 0]
    cuts = sorted((cut for cut in cuts if value(start) < value(cut[0]) < value(end)), key=lambda cut: value(cut[0]))
    middle = (value(start) + value(end)) / 2
    active = [value(w[j]) * middle + value(b[j]) > 0 for j in range(len(w))]
    for _, j in cuts:
        active[j] = value(w[j]) < 0
    pieces = []
    for t, j in [*cuts, (end, None)]:
        pieces.append((start, t, [Fraction(1) if on else problem.leak for on in active]))
        if j is not None:
            start, active[j] = t, not active[j]
    return pieces
