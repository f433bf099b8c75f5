"""Stratified points: a box cut into cells, the same number of random points in each."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gdstab._validate import check_box, check_count, check_dtype, check_resolution
from gdstab.sampling import draws
from gdstab.sampling.sources import Points, divide


class StratifiedSource(eqx.Module):
    """Independent points, number i uniform in cell i div (num / number of cells) of a box, the last axis fastest.

    Parameters
    ----------
    key
        One of JAX's Threefry keys. Draws go by logical groups, as those of `RandomSource`.
    num
        Points in all: a multiple of the number of cells, and at most 2^30 in each.
    box
        ((low, high), ...).
    cells
        How many the box is cut into on each axis, or one number for all; cells have equal volume.
    dtype
        float64 where JAX has it enabled, float32 elsewhere.

    Raises
    ------
    ValueError
        If num is no multiple of the number of cells, or cells are too narrow for the dtype.

    Examples
    --------
    >>> import jax
    >>> source = StratifiedSource(jax.random.key(0), 8, ((0, 2), (0, 4)), cells=2)
    >>> (source(jnp.arange(8)) // jnp.array([1.0, 2.0])).astype(int).tolist()[::2]
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """

    design: ClassVar[str] = "strata"

    key: Array
    edges: tuple[Float[Array, " edges"], ...]
    num_points: int = eqx.field(static=True)
    parts: int = eqx.field(static=True)

    def __init__(self, key, num, box, cells, dtype=None):
        draws.check_key(key)
        sides, dtype = check_box(box), check_dtype(dtype)
        cells = check_resolution(cells, len(sides))
        self.key, self.num_points, self.parts = key, check_count(num, "num"), math.prod(cells)
        if num % self.parts or num // self.parts > 2**30 or self.parts >= 2**31:
            raise ValueError(
                f"expected a number of points that {self.parts} cells share equally, at most 2^30 each, in fewer than "
                f"2^31 cells, got {num}; ask for {max(min(num // self.parts, 2**30), 1) * self.parts}, or change them"
            )
        edges = [np.linspace(*side, count + 1).astype(dtype) for side, count in zip(sides, cells, strict=True)]
        for axis, each in enumerate(edges):
            if not (np.diff(each) > 0).all():
                raise ValueError(
                    f"expected cells that {dtype} can tell apart, got {cells[axis]} on axis {axis}; lower it"
                )
        self.edges = tuple(jnp.asarray(each) for each in edges)

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`, with indices up to 2^30 and group below 2^31."""
        dtype = self.edges[0].dtype
        keys = draws.group_keys(self.key, indices, group)
        unit = draws.uniforms(keys, indices, len(self.edges), dtype).astype(dtype)
        cell, _ = divide(indices, group, self.num_points // self.parts)
        columns = []
        for number, edges in reversed(list(enumerate(self.edges))):
            cell, digit = cell // (len(edges) - 1), (cell % (len(edges) - 1)).astype(jnp.int32)
            low, high = edges[digit], edges[digit + 1]
            # Rounding may lift a point to the upper edge, which belongs to the next cell.
            columns.append(jnp.minimum(low + (high - low) * unit[number], jnp.nextafter(high, low)))
        return jnp.stack(columns[::-1], axis=1)
