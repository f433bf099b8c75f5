"""Basin measures: how much of a distribution of initial points ends where, for many step sizes, and how surely."""

import bisect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from gdstab import ensembles, estimators
from gdstab._contract import entry
from gdstab._results import origin
from gdstab._types import LossFn
from gdstab._validate import check_count, check_loss, check_positive, check_step_sizes
from gdstab.basins.attractors import Found
from gdstab.basins.counting import Counter, Draw, Questions, check_source
from gdstab.basins.labels import Labeller
from gdstab.basins.shares import Measure
from gdstab.basins.tallies import Layout, Tally, bin_of, merge
from gdstab.estimators.intervals import check_confidence
from gdstab.outcomes import Outcome, StoppingRule, names
from gdstab.updates import UpdateRule

CHUNK = 2**20
"""Points that are counted, and committed, together."""
LOOK = 2**17
"""The same where one looks at the intervals in between."""
_NOTHING: Mapping[int, Tally] = MappingProxyType({})


def chunks(num_points: int, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """Ranges of points `(start, stop)`; the number of a chunk is its place in this list.

    >>> chunks(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    """
    num_points, chunk = check_count(num_points, "num_points"), check_count(chunk, "chunk")
    return [(start, min(start + chunk, num_points)) for start in range(0, num_points, chunk)]


@entry(host=True)
def measure(
    rule: UpdateRule,
    loss: LossFn,
    step_sizes,
    source,
    *,
    stopping: StoppingRule,
    volume: float | None = None,
    classify: Callable | None = None,
    kinds: Iterable = (),
    label: Callable | Found | None = None,
    weight: Callable | None = None,
    largest_weight: float | None = None,
    poststrata: tuple[Callable, object] | None = None,
    confidence: float = 0.95,
    chunk: int = CHUNK,
    block: int | None = None,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
    finished: Mapping[int, Tally] = _NOTHING,
    on_chunk: Callable[[int, Tally], None] | None = None,
    share: tuple[int, int] = (0, 1),
    gather: Callable[[Tally], Iterable[Tally]] | None = None,
    pace: ensembles.Pace | None = None,
) -> Measure:
    r"""Run all points of a source with every step size, and count how the orbits end.

    Points are drawn once for all step sizes (common random numbers), run, counted and forgotten: memory depends on
    `chunk` and not on the number of points. The counts are the same whatever the chunk, block, devices, share, or
    interruption; sums of weights are so to rounding.

    Parameters
    ----------
    rule, loss, step_sizes, stopping, block, devices, progress
        As in `ensembles.run`.
    source
        Such as `sampling.RandomSource.box(key, num, box)`. Its `design` decides on the interval, see `Measure.share`.
    volume
        Of the set that the source draws from, for volumes beside shares.
    classify, kinds
        Such as `stability.classify` and its enumeration `stability.Kind`: converged orbits are sorted into kinds. If
        the kind 0 is called minimum, one whose loss is within `loss_tol` of a floor that it declares is one; only the
        others are run again and looked at. To tell minima apart there is `label`.
    label
        Where orbits end, beside how: `Found()` groups their end points, cycles included, and follows the groups from
        one step size to the next; a function of one end point, such as `lambda theta: (theta[0] > 0).astype(int)`,
        names where converged ones ended by an integer from 0 on. See `Measure.attractors` and `Measure.label_share`.
        Only for points of equal weight, without post-strata.
    weight
        `weight(theta) -> w`, for one point: the density that is wanted over the one that the source draws from, up to
        a factor. Shares are then self-normalised. Only for independent points.
    largest_weight
        The most that `weight` gives anywhere, which the intervals need: a point so heavy may not have been drawn.
        Without it they take the largest weight drawn for it, hold only if none is larger, and name their method so.
    poststrata
        `(label, probabilities)` with `label(theta) -> int`, for one point, and the known probability of each label.
        Only for independent points, and without weights.
    chunk
        Points that are counted together, and committed together by `on_chunk`.
    finished, on_chunk
        Tallies of an earlier run by the number of their chunk (see `chunks`), which need not be run again; and what to
        call as `on_chunk(number, tally)` with every new one.
    share, gather
        `(i, n)`: run only the chunks whose number is i modulo n. Then `gather(total)` gives the totals of all n
        processes, this one's included. Without it the measure is that of the share.
    pace
        Cuts the chunks into pieces that take some seconds each. The number of a piece, for `finished` and `on_chunk`,
        is that of its first point.

    Raises
    ------
    ValueError
        If there are no points, they do not fit the loss, a step size is not positive, weights or probabilities are
        none, or a finished tally belongs to another run.

    Examples
    --------
    >>> import jax
    >>> from gdstab.sampling import RandomSource
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> source = RandomSource.box(jax.random.key(0), 20_000, ((-4, 4), (-4, 4)))
    >>> found = measure(gradient_descent(), loss, [0.2, 0.3], source, stopping=StoppingRule(), volume=64.0)
    >>> low, high = found.rows()[1]["volume_interval"]
    >>> low < 19.979 < high  # the exact area: theory.scalar.basin_area(0.3, scale=1.0)
    True
    """
    begin = time.perf_counter()
    asked = Questions(classify, kinds, weight, poststrata, largest_weight, label)
    counter = _counter(rule, loss, step_sizes, source, stopping, asked, block, devices, progress)
    spans = enumerate(chunks(source.num_points, chunk))
    total = counter.nothing(0, source.num_points)
    total = _collect(counter, total, spans, finished, on_chunk, share, pace)
    total = _gathered(counter, total, gather)
    return _measured(counter, total, source, asked, volume, check_confidence(confidence), begin)


class SequentialMeasure(NamedTuple):
    """A measure that stopped once its intervals were narrow, or the budget ended."""

    measure: Measure
    """Its `confidence` is that of each look, so that all looks together err no more than was allowed."""
    reached: np.ndarray
    """Per step size: whether its interval is as narrow as was asked."""
    widths: np.ndarray
    """Per step size: how wide it is; relative to the share if that was asked."""
    look: int
    """Number of looks taken."""

    def to_xarray(self):
        """As that of the measure, with `reached` and `widths` over step sizes beside it."""
        more = {"reached": ("step_size", self.reached), "widths": ("step_size", self.widths)}
        return self.measure.to_xarray().assign(more).assign_attrs(look=self.look)

    def to_dataframe(self):
        """One row a step size, as a `pandas.DataFrame`: see `Measure.to_dataframe`."""
        return self.measure.to_dataframe().assign(reached=self.reached, widths=self.widths)


@entry(host=True)
def measure_until(
    rule: UpdateRule,
    loss: LossFn,
    step_sizes,
    source,
    *,
    stopping: StoppingRule,
    width: float,
    relative: bool = False,
    budget: int | None = None,
    growth: float = 1.5,
    volume: float | None = None,
    classify: Callable | None = None,
    kinds: Iterable = (),
    label: Callable | Found | None = None,
    confidence: float = 0.95,
    chunk: int = LOOK,
    block: int | None = None,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
    finished: Mapping[int, Tally] = _NOTHING,
    on_chunk: Callable[[int, Tally], None] | None = None,
    share: tuple[int, int] = (0, 1),
    gather: Callable[[Tally], Iterable[Tally]] | None = None,
    pace: ensembles.Pace | None = None,
) -> SequentialMeasure:
    """As `measure`, with only as many points as it takes until the interval of every step size is narrow.

    Looks are planned beforehand, at numbers of points that grow geometrically, and each allows itself a part of the
    error (`estimators.plan_looks`), so that stopping does not spoil the coverage. With a relative width, step sizes
    at which nothing converges go on to the end of the budget.

    Parameters
    ----------
    width, relative
        Of the whole interval of the converged share; with `relative` as a multiple of the share.
    budget
        The most points; by default all of the source, which must draw independent ones.
    growth
        Of the number of points from look to look.
    chunk
        As in `measure`; looks are taken at multiples of it.

    Returns
    -------
    A `SequentialMeasure`: where the width is not reached within the budget it says so, and what was reached.

    Raises
    ------
    ValueError
        As `measure`, and if the points are not independent, or the budget exceeds those of the source.
    """
    begin = time.perf_counter()
    asked = Questions(classify, kinds, None, None, label=label)
    counter = _counter(rule, loss, step_sizes, source, stopping, asked, block, devices, progress)
    if _design(source) != "independent":
        raise ValueError(f"expected a source of independent points to stop early on, got one of {_design(source)}")
    budget = source.num_points if budget is None else check_count(budget, "budget")
    if budget > source.num_points:
        raise ValueError(f"the budget of {budget} points exceeds the {source.num_points} of the source; make it larger")
    plan = estimators.plan_looks(width, budget, confidence, growth=growth, relative=relative)
    rounded = dict.fromkeys(min(-(-look // chunk) * chunk, budget) for look in plan.looks)
    plan = plan._replace(looks=tuple(rounded))  # no more looks than before: the error allowed to each still holds
    spans = list(enumerate(chunks(budget, chunk)))
    own, done = counter.nothing(0, source.num_points), 0
    for look, points in enumerate(plan.looks):
        until = -(-points // chunk)
        own = _collect(counter, own, spans[done:until], finished, on_chunk, share, pace)._replace(stop=points)
        done = until
        total = _gathered(counter, own, gather)
        found = estimators.examine(plan, look, total.counts[:, 0, Outcome.CONVERGED])
        if found.reached.all():
            break
    result = _measured(counter, total, source, asked, volume, plan.confidence, begin)
    with np.errstate(divide="ignore"):
        widths = (found.high - found.low) / (found.value if relative else 1.0)
    return SequentialMeasure(result, found.reached, widths, found.look)


def _design(source) -> str:
    return getattr(source, "design", "independent") if getattr(source, "parts", 1) > 1 else "independent"


def _counter(rule, loss, step_sizes, source, stopping, asked: Questions, block, devices, progress) -> Counter:
    """Check everything on the host, before anything is run."""
    check_source(source)
    asked.check(_design(source))
    draw = Draw(source)
    check_loss(loss, draw.one)
    step_sizes = np.atleast_1d(check_step_sizes(step_sizes, jax.tree.leaves(draw.one)[0].dtype))
    strata = 0 if asked.poststrata is None else len(asked.probabilities)
    points_per_part = source.num_points // getattr(source, "parts", 1)
    bins, outcomes = bin_of(int(stopping.max_steps)) + 1, len(names(stopping))
    layout = Layout(len(step_sizes), points_per_part, len(asked.names), strata, bins, outcomes)
    engine = {"block": block, "devices": devices, "progress": progress}
    labeller = None if asked.label is None else Labeller(rule, loss, stopping, asked.label, draw.one, draw.few)
    return Counter(rule, loss, step_sizes, draw, stopping, layout, asked, labeller, engine)


def _collect(counter: Counter, total: Tally, spans, finished, on_chunk, share, pace) -> Tally:
    """The total and the tallies of numbered ranges of points, added in the order of their numbers."""
    index, processes = (check_count(number, "share", least=0) for number in share)
    if not index < processes:
        raise ValueError(f"expected a share (i, n) with i from 0 to n - 1, got {share}")
    own = [span for span in spans if span[0] % processes == index]
    length = None if pace is None else max((stop - start for _, (start, stop) in own), default=None)
    for number, (start, stop) in own if pace is None else _pieces(own, finished, pace):
        tally = finished.get(number)
        if tally is None:
            before = counter.compile_seconds
            tally = counter(start, stop, length)
            if pace is not None:
                pace.done(stop - start, counter.compile_seconds - before)
            if on_chunk is not None:
                on_chunk(number, tally)
        elif (tally.start, tally.stop) != (start, stop):
            raise ValueError(
                f"the finished tally number {number} is of points {tally.start} to {tally.stop}, expected {start} to "
                f"{stop}: it belongs to another run, or to another `chunk`"
            )
        total = merge(total, tally)
    return total


def _pieces(spans, finished: Mapping[int, Tally], pace: ensembles.Pace) -> Iterator[tuple[int, tuple[int, int]]]:
    """Ranges of points as they were cut before, and between them as `pace` says, numbered by their first points."""
    known = sorted(finished)
    for _, (first, stop) in spans:
        start = first
        while start < stop:
            after = bisect.bisect(known, start)
            free = min([start + pace.length, *known[after : after + 1]])
            end = min(finished[start].stop if start in finished else free, stop)
            yield start, (start, end)
            start = end


def _gathered(counter: Counter, own: Tally, gather) -> Tally:
    """The sum over all processes."""
    if gather is None:
        return own
    total = counter.nothing(own.start, own.stop)
    if own.ends is not None:  # processes exchange arrays of one shape: cells of no lane make up the lengths
        most = max(int(length) for length in gather(np.int64(len(own.ends.row))))
        own = own._replace(ends=own.ends.longer(most))
    for tally in gather(own):
        total = merge(total, tally if tally.ends is None else tally._replace(ends=tally.ends.occupied()))
    return total


def _measured(counter: Counter, total: Tally, source, asked: Questions, volume, confidence, begin) -> Measure:
    found, of_cell = (None, None)
    if counter.labeller is not None:
        found, of_cell = counter.labeller.finish(total.ends, counter.step_sizes)
    return Measure(
        step_sizes=counter.step_sizes,
        tally=total,
        samples=int(total.counts[0].sum()),
        design=_design(source),
        kinds=asked.names,
        probabilities=asked.probabilities,
        weighted=asked.weight is not None,
        largest_weight=None if asked.largest_weight is None else float(asked.largest_weight),
        volume=None if volume is None else check_positive(volume, "volume"),
        confidence=confidence,
        compile_seconds=counter.compile_seconds,
        run_seconds=time.perf_counter() - begin - counter.compile_seconds,
        attractors=found,
        label_of_cell=of_cell,
        outcomes=names(counter.stopping),
        origin=origin(counter.rule, counter.loss, counter.stopping, source, counter.step_sizes.dtype),
    )
