"""What is kept of the lanes of a basin measure: counts, so that 10^9 of them take no more room than 10^6."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from gdstab.basins.ends import Ends, add
from gdstab.outcomes import Outcome

EXACT = 64
"""Step counts below this have a bin each; beyond, a bin is 1/16 of an octave wide."""
_OCTAVE = 4  # bits that number the bins of an octave


class Tally(NamedTuple):
    """Counts over all step sizes for the points `start` to `stop`: integers that add up, whatever the order.

    The parts of a source (strata, replicates; see `sampling`) are counted apart; a tally holds those it touches. The
    outcomes are in the order of their codes.
    """

    start: int
    stop: int
    first_part: int
    counts: Int64[np.ndarray, "steps parts outcomes"]
    """Lanes per outcome."""
    kinds: Int64[np.ndarray, "steps kinds"]
    """What the converged ones converged to; no column if nobody asked."""
    histogram: Int64[np.ndarray, "steps outcomes bins"]
    """Lanes per outcome and number of updates, see `bin_of`."""
    paired: Int64[np.ndarray, "steps 4"]
    """Points that converge at (both, only the one before, only this one, neither) of this step size and the one before
    it; zeros for the first."""
    labels: Int64[np.ndarray, "steps labels outcomes"]
    """Lanes per post-stratum and outcome."""
    weights: Float64[np.ndarray, "steps outcomes 2"]
    """Sums of the weights and of their squares per outcome; zeros without weights."""
    heaviest: float
    """The largest weight."""
    lane_steps: Int64[np.ndarray, " steps"]
    """Updates applied."""
    ends: Ends | None = None
    """The cells that lanes ended in; None if nobody asked for labels."""

    def arrays(self) -> dict[str, np.ndarray]:
        """As arrays by name, to be written down."""
        arrays = {name: np.asarray(value) for name, value in self._asdict().items() if name != "ends"}
        return arrays if self.ends is None else arrays | self.ends.arrays()

    @classmethod
    def from_arrays(cls, arrays) -> "Tally":
        """Back from `arrays`, or from whatever has read them.

        Raises
        ------
        ValueError
            If one of them is missing.
        """
        names = [name for name in cls._fields if name != "ends"]
        if missing := [name for name in names if name not in arrays]:
            raise ValueError(f"expected the arrays of a tally, but {missing} are missing; run these points again")
        read = {name: np.asarray(arrays[name]) for name in names}
        numbers = {name: array if array.ndim else array.item() for name, array in read.items()}
        return cls(**numbers, ends=Ends.from_arrays(arrays))


_ARRAYS = [name for name in Tally._fields if name not in {"start", "stop", "first_part", "heaviest", "ends"}]


class Layout(NamedTuple):
    """How large the arrays of a tally are."""

    steps: int
    """Number of step sizes."""
    points_per_part: int
    kinds: int
    labels: int
    bins: int
    outcomes: int = len(Outcome)
    """Verdicts of one's own included."""

    def zeros(self, start: int, stop: int) -> Tally:
        """The tally of the points `start` to `stop` before any of them was counted.

        >>> Layout(steps=2, points_per_part=10, kinds=0, labels=0, bins=5).zeros(15, 40).counts.shape
        (2, 3, 5)
        """
        first = start // self.points_per_part
        parts, outcomes = (stop - 1) // self.points_per_part + 1 - first, self.outcomes
        return Tally(
            start,
            stop,
            first,
            counts=np.zeros((self.steps, parts, outcomes), np.int64),
            kinds=np.zeros((self.steps, self.kinds), np.int64),
            histogram=np.zeros((self.steps, outcomes, self.bins), np.int64),
            paired=np.zeros((self.steps, 4), np.int64),
            labels=np.zeros((self.steps, self.labels, outcomes), np.int64),
            weights=np.zeros((self.steps, outcomes, 2)),
            heaviest=0.0,
            lane_steps=np.zeros(self.steps, np.int64),
        )


