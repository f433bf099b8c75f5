"""Standard test functions with known minima."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gdstab._numerics import UNROLL_LIMIT, as_floats, matmul, tree_sum
from gdstab._types import Point, Scalar
from gdstab._validate import check_positive, is_concrete


class Quadratic(eqx.Module):
    r"""Quadratic form with the one half: $L(x) = \tfrac12 (x - m)^T A (x - m)$, with Hessian $A$.

    For positive $A$ descent converges iff $\eta < 2 / \lambda_{\max}(A)$. (Paper A, Remark 21, writes $x^T A x$: its
    Hessian is $2A$, and the threshold $1 / \lambda_{\max}(A)$.)

    Parameters
    ----------
    matrix
        The symmetric matrix $A$, [dim, dim]. It may be indefinite; the loss then has no infimum.
    center
        The critical point $m$, [dim]; the origin if None.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> loss = Quadratic(jnp.diag(jnp.array([2.0, 4.0])))
    >>> float(loss(jnp.array([1.0, 1.0])))
    3.0
    """

    matrix: Float[Array, "dim dim"] = eqx.field(converter=as_floats)
    center: Float[Array, " dim"] | None = eqx.field(default=None, converter=as_floats)

    def __check_init__(self):
        shape = jnp.shape(self.matrix)
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise ValueError(f"expected a square matrix, got shape {shape}; pass one of shape [dim, dim]")
        if self.center is not None and jnp.shape(self.center) != shape[:1]:
            raise ValueError(
                f"expected a center of shape {shape[:1]}, got {jnp.shape(self.center)}; pass one entry per row"
            )
        if is_concrete(self.matrix) and not bool((self.matrix == self.matrix.T).all()):
            raise ValueError("expected a symmetric matrix, got one that is not; pass (A + A.T) / 2")

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        shifted = self._shifted(theta)
        image = matmul(self.matrix.astype(theta.dtype), shifted[:, None])[:, 0]
        return tree_sum(shifted * image) / 2

    def residual(self, theta: Point) -> Point:
        """The gradient $A (x - m)$, zero exactly on the minima of a positive semidefinite form."""
        return matmul(self.matrix.astype(theta.dtype), self._shifted(theta)[:, None])[:, 0]

    def one_block(self, theta) -> bool:
        """Whether rounding depends on the lanes side by side: beyond what `matmul` writes out. See `ensembles.run`."""
        return theta.shape[0] > UNROLL_LIMIT

    @property
    def loss_floor(self) -> float:
        r"""The infimum: 0 of a positive semidefinite form, to rounding, and $-\infty$ of an indefinite one."""
        if not is_concrete(self.matrix):
            return 0.0
        values = np.linalg.eigvalsh(np.asarray(self.matrix))
        rounding = len(values) * np.finfo(values.dtype).eps * np.abs(values).max()
        return 0.0 if values[0] >= -rounding else -math.inf

    def minimum(self) -> Point:
        """The critical point $m$."""
        return jnp.zeros(self.matrix.shape[0], self.matrix.dtype) if self.center is None else self.center

    def _shifted(self, theta):
        return theta if self.center is None else theta - self.center.astype(theta.dtype)


class Rosenbrock(eqx.Module):
    r"""Rosenbrock's valley, $L(x) = \sum_{i=1}^{n-1} \left[b\,(x_{i+1} - x_i^2)^2 + (1 - x_i)^2\right]$.

    One global minimum, (1, ..., 1), with value 0; a second, local one for $4 \le n \le 7$ (Rosenbrock 1960; Shang and
    Qiu 2006). For n = 2 and b = 100 the sharpness there is 501 + sqrt(250601).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(Rosenbrock()(jnp.zeros(2))), float(Rosenbrock()(jnp.ones(3)))
    (1.0, 0.0)
    """

    steepness: ArrayLike = 100.0

    def __check_init__(self):
        if is_concrete(self.steepness):
            check_positive(self.steepness, "steepness")

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        bend, head = self._terms(theta)
        return tree_sum(jnp.asarray(self.steepness, theta.dtype) * jnp.square(bend) + jnp.square(head))

    def residual(self, theta: Point) -> Float[Array, " residuals"]:
        """The terms under the squares without their weights, [2 (n - 1)]; zero exactly at (1, ..., 1)."""
        return jnp.concatenate(self._terms(theta))

    loss_floor: ClassVar[float] = 0.0
    """The infimum."""

    def minimum(self, dim: int = 2) -> Point:
        """The global minimum (1, ..., 1)."""
        return jnp.ones(dim)

    def _terms(self, theta):
        if theta.ndim != 1 or theta.size < 2:
            raise ValueError(f"expected theta with at least 2 entries, got shape {theta.shape}; pass one point")
        head, tail = theta[:-1], theta[1:]
        return tail - jnp.square(head), 1 - head


class Himmelblau(eqx.Module):
    r"""Himmelblau's function, $L(x, y) = (x^2 + y - 11)^2 + (x + y^2 - 7)^2$, with four global minima.

    They are (3, 2), (-2.805118, 3.131313), (-3.779310, -3.283186) and (3.584428, -1.848127), all of value 0
    (Himmelblau 1972, Applied Nonlinear Programming).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(Himmelblau()(jnp.array([3.0, 2.0]))), float(Himmelblau()(jnp.zeros(2)))
    (0.0, 170.0)
    """

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        first, second = self._terms(theta)
        return jnp.square(first) + jnp.square(second)

    def residual(self, theta: Point) -> Float[Array, "2"]:
        """The two terms under the squares; zero exactly at the four minima."""
        return jnp.stack(self._terms(theta))

    loss_floor: ClassVar[float] = 0.0
    """The infimum."""

    def minimum(self) -> Point:
        """The minimum with integer coordinates, (3, 2)."""
        return jnp.array([3.0, 2.0])

    def minima(self) -> Float[np.ndarray, "4 2"]:
        r"""All four, in the order of their places.

        Eliminating $y = 11 - x^2$ leaves a quartic with the root 3, and $x^3 + 3x^2 - 13x - 38$ over it.
        """
        x = np.sort(np.append(np.roots([1.0, 3.0, -13.0, -38.0]).real, 3.0))
        return np.stack([x, 11 - x**2], axis=1)

    def _terms(self, theta):
        if theta.shape != (2,):
            raise ValueError(f"expected theta of shape (2,), got {theta.shape}; pass one point, unbatched")
        x, y = (part[0] for part in jnp.split(theta, 2))
        return jnp.square(x) + y - 11, x + jnp.square(y) - 7


class DoubleWell(eqx.Module):
    r"""Double well, $L(x) = \tfrac14 (x_1^2 - 1)^2 + \tfrac12 \sum_{i > 1} x_i^2$: minima $\pm e_1$, a saddle at 0.

    The sharpness at the minima is 2, so they are stable for $\eta < 1$; a box symmetric in $x_1$ gives each well half
    of what converges, by the symmetry $x_1 \to -x_1$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(DoubleWell()(jnp.array([0.0]))), float(DoubleWell()(jnp.array([-1.0, 2.0])))
    (0.25, 2.0)
    """

    def __call__(self, theta: Point) -> Scalar:
        """The loss at one point."""
        self._check(theta)
        squares = jnp.square(theta)
        first = np.arange(theta.size) == 0  # not slices: joining their gradients branches, and rounds as it branches
        return tree_sum(jnp.where(first, jnp.square(squares - 1) / 4, squares / 2))

    def residual(self, theta: Point) -> Point:
        r"""The vector $(x_1^2 - 1, x_2, \ldots)$, zero exactly at the two minima."""
        self._check(theta)
        return jnp.concatenate([theta[:1] * theta[:1] - 1, theta[1:]])

    loss_floor: ClassVar[float] = 0.0
    """The infimum."""

    def minimum(self, dim: int = 1) -> Point:
        """The minimum $e_1$; the other is its negative."""
        return jnp.zeros(dim).at[0].set(1.0)

    def _check(self, theta):
        if theta.ndim != 1 or theta.size < 1:
            raise ValueError(f"expected theta of shape (dim,), got {theta.shape}; pass one point, unbatched")
