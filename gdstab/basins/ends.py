"""Where orbits ended, counted by cells of a grid: integers that add up, whatever the order, and one point of each cell.

A few thousand cells say of 10^7 end points all that is needed to group them (see `attractors`); and counts of cells can
be added from chunks, tiles and processes, so that what is found does not depend on how the work was cut.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int8, Int32, Int64

_SHIFT = (math.sqrt(5) - 1) / 2
"""Of the grid, in cells: minima like round numbers, where the edge of a cell would cut them into pieces."""
_LARGEST = 2.0**52
"""Cells from the origin, at the most: beyond, rounding decides on the cell."""
_PACKED, _TABLE, _SAMPLE = 2**62, 2**16, 2**12
_FACTOR = 0x9E3779B97F4A7C15  # odd, its bits without a pattern (Knuth's multiplicative hash)


class Ends(NamedTuple):
    """Occupied cells, in the order of their numbers, and how many lanes ended in each."""

    row: Int64[np.ndarray, " cells"]
    """Number of the step size."""
    part: Int64[np.ndarray, " cells"]
    """Of the source of points (stratum, replicate) that the lanes began in."""
    kind: Int8[np.ndarray, " cells"]
    """The `Outcome`: that of a point, or of a cycle, which stand in different cells."""
    key: Int64[np.ndarray, "cells axes"]
    """Of the cell along every parameter; or one number, that a function has named."""
    lanes: Int64[np.ndarray, " cells"]
    point: Float[np.ndarray, "cells dim"]
    """The end point in it that comes first, coordinate by coordinate."""
    period: Int32[np.ndarray, " cells"]
    """Of the orbit that ended there; 0 of a point."""

    @classmethod
    def nowhere(cls, axes: int, dim: int, dtype) -> "Ends":
        """No cell at all.

        >>> Ends.nowhere(2, 2, "float64").key.shape
        (0, 2)
        """
        none = np.zeros(0, np.int64)
        return cls(
            none, none, np.zeros(0, np.int8), np.zeros((0, axes), np.int64), none, np.zeros((0, dim), dtype),
            np.zeros(0, np.int32),
        )  # fmt: skip

    def take(self, cells) -> "Ends":
        """Some of the cells."""
        return Ends(*(array[cells] for array in self))

    def longer(self, cells: int) -> "Ends":
        """As many cells, the new ones without lanes; and `occupied` leaves those out again."""
        return Ends(*(np.concatenate([a, np.zeros((cells - len(a), *a.shape[1:]), a.dtype)]) for a in self))

    def occupied(self) -> "Ends":
        """The cells that have lanes."""
        return self.take(self.lanes > 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, to be written down."""
        return {f"ends_{name}": array for name, array in self._asdict().items()}

    @classmethod
    def from_arrays(cls, arrays) -> "Ends | None":
        """Back from `arrays`; None where there are none."""
        if f"ends_{cls._fields[0]}" not in arrays:
            return None
        return cls(**{name: np.asarray(arrays[f"ends_{name}"]) for name in cls._fields})


def cells_of(points: Float[np.ndarray, "n dim"], tol: float) -> Int64[np.ndarray, "n dim"]:
    """The cells of side `tol` that points lie in.

    Raises
    ------
    ValueError
        If the points are so large that numbers of their dtype do not tell such cells apart.

    Examples
    --------
    >>> cells_of(np.array([[0.0, 1.0], [0.02, 1.26]]), 0.25).tolist()
    [[0, 4], [0, 5]]
    """
    found = np.empty(points.shape, np.int64)
    for axis, column in enumerate(points.T):
        place = column / np.float64(tol)
        place += _SHIFT
        if not np.abs(place).max(initial=0) < _LARGEST:
            size = float(np.abs(column).max())
            raise ValueError(f"tol: {tol:g} is below what points of size {size:g} can be told apart by; raise it")
        np.floor(place, out=place)
        found[:, axis] = place
    return found


def gather(
    key: Int64[np.ndarray, "n axes"],
    point: Float[np.ndarray, "n dim"],
    *,
    kind: Int8[np.ndarray, " n"],
    period: Int[np.ndarray, " n"],
    row: Int[np.ndarray, " n"] | None = None,
    part: Int[np.ndarray, " n"] | None = None,
    lanes: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Ends, Int64[np.ndarray, " n"]]:
    """Count equal cells together; the cells, and which of them each of the n is in.

    Neither depends on the order of what is given, but for the order of the second.

    >>> one = np.ones(3, np.int8)
    >>> ends, cell = gather(np.array([[5], [2], [5]]), np.array([[0.5], [0.2], [0.4]]), kind=one, period=one * 0)
    >>> ends.key.tolist(), ends.lanes.tolist(), ends.point.tolist(), cell.tolist()
    ([[2], [5]], [1, 2], [[0.2], [0.4]], [1, 0, 1])
    """
    none = np.zeros(len(key), np.int64)
    row, part = none if row is None else row, none if part is None else part
    numbers, cell = distinct([row, part, kind, *key.T])
    first = _first(cell, len(numbers), [*point.T, period])
    counts = np.bincount(cell, lanes, len(numbers)).astype(np.int64)  # exact: sums of integers below 2^53
    ends = Ends(
        row=numbers[:, 0],
        part=numbers[:, 1],
        kind=numbers[:, 2].astype(np.int8),
        key=numbers[:, 3:],
        lanes=counts,
        point=point[first] + np.zeros((), point.dtype),  # -0 and 0 are one number
        period=period[first].astype(np.int32),
    )
    return ends, cell


