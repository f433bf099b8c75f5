"""Grids of cell centres, whole in memory or cell by cell, along the axes or in any slice of parameter space."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gdstab._numerics import independent
from gdstab._validate import check_box, check_dtype, check_resolution
from gdstab.sampling.sources import GROUP, Points


def grid(box: Any, resolution: Any, *, dtype: Any = None) -> Points:
    r"""All cell centres of a box, [n_1 ... n_d, d], the first axis slowest.

    On each axis they are $m + h\,(2 i + 1 - n) / n$ with $m$ the middle and $h$ half the side: centres of a symmetric
    box are *exactly* antisymmetric, so cells on a symmetry line of the loss stay on it.

    Parameters
    ----------
    box
        ((low, high), ...), one pair per axis.
    resolution
        Number of cells per axis, or one number for all.
    dtype
        float64 where JAX has it enabled, float32 elsewhere.

    Examples
    --------
    >>> grid(((-1, 1), (0, 4)), (2, 1)).tolist()
    [[-0.5, 2.0], [0.5, 2.0]]
    """
    axes = _centres(box, resolution, dtype)
    return jnp.asarray(np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=-1))


class GridSource(eqx.Module):
    r"""The points of `grid`, or of an affine slice of parameter space, made when asked for.

    Without directions the points equal those of `grid` bit for bit. With them, grid coordinates $(a_1, \ldots, a_m)$
    stand for $\theta = o + \sum_j a_j d_j$; two directions give the slices that heatmaps show.

    Parameters
    ----------
    box, resolution, dtype
        As in `grid`; one pair and one number per direction.
    origin
        The point $o$, [dim]; zero if None.
    directions
        The vectors $d_j$, [m, dim], in any length and angle; the axes if None.
    compact
        Number the cells of a 2-D grid strip by strip of up to 16 rows, column by column within a strip: neighbours in
        number are then neighbours in the plane, whose orbits take similarly many steps, which the engine rewards with
        up to a third less work. `to_grid` undoes it.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> source = GridSource(((-1, 1), (0, 4)), (2, 1), origin=[0, 0, 7], directions=[[1, 0, 0], [0, 1, 0]])
    >>> source(jnp.arange(2)).tolist()
    [[-0.5, 2.0, 7.0], [0.5, 2.0, 7.0]]
    """

    tables: tuple[Float[Array, "cells _"], ...]  # what each axis contributes: points are sums of rows
    aligned: bool = eqx.field(static=True)  # to the coordinate axes: points are rows side by side, which is faster
    num_points: int = eqx.field(static=True)
    strip: int = eqx.field(static=True)

    def __init__(self, box, resolution, origin=None, directions=None, dtype=None, compact=False):
        axes = _centres(box, resolution, dtype)
        frame = np.eye(len(axes)) if directions is None else np.asarray(directions, np.float64)
        if frame.ndim != 2 or len(frame) != len(axes) or not np.isfinite(frame).all():
            raise ValueError(
                f"expected {len(axes)} finite directions [{len(axes)}, dim], got shape {frame.shape}; one per axis"
            )
        if not independent(frame):
            raise ValueError("expected independent directions, got dependent ones, whose cells coincide; change one")
        if origin is not None and (np.shape(origin) != frame.shape[1:] or not np.isfinite(origin).all()):
            raise ValueError(f"expected a finite origin of shape {frame.shape[1:]}, got shape {np.shape(origin)}")
        self.aligned = np.array_equal(frame, np.eye(len(axes))) and not np.any(0 if origin is None else origin)
        if self.aligned:
            tables = [axis[:, None] for axis in axes]
        else:
            tables = [axis[:, None] * row.astype(axis.dtype) for axis, row in zip(axes, frame, strict=True)]
            tables[0] = tables[0] + np.asarray(0 if origin is None else origin, tables[0].dtype)
        self.tables = tuple(jnp.asarray(table) for table in tables)
        self.num_points = math.prod(len(axis) for axis in axes)
        rows = len(axes[0])
        self.strip = max(h for h in range(1, 17) if rows % h == 0) if compact and len(axes) == 2 else 1
        if self.num_points >= 2**31 and max(len(axis) for axis in axes) > 2**18:
            raise ValueError("expected at most 2^18 cells per axis where there are 2^31 points or more; split the box")

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`, with indices below 2^30 and group below 2^31."""
        # Unsigned, because a quotient that need not be rounded down costs half as much.
        indices, group = indices.astype(jnp.uint32), jnp.asarray(group).astype(jnp.uint32)
        if self.num_points < 2**31:
            indices, group = group * GROUP + indices, jnp.zeros((), jnp.uint32)
        indices, group, row_in_strip = _divide(indices, group, self.strip) if self.strip > 1 else (indices, group, 0)
        rows = []
        for table in self.tables[:0:-1]:
            indices, group, digit = _divide(indices, group, len(table))
            rows.insert(0, table.at[digit].get(mode="promise_in_bounds"))
        # What is left over is below the length of the first axis, and so is its group word.
        first = (group * GROUP + indices) * self.strip + row_in_strip
        rows.insert(0, self.tables[0].at[first].get(mode="clip"))
        return jnp.concatenate(rows, axis=1) if self.aligned else sum(rows[1:], rows[0])

    def take(self, numbers: Any) -> np.ndarray:
        """The points of any numbers, in any order, on the host; bit for bit those of a call."""
        numbers, row_in_strip = np.divmod(np.asarray(numbers, np.int64), self.strip)
        rows = []
        for table in self.tables[:0:-1]:
            numbers, digit = np.divmod(numbers, len(table))
            rows.insert(0, np.asarray(table)[digit])
        rows.insert(0, np.asarray(self.tables[0])[numbers * self.strip + row_in_strip])
        return np.concatenate(rows, axis=1) if self.aligned else sum(rows[1:], rows[0])

    def cells(self, numbers: Any) -> np.ndarray:
        """Flat indices, in the picture [n_1 ... n_d], of points by their number.

        >>> GridSource(((0, 2), (0, 3)), (2, 3), compact=True).cells([0, 1, 2]).tolist()
        [0, 3, 1]
        """
        strip, inside = np.divmod(np.asarray(numbers, np.int64), self.strip * len(self.tables[-1]))
        column, row = np.divmod(inside, self.strip)
        return (strip * self.strip + row) * len(self.tables[-1]) + column if self.strip > 1 else np.asarray(numbers)

    def to_grid(self, values: Any) -> np.ndarray:
        """Values in the order of the points, [num_points], as the picture [n_1 ... n_d].

        >>> import jax.numpy as jnp
        >>> source = GridSource(((0, 2), (0, 3)), (2, 3), compact=True)
        >>> source.to_grid(source(jnp.arange(6))[:, 0]).tolist()
        [[0.5, 0.5, 0.5], [1.5, 1.5, 1.5]]
        """
        shape = tuple(len(table) for table in self.tables)
        if self.strip == 1:
            return np.asarray(values).reshape(shape)
        strips = np.asarray(values).reshape(-1, shape[1], self.strip)
        return strips.swapaxes(1, 2).reshape(shape)


def _centres(box, resolution, dtype):
    """Cell centres per axis, on the host: what is looked up cannot be rounded differently by a compiler."""
    dtype, sides = check_dtype(dtype), check_box(box)
    axes = []
    for (low, high), n in zip(sides.astype(dtype), check_resolution(resolution, len(sides)), strict=True):
        mid, half = (low + high) / 2, (high - low) / 2
        axes.append((mid + half * (2 * np.arange(n) + 1 - n).astype(dtype) / dtype.type(n)).astype(dtype))
    return axes


def _divide(indices, group, n):
    """Quotient (two words) and remainder of `group * 4096 + indices` by n, without leaving 32 bits for n <= 2^18."""
    rest = group % n * GROUP + indices
    return rest // n, group // n, rest % n
