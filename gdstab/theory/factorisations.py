r"""Factorisations $W = W_h \cdots W_1$ of a linear map, and how far from balanced they are.

Notation and sources as in `gdstab.theory.linear`: [B] Chitour, Liao and Couillet; [D] Elkabetz and Cohen.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab import _arguments as arguments
from gdstab._numerics import rounding
from gdstab._types import LossFn, Scalar
from gdstab.theory.linear import Map, check_fitted, least_width, pad, truncate

Layers = tuple[Float[Array, "_ _"], ...]


@arguments.closed_form(
    target=arguments.matrix, widths=arguments.widths, fitted=arguments.indices, key=arguments.random_key
)
def balanced_factorisation(
    target: Map, widths: Sequence[int], *, fitted: Sequence[int] | None = None, key: PRNGKeyArray | None = None
) -> Layers:
    r"""Balanced $\theta$ with product $[W]_S$ ([D] Procedure 13).

    $W_h \simeq U \Sigma^{1/h}$, $W_l \simeq \Sigma^{1/h}$, $W_1 \simeq \Sigma^{1/h} V^T$, up to padding by zeros.

    `fitted` (S) is by default the r largest singular triplets, r the least width, so that the product is `target` where
    its rank allows. $W_{l+1}^T W_{l+1} = W_l W_l^T$ for every hidden layer. With a `key`, the hidden layers are turned
    by random orthogonal matrices, which reaches every balanced factorisation.
    """
    r, depth = least_width(widths), len(widths) - 1
    U, s, Vt = jnp.linalg.svd(jnp.asarray(target), full_matrices=False)
    chosen = tuple(range(r)) if fitted is None else tuple(sorted(set(fitted)))
    check_fitted(chosen, s.size, r)
    index = jnp.array(chosen, dtype=int)
    root = jnp.diag(s[index] ** (1 / depth))
    layers = [pad(root, (widths[j + 1], widths[j])) for j in range(depth)]
    layers[-1] = (
        layers[-1].at[:, : len(chosen)].set(U[:, index] @ root) if depth > 1 else U[:, index] @ root @ Vt[index]
    )
    if depth > 1:
        layers[0] = layers[0].at[: len(chosen), :].set(root @ Vt[index])
    return tuple(layers) if key is None else _turn(key, layers)


def _turn(key, layers):
    """Act with random orthogonal matrices on the hidden spaces: $W_{l+1} Q_l^T, Q_l W_l$."""
    layers = list(layers)
    for j, key_layer in enumerate(jax.random.split(key, len(layers) - 1) if len(layers) > 1 else ()):
        Q = jax.random.orthogonal(key_layer, layers[j].shape[0], dtype=layers[j].dtype)
        layers[j], layers[j + 1] = Q @ layers[j], layers[j + 1] @ Q.T
    return tuple(layers)


@arguments.closed_form(key=arguments.random_key, widths=arguments.widths, norm=arguments.nonnegative)
def balanced_initialisation(
    key: PRNGKeyArray, widths: Sequence[int], norm: float | Scalar = 0.2, dtype=float
) -> Layers:
    r"""[D] Procedure 13, with A Gaussian, cut to rank r, the least width; $\lVert A \rVert_F$ = `norm`."""
    A = truncate(jax.random.normal(key, (widths[-1], widths[0]), dtype), least_width(widths))
    return balanced_factorisation(norm * A / jnp.linalg.norm(A), widths)


@arguments.closed_form(
    key=arguments.random_key, target=arguments.matrix, widths=arguments.widths, spread=arguments.real
)
def random_factorisation(key: PRNGKeyArray, target: Map, widths: Sequence[int], spread: float | Scalar = 1.0) -> Layers:
    r"""Random $\theta$ with $W_h \cdots W_1 = [W]_r$ up to rounding, r the least width.

    At the narrowest layer the target is split as $W = L R$, $L = U \Sigma^{1/2} G$, $R = G^{-1} \Sigma^{1/2} V^T$ with
    random invertible G; on either side the inner layers are Gaussian and the outermost solves for L or R, plus a random
    part that the others do not see. Every generic point of M can occur. `spread` scales the logarithms of the singular
    values of G and the unseen part. Traceable and batchable over `key`.
    """
    r = least_width(widths)
    depth, neck = len(widths) - 1, tuple(widths).index(r)
    key_lower, key_upper, *keys_gauge = jax.random.split(key, 5)
    target = jnp.asarray(target)
    U, s, Vt = jnp.linalg.svd(target, full_matrices=False)
    if depth == 1:
        return (target,)
    if neck in (0, depth):  # filling: the whole target lies on one side, no gauge at the neck
        left, right = (target, None) if neck == 0 else (None, target)
    else:
        Q, P = (jax.random.orthogonal(k, r, dtype=s.dtype) for k in keys_gauge[:2])
        stretch = jnp.exp(0.5 * spread * jax.random.normal(keys_gauge[2], (r,), s.dtype))
        root = jnp.sqrt(s[:r])
        left = ((U[:, :r] * root[None, :]) @ Q) * stretch[None, :] @ P
        right = P.T @ ((Q.T @ (root[:, None] * Vt[:r])) / stretch[:, None])
    lower = () if right is None else _solve_first(key_lower, right, widths[: neck + 1], spread)
    upper = () if left is None else _solve_first(key_upper, left.T, widths[neck:][::-1], spread)
    return lower + tuple(W.T for W in upper[::-1])


def _solve_first(key, product, widths, spread):
    """Layers with the given product, whose last width is the least: Gaussian, but for the first, which solves."""
    if len(widths) == 2:
        return (product,)
    keys = jax.random.split(key, len(widths) - 1)
    dtype = product.dtype
    rest = [
        jax.random.normal(k, (b, a), dtype) / math.sqrt(a)
        for k, (a, b) in zip(keys[1:], itertools.pairwise(widths[1:]), strict=True)
    ]
    A = rest[0]
    for W in rest[1:]:
        A = W @ A
    inverse = jnp.linalg.pinv(A, rtol=rounding(A.shape, A.dtype))
    unseen = spread * jax.random.normal(keys[0], (widths[1], widths[0]), dtype) / math.sqrt(widths[0])
    first = inverse @ product + unseen - inverse @ (A @ unseen)
    return (first, *rest)


@arguments.closed_form(theta=arguments.layers)
def balancedness(theta: Layers) -> Layers:
    r"""$C_j = W_{j+1}^T W_{j+1} - W_j W_j^T$, j = 1 .. h-1: conserved by gradient flow ([B] Lemma 2.3)."""
    return tuple(above.T @ above - below @ below.T for below, above in itertools.pairwise(theta))


@arguments.closed_form(loss=arguments.function, theta=arguments.layers, step_size=arguments.real)
def balancedness_step(loss: LossFn, theta: Layers, step_size: float | Scalar) -> Layers:
    r"""The exact change of every $C_j$ in a step of descent: $\eta^2 (G_{j+1}^T G_{j+1} - G_j G_j^T)$, $G = \nabla L$.

    The terms of first order cancel because $W_{j+1}^T G_{j+1} = G_j W_j^T$.
    """
    return tuple(step_size**2 * change for change in balancedness(jax.grad(loss)(theta)))


@arguments.closed_form(theta=arguments.layers, scale=arguments.positive)
def convergence_rate(theta: Layers, scale: float = 0.5) -> float:
    r"""Lower bound $2c\alpha$ on the rate of gradient flow (whitened data, M the error of the product).

    $\lVert M(t) \rVert_F \le e^{-2c\alpha t} \lVert M(0) \rVert_F$ with
    $\alpha = \prod_j \lambda_{(d_{j+1})}(C_j)$, the $d_{j+1}$-th *largest* eigenvalue of each $C_j$; the loss decays
    at twice the rate. [B] Proposition 2, where "smallest" is printed. 0 where the bound says nothing (a factor that is
    not positive).

    Raises
    ------
    ValueError
        If the hidden widths and $d_{out}$ do not descend: $d_1 \ge \dots \ge d_h$.
    """
    widths = [W.shape[0] for W in theta]
    if any(a < b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"Proposition 2 needs layers that never widen, d_1 >= ... >= d_h, but got {tuple(widths)}.")
    factors = [
        float(jnp.linalg.eigvalsh(C)[-above.shape[0]]) for C, above in zip(balancedness(theta), theta[1:], strict=True)
    ]
    return 2 * scale * math.prod(factors) if min(factors, default=1.0) > 0 else 0.0
