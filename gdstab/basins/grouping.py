"""Attractors that nobody named: end points grouped by their distance, and followed from one step size to the next.

The question of *where* an orbit ends, for maps whose minima may be isolated points or manifolds. Attractors.jl
(G. Datseris, K. Luiz Rossi and A. Wagemakers, *Chaos* 33, 073151, 2023, arXiv:2304.12786) groups end points and
matches them over a parameter; here they are first counted by cells (`ends`), so that 10^7 of them take seconds.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gdstab._validate import check_positive
from gdstab.basins.attractors import Attractors, describe, heaviest_of
from gdstab.basins.ends import Ends, add, cells_of, distinct, gather
from gdstab.outcomes import Outcome

_BY_OFFSETS = 3  # axes up to which the 3^d neighbours of a cell are looked up one by one
_PIECE = 2**18  # end points that are counted together: what a processor keeps at hand


def find_attractors(
    ends,
    tol: float,
    *,
    images: Callable[[np.ndarray], Sequence[np.ndarray]] | None = None,
    period=None,
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
        Of the cycles that the points stand for, `[n]`, 0 of fixed points; the two kinds never share a label.
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
        gather(cells_of(points[piece], tol), points[piece], kind=kind[piece], period=period[piece]) for piece in pieces
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
    heaviest = heaviest_of(component, ends.lanes, num)[kept]
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
    """Labels without gaps: the `most` largest in their order, all others and -1 as one behind them, if any."""
    num = label.max(initial=-1) + 1
    total = np.bincount(label[label >= 0], lanes[label >= 0], num)
    kept = np.sort(np.lexsort((np.arange(num), -total))[:most])
    number = np.full(num + 1, len(kept), np.int32)
    number[kept] = np.arange(len(kept))
    return number[label], bool((number[label] == len(kept)).any())
