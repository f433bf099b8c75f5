"""The two ends of a spectrum, with residuals: dense below a size, Lanczos above."""

from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from gdstab._numerics import length
from gdstab._staging import staged
from gdstab._types import LossFn, Point, Scalar, Theta
from gdstab._validate import check_count
from gdstab.curvature.exact import eigenvalues, flatten, hessian, hvp

DENSE_LIMIT = 512
"""Up to this many parameters extreme eigenvalues come from the dense Hessian, above it from Lanczos."""


ROUNDINGS = 16
"""Multiples of the machine epsilon, relative to the operator, below which Lanczos takes a vector for rounding."""


class Eigenpair(NamedTuple):
    r"""An eigenvalue with its unit vector $v$ (flat) and the residual $\|Hv - \lambda v\|_2$.

    Some exact eigenvalue lies within `residual` of `value`. That it is the extreme one is certain on the dense path,
    and almost sure over the random start on the Lanczos path.
    """

    value: Scalar
    vector: Point
    residual: Scalar


class Extremes(NamedTuple):
    """The algebraically smallest and largest eigenpair."""

    smallest: Eigenpair
    largest: Eigenpair


def lanczos(matvec: Callable, start: Point, key: Key[Array, ""], num_matvecs: int):
    r"""Orthonormal rows $Q$ and tridiagonal $T = Q H Q^T$, fully re-orthogonalised (Parlett 1998, section 6.9, 13.4).

    Where the Krylov space is exhausted (repeated eigenvalues, few distinct ones) the iteration goes on from a fresh
    random vector orthogonal to it, with coupling zero: padding by zeros would plant a false eigenvalue 0. Exhausted is
    what rounding leaves, `ROUNDINGS` of the largest row so far whatever the length: couplings near 1 below an
    eigenvalue 100 are no rounding, in single precision and with many parameters neither.
    """
    return staged(lambda start, key: _lanczos(matvec, start, key, num_matvecs), start, key)


def _lanczos(matvec, start, key, num_matvecs):
    n, dtype = start.shape[0], start.dtype

    def orthogonalise(w, Q):
        for _ in range(2):  # twice is enough (Kahan, in Parlett 1998, section 6.9)
            w = w - (Q @ w) @ Q
        return w

    def normalise(w):
        size = length(w)
        return w / jnp.where(size > 0, size, 1)

    def body(j, carry):
        Q, diagonal, coupling, v, scale = carry
        Q = Q.at[j].set(v)
        w = matvec(v)
        a = jnp.vdot(v, w)
        w = orthogonalise(w, Q)
        b = length(w)
        scale = jnp.maximum(scale, jnp.abs(a) + b)
        exhausted = b <= ROUNDINGS * jnp.finfo(dtype).eps * scale

        def fresh():
            return orthogonalise(
                normalise(orthogonalise(jax.random.normal(jax.random.fold_in(key, j), (n,), dtype), Q)), Q
            )

        v = normalise(lax.cond(exhausted, fresh, lambda: w))
        return Q, diagonal.at[j].set(a), coupling.at[j].set(jnp.where(exhausted, 0, b)), v, scale

    m = num_matvecs
    zero = jnp.zeros((), dtype)
    carry = (jnp.zeros((m, n), dtype), jnp.zeros(m, dtype), jnp.zeros(m, dtype), normalise(start), zero)
    Q, diagonal, coupling, _, _ = lax.fori_loop(0, m, body, carry)
    return Q, jnp.diag(diagonal) + jnp.diag(coupling[:-1], 1) + jnp.diag(coupling[:-1], -1)


