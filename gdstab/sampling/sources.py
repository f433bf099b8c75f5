"""Where orbits start: grids, boxes, balls, Sobol points; whole in memory, or as sources that make them when asked.

Random points are drawn in logical groups of 4096: group g has the key fold_in(fold_in(key, g >> 32), g & 0xffffffff).
Point i is therefore the same whatever the number of points, the block, the device or the process that asks for it.
"""

import math
import warnings
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import qmc

from gdstab._validate import check_box, check_count, check_dtype, check_positive, check_resolution

GROUP = 4096
"""Points per logical group of random draws, and the unit of a source's `group`; part of the meaning of a seed."""

Points = Float[Array, "points dim"]


class PointSource(Protocol):
    """Points by their number, made inside jit when asked for, so that 10^9 of them need no memory."""

    num_points: int

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`; two words, so that 32-bit integers reach past 2^31."""
        ...


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


def box(key: Array, num: int, box: Any, *, dtype: Any = None) -> Points:
    """Uniform points in a box, [num, dim].

    Examples
    --------
    >>> import jax
    >>> box(jax.random.key(0), 3, ((0, 1), (2, 3))).shape
    (3, 2)
    """
    return _all_points(RandomSource.box(key, num, box, dtype=dtype))


def gaussian(key: Array, num: int, dim: int, scale: float = 1.0, *, dtype: Any = None) -> Points:
    """Normal points with independent entries of standard deviation `scale`, [num, dim].

    Examples
    --------
    >>> import jax
    >>> gaussian(jax.random.key(0), 3, 2, scale=0.1).shape
    (3, 2)
    """
    return _all_points(RandomSource.gaussian(key, num, dim, scale, dtype=dtype))


def ball(key: Array, num: int, dim: int, radius: float = 1.0, *, dtype: Any = None) -> Points:
    """Uniform points in a ball around the origin, [num, dim].

    Examples
    --------
    >>> import jax
    >>> ball(jax.random.key(0), 3, 2, radius=2.0).shape
    (3, 2)
    """
    return _all_points(RandomSource.ball(key, num, dim, radius, dtype=dtype))


def sobol(num: int, box: Any, *, start: int = 0, seed: int | None = None, dtype: Any = None) -> Points:
    """Points number start, ..., start + num - 1 of a Sobol sequence stretched over a box, [num, dim].

    Without a seed the sequence is the plain one, whose first point is the low corner; with a seed it is scrambled
    (Owen 1998), which makes averages unbiased. It ends after 2^30 points (`scipy.stats.qmc.Sobol`).

    Examples
    --------
    >>> sobol(3, ((0, 1), (0, 2))).tolist()
    [[0.0, 0.0], [0.5, 1.0], [0.75, 0.5]]
    """
    sides, dtype = check_box(box), check_dtype(dtype)
    num, start = check_count(num, "num"), check_count(start, "start", least=0)
    if start + num > 2**30:
        raise ValueError(f"expected start + num of at most 2^30, got {start + num}; draw random points beyond that")
    sequence = qmc.Sobol(len(sides), scramble=seed is not None, rng=seed)
    if start:
        sequence.fast_forward(start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a length that is no power of 2 costs balance, and is allowed
        unit = sequence.random(num)
    return jnp.asarray((sides[:, 0] + (sides[:, 1] - sides[:, 0]) * unit).astype(dtype))


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
        if np.linalg.matrix_rank(frame) < len(frame):
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
        if self.num_points < 2**31:
            indices, group = jnp.asarray(group, indices.dtype) * GROUP + indices, jnp.zeros((), indices.dtype)
        else:
            group = jnp.asarray(group, indices.dtype)
        indices, group, row_in_strip = _divide(indices, group, self.strip) if self.strip > 1 else (indices, group, 0)
        rows = []
        for table in self.tables[:0:-1]:
            indices, group, digit = _divide(indices, group, len(table))
            rows.insert(0, table[digit])
        # What is left over is below the length of the first axis, and so is its group word.
        rows.insert(0, self.tables[0][(group * GROUP + indices) * self.strip + row_in_strip])
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


class RandomSource(eqx.Module):
    """Random points by number; made by `RandomSource.box`, `.gaussian` or `.ball`.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> source = RandomSource.gaussian(jax.random.key(0), 10**12, dim=2)
    >>> source(jnp.arange(4), group=10**7).shape
    (4, 2)
    """

    key: Array
    low: Float[Array, " dim"]  # added to the draws
    size: Float[Array, " dim"]  # multiplies them
    kind: str = eqx.field(static=True)
    num_points: int = eqx.field(static=True)

    @classmethod
    def box(cls, key: Array, num: int, box: Any, *, dtype: Any = None) -> "RandomSource":
        """Uniform in a box ((low, high), ...)."""
        sides, dtype = check_box(box), check_dtype(dtype)
        low, size = sides[:, 0].astype(dtype), (sides[:, 1] - sides[:, 0]).astype(dtype)
        return cls(key, jnp.asarray(low), jnp.asarray(size), "box", _check_num(num))

    @classmethod
    def gaussian(cls, key: Array, num: int, dim: int, scale: float = 1.0, *, dtype: Any = None) -> "RandomSource":
        """Normal, independent entries of standard deviation `scale`."""
        return cls(key, *_isotropic(dim, check_positive(scale, "scale"), dtype), "gaussian", _check_num(num))

    @classmethod
    def ball(cls, key: Array, num: int, dim: int, radius: float = 1.0, *, dtype: Any = None) -> "RandomSource":
        """Uniform in the ball of a radius around the origin."""
        return cls(key, *_isotropic(dim, check_positive(radius, "radius"), dtype), "ball", _check_num(num))

    def __call__(self, indices: Int[Array, " points"], group: Any = 0) -> Points:
        """The points number `group * 4096 + indices`, which must lie within len(indices) of the smallest.

        Whole groups are drawn, as many as that window may touch; what lies outside of it comes back as NaN. Cheapest
        are windows of many groups (one group more than they hold is drawn).
        """
        first = jnp.min(indices) // GROUP
        num_groups = -(-indices.size // GROUP) + 1
        group = jnp.asarray(group)
        groups = group + (first + jnp.arange(num_groups, dtype=first.dtype)).astype(group.dtype)
        draws = jax.vmap(self._draw_group)(groups).reshape(-1, len(self.low))
        return jnp.take(draws, indices - first * GROUP, axis=0, mode="fill", fill_value=jnp.nan)

    def _draw_group(self, group):
        shape, dtype = (GROUP, len(self.low)), self.low.dtype
        key = _group_key(self.key, group)
        if self.kind == "box":
            draws = jax.random.uniform(key, shape, dtype)
        elif self.kind == "gaussian":
            draws = jax.random.normal(key, shape, dtype)
        else:
            key_direction, key_radius = jax.random.split(key)
            normal = jax.random.normal(key_direction, shape, dtype)
            normal = normal / jnp.sqrt(jnp.sum(normal * normal, axis=1, keepdims=True))
            draws = normal * jax.random.uniform(key_radius, (GROUP, 1), dtype) ** (1 / shape[1])
        return self.low[None, :] + self.size[None, :] * draws


def _all_points(source):
    return eqx.filter_jit(source)(jnp.arange(source.num_points))


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


def _group_key(key, group):
    """The key of a logical group; 32-bit group numbers have no upper word."""
    wide = jnp.iinfo(group.dtype).bits > 32
    high = (group >> 32).astype(jnp.uint32) if wide else jnp.zeros((), jnp.uint32)
    return jax.random.fold_in(jax.random.fold_in(key, high), group.astype(jnp.uint32))


def _check_num(num):
    return check_count(num, "num")


def _isotropic(dim, size, dtype):
    shape, dtype = (check_count(dim, "dim"),), check_dtype(dtype)
    return jnp.zeros(shape, dtype), jnp.full(shape, size, dtype)
