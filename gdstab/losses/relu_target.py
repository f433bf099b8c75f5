"""Targets on an interval that a shallow network is fitted to: polynomials, and straight pieces between knots."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._validate import is_concrete


def _as_floats(values):
    """A tuple of floats, each a leaf that the engine traces."""
    return tuple(float(x) if isinstance(x, int | float | np.number) else x for x in values)


def _as_vector(values):
    """Numbers become a floating array; what a partition or a transformation puts in their place stays."""
    return jnp.asarray(np.asarray(values, float)) if isinstance(values, list | tuple | np.ndarray) else values


class Polynomial(eqx.Module):
    r"""The polynomial $f(x) = \sum_k a_k x^k$, on the whole line.

    Parameters
    ----------
    coefficients
        The numbers $a_0, a_1, \ldots$, lowest first; at least one.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Polynomial((1.0, 0.0, 2.0))(jnp.array([0.0, 3.0])).tolist()
    [1.0, 19.0]
    """

    coefficients: tuple[ArrayLike, ...] = eqx.field(converter=_as_floats)

    def __check_init__(self):
        if not self.coefficients:
            raise ValueError("target: expected at least one coefficient, got none; pass (0.0,) for the zero target")
        for value in self.coefficients:
            if is_concrete(value) and not (np.ndim(value) == 0 and np.isfinite(value)):
                raise ValueError(f"target: expected finite coefficients, lowest first, got {value!r} among them")

    @property
    def degree(self) -> int:
        """The formal degree: one less than the number of coefficients."""
        return len(self.coefficients) - 1

    @property
    def edges(self) -> Float[Array, "0"]:
        """Where the formula changes: nowhere."""
        return jnp.zeros(0)

    def __call__(self, x: Float[Array, "*points"]) -> Float[Array, "*points"]:
        """The values at many points."""
        return self.taylor(x)[0]

    def taylor(self, x: Float[Array, "*points"]) -> list[Float[Array, "*points"]]:
        r"""The numbers $f^{(k)}(x) / k!$ for $k = 0, \ldots$, degree, by repeated synthetic division."""
        terms = [jnp.broadcast_to(jnp.asarray(a, x.dtype), x.shape) for a in self.coefficients]
        for k in range(len(terms)):
            for i in reversed(range(k, len(terms) - 1)):
                terms[i] = terms[i] + x * terms[i + 1]
        return terms


class PiecewiseLinear(eqx.Module):
    r"""Straight pieces between the points $(x_k, y_k)$; the outer ones go on beyond the first and the last knot.

    Parameters
    ----------
    knots
        The abscissae $x_0 < x_1 < \ldots$, at least two, [knots].
    values
        The ordinates $y_k$, [knots].

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> PiecewiseLinear((0.0, 1.0, 3.0), (0.0, 2.0, 0.0))(jnp.array([0.5, 2.0, 4.0])).tolist()
    [1.0, 1.0, -1.0]
    """

    knots: Float[Array, " knots"] = eqx.field(converter=_as_vector)
    values: Float[Array, " knots"] = eqx.field(converter=_as_vector)

    def __check_init__(self):
        shapes = jnp.shape(self.knots), jnp.shape(self.values)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] < 2:
            raise ValueError(f"expected as many values as knots, two at the least, got shapes {shapes[0]}, {shapes[1]}")
        for name, numbers in (("knots", self.knots), ("values", self.values)):
            if is_concrete(numbers) and not bool(jnp.isfinite(numbers).all()):
                raise ValueError(f"{name}: expected finite numbers, got {numbers}; drop the others")
        if is_concrete(self.knots) and not bool((jnp.diff(self.knots) > 0).all()):
            raise ValueError(f"knots: expected increasing numbers, got {self.knots}; sort them and merge equal ones")

    @property
    def degree(self) -> int:
        """Of every piece: 1."""
        return 1

    @property
    def edges(self) -> Float[Array, " inner"]:
        """Where the formula changes: the inner knots."""
        return self.knots[1:-1]

    def __call__(self, x: Float[Array, "*points"]) -> Float[Array, "*points"]:
        """The values at many points."""
        return self.taylor(x)[0]

    def taylor(self, x: Float[Array, "*points"]) -> list[Float[Array, "*points"]]:
        """Value and slope of the piece that holds `x`; at an inner knot of the piece on its right."""
        column = (-1,) + (1,) * x.ndim
        knots, values = (numbers.astype(x.dtype) for numbers in (self.knots, self.values))
        slopes = jnp.diff(values) / jnp.diff(knots)
        left, right = (jnp.concatenate(ends).reshape(column) for ends in _brackets(knots))
        here = (left <= x[None]) & (x[None] < right)
        start, level, slope = (part.reshape(column) for part in (knots[:-1], values[:-1], slopes))
        value = jnp.sum(jnp.where(here, level + slope * (x[None] - start), 0), axis=0)
        return [value, jnp.sum(jnp.where(here, jnp.broadcast_to(slope, here.shape), 0), axis=0)]


def _brackets(knots):
    """Left and right ends of the pieces, the outer ones at infinity."""
    infinity = jnp.full(1, jnp.inf, knots.dtype)
    return (-infinity, knots[1:-1]), (knots[1:-1], infinity)
