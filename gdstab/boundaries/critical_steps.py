r"""The critical step of every initial point: the largest step size from which its orbit converges, by bisection.

Where the boundary of a basin is a threshold in the step size, one number per point says all that a stack of heatmaps
says. All points are bisected together, in batches of one shape.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int8, Int32

from gdstab import ensembles
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._shapes import Shape, shape_of
from gdstab._types import LossFn
from gdstab._validate import check_count, check_dtype, check_positive, check_step_sizes
from gdstab.basins.attractors import Attractors, Found
from gdstab.basins.ends import Ends
from gdstab.basins.kinds import classify_ends
from gdstab.basins.labels import FEW, Labeller
from gdstab.boundaries._search import Trial, bisect, nudge_critical, scan_ladder
from gdstab.outcomes import Outcome, StoppingRule, names
from gdstab.sampling import GROUP, ShapedSource
from gdstab.updates import UpdateRule

_FIRST = 1024  # points of the first part; fewer take as long, since the search asks for many ensembles in turn


class CriticalPart(NamedTuple):
    """Points `start` to `stop`, done: what a run writes down as it goes."""

    start: int
    stop: int
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]
    interval: Bool[np.ndarray, " points"]
    outcome: Int8[np.ndarray, " points"]
    kind: Int8[np.ndarray, " points"]
    moved: Bool[np.ndarray, " points"]
    lanes: int
    lane_steps: int
    place: Int32[np.ndarray, " points"] | None = None
    """Where in `ends` the orbit at `low` ended, -1 of nowhere; None if nobody asked for labels."""
    ends: Ends | None = None

    def arrays(self) -> dict:
        """Its arrays and numbers by name, to be written down."""
        said = {name: value for name, value in self._asdict().items() if value is not None and name != "ends"}
        return said if self.ends is None else said | self.ends.arrays()

    @classmethod
    def from_arrays(cls, **arrays) -> "CriticalPart":
        """Back from `arrays`, or from whatever has read them."""
        own = {name: value for name, value in arrays.items() if name in cls._fields}
        return cls(**own, ends=Ends.from_arrays(arrays))


@recorded(
    {"eta": "point", "low": "point", "high": "point", "interval": "point", "outcome": "point", "kind": "point",
     "moved": "point", "label": "point", "step_sizes": "scan"},
    attrs=("lanes", "lane_steps", "compile_seconds", "run_seconds"), codes={"outcome": Outcome, "label": "label_names"},
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class CriticalSteps:
    r"""A bracket around $\eta^*(\theta_0)$ for every initial point, and what was seen at its ends."""

    low: Float[np.ndarray, " points"]
    """The largest step size seen to converge, below any that failed; 0 if there is none."""
    high: Float[np.ndarray, " points"]
    """The smallest step size above every converging one that did not converge; inf if there is none."""
    interval: Bool[np.ndarray, " points"]
    """False where a step size of the scan failed although a larger one converged: `low` and `high` are then the ends
    of the range in which both occur."""
    outcome: Int8[np.ndarray, " points"]
    """The `Outcome` at `high`; UNDECIDED where `high` is inf."""
    kind: Int8[np.ndarray, " points"]
    """What the orbit converges to at `low`, as `classify` numbers kinds; -1 where that is not known."""
    moved: Bool[np.ndarray, " points"]
    """Points that were moved by `nudge` because they are critical points themselves."""
    step_sizes: Float[np.ndarray, " scan"]
    """The step sizes of the scan."""
    lanes: int
    """Orbits run."""
    lane_steps: int
    compile_seconds: float
    run_seconds: float
    label: Int32[np.ndarray, " points"] | None = None
    """Where the orbit at `low` ends, as `attractors` numbers it, -1 of nowhere; None if nobody asked."""
    attractors: Attractors | None = None

    @property
    def label_names(self) -> tuple[str, ...]:
        """Of the labels, from 0 on; none if nobody asked."""
        return () if self.attractors is None else self.attractors.names

    @property
    def eta(self) -> Float[np.ndarray, " points"]:
        """The middle of the bracket; NaN where every step size of the scan converges, or none does."""
        known = np.isfinite(self.high) & ((self.low > 0) | ~self.interval)
        return np.where(known, (self.low + np.where(known, self.high, 0)) / 2, self.low.dtype.type(np.nan))

    @property
    def undecided(self) -> Bool[np.ndarray, " points"]:
        """Where the budget ran out at `high`, which therefore need not be an upper bound."""
        return np.isfinite(self.high) & (self.outcome == Outcome.UNDECIDED)


@entry(host=True)
def critical_step(
    rule: UpdateRule,
    loss: LossFn,
    points,
    *,
    low: float,
    high: float,
    stopping: StoppingRule,
    scan: int = 16,
    rtol: float = 1e-6,
    undecided_rtol: float = 1e-3,
    outcomes: Iterable = (Outcome.CONVERGED,),
    nudge: float = 1e-6,
    classify: Callable | None = None,
    label: Callable | Found | None = None,
    chunk: int = 2**18,
    devices=None,
    progress: Callable[[int, int], None] | None = None,
    finished: Iterable[CriticalPart] = (),
    on_part: Callable[[CriticalPart], None] | None = None,
) -> CriticalSteps:
    r"""The largest step size in a range from which descent converges, for every initial point.

    First `scan` step sizes, in geometric progression from `low` to `high`, are tried from every point. They show
    whether the converging step sizes look like an interval, and bracket its end; what lies between two steps of the
    scan stays unseen. Brackets are then bisected on a logarithmic scale until they are narrower than `rtol` times
    their lower end. A point without an interval keeps the bracket that the scan gives: below it every step size of the
    scan converges, above it none does.

    An orbit near its threshold can settle slowly by chance, and then it is undecided. A test that is undecided is
    therefore repeated at two other places of the bracket, and only if all three are does the smallest of them count as
    not converging. Where the dynamics itself slows down, as at the stability limit of the minima, this happens all
    around the threshold, and `undecided_rtol` ends the bisection: a narrower bracket would only locate the budget.
    On the scan a failure counts before an undecided step size, and an undecided one makes no gap.

    Parameters
    ----------
    rule, loss, stopping, devices
        As in `ensembles.run`. Prefer a `grad_tol` to a `loss_tol`: a chaotic orbit that does not converge visits a
        wide neighbourhood of the minima by chance, and a narrow one does not.
    points
        Initial points `[points, dim]`, a pytree of arrays `[points, ...]`, or a source such as `sampling.GridSource`;
        their dtype is that of the run.
    low, high
        The range of step sizes.
    scan
        Number of step sizes of the scan, at least 2.
    rtol, undecided_rtol
        Relative width of the brackets, at least 8 units of rounding; `undecided_rtol` if their upper end is undecided.
    outcomes
        What counts as converging. With CYCLING added it is the largest step size from which an orbit stays bounded and
        becomes regular. Verdicts of one's own, of `StoppingRule.until`, by their names.
    nudge
        A point that is critical itself does not move at any step size. It is moved by this much, relative to 1 + its
        entries and in a fixed direction, and has the answer of its neighbour. It has to be wider than the tolerances
        of `stopping`; 0 leaves such points alone, and every step size then converges.
    classify
        `classify(loss, theta) -> (kind, (n_minus, n_zero, n_plus))`, such as `stability.classify`, asked where the
        orbits end at the lower ends of the brackets: it tells minima from saddles. By default not asked.
    label
        Where those orbits end: `basins.Found()`, or a function of one end point; see `basins.measure`.
    chunk
        Points that are bisected together at the most. It changes the speed, never an answer.
    progress
        Called on the host as `progress(orbits, updates)` since the last call.
    finished, on_part
        Parts of an earlier run, in order from the first, and what to call with every new one. Where that is asked for,
        parts are as long as takes some seconds.

    Raises
    ------
    ValueError
        If the range is empty, a tolerance too small for the dtype, `points` no finite vectors, or a part does not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: jnp.sum(theta**2)  # converges below 1
    >>> found = critical_step(
    ...     gradient_descent(), loss, jnp.array([[3.0], [-0.1]]), low=0.1, high=4.0, stopping=StoppingRule()
    ... )
    >>> found.eta.round(2).tolist(), found.interval.tolist()
    ([1.0, 1.0], [True, True])
    """
    begin = time.perf_counter()
    num_points, dtype, draw, shape = _points(points, check_count(chunk, "chunk"))
    ladder = check_search(dtype, low, high, scan, rtol, undecided_rtol, nudge)
    good = _check_outcomes(outcomes, names(stopping))
    parts, size = [], min(chunk, num_points)
    labeller = None if label is None else _labeller(rule, loss, stopping, label, draw, num_points, shape)
    for part in finished:
        _check_part(part, parts[-1].stop if parts else 0, num_points, labelled=label is not None)
        parts.append(part)
    seconds, pace = 0.0, ensembles.Pace(size, first=size if on_part is None else _FIRST)
    for start, stop in pace.spans(parts[-1].stop if parts else 0, num_points):
        trial = Trial(rule, loss, draw(start, stop), stopping, size, good, devices, progress, shape)
        moved = nudge_critical(trial, ladder[0], nudge)
        bracket = scan_ladder(trial, ladder)
        bisect(trial, bracket, rtol, undecided_rtol)
        kind = _kinds(trial, bracket.low, classify)
        place, ends = (None, None) if labeller is None else _ends(trial, bracket.low, labeller)
        parts.append(CriticalPart(
            start, stop, bracket.low, bracket.high, bracket.interval, bracket.outcome, kind, moved,
            trial.lanes, trial.lane_steps, place, ends,
        ))  # fmt: skip
        seconds += trial.compile_seconds
        pace.done(stop - start, trial.compile_seconds)
        if on_part is not None:
            on_part(parts[-1])
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in CriticalPart._fields[2:8]}
    labels, attractors = (None, None) if labeller is None else labeller.labels([(p.ends, p.place) for p in parts])
    return CriticalSteps(
        **arrays, label=labels, attractors=attractors, step_sizes=ladder, lanes=sum(part.lanes for part in parts),
        lane_steps=sum(part.lane_steps for part in parts), compile_seconds=seconds,
        run_seconds=time.perf_counter() - begin - seconds,
    )  # fmt: skip


def _kinds(trial: Trial, step_sizes: np.ndarray, classify: Callable | None) -> np.ndarray:
    """What the points converge to, each with a step size from which it does."""
    kind = np.full(len(step_sizes), -1, np.int8)
    rows = np.flatnonzero(step_sizes > 0)
    if classify is not None and rows.size:
        kind[rows], _ = classify_ends(
            trial.rule, trial.loss, lambda some: trial.starts(rows[some]), step_sizes[rows], stopping=trial.stopping,
            classify=classify,
        )  # fmt: skip
    return kind


def _labeller(rule, loss, stopping, label, draw: Callable, num_points: int, shape: Shape | None) -> Labeller:
    few = draw(0, min(num_points, FEW))
    few = few if shape is None else shape.split(few)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), few)
    return Labeller(rule, loss, stopping, label, one, lambda: few)


def _ends(trial: Trial, step_sizes: np.ndarray, labeller: Labeller) -> tuple[np.ndarray, Ends]:
    """Where the points end, each with a step size from which it converges: places in a table, and the table."""
    rows, place = np.flatnonzero(step_sizes > 0), np.full(len(step_sizes), -1, np.int32)
    if not rows.size:
        return place, labeller.nowhere()
    tile = trial.tile(rows, step_sizes[rows], trial.stopping, labeller.keep)
    ends, place[rows] = labeller(tile.outcome, tile.theta, tile.state, tile.period, step_sizes[rows])
    return place, ends


def _points(points: Any, chunk: int) -> tuple[int, np.dtype, Callable, Shape | None]:
    """How many points there are, their dtype, `(start, stop) -> flat points` on the host, and their shape if any."""
    if isinstance(points, ShapedSource):
        return *_points(points.source, chunk)[:3], points.shape
    if not hasattr(points, "num_points") and not hasattr(points, "ndim"):
        shape = shape_of(jax.tree.map(np.asarray, points))
        return *_points(shape.join(points, "points"), chunk)[:3], shape
    if hasattr(points, "ndim") and points.ndim != 2 and points.ndim:
        shape = shape_of(points)
        return *_points(shape.join(points, "points"), chunk)[:3], shape
    if not (hasattr(points, "num_points") and callable(points)):
        array = np.asarray(points)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.ndim != 2 or not array.size or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                f"expected floating-point initial points [points, dim], got {array.dtype} of shape {array.shape}; "
                "convert them, or add an axis"
            )
        if not np.isfinite(array).all():
            raise ValueError("expected finite initial points, got some that are not; remove them")
        return len(array), check_dtype(array.dtype), lambda start, stop: array[start:stop], None
    if chunk % GROUP and chunk < points.num_points:
        raise ValueError(f"chunk: expected a multiple of {GROUP} for the points of a source, got {chunk}; round it up")
    size = min(chunk, points.num_points)
    kind = jnp.arange(1).dtype

    def draw(start, stop):
        group, first = divmod(start, GROUP)
        numbers = (np.asarray(number, kind) for number in (first, first + stop - start - 1, group))
        return np.asarray(_make(points, size, *numbers))[: stop - start]

    return points.num_points, jax.eval_shape(functools.partial(points), jnp.arange(1)).dtype, draw, None


@jit
def _make(source, size, first, last, group):
    return source(jnp.minimum(first + jnp.arange(size), last), group)


def check_search(
    dtype, low: float, high: float, scan: int, rtol: float, undecided_rtol: float, nudge: float
) -> Float[np.ndarray, " scan"]:
    """The step sizes of the scan, in the dtype asked for, where the search can be done: see `critical_step`.

    >>> check_search("float32", 0.5, 2.0, 3, 1e-4, 1e-3, 0.0).tolist()
    [0.5, 1.0, 2.0]
    """
    low, high, scan = check_positive(low, "low"), check_positive(high, "high"), check_count(scan, "scan", least=2)
    if not nudge >= 0:
        raise ValueError(f"nudge: expected a number of at least 0, got {nudge}; 0 leaves critical points alone")
    least = 8 * float(np.finfo(dtype).eps)
    for name, value in (("rtol", rtol), ("undecided_rtol", undecided_rtol)):
        if not check_positive(value, name) >= least:
            raise ValueError(f"{name}: expected at least {least:.2g}, which {dtype} resolves, got {value}; raise it")
    if not low < high:
        raise ValueError(f"expected a range of step sizes with low < high, got {low} to {high}; widen it")
    ladder = check_step_sizes(np.geomspace(low, high, scan), dtype)
    if not (np.diff(ladder) > 0).all():
        raise ValueError(
            f"expected {scan} different step sizes from {low} to {high}, but {ladder.dtype} does not hold so many; "
            "lower scan or widen the range"
        )
    return ladder


def _check_outcomes(outcomes: Iterable, known: tuple[str, ...]) -> np.ndarray:
    own = known[len(Outcome) :]
    try:
        codes = [known.index(outcome) if outcome in own else int(Outcome(outcome)) for outcome in outcomes]
    except (TypeError, ValueError) as error:
        also = f" or of {own}" if own else ""
        raise ValueError(f"outcomes: expected members of Outcome{also}, got {outcomes!r}") from error
    if not 0 < len(set(codes)) < len(known):
        raise ValueError(f"outcomes: expected some outcomes and not all, got {outcomes!r}; nothing is left to find")
    return np.array(codes, np.int8)


def _check_part(part: CriticalPart, start: int, num_points: int, *, labelled: bool) -> None:
    if labelled and part.ends is None:
        raise ValueError(f"the part of points {part.start} to {part.stop} has no end points; run it again")
    if part.start != start or not part.start < part.stop <= num_points:
        raise ValueError(
            f"expected the part that begins at point {start} of {num_points}, got points {part.start} to {part.stop}; "
            "give parts in order, from the first point on"
        )
