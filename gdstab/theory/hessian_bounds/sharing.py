r"""Layers whose entries share weights: each entry of $W(w)$ is a coordinate of w, or zero; convolutions among them.

A pattern is an array of integers [rows, columns]: the number of the coordinate, or -1 for zero; no coordinate occurs
twice in a row ([D] Elkabetz and Cohen, Appendix C).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gdstab import _arguments as arguments
from gdstab._validate import check_count

Pattern = Int[np.ndarray, "_ _"]
Patterns = tuple[Pattern, ...]
Weights = tuple[Float[Array, " _"], ...]


@arguments.closed_form()
def realise(patterns: Patterns, weights: Weights) -> tuple[Float[Array, "_ _"], ...]:
    """The matrices that the weights make.

    Examples
    --------
    >>> [W] = realise((convolution_pattern(3, 2),), (jnp.array([1.0, 2.0]),))
    >>> W.tolist()
    [[1.0, 2.0, 0.0], [0.0, 1.0, 2.0]]
    """
    return tuple(
        jnp.where(pattern >= 0, w[np.maximum(pattern, 0)], 0) for pattern, w in zip(patterns, weights, strict=True)
    )


@arguments.closed_form(pattern=arguments.pattern)
def operator_norm(pattern: Pattern) -> float:
    r"""$\max_w \lVert W(w) \rVert_F / \lVert w \rVert_2$: the root of how often the most frequent coordinate occurs.

    Raises
    ------
    ValueError
        If a coordinate occurs twice in a row.

    Examples
    --------
    >>> operator_norm(convolution_pattern(6, 3))
    2.0
    """
    for row in pattern:
        used = row[row >= 0]
        if len(np.unique(used)) < len(used):
            raise ValueError(f"expected no coordinate twice in a row of a pattern, got {row.tolist()}; use two of them")
    used = pattern[pattern >= 0]
    return math.sqrt(np.bincount(used).max()) if used.size else 0.0


@arguments.closed_form(rows=arguments.count, columns=arguments.count)
def dense_pattern(rows: int, columns: int) -> Pattern:
    """A coordinate for each entry.

    >>> dense_pattern(2, 2).tolist()
    [[0, 1], [2, 3]]
    """
    return np.arange(rows * columns).reshape(rows, columns)


@arguments.closed_form()
def convolution_pattern(length: int, kernel: int, stride: int = 1, channels: tuple[int, int] = (1, 1)) -> Pattern:
    r"""A convolution in one dimension without padding, from `length` positions; `channels` are (inputs, outputs).

    Rows and columns are channels of positions, channel after channel; the weights are [outputs, inputs, kernel].

    Examples
    --------
    >>> convolution_pattern(5, 3, stride=2).tolist()
    [[0, 1, 2, -1, -1], [-1, -1, 0, 1, 2]]
    """
    if check_count(kernel, "kernel") > check_count(length, "length"):
        raise ValueError(f"kernel: expected one no longer than the {length} positions, got {kernel}; shorten it")
    into, out = channels
    count = (length - kernel) // check_count(stride, "stride") + 1
    one = np.full((count, length), -1)
    for position in range(count):
        one[position, position * stride : position * stride + kernel] = np.arange(kernel)
    blocks = [[np.where(one >= 0, one + (o * into + i) * kernel, -1) for i in range(into)] for o in range(out)]
    return np.block(blocks)
