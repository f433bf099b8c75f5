r"""Deep linear networks: the optimal map, the manifold of minima, its flattest points, the critical step size.

$L(\theta) = c \, \lVert Y - W_h \cdots W_1 X \rVert_F^2$.

Parameters are tuples $\theta = (W_1, \dots, W_h)$ with $W_l \in \mathbb{R}^{d_l \times d_{l-1}}$; `widths` is
$(d_0, \dots, d_h) = (d_{in}, \dots, d_{out})$; `scale` is $c$. Nothing here simulates. Whitened: $X X^T = I$.

Sources: [A] Crăciun and Ghoshdastidar, *On the stability of gradient descent with large learning rate*; [B] Chitour,
Liao and Couillet, *A geometric approach of gradient descent algorithms in linear neural networks*; [D] Elkabetz and
Cohen, *Continuous vs. discrete optimization of deep neural networks*.
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize_scalar

from gdstab import _arguments as arguments
from gdstab import _numerics
from gdstab._numerics import identity_tolerance, rank_tolerance, rounding
from gdstab._types import Scalar
from gdstab._validate import check_count

Inputs = Float[Array | np.ndarray, "d_in samples"]
Targets = Float[Array | np.ndarray, "d_out samples"]
Map = Float[Array | np.ndarray, "d_out d_in"]


#
# The optimal map
#


def _svd_of_inputs(inputs):
    """Thin SVD of X, refused where $X X^T$ is singular to working precision."""
    U, s, Vt = jnp.linalg.svd(jnp.asarray(inputs), full_matrices=False)
    rank = int(jnp.sum(s > rounding(inputs.shape, s.dtype) * s[0]))
    if rank < inputs.shape[0]:
        raise ValueError(
            f"the data must have full row rank, but X of shape {tuple(inputs.shape)} has rank {rank}: with a singular "
            "X X^T the best linear map is not unique. Add samples, or drop the dependent input rows."
        )
    return U, s, Vt


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix)
def optimal_map(inputs: Inputs, targets: Targets) -> Float[Array, "d_out d_in"]:
    r"""The least-squares map $W^* = Y X^T (X X^T)^{-1}$.

    Paper A prints the power $-1/2$ (before Proposition 2), which is the map of the *whitened* data.

    Raises
    ------
    ValueError
        If $X X^T$ is singular.

    Examples
    --------
    >>> optimal_map(2.0 * jnp.eye(2), jnp.array([[2.0, 4.0]]))
    Array([[1., 2.]], dtype=float64)
    """
    U, s, Vt = _svd_of_inputs(inputs)
    return ((jnp.asarray(targets) @ Vt.T) / s[None, :]) @ U.T


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix, rank=arguments.number)
def reduced_rank_map(inputs: Inputs, targets: Targets, rank: int) -> Float[Array, "d_out d_in"]:
    r"""The best map of rank at most r: $[Y X^T (X X^T)^{-1/2}]_r \, (X X^T)^{-1/2}$ (reduced-rank regression).

    Corrects Proposition 2 of paper A, whose truncated $W^*$ (`truncated_map`) is right for whitened data only.

    Raises
    ------
    ValueError
        If $X X^T$ is singular.

    Warns
    -----
    UserWarning
        If $\sigma_r = \sigma_{r+1}$ of the whitened target: then the minimiser is not unique.
    """
    U, s, Vt = _svd_of_inputs(inputs)
    whitened_target = jnp.asarray(targets) @ Vt.T  # times U^T: the same singular values
    _warn_without_gap(whitened_target, rank)
    return (truncate(whitened_target, rank) / s[None, :]) @ U.T


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix, rank=arguments.number)
def truncated_map(inputs: Inputs, targets: Targets, rank: int) -> Float[Array, "d_out d_in"]:
    r"""$[W^*]_r$, as Proposition 2 of paper A prints; unless whitened, it loses to `reduced_rank_map`."""
    return truncate(optimal_map(inputs, targets), rank)


@arguments.closed_form(matrix=arguments.matrix, rank=arguments.number)
def truncate(matrix: Float[Array, "rows cols"], rank: int) -> Float[Array, "rows cols"]:
    """The best approximation of a given rank: the leading singular triplets."""
    return _numerics.truncate(jnp.asarray(matrix), rank)


def _warn_without_gap(matrix, rank):
    s = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    if 0 < rank < s.size and s[rank - 1] - s[rank] <= rank_tolerance(s.shape, s.dtype) * s[0]:
        warnings.warn(
            f"singular values {rank} and {rank + 1} of the whitened target are tied ({s[rank - 1]:.6g}): the best map "
            f"of rank {rank} is not unique, this is one of them, and the minima are not the manifold of the formulas.",
            stacklevel=3,
        )


#
# The minima: dimension, inertia, the flattest of them
#


@arguments.closed_form(widths=arguments.widths)
def least_width(widths: Sequence[int]) -> int:
    """The least width r, the largest rank the product can have."""
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f"`widths` must be (d_in, ..., d_out), positive, at least two of them, but got {tuple(widths)}."
        )
    return min(widths)


@arguments.closed_form(widths=arguments.widths)
def num_parameters(widths: Sequence[int]) -> int:
    r"""$d_\theta = \sum_l d_l d_{l-1}$."""
    return sum(a * b for a, b in itertools.pairwise(widths))


@arguments.closed_form(widths=arguments.widths)
def manifold_dimension(widths: Sequence[int]) -> int:
    r"""$\dim M = d_\theta - r (d_{in} + d_{out} - r)$ with r the least width ([A] Theorem 9); needs rank $W^* \ge r$.

    Examples
    --------
    >>> manifold_dimension((1, 1, 1)), manifold_dimension((3, 2, 4))
    (1, 4)
    """
    return num_parameters(widths) - minimum_inertia(widths)[2]


@arguments.closed_form(widths=arguments.widths)
def minimum_inertia(widths: Sequence[int]) -> tuple[int, int, int]:
    r"""$(n_-, n_0, n_+)$ of the Hessian on M: $r (d_{in} + d_{out} - r)$ positive, the rest zero ([A] Theorem 10).

    Needs rank $W^* \ge r$, and where the network is non-filling a gap $\sigma_r > \sigma_{r+1}$ of the whitened target.
    """
    r = least_width(widths)
    positive = r * (widths[0] + widths[-1] - r)
    return 0, num_parameters(widths) - positive, positive


@arguments.closed_form(sigma_max=arguments.nonnegative, depth=arguments.count, scale=arguments.positive)
def flattest_sharpness(sigma_max: float | Scalar, depth: int, scale: float = 0.5) -> float:
    r"""$\min_M \lambda_{max} = 2 c h \, \sigma_{max}^{2 - 2/h}$ for whitened data, attained at balanced minima.

    `sigma_max` is the largest singular value of $W^*$, `depth` is h. The lower bound is the arithmetic-geometric mean
    inequality on $\sum_l \lVert W_{h:l+1}^T u \rVert^2 \lVert W_{l-1:1} v \rVert^2$; it holds for bottlenecks too.
    """
    depth = check_count(depth, "depth")
    return float(2 * scale * depth * sigma_max ** (2 - 2 / depth))


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix, scale=arguments.positive)
def flattest_sharpness_one_output(inputs: Inputs, targets: Targets, scale: float = 0.5) -> float:
    r"""$\min_M \lambda_{max}$ for any data, h = 2 and $d_{out} = 1$, by one convex search over $t = s^2$.

    $\min_{t > 0} \lambda_{max}\big(2c\,(t \Lambda + \Lambda^{1/2} w^T w \Lambda^{1/2} / t)\big)$ with
    $\Lambda = X X^T$, $w = W^*$ and $t = \lVert W_2 \rVert^2$; the bracket is convex in t, so the minimum is global.
    """
    if targets.shape[0] != 1:
        raise ValueError(f"the formula is for one output, but `targets` has {targets.shape[0]} rows.")
    _, s, Vt = (np.asarray(part, np.float64) for part in _svd_of_inputs(inputs))
    pull = np.asarray(targets, np.float64) @ Vt.T  # in the eigenbasis of X X^T: w Λ^(1/2)
    if not pull.any():
        return 0.0  # w = 0: approached as t -> 0
    size = np.linalg.norm(pull)
    moment, outer = np.diag((s / s[0]) ** 2), (pull.T / size) @ (pull / size)
    found = minimize_scalar(  # over log(t s_max / |p|): at 0 λ <= 2 s_max |p|, while λ >= t s_max^2 and λ >= |p|^2 / t
        lambda log_t: np.linalg.eigvalsh(math.exp(log_t) * moment + math.exp(-log_t) * outer)[-1],
        bounds=(-0.7, 0.7),  # log 2 and a little
        method="bounded",
        options={"xatol": 1e-13},
    )
    return float(2 * scale * found.fun * s[0] * size)


@arguments.closed_form(
    inputs=arguments.matrix, targets=arguments.matrix, widths=arguments.widths, scale=arguments.positive
)
def critical_step(inputs: Inputs, targets: Targets, widths: Sequence[int], scale: float = 0.5) -> float:
    r"""$\eta_C = 2 / \min_M \lambda_{max}$, above which no minimum is linearly stable ([A] Corollary 17, corrected).

    Infinite where targets are orthogonal to the inputs and h > 1: minima are as flat as one wishes. Closed forms exist
    where `flattest_sharpness_of` has one.

    Raises
    ------
    ValueError
        Elsewhere (use `gdstab.minima.flattest`), or if $X X^T$ is singular, or `widths` do not fit the data.
    """
    sharpness = flattest_sharpness_of(inputs, targets, widths, scale)
    return 2 / sharpness if sharpness > 0 else math.inf


@arguments.closed_form(
    inputs=arguments.matrix, targets=arguments.matrix, widths=arguments.widths, scale=arguments.positive
)
def flattest_sharpness_of(inputs: Inputs, targets: Targets, widths: Sequence[int], scale: float = 0.5) -> float:
    r"""$\min_M \lambda_{max}$ on given data: for h = 1, for $X X^T = s^2 I$, and for h = 2 with one output.

    An infimum, 0, where targets are orthogonal to the inputs and h > 1.

    Raises
    ------
    ValueError
        Elsewhere (use `gdstab.minima.flattest`), or if $X X^T$ is singular, or `widths` do not fit the data.
    """
    if (widths[0], widths[-1]) != (inputs.shape[0], targets.shape[0]):
        raise ValueError(
            f"widths {tuple(widths)} do not fit data of {inputs.shape[0]} inputs, {targets.shape[0]} outputs."
        )
    _, s, Vt = _svd_of_inputs(inputs)
    depth = len(widths) - 1
    if depth == 1:
        return 2 * scale * float(s[0]) ** 2
    if float(s[0] - s[-1]) <= identity_tolerance(s.dtype) * float(s[0]):
        sigma = jnp.linalg.norm(jnp.asarray(targets) @ Vt.T, 2) / s[0]
        return flattest_sharpness(float(sigma), depth, scale * float(s[0]) ** 2)
    if depth == 2 and widths[-1] == 1:
        return flattest_sharpness_one_output(inputs, targets, scale)
    raise ValueError(
        f"no closed form for eta_C with data that are not whitened and widths {tuple(widths)}: whiten the data, or "
        "compute 2 / gdstab.minima.flattest(...).sharpness."
    )


@arguments.closed_form(
    singular_values=arguments.spectrum, widths=arguments.widths, scale=arguments.positive, fitted=arguments.indices
)
def balanced_spectrum(
    singular_values: Float[Array | np.ndarray, " m"],
    widths: Sequence[int],
    scale: float = 0.5,
    *,
    fitted: Sequence[int] | None = None,
) -> Float[np.ndarray, " n"]:
    r"""All Hessian eigenvalues, ascending, at the balanced critical point that fits the singular triplets S (whitened).

    Divided by 2c, with $s_i$ the fitted values (0 for i not in S, $0^0 = 1$) and $\rho_k = \sigma_k$ the missed ones:

    * $\sum_{l=1}^{h} s_i^{2 (h-l)/h} s_j^{2 (l-1)/h}$ for the pairs (i, j) of an output and an input direction, where
      i or j is in S and the other is not a missed triplet;
    * $s_l^{1 - 2/h} (s_l \pm \rho_k)$ for every l in S and every missed k;
    * $\pm \rho_k$, each $d_1 - |S|$ times, if h = 2; zeros for the rest.

    `fitted` (indices from 0) is by default the r largest: a global minimum. Corrects and extends the formula behind
    [A] Theorem 10: without bottleneck the second line is empty there; with h >= 3 and S the largest it is positive, so
    the point is a saddle without negative eigenvalue.
    """
    sigma = np.sort(np.asarray(singular_values, dtype=float))[::-1]
    depth, (d_in, d_out), hidden = len(widths) - 1, (widths[0], widths[-1]), tuple(widths[1:-1])
    if sigma.size != min(d_in, d_out):
        raise ValueError(
            f"expected the min(d_in, d_out) = {min(d_in, d_out)} singular values, zeros included, got {sigma.size}."
        )
    fit = sorted(range(least_width(widths)) if fitted is None else set(fitted))
    check_fitted(fit, sigma.size, min(widths))
    if depth == 1:
        return np.full(d_in * d_out, 2.0 * scale)
    s = sigma[fit]
    exponents = np.arange(depth) / depth
    both = [float(np.sum(a ** (2 * exponents[::-1]) * b ** (2 * exponents))) for a in s for b in s]
    num_missed = sigma.size - len(fit)
    lone = [a ** (2 - 2 / depth) for a in s for _ in range(d_in + d_out - 2 * len(fit) - 2 * num_missed)]
    missed = np.delete(sigma, fit)
    mixed = [a ** (1 - 2 / depth) * (a + sign * rho) for a in s for rho in missed for sign in (1, -1)]
    idle = [sign * rho for rho in missed for sign in (1, -1)] * (hidden[0] - len(fit)) if depth == 2 else []
    found = np.array([*both, *lone, *mixed, *idle])
    return 2 * scale * np.sort(np.concatenate([found, np.zeros(num_parameters(widths) - found.size)]))


@arguments.closed_form(fitted=arguments.indices, num_values=arguments.number, rank=arguments.number)
def check_fitted(fitted: Sequence[int], num_values: int, rank: int) -> None:
    """Refuse a set of singular triplets that the network cannot fit."""
    if len(fitted) > rank or any(not 0 <= i < num_values for i in fitted):
        raise ValueError(
            f"`fitted` must be at most {rank} indices (the least width) from 0 to {num_values - 1}, "
            f"but got {list(fitted)}."
        )


#
# The reduction of the data
#


@arguments.closed_form(matrix=arguments.real)
def pad(matrix: Float[Array, "rows cols"], shape: tuple[int, int]) -> Float[Array, "_ _"]:
    """Extend by zeros on the right and below."""
    return jnp.zeros(shape, matrix.dtype).at[: matrix.shape[0], : matrix.shape[1]].set(matrix)


class ReducedData(NamedTuple):
    r"""The data of paper B after two singular value decompositions, equation (3)."""

    target: Float[Array, "d_out d_in"]
    r"""$\Sigma_Y$, the singular values of $Y V_X$ on the diagonal."""
    left: Float[Array, "d_out d_out"]
    """$U_Y$: the last layer becomes $U_Y^T W_h$."""
    right: Float[Array, "d_in d_in"]
    """$U_X S_X V_Y$: the first layer becomes $W_1 U_X S_X V_Y$."""
    offset: Scalar
    r"""$\lVert Y \rVert^2 - \lVert Y V_X \rVert^2$: $L / c$ minus the reduced $L / c$."""

    def reduce(self, theta: tuple) -> tuple:
        """Carry parameters to the reduced coordinates."""
        layers = [*theta]
        layers[0] = layers[0] @ self.right
        layers[-1] = self.left.T @ layers[-1]
        return tuple(layers)

    @property
    def isometric(self) -> bool:
        """Whether the reduction is an isometry (X X^T = I), so that flow and descent commute with it."""
        gram = self.right.T @ self.right
        error = jnp.max(jnp.abs(gram - jnp.eye(gram.shape[0], dtype=gram.dtype)))
        return bool(error <= identity_tolerance(gram.dtype))


@arguments.closed_form(inputs=arguments.matrix, targets=arguments.matrix)
def reduce_data(inputs: Inputs, targets: Targets) -> ReducedData:
    r"""Reduce the data to a diagonal target: $\lVert Y - W X \rVert^2 = \lVert \Sigma_Y - \bar W \rVert^2 + $ offset.

    [B] equations (2), (3). The values agree, the flows do not: only for $X X^T = I$ is the change of coordinates an
    isometry (`isometric`); for $X X^T = s^2 I$ it becomes one if the data are first divided by s and c is
    multiplied by $s^2$.
    """
    U, s, Vt = _svd_of_inputs(inputs)
    projected = jnp.asarray(targets) @ Vt.T
    U_y, sigma, Vt_y = jnp.linalg.svd(projected)
    offset = jnp.sum((jnp.asarray(targets) - projected @ Vt) ** 2)
    return ReducedData(pad(jnp.diag(sigma), projected.shape), U_y, (U * s[None, :]) @ Vt_y.T, offset)
