"""Several eigenpairs at the ends of a spectrum, with residuals: dense, by Lanczos, or by LOBPCG."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.sparse.linalg import lobpcg_standard
from jaxtyping import Array, Bool, Float, Key

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import length
from gdstab._staging import staged
from gdstab._types import LossFn, Point, Scalar, Theta
from gdstab._validate import check_count
from gdstab.curvature.extremes import DENSE_LIMIT, _lanczos
from gdstab.curvature.operators import Operator, hessian_operator

WHICH = ("largest", "smallest", "both", "magnitude")
METHODS = ("dense", "lanczos", "lobpcg")
_FEW = 128  # products of Lanczos at the least, as in `extreme_eigenvalues`


@recorded({"values": "pair", "residuals": "pair", "vectors": ("pair", "parameter")})
class Eigenpairs(NamedTuple):
    r"""Eigenvalues with unit vectors, and how good they are."""

    values: Float[Array, " k"]
    """In the order that was asked for."""
    vectors: Float[Array, "k n"]
    """Orthonormal rows, in the order of `ravel_pytree(theta)`."""
    residuals: Float[Array, " k"]
    r"""$\|Av - \lambda v\|_2$, measured: an exact eigenvalue lies within that distance of each value."""


@entry
def top_eigenpairs(
    loss: LossFn,
    theta: Theta,
    k: int = 1,
    *,
    which: str = "largest",
    method: str | None = None,
    num_matvecs: int | None = None,
    key: Key[Array, ""] | None = None,
) -> Eigenpairs:
    r"""The `k` leading eigenpairs of the Hessian $\nabla^2 L(\theta)$: `operator_eigenpairs` of it.

    For some of the parameters pass `*curvature.block(loss, theta, where)`; for other matrices than the Hessian there is
    `operator_eigenpairs`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> found = top_eigenpairs(lambda x: 0.5 * jnp.sum(jnp.arange(6.0) * x**2), jnp.zeros(6), 2)
    >>> found.values.tolist(), found.vectors.shape, bool((found.residuals < 1e-12).all())
    ([5.0, 4.0], (2, 6), True)
    """
    operator = hessian_operator(loss, theta)
    return operator_eigenpairs(operator, k, which=which, method=method, num_matvecs=num_matvecs, key=key)


def operator_eigenpairs(
    operator: Operator,
    k: int = 1,
    *,
    which: str = "largest",
    method: str | None = None,
    num_matvecs: int | None = None,
    key: Key[Array, ""] | None = None,
) -> Eigenpairs:
    r"""The `k` leading eigenpairs of a symmetric operator.

    Parameters
    ----------
    operator
        Such as `gauss_newton(loss, theta)`, `ntk(loss, theta)`, or `Operator(product, like)` of one's own.
    k
        How many; with `which="both"` as many of either end, so at most half of the rows.
    which
        "largest" in descending order, "smallest" in ascending order, "both" (the smallest, then the largest), or by
        "magnitude", the largest first.
    method
        "dense": the whole matrix is decomposed, by default up to `DENSE_LIMIT` rows. "lanczos", by default above: with
        full re-orthogonalisation, and again on what is left until nothing larger turns up, so that an eigenvalue comes
        as often as it is one; it stores `num_matvecs` vectors. "lobpcg" (Knyazev 2001): stores about 3 k + 12 vectors,
        and takes more products.
    num_matvecs
        Products of each Lanczos sweep, by default 128 or 8 k, if that is more; where it reaches the number of rows the
        answer is exact. Iterations of LOBPCG, by default 100. Raise it if a residual is too large.
    key
        For the random start; a fixed one by default.

    Raises
    ------
    ValueError
        If there are fewer rows than eigenpairs were asked for, or `which` or `method` is unknown.
    """
    k = check_count(k, "k")
    for name, value, known in (("which", which, WHICH), ("method", method, (None, *METHODS))):
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}; choose one")
    wanted = 2 * k if which == "both" else k
    if wanted > operator.size:
        raise ValueError(
            f"expected at most as many eigenpairs as there are parameters, {operator.size}, got {wanted}; lower k"
        )
    method = method or ("dense" if operator.size <= DENSE_LIMIT else "lanczos")
    rank = k + min(k, 4)  # a few more than wanted converge faster
    if method == "lobpcg" and 5 * rank >= operator.size:
        method = "dense"  # what it cannot do
    if num_matvecs is None:
        num_matvecs = 100 if method == "lobpcg" else max(_FEW, 8 * k)
    num_matvecs = min(check_count(num_matvecs, "num_matvecs", least=k if method == "lanczos" else 1), operator.size)
    key = jax.random.key(0) if key is None else key

    def find(like, key):
        if method == "dense":
            vectors = _dense(operator, k, which)
        else:
            sweep = _sweeps if method == "lanczos" else _lobpcg
            signs = {"largest": (1,), "smallest": (-1,)}.get(which, (-1, 1))
            ends = [sweep(_signed(operator, sign, like.dtype), like, key, k, num_matvecs) for sign in signs]
            vectors = jnp.concatenate(ends)
        pairs = jax.tree.map(lambda *rows: jnp.stack(rows), *[_pair(operator.product, v) for v in vectors])
        return _by_magnitude(pairs, k) if which == "magnitude" else pairs

    with jax.default_matmul_precision("highest"):
        return staged(find, operator.like, key)


def _signed(operator: Operator, sign: int, dtype) -> Callable:
    return lambda v: jnp.asarray(sign, dtype) * operator.product(v)


def _pair(product: Callable, v: Point) -> Eigenpairs:
    """The Rayleigh quotient, whose derivative is that of the eigenvalue, and its residual."""
    v = lax.stop_gradient(v)
    Av = product(v)
    value = jnp.vdot(v, Av)
    return Eigenpairs(value, v, length(lax.stop_gradient(Av - value * v)))


def _by_magnitude(pairs: Eigenpairs, k: int) -> Eigenpairs:
    """The `k` largest by modulus; of an eigenvector that both ends have found, the second is passed over."""
    order = jnp.argsort(-jnp.abs(pairs.values), stable=True)
    values, vectors, residuals = (field[order] for field in pairs)
    overlap = jnp.abs(vectors @ vectors.T) > 0.5
    again = jnp.any(jnp.tril(overlap, -1), axis=1)
    first = jnp.argsort(again, stable=True)[:k]
    return Eigenpairs(values[first], vectors[first], residuals[first])


def _dense(operator: Operator, k: int, which: str) -> Float[Array, "rows n"]:
    matrix = jax.vmap(operator.product)(jnp.eye(operator.size, dtype=operator.like.dtype))
    values, columns = jnp.linalg.eigh(lax.stop_gradient(matrix + matrix.T) / 2)
    rows = columns.T
    if which == "magnitude":
        return rows[jnp.argsort(-jnp.abs(values), stable=True)[:k]]
    smallest, largest = rows[:k], rows[::-1][:k]
    return {"smallest": smallest, "largest": largest, "both": jnp.concatenate([smallest, largest])}[which]


class _Sweep(NamedTuple):
    """The largest pairs so far, in descending order."""

    values: Float[Array, " k"]
    rows: Float[Array, "k n"]
    locked: Bool[Array, " k"]  # converged, and out of the way of later sweeps
    scale: Scalar  # of the operator


def _sweeps(product: Callable, like: Point, key, k: int, num_matvecs: int) -> Float[Array, "k n"]:
    """Lanczos, again and again on what is orthogonal to what has converged, until nothing larger turns up.

    One sweep sees of each eigenspace the one direction that its start has in it. What has converged is moved to the
    lower end of the spectrum, where it is in nobody's way; what has not is looked for anew.
    """
    dtype, n = like.dtype, like.size
    product = _frozen(product)

    def sweep(found: _Sweep, number) -> _Sweep:
        values = jnp.where(found.locked, found.values, -jnp.inf)
        rows = jnp.where(found.locked[:, None], found.rows, 0)
        below = jnp.where(found.locked, -(jnp.abs(found.values) + 2 * found.scale), 0)
        start_key, fresh_key = jax.random.split(jax.random.fold_in(key, number))

        def rest(v):
            inside = rows @ v
            out = product(v - inside @ rows)
            return out - (rows @ out) @ rows + (below * inside) @ rows

        Q, T = _lanczos(rest, jax.random.normal(start_key, (n,), dtype), fresh_key, num_matvecs)
        ritz, columns = jnp.linalg.eigh(T)
        scale = jnp.maximum(found.scale, jnp.max(jnp.abs(ritz)))
        new = columns.T[::-1][:k] @ Q
        new_values = ritz[::-1][:k]
        residuals = jnp.linalg.norm(jax.vmap(product)(new) - new_values[:, None] * new, axis=1)
        every = jnp.concatenate([values, new_values])
        order = jnp.argsort(-every, stable=True)[:k]
        kept = jnp.concatenate([rows, new])[order]
        locked = jnp.concatenate([found.locked, residuals <= jnp.finfo(dtype).eps ** (2 / 3) * scale])[order]
        return _Sweep(every[order], kept, locked, scale)

    def goes_on(carry):
        found, before, number = carry
        news = found.values > before + jnp.finfo(dtype).eps ** 0.75 * found.scale
        return (number < k + 1) & jnp.any(news)

    def again(carry):
        found, _, number = carry
        return sweep(found, number), found.values, number + 1

    zeros = jnp.zeros((k, n), dtype)
    first = sweep(_Sweep(zeros[:, 0], zeros, jnp.zeros(k, bool), jnp.zeros((), dtype)), jnp.zeros((), jnp.int32))
    if num_matvecs == n:  # nothing is left
        return first.rows
    nothing = jnp.full(k, -jnp.inf, dtype)
    found, _, _ = lax.while_loop(goes_on, again, (first, nothing, jnp.ones((), jnp.int32)))
    return jnp.linalg.qr(found.rows.T)[0].T


def _lobpcg(product: Callable, like: Point, key, k: int, iterations: int) -> Float[Array, "k n"]:
    start = jax.random.normal(key, (like.size, k + min(k, 4)), like.dtype)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, columns, _ = lobpcg_standard(jax.vmap(_frozen(product), 1, 1), start, iterations)
    return columns.T[:k]


def _frozen(product: Callable) -> Callable:
    return lambda v: lax.stop_gradient(product(v))
