"""Products of small matrices that stay elementwise when batched, sums in a fixed order, floats, tolerances by dtype."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from gdstab._types import Scalar, Theta

UNROLL_LIMIT = 16
"""Largest dimension over which a matrix product is written out; beyond it a dot product is faster."""


def as_floats(value):
    """Lists, NumPy arrays and integers as JAX arrays of floats; anything else as it is."""
    if isinstance(value, list | tuple | np.ndarray):
        value = jnp.asarray(value)
    return value.astype(float) if hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.integer) else value


def matmul(a: Float[Array, "m k *#lanes"], b: Float[Array, "k n *#lanes"]) -> Float[Array, "m n *_"]:
    r"""Product of two matrices at full precision, or of many at once, the lanes on one trailing axis of both.

    For an inner dimension up to `UNROLL_LIMIT` the sum $\sum_k a_{ik} b_{kj}$ is written out, and so are the two
    products of its gradient. Under `vmap` over a trailing axis everything then stays elementwise in the lanes, which
    on CPU is several times faster than the batched dot products that `@` becomes. Larger matrices use
    `jnp.matmul(..., precision="highest")`, because float32 products are rounded to TF32 on recent GPUs otherwise.

    Parameters
    ----------
    a, b
        The factors, of one dtype.

    Returns
    -------
    The product; it can be differentiated in either mode and to any order.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> a = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> matmul(a, a).tolist()
    [[7.0, 10.0], [15.0, 22.0]]
    """
    if a.ndim != b.ndim or a.ndim not in (2, 3) or a.shape[1] != b.shape[0]:
        raise ValueError(f"expected matrices [m, k] and [k, n], got shapes {a.shape} and {b.shape}; check their order")
    if a.shape[1] > UNROLL_LIMIT:
        return jnp.einsum("ij...,jk...->ik...", a, b, precision="highest")
    return _small_matmul(a, b)


def sum_squares(tree: Theta) -> Scalar:
    r"""Sum of squares over all entries of all leaves, $\sum_i \theta_i^2$.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(sum_squares((jnp.array([1.0, 2.0]), jnp.array([[2.0]]))))
    9.0
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("expected a tree with at least one array, got none; pass the parameters themselves")
    with jax.numpy_dtype_promotion("standard"):  # leaves of different precision are summed in the higher one
        total = _leaf_squares(leaves[0])
        for leaf in leaves[1:]:
            total = total + _leaf_squares(leaf)
    return total


def _leaf_squares(leaf):
    """Not vdot, which would become a batched dot product; and small vectors written out, which fuses with the rest."""
    if leaf.ndim == 1 and 0 < leaf.size <= 8:
        total = leaf[0] * leaf[0]
        for i in range(1, leaf.size):
            total = total + leaf[i] * leaf[i]
        return total
    flat = leaf.reshape(-1)
    return tree_sum(flat * flat)