def extreme_eigenvalues(
    loss: LossFn,
    theta: Theta,
    *,
    dense_limit: int = DENSE_LIMIT,
    num_matvecs: int = 128,
    key: Key[Array, ""] | None = None,
) -> Extremes:
    r"""The algebraically smallest and largest eigenpair of the Hessian, with residuals.

    Parameters
    ----------
    dense_limit
        With at most this many parameters the dense Hessian is decomposed; above, Lanczos with full
        re-orthogonalisation from a random start, whose residuals say whether it has converged.
    num_matvecs
        Hessian-vector products of Lanczos (at most $n$ are used, and then the answer is exact). It stores as many
        vectors of length $n$. If a residual is too large, raise it.
    key
        For the random start; a fixed key by default, so that the answer depends on nothing else.

    Notes
    -----
    The values are Rayleigh quotients $v^T H v$ with $v$ held fixed under differentiation, so their derivative is
    $v^T\, dH\, v$ (Hellmann-Feynman), exact for a simple eigenvalue once converged.

    Raises
    ------
    ValueError
        If `num_matvecs` is less than 1, `theta` holds no floating-point array, or the loss is not a scalar.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> low, high = extreme_eigenvalues(lambda x: 0.5 * jnp.sum(jnp.array([-7.0, 1.0, 3.0]) * x**2), jnp.zeros(3))
    >>> print(low.value, high.value, bool(high.residual < 1e-12))
    -7.0 3.0 True
    """
    num_matvecs = check_count(num_matvecs, "num_matvecs")
    dense_limit = check_count(dense_limit, "dense_limit", least=0)
    flat_loss, flat = flatten(loss, theta)
    key = jax.random.key(0) if key is None else key
    return staged(lambda x, key: _extremes(flat_loss, x, key, dense_limit, num_matvecs), flat, key)


def _extremes(flat_loss, flat, key, dense_limit, num_matvecs) -> Extremes:
    with jax.default_matmul_precision("highest"):
        if flat.shape[0] <= dense_limit:
            H = hessian(flat_loss, flat)
            vectors = jnp.linalg.eigh(lax.stop_gradient(H))[1].T

            def matvec(v):
                return H @ v
        else:
            key_start, key_fresh = jax.random.split(key)
            start = jax.random.normal(key_start, flat.shape, flat.dtype)
            frozen = lax.stop_gradient(flat)
            m = min(num_matvecs, flat.shape[0])
            Q, T = _lanczos(lambda v: hvp(flat_loss, frozen, v), start, key_fresh, m)
            vectors = jnp.linalg.eigh(lax.stop_gradient(T))[1].T @ lax.stop_gradient(Q)

            def matvec(v):
                return hvp(flat_loss, flat, v)

        return Extremes(_eigenpair(matvec, vectors[0]), _eigenpair(matvec, vectors[-1]))


def _eigenpair(matvec: Callable, v: Point) -> Eigenpair:
    """The Rayleigh quotient at `v`, with its residual measured, not estimated."""
    v = lax.stop_gradient(v / jnp.linalg.norm(v))
    Hv = matvec(v)
    value = jnp.vdot(v, Hv)
    return Eigenpair(value, v, length(lax.stop_gradient(Hv - value * v)))


@overload
def sharpness(loss: LossFn, theta: Theta, *, return_residual: Literal[False] = False, **lanczos) -> Scalar: ...
@overload
def sharpness(loss: LossFn, theta: Theta, *, return_residual: Literal[True], **lanczos) -> tuple[Scalar, Scalar]: ...
def sharpness(
    loss: LossFn,
    theta: Theta,
    *,
    return_residual: bool = False,
    dense_limit: int = DENSE_LIMIT,
    num_matvecs: int = 128,
    key: Key[Array, ""] | None = None,
) -> Scalar | tuple[Scalar, Scalar]:
    r"""$\lambda_{\max}(\nabla^2 L(\theta))$, the algebraically largest eigenvalue.

    Descent is linearly stable at a minimum for $\eta < 2/\lambda_{\max}$ (Cohen et al. 2021, arXiv:2103.00065).
    The parameters are those of `extreme_eigenvalues`. With `return_residual` the answer is `(value, residual)`, where
    the residual $\|Hv - \lambda v\|_2$ bounds the distance to an exact eigenvalue: ask for it above `dense_limit`.

    >>> import jax.numpy as jnp
    >>> print(sharpness(lambda t: 0.5 * (t[0] * t[1] - 1) ** 2, jnp.array([2.0, 0.5])))  # x^2 + y^2
    4.25
    """
    dense_limit = check_count(dense_limit, "dense_limit", least=0)
    if not return_residual and flatten(loss, theta)[1].shape[0] <= dense_limit:
        return eigenvalues(loss, theta)[-1]
    top = extreme_eigenvalues(loss, theta, dense_limit=dense_limit, num_matvecs=num_matvecs, key=key).largest
    return (top.value, top.residual) if return_residual else top.value
