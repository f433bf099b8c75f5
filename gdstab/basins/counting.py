"""Ranges of points, drawn once for all step sizes, run, and counted: nothing is kept of a lane but its counts."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles
from gdstab._compiling import jit
from gdstab._numerics import rounding
from gdstab._types import LossFn
from gdstab._validate import check_positive
from gdstab.basins.attractors import Found
from gdstab.basins.kinds import at_floor, classify_ends
from gdstab.basins.labels import Labeller
from gdstab.basins.tallies import Layout, Tally, count_by, count_steps
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.sampling import GROUP
from gdstab.updates import UpdateRule

_WINDOW, _WINDOW_BYTES = 2**18, 2**26
"""Points that are drawn by one call, and the bytes they may take: fewer are drawn slower, more no faster."""
_PIECE_BYTES = 2**27
"""What the points may take that are run together."""
_FEW, _FEW_PIECES = 256, 16


class Draw:
    """The points of a source as NumPy arrays, made in aligned windows of one length by one compiled function.

    So a point is the same, bit for bit, whatever range it is asked for with. Drawn once, it serves all step sizes, and
    the engine runs given points 1.3 to 3 times as fast as those it must draw block by block.
    """

    def __init__(self, source):
        self.num_points = source.num_points
        self.one = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
            jax.eval_shape(source, jax.ShapeDtypeStruct((1,), np.int32)),
        )
        size = max(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.one)), 1)
        groups = min(_power_of_two(min(_WINDOW, _WINDOW_BYTES // size) // GROUP), -(-self.num_points // GROUP))
        self._window = groups * GROUP
        self.most = max(_power_of_two(_PIECE_BYTES // size), 1)  # points that should be in memory at a time
        self._source = source

    def few(self):
        """Some thousand points from all over the source: enough to see how far it reaches."""
        starts = np.unique(np.linspace(0, max(self.num_points - _FEW, 0), _FEW_PIECES).astype(np.int64)).tolist()
        pieces = [self(start, min(start + _FEW, self.num_points)) for start in starts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)

    def __call__(self, start: int, stop: int):
        """The points number `start` to `stop`, [stop - start, ...]."""
        size, windows = self._window, []
        for first in range(start // size * size, stop, size):
            last = np.int32(min(size, self.num_points - first) - 1)
            drawn = _draw(self._source, size, np.asarray(first // GROUP, np.int32), np.asarray(last))
            inside = slice(max(start - first, 0), stop - first)
            windows.append(jax.tree.map(lambda leaf, inside=inside: np.asarray(leaf)[inside], drawn))
        return windows[0] if len(windows) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *windows)


def _power_of_two(number: int) -> int:
    return 1 << (max(number, 1).bit_length() - 1)


@jit
def _draw(source, size, group, last):
    return source(jnp.minimum(jnp.arange(size, dtype=jnp.int32), last), group)


class Questions(NamedTuple):
    """What is asked of every point beside its outcome."""

    classify: Callable | None
    kinds: Iterable
    weight: Callable | None
    poststrata: tuple[Callable, object] | None
    largest_weight: float | None = None
    label: Callable | Found | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the kinds, in the order of their codes."""
        return () if self.classify is None else tuple(kind.name.lower() for kind in self.kinds)

    @property
    def probabilities(self) -> np.ndarray | None:
        """Of the post-strata."""
        return None if self.poststrata is None else np.asarray(self.poststrata[1], np.float64)

    def check(self, design: str) -> None:
        """Raise `ValueError` where they cannot be answered."""
        if self.classify is not None and ([*map(int, self.kinds)] != [*range(len(self.names))] or not self.names):
            raise ValueError(
                f"expected `kinds` to be an enumeration from 0 on, such as stability.Kind, got {self.kinds}"
            )
        if (self.weight is not None or self.poststrata is not None) and design != "independent":
            raise ValueError(f"weights and post-strata need independent points, but the source draws {design}")
        if self.weight is not None and self.poststrata is not None:
            raise ValueError(
                "expected weights or post-strata, got both; put the labels' probabilities into the weights"
            )
        if self.label is not None and (self.weight is not None or self.poststrata is not None):
            raise ValueError("label: expected points of equal weight, got weights or post-strata; leave them out")
        if self.largest_weight is not None:
            check_positive(self.largest_weight, "largest_weight")
            if self.weight is None:
                raise ValueError("largest_weight: expected a `weight` that it bounds, got none; pass both or neither")
        shares = self.probabilities
        if shares is None:
            return
        came = np.asarray(self.poststrata[1]).dtype
        slack = max(1e-9, rounding(shares.shape, came)) if np.issubdtype(came, np.floating) and shares.size else 1e-9
        if shares.ndim != 1 or not (shares > 0).all() or abs(shares.sum() - 1) > slack:
            raise ValueError(
                f"expected the probabilities of the labels, positive with sum 1, got {shares.tolist()} with sum "
                f"{shares.sum()}; leave out labels that cannot occur"
            )


