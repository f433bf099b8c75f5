"""Attractors that nobody named: end points grouped by their distance, and followed from one step size to the next.

The question of *where* an orbit ends, for maps whose minima may be isolated points or manifolds. Attractors.jl
(G. Datseris, K. Luiz Rossi and A. Wagemakers, *Chaos* 33, 073151, 2023, arXiv:2304.12786) groups end points and
matches them over a parameter; here they are first counted by cells (`ends`), so that 10^7 of them take seconds.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gdstab._validate import check_count, check_positive
from gdstab.basins.ends import Ends, add, cells_of, distinct, gather
from gdstab.outcomes import Outcome

_BY_OFFSETS = 3  # axes up to which the 3^d neighbours of a cell are looked up one by one
_PIECE = 2**18  # end points that are counted together: what a processor keeps at hand
_SHOWN = 3  # coordinates in a name
_WIDE = 4  # in cells: what is called a set, and no point


@dataclasses.dataclass(frozen=True)
class Found:
    r"""Labels that are found: end points in cells that touch belong to one attractor.

    Parameters
    ----------
    tol
        Side of a cell, in units of the parameters. Points closer than `tol` in every parameter have one label; points
        of one label are linked by others with gaps below 2 `tol`. So a manifold of minima is one attractor where its
        end points are dense at that resolution, and minima closer than that are not told apart. By default a 64th of
        the longest side of what the initial points fill.
    symmetries
        Of the loss: functions of one `theta` to another, each of which maps attractors to attractors. What they map to
        each other has one label.
    reach
        How far, in units of `tol`, an attractor may lie from where it was at the last step size.
    most
        Labels; what has fewer lanes than the most frequent ones is taken together as one more, "others".

    Examples
    --------
    >>> Found(tol=-1.0)
    Traceback (most recent call last):
    ValueError: tol: expected a positive finite number, got -1.0; pass one above zero
    """

    tol: float | None = None
    symmetries: tuple[Callable, ...] = ()
    reach: float = 4.0
    most: int = 64

    def __post_init__(self):
        if self.tol is not None:
            check_positive(self.tol, "tol")
        check_positive(self.reach, "reach")
        check_count(self.most, "most")


@dataclasses.dataclass(frozen=True, eq=False)
class Attractors:
    """What orbits ended on: a label for each, from 0 on."""

    point: Float[np.ndarray, "labels dim"]
    """One end point of each: of its cell with most lanes the first, coordinate by coordinate. Pytrees are raveled."""
    period: Int32[np.ndarray, " labels"]
    """0 of points; of a cycle its number of points, the one on display being the least along a fixed direction."""
    lanes: Int64[np.ndarray, "steps labels"]
    """That ended on it, for every step size."""
    extent: Float[np.ndarray, " labels"]
    """Longest side of the box that holds an end point of each of its cells: small of a point, not so of a manifold."""
    cells: Int64[np.ndarray, " labels"]
    """That it occupies, all step sizes together."""
    tol: float
    """Side of a cell; nan where a function gave the labels."""
    names: tuple[str, ...]
    """Of the labels: their places, or what was said."""

    @property
    def num(self) -> int:
        """How many there are."""
        return len(self.period)


def find_attractors(
    ends: Float[np.ndarray, "n dim"],
    tol: float,
    *,
    images: Callable[[np.ndarray], Sequence[np.ndarray]] | None = None,
    period: Int[np.ndarray, " n"] | None = None,
    most: int = 64,
) -> tuple[Attractors, Int32[np.ndarray, " n"]]:
    """Group end points by their distance, and nothing else: see `Found` for what that means.

    The labels stand in the order of the places, coordinate by coordinate, and depend on the set of points only: not on
    their order, nor on how they were computed. It takes about a second for 10^7 points of the plane.

    Parameters
    ----------
    ends
        End points `[n, dim]`; those that are not finite have the label -1.
    tol
        Side of a cell.
    images
        `images(points [m, dim]) -> [points [m, dim], ...]`: where symmetries, or the map itself, take points; what is
        mapped to each other has one label. So the points of a cycle are one attractor where this is the map.
    period
        Of the cycles that the points stand for, 0 of fixed points; the two kinds never share a label.
    most
        As in `Found`.

    Raises
    ------
    ValueError
        If the points are no array `[n, dim]` of floats, or `tol` is not positive, or too small for their size.

    Examples
    --------
    >>> points = np.array([[1.0, 0.0], [-1.0, 1e-9], [1.0, -1e-9], [np.nan, 0.0]])
    >>> found, label = find_attractors(points, 0.1)
    >>> label.tolist(), found.lanes.tolist(), found.names
    ([1, 0, 1, -1], [[1, 2]], ('(-1, 0)', '(1, 0)'))
    """
    points = np.asarray(ends)
    if points.ndim != 2 or not np.issubdtype(points.dtype, np.floating):
        raise ValueError(f"expected end points [n, dim] of floats, got {points.dtype} of shape {points.shape}; ravel")
    tol = check_positive(tol, "tol")
    finite = np.isfinite(points).all(axis=1)
    points = points if finite.all() else points[finite]
    period = np.zeros(len(points), np.int32) if period is None else np.asarray(period)[finite]
    kind = np.where(period > 0, np.int8(Outcome.CYCLING), np.int8(Outcome.CONVERGED))
    pieces = [slice(start, start + _PIECE) for start in range(0, max(len(points), 1), _PIECE)]
    counted = [
        gather(cells_of(points[piece], tol), points[piece], kind=kind[piece], period=period[piece])
        for piece in pieces
    ]
    table, places = add([ends for ends, _ in counted])
    found, of_cell = attractors_of(table, tol, np.ones(1), images=images, most=most)
    label = np.full(len(finite), -1, np.int32)
    label[finite] = np.concatenate([of_cell[place][cell] for place, (_, cell) in zip(places, counted, strict=True)])
    return found, label


def attractors_of(
    ends: Ends, tol: float, step_sizes: np.ndarray, *, images=None, reach: float = 4.0, most: int = 64
) -> tuple[Attractors, Int32[np.ndarray, " cells"]]:
    """The attractors of counted ends at every step size, matched in ascending order; the label of each cell."""
    label = np.full(len(ends.row), -1, np.int32)
    known: list[Place] = []
    for row in np.argsort(step_sizes, kind="stable"):
        for kind in (Outcome.CONVERGED, Outcome.CYCLING):
            some = np.flatnonzero((ends.row == row) & (ends.kind == kind))
            here = ends.take(some)
            component = _connect(here, tol, images, most)
            number = match_labels(known, places_of(here, component), reach * tol)
            label[some] = np.append(number, -1)[component]
            _remember(known, here, label[some])
    label, others = _pool(ends.lanes, label, most)
    return describe(ends, label, len(step_sizes), tol, others=others), label


class Place(NamedTuple):
    """Where an attractor was last seen: some of its points, and whether it is a cycle."""

    points: Float[np.ndarray, "m dim"]
    cycle: bool


def places_of(ends: Ends, component: Int[np.ndarray, " cells"]) -> list[Place]:
    """Those of some components, in the order of their numbers; -1 is none."""
    return [
        Place(ends.point[component == number], bool(ends.period[component == number].any()))
        for number in range(component.max(initial=-1) + 1)
    ]


def match_labels(known: Sequence[Place], found: Sequence[Place], reach: float) -> Int64[np.ndarray, " found"]:
    """The labels of attractors at one step size, from those at the ones before: the closest pairs first.

    The distance of two is the least of their points, and at most `reach`; a cycle is never matched with a point. What
    has no partner has a new label, counting on from `len(known)`. An attractor that was away may come back.

    Examples
    --------
    >>> at = lambda *x: Place(np.array(x)[:, None], cycle=False)
    >>> match_labels([at(0.0), at(5.0)], [at(5.1, 9.0), at(3.0), at(0.3)], reach=1.0).tolist()
    [1, 2, 0]
    """
    pairs = []
    for old, before in enumerate(known):
        tree = cKDTree(before.points)
        for new, now in enumerate(found):
            if before.cycle == now.cycle:
                nearest = tree.query(now.points, distance_upper_bound=reach * (1 + 1e-12))[0].min()
                pairs.append((float(nearest), old, new))
    label, taken = np.full(len(found), -1, np.int64), set()
    for distance, old, new in sorted(pairs):
        if math.isfinite(distance) and label[new] < 0 and old not in taken:
            label[new] = old
            taken.add(old)
    label[label < 0] = len(known) + np.arange((label < 0).sum())
    return label


def _remember(known: list[Place], here: Ends, label: np.ndarray) -> None:
    """Where the attractors of one step size are, for the next."""
    for number in np.unique(label[label >= 0]).tolist():
        place = Place(here.point[label == number], bool(here.period[label == number].any()))
        known[number : number + 1] = [place]  # in its place, or behind all others


def _connect(ends: Ends, tol: float, images, most: int) -> Int64[np.ndarray, " cells"]:
    """The component of each cell, in the order of their places; -1 of those beyond the `most` largest."""
    if not len(ends.row):
        return np.zeros(0, np.int64)
    keys, cell = distinct(list(ends.key.T))
    pairs = _touching(keys)
    if images is not None:
        first = np.full(len(keys), len(cell))
        np.minimum.at(first, cell, np.arange(len(cell)))
        pairs = np.concatenate([pairs, *_mapped(keys, ends.point[first], images, tol)])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (len(keys),) * 2)
    num, component = connected_components(graph, directed=False)
    component = component[cell]
    lanes = np.bincount(component, ends.lanes, num)
    kept = np.sort(np.lexsort((np.arange(num), -lanes))[:most])
    heaviest = _heaviest(component, ends.lanes, num)[kept]
    number = np.full(num, -1)
    number[kept[_by_place(ends.point[heaviest], tol)]] = np.arange(len(kept))
    return number[component]


def _touching(keys: Int64[np.ndarray, "m axes"]) -> Int64[np.ndarray, "pairs 2"]:
    """Pairs of cells that touch, corners included; the cells are sorted."""
    if len(keys) < 2:
        return np.zeros((0, 2), np.int64)
    low, span = keys.min(axis=0), np.ptp(keys, axis=0) + 3  # room for a neighbour on both sides
    axes = keys.shape[1]
    if axes > _BY_OFFSETS or math.prod(map(int, span)) >= 2**62:
        return cKDTree(keys - low).query_pairs(1.5, p=np.inf, output_type="ndarray").astype(np.int64)
    weights = np.array([math.prod(map(int, span[axis + 1 :])) for axis in range(axes)])
    codes = (keys - low + 1) @ weights
    found = []
    for offset in itertools.product((-1, 0, 1), repeat=axes):
        if offset > (0,) * axes:  # each pair once
            wanted = codes + np.dot(offset, weights)
            place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
            here = np.flatnonzero(codes[place] == wanted)
            found.append(np.stack([here, place[here]], axis=1))
    return np.concatenate(found)


def _mapped(keys, points, images, tol: float) -> list[np.ndarray]:
    """Pairs of cells and those that an image of one of their points lies in, or touches."""
    low = keys.min(axis=0)
    tree, found = cKDTree(keys - low), []
    for image in images(points):
        usable = np.flatnonzero(np.isfinite(image).all(axis=1))
        distance, place = tree.query(cells_of(np.asarray(image)[usable], tol) - low, p=np.inf, distance_upper_bound=1.5)
        hit = np.isfinite(distance)
        found.append(np.stack([usable[hit], place[hit]], axis=1))
    return found


def _heaviest(group: np.ndarray, lanes: np.ndarray, num: int) -> Int64[np.ndarray, " num"]:
    """The member with most lanes of each group that has some, the first of equals."""
    order = np.lexsort((np.arange(len(group)), -lanes, group))
    return order[np.searchsorted(group[order], np.arange(num))]


def _by_place(points: Float[np.ndarray, "n dim"], tol: float) -> Int64[np.ndarray, " n"]:
    """The order of points, coordinate by coordinate, where those within `tol` of the next are equal: rounding is no
    reason to come first.
    """
    ranks = []
    for column in points.T:
        order = np.argsort(column, kind="stable")
        rank = np.empty(len(column), np.int64)
        rank[order] = np.cumsum(np.diff(column[order], prepend=column[order[:1]]) > tol)
        ranks.append(rank)
    return np.lexsort(ranks[::-1])


def _pool(lanes: np.ndarray, label: np.ndarray, most: int) -> tuple[Int32[np.ndarray, " cells"], bool]:
    """Labels without gaps: the `most` largest in their order, all others and -1 as one behind them, if there are any."""
    num = label.max(initial=-1) + 1
    total = np.bincount(label[label >= 0], lanes[label >= 0], num)
    kept = np.sort(np.lexsort((np.arange(num), -total))[:most])
    number = np.full(num + 1, len(kept), np.int32)
    number[kept] = np.arange(len(kept))
    return number[label], bool((number[label] == len(kept)).any())


def describe(
    ends: Ends, label: np.ndarray, steps: int, tol: float, names: Sequence[str] = (), others: bool = False
) -> Attractors:
    """The attractors whose labels, from 0 on, cells have; the first of them have names, if any, or the last is a rest."""
    num = max(int(label.max(initial=-1)) + 1, len(names))
    lanes = np.zeros((steps, num), np.int64)
    np.add.at(lanes, (ends.row, label), ends.lanes)
    point = np.full((num, ends.point.shape[1]), np.nan, ends.point.dtype)
    period, extent, cells = np.zeros(num, np.int32), np.zeros(num), np.bincount(label, minlength=num)
    there = np.flatnonzero(cells)
    if there.size:
        heaviest = _heaviest(label, ends.lanes, num)[there]
        point[there], period[there] = ends.point[heaviest], ends.period[heaviest]
        ends_of = np.full((2, steps, *point.shape), -np.inf)
        for sign, most in zip((1, -1), ends_of, strict=True):
            np.maximum.at(most, (ends.row, label), sign * ends.point.astype(float))
        extent = np.where(np.isfinite(ends_of).all(axis=0), ends_of.sum(axis=0), 0).max(axis=(0, 2), initial=0)
    said = [*names, *(name_of(point[i], period[i], extent[i], tol) for i in range(len(names), num))]
    if others:
        said[-1], point[-1], period[-1] = "others", np.nan, 0
    return Attractors(point, period, lanes, extent, cells, tol, tuple(said))


def name_of(point: Float[np.ndarray, " dim"], period: int, extent: float, tol: float) -> str:
    """What an attractor is called: where it is, to the digits that `tol` resolves.

    >>> name_of(np.array([3.0, 1e-9]), 0, 0.0, 0.1), name_of(np.array([0.5, 2.0]), 2, 0.0, 0.1)
    ('(3, 0)', 'cycle of 2 at (0.5, 2)')
    """
    digits = 3 if math.isnan(tol) else min(max(1 - math.floor(math.log10(tol)), 0), 12)
    shown = [f"{round(float(x), digits) + 0.0:.12g}" for x in point[:_SHOWN]]
    place = f"({', '.join(shown)}{', ...' if len(point) > _SHOWN else ''})"
    if period:
        return f"cycle of {period} at {place}"
    return f"set through {place}" if extent > _WIDE * tol else place
