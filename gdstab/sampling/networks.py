r"""Random layers $W_1, \ldots, W_h$ of a deep linear network: Glorot's scales, and balanced factorisations.

Matrices here have their axes first and the points last, [rows, columns, points]: products of small matrices are then
sums of long vectors, which compilers like, and no LAPACK is called, whose batched kernels must not run side by side.

Compilers may contract a b + c into one rounding, 1 / sqrt(a) into one approximation, and (a / b) c into (a c) / b, or
not, as suits a shape. So `zero` is added to such products, roots and quotients first, of which the compiler must not
know that it is zero: the layers of a point are then the same, bit for bit, in blocks of any length.
"""

import math
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gdstab._validate import check_count
from gdstab.sampling.draws import total

Matrix = Float[Array, "rows columns points"]
Entries = Float[Array, "entries points"]
Factors = tuple[
    Float[Array, "rows rank points"], Float[Array, "rank points"], Float[Array, "columns rank points"]
]  # fmt: skip

_MOST_SWEEPS = 40
"""Of Jacobi's method, which squares its error in each: 5 to 8 are needed for 2 to 20 columns in double precision."""


def check_widths(widths: Any) -> tuple[int, ...]:
    """Widths from inputs to outputs, at least two.

    >>> check_widths([3, 2])
    (3, 2)
    """
    if np.ndim(widths) != 1 or len(widths) < 2:
        raise ValueError(f"expected at least two widths, from inputs to outputs, got {widths!r}; say (3, 2, 1)")
    return tuple(check_count(width, f"width {number}") for number, width in enumerate(widths))


def glorot_deviations(widths: tuple[int, ...]) -> np.ndarray:
    r"""$\sqrt{2 / (n_{j-1} + n_j)}$ for every entry of every layer.

    >>> glorot_deviations((1, 1, 7)).tolist()
    [1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    """
    return np.concatenate([np.full(a * b, math.sqrt(2 / (a + b))) for a, b in pairwise(widths)])


def num_normals(widths: tuple[int, ...]) -> int:
    """How many normal numbers a balanced factorisation takes: those of the product, and a frame for each hidden layer.

    >>> num_normals((3, 2, 4))
    16
    """
    return widths[0] * widths[-1] + sum(width * min(widths) for width in widths[1:-1])


def balanced_layers(normals: Entries, widths: tuple[int, ...], zero: Any = 0.0) -> Float[Array, "weights points"]:
    r"""A balanced factorisation of the product that the normal numbers make, layer after layer, row by row.

    With $A = U \Sigma V^T$ the matrix [widths[-1], widths[0]] of the first numbers, cut to its r largest singular
    values, r the least width, and $Q_0 = V$, $Q_h = U$, the layers are

    $$W_j = Q_j \, \Sigma^{1/h} \, Q_{j-1}^T,$$

    where the other $Q_j$, [widths[j], r], have orthonormal columns, uniform among all such matrices (the Haar measure
    on the Stiefel manifold) and independent of each other and of A. So $W_h \cdots W_1 = [A]_r$ and
    $W_{j+1}^T W_{j+1} = W_j W_j^T$; every balanced factorisation can occur, and turning a hidden space does not change
    the distribution (Elkabetz and Cohen 2021, Procedure 13, but for the $Q_j$, which there are parts of the identity).
    """
    depth, rank, points = len(widths) - 1, min(widths), normals.shape[1]
    start = widths[0] * widths[-1]
    product = normals[:start].reshape(widths[-1], widths[0], points)
    if depth == 1:
        return normals
    U, sizes, V = singular_values(product, zero)
    if rank < len(sizes):
        largest = jnp.argsort(-sizes, axis=0)[:rank]
        sizes = jnp.take_along_axis(sizes, largest, axis=0)
        U, V = (jnp.take_along_axis(each, largest[None], axis=1) for each in (U, V))
    frames = [V]
    for width in widths[1:-1]:
        stop = start + width * rank
        frames.append(orthonormal(normals[start:stop].reshape(width, rank, points), zero))
        start = stop
    root = (sizes ** (1 / depth) + zero)[None]
    layers = [_product(above * root, below, zero) for below, above in pairwise([*frames, U])]
    return jnp.concatenate([layer.reshape(-1, points) for layer in layers])


