"""Exact curvature: the Hessian, its products with vectors, its eigenvalues and their signs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int32

from gdstab._numerics import rank_tolerance
from gdstab._staging import staged
from gdstab._types import LossFn, Point, Scalar, Theta
from gdstab._validate import as_theta, check_loss


class Inertia(NamedTuple):
    """Numbers of negative, zero and positive eigenvalues; they add up to less than `n` only if some are not finite."""

    negative: Int32[Array, ""]
    zero: Int32[Array, ""]
    positive: Int32[Array, ""]


def flatten(loss: LossFn, theta: Theta) -> tuple[Callable[[Point], Scalar], Point]:
    """Give the loss on flat vectors, and `theta` as one; ValueError if the loss is no scalar or `theta` no floats."""
    theta = check_loss(loss, theta)
    flat, unravel = ravel_pytree(theta)
    return lambda x: loss(unravel(x)), flat


def hessian(loss: LossFn, theta: Theta) -> Float[Array, "n n"]:
    r"""Exact $\nabla^2 L(\theta)$ as one symmetric matrix, rows and columns in the order of `ravel_pytree(theta)`.

    >>> import jax.numpy as jnp
    >>> print(hessian(lambda t: 0.5 * (t["x"] * t["y"] - 1) ** 2, {"x": jnp.array(2.0), "y": jnp.array(0.5)}))
    [[0.25 1.  ]
     [1.   4.  ]]
    """
    flat_loss, flat = flatten(loss, theta)
    return staged(lambda x: _hessian(flat_loss, x), flat)


def _hessian(flat_loss, flat):
    with jax.default_matmul_precision("highest"):
        H = jax.hessian(flat_loss)(flat)
    return (H + H.T) / 2  # autodiff is symmetric only to rounding


def hvp(loss: LossFn, theta: Theta, vector: Theta) -> Theta:
    r"""$\nabla^2 L(\theta)\, v$ by forward-over-reverse; `vector` and the result have the structure of `theta`."""
    theta, vector = (jax.tree.map(jnp.asarray, as_theta(tree)) for tree in (theta, vector))

    def product(theta, vector):
        with jax.default_matmul_precision("highest"):
            return jax.jvp(jax.grad(loss), (theta,), (vector,))[1]

    return staged(product, theta, vector)


def matrix_eigenvalues(matrix: Float[Array, "n n"]) -> Float[Array, " n"]:
    r"""Eigenvalues of one symmetric matrix, ascending: by formula for $n \le 2$, by `eigvalsh` above.

    For $n = 2$ they are $m \pm \rho$ with $m = (a + c)/2$ and $\rho = \sqrt{((a - c)/2)^2 + b^2}$. Where they
    coincide, the derivative returned is that of $m$, an element of the subdifferential of $\lambda_{\max}$. A cyclic
    Jacobi method with the batch on the trailing axis was measured against LAPACK at $n = 12$ and is not worth its
    code on CPU: 0.5 to 1.2 times as fast (`benchmarks/bench_curvature.py`).
    """
    n = matrix.shape[0]
    if n == 1:
        return matrix[0]
    if n > 2:
        return jnp.linalg.eigvalsh(matrix)
    a, b, c = matrix[0, 0], (matrix[0, 1] + matrix[1, 0]) / 2, matrix[1, 1]
    mean, difference = a / 2 + c / 2, a / 2 - c / 2
    scale = jnp.maximum(jnp.abs(difference), jnp.abs(b))
    unit = lax.stop_gradient(jnp.where(scale > 0, scale, 1))  # squares of entries must not overflow
    square = (difference / unit) ** 2 + (b / unit) ** 2
    tied = square == 0
    radius = unit * jnp.where(tied, 0, jnp.sqrt(jnp.where(tied, 1, square)))  # sqrt has no derivative at 0
    return jnp.stack([mean - radius, mean + radius])


def eigenvalues(loss: LossFn, theta: Theta) -> Float[Array, " n"]:
    """All eigenvalues of the Hessian, ascending."""
    flat_loss, flat = flatten(loss, theta)
    return staged(lambda x: matrix_eigenvalues(_hessian(flat_loss, x)), flat)


def count_signs(values: Float[Array, " n"], tol: Scalar | float | None = None) -> Inertia:
    r"""Count the eigenvalues below $-\text{tol}$, within $\pm\text{tol}$, and above.

    By default $\text{tol} = \max(n\epsilon, \epsilon^{3/4}) \max_i |\lambda_i|$ with $\epsilon$ of the dtype, and
    $8 \sqrt n$ for n where that is less: above the rounding of an exact Hessian, far below any eigenvalue that a
    double-precision study resolves.
    """
    if tol is None:
        tol = rank_tolerance(values.shape, values.dtype) * jnp.max(jnp.abs(values))
    tol = jnp.asarray(tol, values.dtype)
    groups = (values < -tol, jnp.abs(values) <= tol, values > tol)
    return Inertia(*(jnp.sum(group, dtype=jnp.int32) for group in groups))


def inertia(loss: LossFn, theta: Theta, tol: Scalar | float | None = None) -> Inertia:
    r"""$(n_-, n_0, n_+)$ of the Hessian; see `count_signs` for the default tolerance.

    >>> import jax.numpy as jnp
    >>> print(*inertia(lambda x: x[0] ** 2 - x[1] ** 2 + x[2] ** 4, jnp.zeros(3)))
    1 1 1
    """
    return count_signs(eigenvalues(loss, theta), tol)


def inertia_of_matrix(matrix, tol: float | None = None) -> Inertia:
    r"""$(n_-, n_0, n_+)$ of a symmetric matrix that the caller brings; checked on the host, so not for use under jit.

    Raises
    ------
    ValueError
        If the matrix is not square, not finite, or differs from its transpose by more than rounding explains.
    """
    values = np.asarray(matrix)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(float)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.size == 0:
        raise ValueError(f"A Hessian must be a square matrix, but got shape {values.shape}.")
    if not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        raise ValueError(
            f"A Hessian must be finite, but {len(bad)} entries are not, first at {tuple(bad[0].tolist())}. "
            "Did the orbit that led here diverge?"
        )
    gap, scale = float(np.abs(values - values.T).max()), float(np.abs(values).max())
    if gap > float(np.finfo(values.dtype).eps) ** 0.5 * scale:
        raise ValueError(
            f"A Hessian must be symmetric, but max |H - H^T| = {gap:.3g} against entries up to {scale:.3g}. "
            "Pass (H + H.T) / 2 if the difference is meant; for the Jacobian of an update use `stability.multipliers`."
        )
    return count_signs(matrix_eigenvalues(jnp.asarray((values + values.T) / 2)), tol)