@dataclasses.dataclass
class Counter:
    """Whatever a measure asks of every point; a call counts a range of them over all step sizes."""

    rule: UpdateRule
    loss: LossFn
    step_sizes: np.ndarray  # [steps]
    draw: Draw
    stopping: StoppingRule
    layout: Layout
    asked: Questions
    labeller: Labeller | None
    options: dict[str, Any]  # of the engine: block, devices, progress
    compile_seconds: float = 0.0

    def __call__(self, start: int, stop: int, length: int | None = None) -> Tally:
        """The tally of the points `start` to `stop`, in pieces that fit into memory.

        With the `length` of the longest range that will be asked for, all are run by the same compiled program.
        """
        tally = self.nothing(start, stop)
        size = min(self.draw.most, length or stop - start)
        for first in range(start, stop, size):
            tally = self._count(tally, first, min(first + size, stop), size)
        return tally

    def nothing(self, start: int, stop: int) -> Tally:
        """The tally of the points `start` to `stop` before any of them was counted."""
        tally = self.layout.zeros(start, stop)
        return tally if self.labeller is None else tally._replace(ends=self.labeller.nowhere())

    def _count(self, tally: Tally, start: int, stop: int, size: int) -> Tally:
        points, parts = self.draw(start, stop), tally.counts.shape[1]
        part = None if parts == 1 else np.arange(start, stop) // self.layout.points_per_part - tally.first_part
        weights, strata = self._weights(points), self._strata(points)
        before, strays, tables = None, [], []
        for row, tile in enumerate(self._run(points, stop - start, size)):
            outcome = tile.outcome
            found = count_steps(tally.histogram[row], outcome, tile.steps)
            tally.counts[row] += found if part is None else count_by(part, parts, outcome, len(found))
            tally.lane_steps[row] += tile.lane_steps
            if strata is not None:
                tally.labels[row] += count_by(strata, self.layout.labels, outcome, len(found))
            if weights is not None:
                tally.weights[row, :, 0] += np.bincount(outcome, weights, minlength=len(found))
                tally.weights[row, :, 1] += np.bincount(outcome, weights * weights, minlength=len(found))
            converged = outcome == Outcome.CONVERGED
            if before is not None:
                tally.paired[row] += _two_by_two(before, converged)
            before = converged
            if self.asked.classify is not None:
                strays.append(np.flatnonzero(converged & ~self._minima(tile.loss)))
                tally.kinds[row, 0] += np.count_nonzero(converged) - len(strays[-1])  # minima, by their loss
            if self.labeller is not None:
                place = None if part is None else part + tally.first_part
                arrays = tile.outcome, tile.theta, tile.state, tile.period
                tables.append(self.labeller(*arrays, self.step_sizes[row], row=row, part=place)[0])
        if strays:
            self._count_kinds(tally, points, strays)
        if tables:
            tally = tally._replace(ends=self.labeller.add([tally.ends, *tables])[0])
        return tally if weights is None else tally._replace(heaviest=max(tally.heaviest, float(weights.max())))

    def _minima(self, loss: np.ndarray) -> np.ndarray:
        """Which ends are minima by their loss; none where the kinds that are asked for are others."""
        if self.asked.names[0] != "minimum":
            return np.zeros(loss.shape, bool)
        return at_floor(loss, self.loss, self.stopping.loss_tol)

    def _run(self, points, num: int, size: int) -> Iterator[ensembles.Tile]:
        """A tile per step size, the next of which runs while this one is counted."""
        if num < size:  # the number of points decides on the program; the spans leave out those that are repeated
            points = jax.tree.map(lambda leaf: np.resize(leaf, (size, *leaf.shape[1:])), points)
        keep = () if self.asked.classify is None else ("loss",)
        keep += () if self.labeller is None else self.labeller.keep
        tiles = ensembles.iter_run(
            self.rule, self.loss, points, self.step_sizes, self.stopping, keep=keep, tile=size,
            spans=[(row * size, row * size + num) for row in range(len(self.step_sizes))], **self.options,
        )  # fmt: skip
        for tile in tiles:
            self.compile_seconds += tile.compile_seconds
            yield tile

    def _count_kinds(self, tally: Tally, points, strays: list[np.ndarray]) -> None:
        """Look at those that converged above the floor once more; here, where nothing else runs.

        Two batched LAPACK calls at once, one of the loss and one for the eigenvalues, would wait for each other.
        """
        row = np.repeat(np.arange(len(strays)), [len(found) for found in strays])
        point = np.concatenate(strays)
        kind, _ = classify_ends(
            self.rule, self.loss, lambda lanes: jax.tree.map(lambda leaf: leaf[point[lanes]], points),
            self.step_sizes[row], stopping=self.stopping, classify=self.asked.classify,
        )  # fmt: skip
        np.add.at(tally.kinds, (row, kind), 1)

    def _weights(self, points) -> np.ndarray | None:
        if self.asked.weight is None:
            return None
        weights = np.asarray(ensembles.map_points(self.asked.weight, points), np.float64)
        unusable = ~(np.isfinite(weights) & (weights >= 0))
        if weights.ndim != 1 or unusable.any():
            first = weights[unusable][:1].tolist()
            raise ValueError(
                f"expected a `weight` that gives one finite number of at least 0 per point, got shape "
                f"{weights.shape[1:]}, {int(unusable.sum())} unusable, the first {first}; it is the ratio of the "
                "density that is wanted to the one that is drawn from"
            )
        if self.asked.largest_weight is not None and weights.max() > self.asked.largest_weight:
            raise ValueError(
                f"largest_weight: expected a bound of all weights, got {self.asked.largest_weight:g} and a point of "
                f"weight {weights.max():g}; raise it to the largest ratio of the two densities"
            )
        return weights

    def _strata(self, points) -> np.ndarray | None:
        if self.asked.poststrata is None:
            return None
        labels = np.asarray(ensembles.map_points(self.asked.poststrata[0], points))
        usable = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
        if not usable or labels.min() < 0 or labels.max() >= self.layout.labels:
            raise ValueError(
                f"expected a label from 0 to {self.layout.labels - 1} per point, as there are probabilities, got "
                f"{labels.dtype} of shape {labels.shape[1:]} from {labels.min()} to {labels.max()}"
            )
        return labels.astype(np.int64)


def _two_by_two(before: np.ndarray, now: np.ndarray) -> list[int]:
    both, first, second = (int(np.count_nonzero(mask)) for mask in (before & now, before, now))
    return [both, first - both, second - both, len(now) - first - second + both]


def check_source(source) -> None:
    """A source must say how many points it has, and they must be cut into equal parts.

    Raises
    ------
    ValueError
        If it cannot be called, or has no points, or its `parts` do not divide them.
    """
    if not callable(source) or not hasattr(source, "num_points"):
        raise ValueError(
            f"expected a source of points, such as sampling.RandomSource.box(key, num, box), got a "
            f"{type(source).__name__}; give it `num_points` and a call `(indices, group) -> [n, dim]`"
        )
    num, parts = source.num_points, getattr(source, "parts", 1)
    if num < 1:
        raise ValueError(f"expected a source with at least one point, got {num}; zero samples measure nothing")
    if parts < 1 or num % parts:
        raise ValueError(f"expected parts of equal length, got {num} points in {parts} parts; choose a multiple")