def merge(total: Tally, tally: Tally) -> Tally:
    """The sum of two tallies, the first of which touches all parts of the second: its arrays are added to in place.

    Raises
    ------
    ValueError
        If the arrays do not fit: the second one counts other step sizes, parts, kinds or labels.
    """
    first = tally.first_part - total.first_part
    pairs = {name: (getattr(total, name), getattr(tally, name)) for name in _ARRAYS}
    pairs["counts"] = total.counts[:, max(first, 0) :][:, : tally.counts.shape[1]], tally.counts
    for name, (whole, part) in pairs.items():
        if whole.shape != part.shape or whole.dtype != part.dtype or first < 0:
            raise ValueError(
                f"the tally of points {tally.start} to {tally.stop} belongs to another run: expected `{name}` as "
                f"{whole.dtype} of shape {whole.shape}, got {part.dtype} of shape {part.shape}; run its points again"
            )
    if total.ends is not None and tally.ends is None:
        raise ValueError(f"the tally of points {tally.start} to {tally.stop} has no end points; run its points again")
    for whole, part in pairs.values():
        np.add(whole, part, out=whole)
    ends = None if total.ends is None else add([total.ends, tally.ends])[0]
    return total._replace(heaviest=max(total.heaviest, tally.heaviest), ends=ends)


def bin_of(count: int) -> int:
    """The bin of a number of updates: itself below 64, then 16 bins an octave.

    >>> [bin_of(count) for count in (0, 63, 64, 67, 68, 128)]
    [0, 63, 64, 64, 65, 80]
    """
    return int(_bins(np.array([count]))[0])


def last_of(bins) -> np.ndarray:
    """The largest number of updates in a bin: at most 1/16 above any other in it.

    >>> last_of(np.array([0, 63, 64, 65, 80])).tolist()
    [0, 63, 67, 71, 135]
    """
    bins = np.asarray(bins, np.int64)
    octave, place = np.divmod(np.maximum(bins - EXACT, 0), 2**_OCTAVE)
    width = 1 << (octave + EXACT.bit_length() - 1 - _OCTAVE)
    return np.where(bins < EXACT, bins, (2**_OCTAVE + place + 1) * width - 1)


def _bins(counts: np.ndarray) -> np.ndarray:
    octave = np.frexp(np.maximum(counts, EXACT))[1] - 1
    place = (counts >> (octave - _OCTAVE)) & (2**_OCTAVE - 1)
    return np.where(counts < EXACT, counts, EXACT + (octave - EXACT.bit_length() + 1) * 2**_OCTAVE + place)


def count_steps(histogram: Int64[np.ndarray, "outcomes bins"], outcome: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Add the lanes of one step size to a histogram, in place; the lanes per outcome, [outcomes].

    One pass over all lanes, and a second over those that live long.
    """
    outcomes, bins = histogram.shape
    code = np.minimum(steps, EXACT)
    code *= outcomes
    code += outcome
    short = np.bincount(code, minlength=outcomes * (EXACT + 1)).reshape(EXACT + 1, outcomes)
    histogram[:, :EXACT] += short[: min(EXACT, bins)].T
    if bins > EXACT:
        late = np.flatnonzero(steps >= EXACT)
        place = outcome[late] * np.int64(bins) + _bins(steps[late])
        histogram += np.bincount(place, minlength=histogram.size).reshape(histogram.shape)
    return short.sum(axis=0)


def count_by(group: np.ndarray, groups: int, outcome: np.ndarray, outcomes: int) -> np.ndarray:
    """Lanes per group and outcome, `[groups, outcomes]`."""
    return np.bincount(group * outcomes + outcome, minlength=groups * outcomes).reshape(groups, outcomes)


def quantiles(histogram: Int64[np.ndarray, "*rows bins"], levels) -> np.ndarray:
    """Numbers of updates below or at which at least these shares of the lanes are, `[*rows, levels]`; -1 without lanes.

    Exact below 64, and at most 1/16 too large beyond.

    >>> quantiles(np.array([0, 1, 2, 1]), (0.25, 0.5, 1.0)).tolist()
    [1, 2, 3]
    """
    reached = np.cumsum(histogram, axis=-1)[..., None, :]
    total = reached[..., -1]
    wanted = np.ceil(np.asarray(levels, float) * total * (1 - 1e-12))  # 0.7 * 10 is above 7 in floating point
    return np.where(total > 0, last_of(np.argmax(reached >= np.maximum(wanted, 1)[..., None], axis=-1)), -1)
