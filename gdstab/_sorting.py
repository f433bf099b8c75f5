"""Sorting and running sums along the leading axis of few rows with many lanes: shapes and work fixed, no indices.

XLA sorts by comparing scalars; a network of exchanges is one vector operation a stage (Batcher, *Sorting networks and
their applications*, 1968).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Exchange(NamedTuple):
    """One stage: rows `span` apart, or mirrored in blocks of twice that, have changed places where `swapped`."""

    span: int
    mirrored: bool
    swapped: Any


def sort_rows(
    keys: Float[Array, "rows *lanes"], values: Float[Array, "rows *lanes"]
) -> tuple[Float[Array, "rows *lanes"], Float[Array, "rows *lanes"], list[Exchange]]:
    """Sort every lane by its keys, and values with them, by Batcher's bitonic network.

    Parameters
    ----------
    keys
        A power of two of rows. A NaN makes NaN of the keys it meets.
    values
        What moves along with the keys.

    Returns
    -------
    Keys ascending, values, and the stages for `unsort_rows`.

    Examples
    --------
    >>> keys, values, stages = sort_rows(jnp.array([3.0, 1.0, 4.0, 2.0]), jnp.array([30.0, 10.0, 40.0, 20.0]))
    >>> keys.tolist(), values.tolist()
    ([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0])
    >>> unsort_rows(stages, keys).tolist()
    [3.0, 1.0, 4.0, 2.0]
    """
    rows, stages = len(keys), []
    if rows & (rows - 1):
        raise ValueError(f"expected a power of two of rows, got {rows}; pad with infinities")
    block = 1
    while block < rows:
        span, mirrored = block, True
        while span:
            first, second = _pairs(keys, span, mirrored)
            stage = Exchange(span, mirrored, second < first)
            keys = _together(jnp.minimum(first, second), jnp.maximum(first, second), stage)
            values = _exchange(values, stage)
            stages.append(stage)
            span, mirrored = span // 2, False
        block *= 2
    return keys, values, stages


def unsort_rows(stages: list[Exchange], values: Float[Array, "rows *lanes"]) -> Float[Array, "rows *lanes"]:
    """Bring back what stands in sorted order to the order before."""
    for stage in reversed(stages):
        values = _exchange(values, stage)
    return values


def running_sums(values: Float[Array, "rows *lanes"]) -> Float[Array, "rows *lanes"]:
    """Sums of the rows up to each, itself included; what is not finite spoils its whole lane.

    By a triangle of ones: sums of shifted rows are fewer, but XLA computes those anew for each of their readers, which
    took 1.5 to 2.5 times as long for up to 17 rows on a CPU.

    Examples
    --------
    >>> running_sums(jnp.array([1.0, 2.0, 3.0])).tolist()
    [1.0, 3.0, 6.0]
    """
    lower = np.tri(len(values), dtype=values.dtype)
    return jnp.tensordot(lower, values, 1, precision="highest")


def _pairs(values, span, mirrored):
    """The rows to compare, each with its partner: `span` apart, or mirrored in a block of twice that."""
    blocks = values.reshape(-1, 2, span, *values.shape[1:])
    return blocks[:, 0], blocks[:, 1, ::-1] if mirrored else blocks[:, 1]


def _together(first, second, stage):
    second = second[:, ::-1] if stage.mirrored else second
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[2:])


def _exchange(values, stage):
    first, second = _pairs(values, stage.span, stage.mirrored)
    swapped = stage.swapped
    return _together(jnp.where(swapped, second, first), jnp.where(swapped, first, second), stage)
