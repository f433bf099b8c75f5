r"""Critical points of linear networks that are no minima, stratum by stratum, for whitened data.

$L = c \, \lVert T - W_h \cdots W_1 \rVert_F^2$ with singular values $\sigma_i$ of T, positive and distinct. With one
hidden layer the product at a critical point is $\sum_{i \in S} \sigma_i u_i v_i^T$ for a *fitted set* S, whose indices
count from 0; the points with the same S form a stratum. With data that are not whitened, T is
$Y X^T (X X^T)^{-1/2}$ and $W_1 (X X^T)^{1/2}$ stands for $W_1$.

Source: [B] Chitour, Liao and Couillet, *A geometric approach of gradient descent algorithms in linear neural networks*.
"""

import itertools
import warnings
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab import _arguments as arguments
from gdstab._numerics import rank_tolerance, rounding
from gdstab._types import Scalar
from gdstab.theory.factorisations import Layers, balanced_factorisation
from gdstab.theory.linear import Map, check_fitted

SingularValues = Float[Array | np.ndarray, " m"]


@arguments.closed_form(widths=arguments.widths)
def fitted_sets(widths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every set of singular triplets that some critical point fits, the empty one first.

    Examples
    --------
    >>> list(fitted_sets((3, 1, 2)))
    [(), (0,), (1,)]
    """
    for size in range(min(widths) + 1):
        yield from itertools.combinations(range(min(widths[0], widths[-1])), size)


@arguments.closed_form(singular_values=arguments.spectrum, fitted=arguments.indices, scale=arguments.positive)
def critical_value(singular_values: SingularValues, fitted: Sequence[int], scale: float = 0.5) -> float:
    r"""$c \sum_{i \notin S} \sigma_i^2$, any depth ([B] before Proposition 5, where "belonging to S" is printed)."""
    return float(scale * np.sum(np.delete(np.asarray(singular_values), list(fitted)) ** 2))


@arguments.closed_form(widths=arguments.widths, num_fitted=arguments.number)
def stratum_dimension(widths: Sequence[int], num_fitted: int) -> int:
    r"""$d(r) = r^2 + 2 r (d_1 - r) + (d_1 - r) |d_{in} - d_{out}|$, one hidden layer, r = |S|.

    Corrects [B] equation (27), which is right only for $d_1 = d_{out}$.
    """
    d_in, d_1, d_out = _one_hidden_layer(widths)
    r = num_fitted
    return r**2 + 2 * r * (d_1 - r) + (d_1 - r) * abs(d_in - d_out)


@arguments.closed_form(singular_values=arguments.spectrum, widths=arguments.widths, fitted=arguments.indices)
def critical_inertia(
    singular_values: SingularValues, widths: Sequence[int], fitted: Sequence[int]
) -> tuple[int, int, int]:
    r"""$(n_-, n_0, n_+)$ of the Hessian on the stratum of S, one hidden layer; [B] Proposition 5 with its proof.

    With $a \ge b$ the two outer widths, r = |S| and
    inv $= \#\{i \in S, j \notin S : \sigma_j > \sigma_i\}$:
    $n_- = \mathrm{inv} + (d_1 - r)(b - r)$, $n_0 = d(r)$,
    $n_+ = r^2 + r (a - b) + 2 r (b - r) - \mathrm{inv} + (d_1 - r)(b - r)$.

    Warns
    -----
    UserWarning
        If singular values are tied or zero: then the Hessian has more zero eigenvalues than this.
    """
    d_in, d_1, d_out = _one_hidden_layer(widths)
    sigma, least, r = np.asarray(singular_values), min(d_in, d_out), len(fitted)
    sigma = sigma if np.issubdtype(sigma.dtype, np.floating) else sigma.astype(float)
    check_fitted(fitted, sigma.size, min(widths))
    gaps = np.abs(np.diff(np.sort(np.concatenate([sigma, [0.0]]))))
    if gaps.min(initial=np.inf) <= rank_tolerance(sigma.shape, sigma.dtype) * sigma.max(initial=0.0):
        warnings.warn("singular values are tied or zero: the formula for the inertia needs gaps.", stacklevel=2)
    inversions = int(np.sum(np.delete(sigma, list(fitted))[None, :] > sigma[list(fitted)][:, None]))
    idle = (d_1 - r) * (least - r)
    positive = r**2 + r * abs(d_in - d_out) + 2 * r * (least - r) - inversions + idle
    return inversions + idle, stratum_dimension(widths, r), positive


@arguments.closed_form(
    key=arguments.random_key,
    target=arguments.matrix,
    widths=arguments.widths,
    fitted=arguments.indices,
    spread=arguments.real,
)
def critical_point(
    key: PRNGKeyArray, target: Map, widths: Sequence[int], fitted: Sequence[int], spread: float | Scalar = 1.0
) -> Layers:
    r"""A random point of the stratum of S, one hidden layer: every generic point can occur.

    With $d_{in} \ge d_{out}$: $W_2 = U_S B$ and $W_1 = C V_S^T + D V_0^T$, where B is random,
    $B C = \Sigma_S$, $B D = 0$, and $V_0$ spans what T does not see ([B] equation (24)). Otherwise the transpose.
    """
    d_in, d_1, d_out = _one_hidden_layer(widths)
    target = jnp.asarray(target)
    if d_in < d_out:
        W_1, W_2 = critical_point(key, target.T, (d_out, d_1, d_in), fitted, spread)
        return W_2.T, W_1.T
    check_fitted(fitted, d_out, min(widths))
    chosen = jnp.array(sorted(fitted), dtype=int)
    U, sigma, Vt = jnp.linalg.svd(target)
    key_B, key_C, key_D = jax.random.split(key, 3)
    B = jax.random.normal(key_B, (len(fitted), d_1), sigma.dtype)
    inverse = jnp.linalg.pinv(B, rtol=rounding(B.shape, B.dtype)) if fitted else B.T

    def unseen(key, columns):
        draw = spread * jax.random.normal(key, (d_1, columns), sigma.dtype)
        return draw - inverse @ (B @ draw)

    C = inverse * sigma[chosen][None, :] + unseen(key_C, len(fitted))
    return C @ Vt[chosen] + unseen(key_D, d_in - d_out) @ Vt[d_out:], U[:, chosen] @ B


@arguments.closed_form(target=arguments.matrix, widths=arguments.widths, num_fitted=arguments.number)
def nonstrict_saddle(target: Map, widths: Sequence[int], num_fitted: int = 0) -> Layers:
    r"""A saddle without negative Hessian eigenvalue, two or more hidden layers: balanced, S the largest `num_fitted`.

    The Hessian is zero for `num_fitted` = 0 (the origin); otherwise its spectrum is
    `linear.balanced_spectrum(..., fitted=range(num_fitted))`, whose least non-zero eigenvalue is
    $2c\,\sigma_l^{1-2/h}(\sigma_l - \rho_k) > 0$. This is item (ii) of [B] Proposition 4, made explicit.

    Raises
    ------
    ValueError
        With fewer than two hidden layers (every saddle is strict there), or if all is fitted (a minimum).
    """
    if len(widths) < 4:
        raise ValueError(f"saddles of networks with widths {tuple(widths)} are strict: use two or more hidden layers.")
    if not 0 <= num_fitted < min(widths):
        raise ValueError(
            f"`num_fitted` must be 0 .. {min(widths) - 1}, less than the least width, but got {num_fitted}."
        )
    return balanced_factorisation(target, widths, fitted=range(num_fitted))


def _one_hidden_layer(widths):
    if len(widths) != 3:
        raise ValueError(f"strata are known for one hidden layer, widths (d_in, d_1, d_out), but got {tuple(widths)}.")
    return tuple(widths)