def add(tables: Sequence[Ends]) -> tuple[Ends, list[Int64[np.ndarray, " cells"]]]:
    """The sum of several counts, and where in it the cells of each of them are."""
    if len(tables) == 1:
        return tables[0], [np.arange(len(tables[0].row))]
    whole = Ends(*(np.concatenate(arrays) for arrays in zip(*tables, strict=True)))
    fields = {name: getattr(whole, name) for name in ("kind", "period", "row", "part", "lanes")}
    total, cell = gather(whole.key, whole.point, **fields)
    return total, np.split(cell, np.cumsum([len(table.row) for table in tables])[:-1])


def distinct(columns: Sequence[np.ndarray]) -> tuple[Int64[np.ndarray, "found columns"], Int64[np.ndarray, " n"]]:
    """The different rows of some columns of integers, sorted, and which of them each row is.

    >>> rows, place = distinct([np.array([1, 0, 1]), np.array([-7, 7, -7])])
    >>> rows.tolist(), place.tolist()
    ([[0, 7], [1, -7]], [1, 0, 1])
    """
    num = len(columns[0])
    if not num:
        return np.zeros((0, len(columns)), np.int64), np.zeros(0, np.int64)
    low = [int(column.min()) for column in columns]
    spans = [int(column.max()) - least + 1 for column, least in zip(columns, low, strict=True)]
    if math.prod(spans) >= _PACKED:
        return _distinct_rows(np.stack(columns, axis=1).astype(np.int64))
    code = np.zeros(num, np.int64)
    for column, least, span in zip(columns, low, spans, strict=True):
        if span > 1:
            code *= span
            code += column - np.int64(least) if least else column
    found, place = _distinct_codes(code, math.prod(spans))
    rows = np.empty((len(found), len(columns)), np.int64)
    for axis in reversed(range(len(columns))):
        found, rest = np.divmod(found, spans[axis])
        rows[:, axis] = rest + low[axis]
    return rows, place


def _distinct_codes(code: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of numbers below `size`, sorted: by a table of all of them where it is not much longer."""
    if size > max(_TABLE, 4 * len(code)):
        found = np.unique(code[:: len(code) // _SAMPLE + 1])  # mostly there are few, and these are all
        place = np.searchsorted(found, code)
        new = np.flatnonzero(found[np.minimum(place, len(found) - 1)] != code)
        if not len(new):
            return found, place
        return np.unique(code, return_inverse=True)
    seen = np.zeros(size, bool)
    seen[code] = True
    found = np.flatnonzero(seen)
    rank = np.zeros(size, np.int64)
    rank[found] = np.arange(len(found))
    return found, rank[code]


def _distinct_rows(rows: Int64[np.ndarray, "n columns"]) -> tuple[np.ndarray, np.ndarray]:
    """By a hash of 64 bits, which is held against the rows themselves."""
    hashed = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        hashed = (hashed ^ (hashed >> np.uint64(29)) ^ column.view(np.uint64)) * np.uint64(_FACTOR)
    _, first, place = np.unique(hashed, return_index=True, return_inverse=True)
    found = rows[first]
    if (found[place] != rows).any():  # two rows of one hash
        return np.unique(rows, axis=0, return_inverse=True)
    order = np.lexsort(found.T[::-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return found[order], rank[place]


def _first(cell: np.ndarray, num: int, columns: Sequence[np.ndarray]) -> Int64[np.ndarray, " num"]:
    """Which member of each cell has the least first column; of several the least second, and so on."""
    member, found = None, np.empty(num, np.int64)
    for column in columns:
        values = column if member is None else column[member]
        where = cell if member is None else cell[member]
        least = np.full(num, values.max() if len(values) else 0, values.dtype)
        np.minimum.at(least, where, values)
        keep = np.flatnonzero(values == least[where])
        member = keep if member is None else member[keep]
        if len(member) == num:
            break
    if member is None:
        member = np.arange(len(cell))
    found[cell[member]] = member
    return found
