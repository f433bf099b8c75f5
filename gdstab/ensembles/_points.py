"""Where an ensemble's lanes come from; and `map_points`: any function of one point."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from gdstab._compiling import Use, kind_of
from gdstab._contract import entry
from gdstab._guard import all_equations, cores, runs_alone, turn
from gdstab._identity import is_any_array
from gdstab._validate import as_state, as_theta, check_count, check_one_dtype, shapes_of
from gdstab.ensembles._tuning import worker_pool, working_bytes
from gdstab.sampling import GROUP

SMALLEST_ROW = 1024


def is_source(initial) -> bool:
    """Whether `initial` draws its points where they are used: `num_points`, and a call that takes indices."""
    return hasattr(initial, "num_points") and callable(initial)


def as_points(initial) -> tuple[Any, int]:
    """Initial points as a pytree of NumPy or JAX arrays with one leading axis, and their number."""
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in jax.tree.leaves(initial)}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            "`initial` must be one array [points, ...], or a pytree of arrays that share their leading axis, but got "
            f"shapes {shapes_of(initial)}. For one orbit use `orbits.settle`, or add an axis."
        )
    if sizes == {0}:
        raise ValueError("`initial` holds no points: expected at least one along its leading axis.")
    initial = as_theta(initial)
    check_one_dtype(initial)
    dtype = jax.tree.leaves(initial)[0].dtype
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"`initial` is {dtype}, which JAX has disabled: call `jax.config.update('jax_enable_x64', True)` "
            "first (or set JAX_ENABLE_X64=1), or convert the points to float32."
        )
    return initial, sizes.pop()


class Feed(NamedTuple):
    """Where lanes come from: lane `s * num_points + p` pairs step size s with point p, or lane i the i-th of both."""

    initial: Any
    num_points: int
    step_sizes: np.ndarray  # [steps]
    paired: bool
    numbered: bool = False  # whether points come with their numbers

    @property
    def by_rows(self) -> bool:
        """Whether lanes are fed one step size at a time, which is then a scalar on the device and costs nothing."""
        return not self.paired and (
            len(self.step_sizes) == 1 or is_source(self.initial) or self.num_points >= SMALLEST_ROW
        )

    def __call__(self, start: int, stop: int, chunk: int):
        """Lanes `start` to `stop` as `(points, window, step size)`, padded to `chunk`.

        `window` tells a lazy source which points to make; it is None for points that are given.
        """
        row, first = divmod(start, self.num_points)
        lane = range(start, stop) if self.by_rows else np.minimum(np.arange(start, start + chunk), max(stop - 1, start))
        if self.by_rows:
            step_size = self.step_sizes[min(row, len(self.step_sizes) - 1)]
        else:
            step_size = self.step_sizes[lane if self.paired else lane // self.num_points]
        if is_source(self.initial):
            group, offset = divmod(first, GROUP)
            return None, (np.int32(group), np.int32(offset)), step_size
        if self.by_rows:
            points = _take(self.initial, slice(first, first + len(lane)))
            points = jax.tree.map(lambda leaf: _pad(leaf, chunk), points)
            return self._with_numbers(points, first + np.arange(chunk)), None, step_size
        return self._with_numbers(_take(self.initial, lane % self.num_points), lane % self.num_points), None, step_size

    def _with_numbers(self, points, numbers: np.ndarray):
        return (points, numbers.astype(np.uint32)) if self.numbered else points

    @property
    def can_take(self) -> bool:
        """Whether single points can be had again, so that a first pass need not hand back the states of its lanes."""
        return self.by_rows and (not is_source(self.initial) or hasattr(self.initial, "take"))

    def take(self, lanes: np.ndarray, chunk: int):
        """As a call, for any lanes of one step size."""
        numbers = lanes % self.num_points
        points = self.initial.take(numbers) if is_source(self.initial) else _take(self.initial, numbers)
        row = int(lanes[0]) // self.num_points if len(lanes) else 0
        points = jax.tree.map(lambda leaf: _pad(leaf, chunk), self._with_numbers(points, numbers))
        return points, None, self.step_sizes[row % len(self.step_sizes)]

    def spans(self, total: int, tile: int) -> list[tuple[int, int]]:
        """Tiles of lanes; by rows, each row is cut anew, and none crosses from one step size to the next."""
        rows = range(0, total, self.num_points if self.by_rows else total)
        ends = [min(row + rows.step, total) for row in rows]
        return [(a, min(a + tile, end)) for row, end in zip(rows, ends, strict=True) for a in range(row, end, tile)]

    def allows(self, start: int, stop: int, total: int) -> bool:
        """Whether these lanes can be one tile."""
        one_row = not self.by_rows or start // self.num_points == (stop - 1) // self.num_points
        return 0 <= start < stop <= total and one_row


def _pad(leaf: np.ndarray, length: int) -> np.ndarray:
    """The array, with zeros behind it up to a length."""
    if len(leaf) == length:
        return leaf
    return np.concatenate([leaf, np.zeros((length - len(leaf), *leaf.shape[1:]), leaf.dtype)])


def _take(points, rows):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], points)


@entry(host=True)
def map_points(fn: Callable, points, *, chunk: int | None = None, block: int | None = None):
    """Apply `fn`, written for one point, to all of `points` [points, ...], in chunks that fit into memory.

    Parameters
    ----------
    fn
        Any JAX function of one point that returns a pytree of arrays. Like a loss it compiles anew for each new
        function object, and a callable `equinox.Module` does not.
    points
        An array, or a pytree of arrays, with one leading axis.
    chunk
        Points per call; by default what keeps all intermediate arrays of one call below about 256 MiB.
    block
        Points of a call that run together, the blocks one after another: where `fn` holds a loop that ends when it is
        done, each block waits for its own slowest point only. By default what `fn.points_together` says, or all.

    Returns
    -------
    The results, stacked along the leading axis, as NumPy arrays.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> map_points(lambda theta: jnp.sum(theta**2), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [5.0, 25.0]
    """
    points = as_state(points)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(points)}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            "expected `points` as one array [points, ...], or as a pytree of arrays that share their leading axis, got "
            f"shapes {shapes_of(points)}; add an axis to a single point"
        )
    (total,) = sizes
    if total == 0:
        raise ValueError("`points` is empty: expected at least one point along the leading axis.")
    chunk = chunk if chunk is None else check_count(chunk, "chunk")
    block = block if block is None else check_count(block, "block")
    use = Use(fn, is_any_array)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), points)
    bytes_each, alone = use.entry.once(("needs", kind_of((shapes, use.numbers))), lambda: _needs(use, shapes))
    chunk = chunk or max(2**28 // bytes_each, 1)
    workers = 1 if jax.default_backend() != "cpu" or alone else cores()
    chunk = min(chunk, -(-total // workers))
    block = min(block or getattr(fn, "points_together", None) or chunk, chunk)
    chunk = -(-chunk // block) * block
    mapped = use.entry.once(("map", block), lambda: jax.jit(partial(use.entry.slot.trace, partial(_mapped, block))))

    def part(start):
        rows = np.minimum(np.arange(start, start + chunk), total - 1)
        with turn(alone):
            return _take(mapped(use.numbers, _take(points, rows)), slice(total - start))

    if workers == 1:
        parts = [part(start) for start in range(0, total, chunk)]
    else:
        with worker_pool(workers) as pool:
            parts = list(pool.map(part, range(0, total, chunk)))
    return jax.tree.map(lambda *pieces: np.concatenate(pieces), *parts)


def _mapped(block, fn, points):
    if jax.tree.leaves(points)[0].shape[0] == block:
        return jax.vmap(fn)(points)
    return lax.map(fn, points, batch_size=None if block == 1 else block)


def _needs(use: Use, one) -> tuple[int, bool]:
    """Bytes that a function works with at one point, and whether it must run alone."""
    traced = jax.make_jaxpr(partial(use.entry.slot.trace, lambda fn, *args: fn(*args)))(use.numbers, one)
    equations = all_equations(traced)
    return working_bytes(equations), runs_alone(equations)