def tree_sum(values: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    r"""Sum along one axis, the first half added to the second until one row is left.

    What a lane adds up must not depend on how many lanes run beside it. A compiler orders a reduction as suits the
    shape of the whole array; additions of slices it leaves as they are.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> tree_sum(jnp.arange(5.0)).tolist(), tree_sum(jnp.ones((2, 3)), axis=1).tolist()
    (10.0, [3.0, 3.0])
    """
    return _tree_sum(axis, values) if values.shape[axis] else jnp.sum(values, axis=axis)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _tree_sum(axis, values):
    size = values.shape[axis]
    while size > 1:
        half = size // 2
        first, second, odd = (
            lax.slice_in_dim(values, *ends, axis=axis) for ends in ((0, half), (half, 2 * half), (2 * half, size))
        )
        values = first + second if 2 * half == size else jnp.concatenate([first + second, odd], axis=axis)
        size -= half
    return jnp.squeeze(values, axis)


@_tree_sum.defjvp
def _tree_sum_jvp(axis, primals, tangents):
    """The tangent is a plain sum: transposed, in a gradient, it adds up nothing and pads nothing."""
    return _tree_sum(axis, *primals), jnp.sum(*tangents, axis=axis)


def length(x: Float[Array, " n"]) -> Scalar:
    r"""Euclidean norm $\|x\|_2$ of a vector whose squares may underflow or overflow.

    It is taken in units of a power of two near the largest entry, which rounds nothing: where no square leaves the
    range of floats the result is that of `jnp.linalg.norm`, bit by bit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> float(length(jnp.array([3e30, 4e30], "float32"))) == float(jnp.float32(5e30))
    True
    """
    largest = jnp.max(jnp.abs(x), initial=0)
    usable = jnp.isfinite(largest) & (largest > 0)
    exponent = jnp.frexp(jnp.where(usable, largest, 1))[1] - 1
    unit = lax.stop_gradient(jnp.ldexp(jnp.ones((), x.dtype), exponent))
    return unit * jnp.linalg.norm(x / unit)


def tolerance(dtype, factor: float = 10.0) -> float:
    r"""Tolerance $\mathrm{factor} \cdot \sqrt{\varepsilon}$ for comparing numbers of a floating dtype.

    Examples
    --------
    >>> tolerance("float32", 1.0) == 2.0 ** -11.5
    True
    """
    return float(factor * np.sqrt(np.float64(jnp.finfo(dtype).eps)))


def rounding(shape: tuple[int, ...], dtype) -> float:
    r"""What a decomposition leaves of a singular value 0, relative to the largest: $\min(n, 8 \sqrt n)\,\epsilon$.

    n is the larger side. The bound of the analysis, and NumPy's rule, is $n \epsilon$; errors of many roundings grow
    like the root, and in single precision $10^5$ samples would hide a hundredth of the largest value.

    Examples
    --------
    >>> [round(rounding((n, 2), "float32") * 2**23) for n in (16, 10_000)]
    [16, 800]
    """
    n = max(shape)
    return min(n, 8 * n**0.5) * float(jnp.finfo(dtype).eps)


def rank_tolerance(shape: tuple[int, ...], dtype) -> float:
    r"""What counts as zero beside the largest singular value or eigenvalue of a computed derivative.

    Its entries carry more roundings than those of data: at least $\epsilon^{3/4}$.

    Examples
    --------
    >>> rank_tolerance((3, 3), "float64") == 2.0**-39
    True
    """
    return max(rounding(shape, dtype), float(jnp.finfo(dtype).eps) ** 0.75)


def identity_tolerance(dtype) -> float:
    r"""How far data made to satisfy an identity, such as $X X^T = I$, may miss it: $\epsilon^{2/3}$.

    Whitening by a second moment of condition $\kappa^2$ leaves $\kappa^2 \epsilon$, so that is passed up to
    $\kappa = 400$ in double precision and 14 in single, and what the identity gives is right to as many digits.

    Examples
    --------
    >>> f"{identity_tolerance('float32'):.1e} {identity_tolerance('float64'):.1e}"
    '2.4e-05 3.7e-11'
    """
    return float(jnp.finfo(dtype).eps) ** (2 / 3)


def magnitude(*lengths) -> float:
    """The power of ten nearest to the largest of some lengths; 1 if none is positive.

    It stands for the unit that parameters are in, where no more than its order counts.

    Examples
    --------
    >>> magnitude(0.0, 0.7, 1.4), magnitude(3e-8), magnitude(0.0)
    (1.0, 1e-08, 1.0)
    """
    largest = max(map(float, lengths), default=0.0)
    return 10.0 ** round(np.log10(largest)) if largest > 0 and np.isfinite(largest) else 1.0


def independent(rows) -> bool:
    """Whether vectors [num, dim] are linearly independent, each in its own units.

    Examples
    --------
    >>> independent([[1e-20, 0.0], [0.0, 1.0]]), independent([[1.0, 2.0], [2.0, 4.0]]), independent([[0.0, 0.0]])
    (True, False, False)
    """
    rows = np.asarray(rows, np.float64)
    sizes = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    return bool((sizes > 0).all() and np.linalg.matrix_rank(rows / sizes) == len(rows))


@jax.custom_jvp
def _small_matmul(a, b):
    return _sum_over_inner(a, b)


def _sum_over_inner(a, b):
    if a.shape[1] == 0:
        return jnp.zeros((a.shape[0], b.shape[1], *jnp.broadcast_shapes(a.shape[2:], b.shape[2:])), a.dtype)
    total = a[:, 0, None] * b[None, 0, :]
    for k in range(1, a.shape[1]):
        total = total + a[:, k, None] * b[None, k, :]
    return total


def _small_matmul_jvp(primals, tangents):
    """Tangents written so that their *transposes* are unrolled sums: transposing a slice would pad, lane by lane."""
    (a, b), (da, db) = primals, tangents
    moved = None
    if not isinstance(da, SymbolicZero):
        moved = _by_columns(da, b)
    if not isinstance(db, SymbolicZero):
        by_rows = _by_columns(db.swapaxes(0, 1), a.swapaxes(0, 1)).swapaxes(0, 1)
        moved = by_rows if moved is None else moved + by_rows
    return _small_matmul(a, b), moved


def _by_columns(tangent, b):
    """The product `tangent @ b`, one column at a time; transposed, it sums outer products over the columns.

    With many columns it goes by the inner index, and its transpose sums each over the columns as `tree_sum` does.
    """
    if 0 in b.shape[:2]:
        return _sum_over_inner(tangent, b)
    if b.shape[1] <= UNROLL_LIMIT:
        return jnp.stack([jnp.sum(tangent * b[None, :, j], axis=1) for j in range(b.shape[1])], axis=1)
    parts = jnp.split(tangent, b.shape[0], axis=1)
    return sum(_spread(part, b.shape[1]) * b[None, k] for k, part in enumerate(parts))


def _spread(column, size):
    """A column `[m, 1, ...]` as `size` equal ones; transposed, half is added to half."""
    if size == 1:
        return column
    half = _spread(column, size // 2)
    return jnp.concatenate([half, half, column] if size % 2 else [half, half], axis=1)


_small_matmul.defjvp(_small_matmul_jvp, symbolic_zeros=True)


def as_float(value: Any) -> Any:
    """A constant of a loss: integers as floats, so that the engine traces them and a sweep compiles once."""
    return float(value) if isinstance(value, int) else value


def check_precision(precision: int) -> np.dtype:
    """The dtype for 32 or 64 bits, refused where JAX has it disabled."""
    if precision == 64 and not jax.config.jax_enable_x64:
        raise ValueError(
            "64 bits were asked for, but JAX has them disabled: call jax.config.update('jax_enable_x64', True) before "
            "anything else (or set JAX_ENABLE_X64=1), or ask for precision=32."
        )
    return np.dtype(f"float{precision}")


def truncate(matrix: Float[Array, "rows cols"], rank: int) -> Float[Array, "rows cols"]:
    """The best approximation of a given rank (Eckart and Young): the leading singular triplets."""
    u, s, vt = jnp.linalg.svd(matrix, full_matrices=False)
    return jnp.matmul(u[:, :rank] * s[None, :rank], vt[:rank], precision="highest")