def orthonormal(matrix: Matrix, zero: Any = 0.0) -> Matrix:
    """Gram and Schmidt's basis of the columns, of which there are no more than rows; normal ones give a Haar frame."""

    def add(column, basis):
        vector = lax.dynamic_index_in_dim(matrix, column, axis=1)
        for _ in range(2):  # twice is enough (Giraud, Langou and Rozloznik 2005)
            along = total(basis * vector + zero)[None]
            vector = vector - total((basis * along + zero).swapaxes(0, 1))[:, None]
        length = jnp.sqrt(total(vector * vector + zero))[None] + zero
        vector = vector / length + zero
        return lax.dynamic_update_index_in_dim(basis, vector, column, axis=1)

    return lax.fori_loop(0, matrix.shape[1], add, jnp.zeros_like(matrix))


def singular_values(matrix: Matrix, zero: Any = 0.0) -> Factors:
    r"""$U$, $\Sigma$ (in no order) and $V$ of $A = U \Sigma V^T$, by one-sided Jacobi rotations (Hestenes 1958).

    Pairs of columns are turned until they are orthogonal; in each round of a sweep, which is a round-robin tournament,
    all columns play at once. A point whose columns are orthogonal is left alone, bit for bit, while others still turn:
    its answer does not depend on its neighbours.
    """
    rows, columns, points = matrix.shape
    if rows < columns:
        V, sizes, U = singular_values(matrix.swapaxes(0, 1), zero)
        return U, sizes, V
    if columns > 1:
        dtype = matrix.dtype
        identity = jnp.broadcast_to(jnp.eye(columns, dtype=dtype)[:, :, None], (columns, columns, points))
        both = jnp.concatenate([matrix, identity])
        both = jnp.pad(both, ((0, 0), (0, columns % 2), (0, 0)))  # an odd one plays against nothing
        half = both.shape[1] // 2
        teams = _sweep(both[:, :half], both[:, half:], rows, zero)
        matrix, V = jnp.split(jnp.concatenate(teams, axis=1)[:, :columns], [rows])
    else:
        V = jnp.ones((1, 1, points), matrix.dtype)
    sizes = jnp.sqrt(total(matrix * matrix + zero)) + zero
    return matrix / sizes[None] + zero, sizes, V


def _sweep(left, right, rows, zero):
    """Sweeps over two teams of columns, until the first `rows` entries of all columns are orthogonal."""
    rounds = 2 * left.shape[1] - 1
    tolerance = rows**0.5 * np.finfo(left.dtype).eps

    def round_(_, state):
        left, right, turned = state
        (upper, lower), again = _rotate(left, right, rows, tolerance, zero)
        # The first stays, all others move one chair on; after one sweep everyone is back at home.
        left = jnp.concatenate([upper[:, :1], lower[:, :1], upper[:, 1:-1]], axis=1) if rounds > 1 else upper
        right = jnp.concatenate([lower[:, 1:], upper[:, -1:]], axis=1) if rounds > 1 else lower
        return left, right, turned | again

    def sweep(state):
        left, right, _, number = state
        return *lax.fori_loop(0, rounds, round_, (left, right, jnp.zeros((), bool))), number + 1

    going = (left, right, jnp.ones((), bool), jnp.int32(0))
    return lax.while_loop(lambda state: state[2] & (state[3] < _MOST_SWEEPS), sweep, going)[:2]


def _rotate(left, right, rows, tolerance, zero):
    """Turn every pair of columns so that it becomes orthogonal, and say whether one had to be turned at all."""
    a, b = left[:rows], right[:rows]
    inner, first, second = (total(product + zero) for product in (a * b, a * a, b * b))
    turn = jnp.abs(inner) > tolerance * jnp.sqrt(first * second)
    zeta = (second - first) / (2 * jnp.where(turn, inner, 1))
    tangent = jnp.where(zeta < 0, -1, 1) / (jnp.abs(zeta) + jnp.sqrt(1 + (zeta * zeta + zero)))
    tangent = jnp.where(turn, tangent, 0) + zero
    cosine = 1 / (jnp.sqrt(1 + (tangent * tangent + zero)) + zero) + zero
    sine = cosine * tangent
    cosine, sine = cosine[None], sine[None]
    upper = (cosine * left + zero) - (sine * right + zero)
    lower = (sine * left + zero) + (cosine * right + zero)
    return (upper, lower), jnp.any(turn)


def _product(above, below, zero):
    """The sum over k of above[i, k] below[j, k]."""
    above, below = above.swapaxes(0, 1), below.swapaxes(0, 1)
    return total(above[:, :, None] * below[:, None] + zero)
