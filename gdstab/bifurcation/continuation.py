"""Cycles followed over the step size: through folds by pseudo-arclength, or from one step size to the next."""

from typing import Any, NamedTuple

import jax
import numpy as np

from gdstab._clocks import once
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._results import strings
from gdstab._types import LossFn
from gdstab._validate import check_count, check_positive, check_step_sizes
from gdstab.bifurcation._system import Point, System
from gdstab.bifurcation.points import Bifurcation, Kind, find_between, flip_test, is_stable, unit_test
from gdstab.ensembles import map_points
from gdstab.orbits import Cycle, rollout

_SMALLEST_STEP = 1e-9
_TEST_CHANGE = 0.5  # of a multiplier near -1 or 1 in one step: so that no second crossing is skipped
_COSINE = 0.95  # between the tangents of neighbours


@recorded(
    {"step_sizes": "point", "stable": "point", "states": "point", "multipliers": ("point", "multiplier"),
     "bifurcation_kind": "bifurcation", "bifurcation_step_size": "bifurcation", "bifurcation_period": "bifurcation"},
    attrs=("period", "neutral", "ends"),
)  # fmt: skip
class Branch(NamedTuple):
    """A curve of cycles of one period over the step size, points in the order of the curve."""

    period: int
    step_sizes: np.ndarray  # [points]
    states: Any  # of one point of each cycle; every leaf [points, ...]
    multipliers: np.ndarray  # [points, n], complex, largest modulus first
    neutral: int  # multipliers that are 1 all along, since the cycles fill a continuum at every step size
    stable: np.ndarray  # [points]
    bifurcations: tuple[Bifurcation, ...]  # in the order of the curve
    ends: tuple[str, str]  # why it ends, at the first point and at the last

    @property
    def bifurcation_kind(self) -> np.ndarray:
        """In words, [bifurcations]."""
        return strings(one.kind.value for one in self.bifurcations)

    @property
    def bifurcation_step_size(self) -> np.ndarray:
        """Of the bifurcations, [bifurcations]."""
        return np.array([one.step_size for one in self.bifurcations], float)

    @property
    def bifurcation_period(self) -> np.ndarray:
        """Of the cycles there, [bifurcations]."""
        return np.array([one.period for one in self.bifurcations], int)


@entry(host=True)
def follow(
    rule,
    loss: LossFn,
    cycle: Cycle,
    low: float,
    high: float,
    *,
    direction: int = 0,
    largest_step: float = 0.02,
    max_points: int = 400,
    stop_at: tuple[Kind, ...] = (),
    rank_tol: float | None = None,
) -> Branch:
    r"""The branch of a cycle over step sizes from `low` to `high`, folds included, with its bifurcation points.

    Moore-Penrose continuation (Dhooge, Govaerts and Kuznetsov 2003, ACM TOMS 29): a step along the tangent, then
    Newton's method orthogonally to the branch, with a step length that adapts to the turning of the tangent and to
    the motion of the multipliers near -1 and 1. Along a manifold of minima the parameters stay put. Flips, folds,
    crossings of branches and Neimark-Sacker points are bracketed by a change of sign and located to rounding.
    A doubled cycle that shrinks to the cycle it was born from ends there, with that cycle as its last point.

    Parameters
    ----------
    cycle
        Where to begin: from `orbits.find_cycle` or `orbits.refine`, at a step size from `low` to `high`.
    direction
        1 for growing step sizes at first, -1 for shrinking ones, 0 for both. The points are in the order of the
        curve, those in the direction of growing step sizes last.
    largest_step
        Of the arclength, in units of the size of the state (see `_system.System.length`), and of `high - low` for the
        step size.
    max_points
        In each direction.
    stop_at
        Kinds of bifurcation at which to end.

    Raises
    ------
    ValueError
        If the cycle is none, or is not between `low` and `high`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.orbits import refine
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: (1 - x * x) ** 2 / 4  # its curvature at 1 is 2
    >>> cycle = refine(gradient_descent(), loss, jnp.array(0.9), 0.7, 1)
    >>> branch = follow(gradient_descent(), loss, cycle, 0.5, 1.5)
    >>> [(point.kind.value, round(point.step_size, 9)) for point in branch.bifurcations]
    [('flip', 1.0)]
    """
    max_points = check_count(max_points, "max_points", least=2)
    largest_step = check_positive(largest_step, "largest_step")
    if direction not in (-1, 0, 1):
        raise ValueError(f"direction: expected 1 (growing step sizes), -1 or 0 (both), got {direction!r}; pass one")
    _check_range(cycle, low, high)
    system = _system(rule, loss, cycle, high - low, rank_tol)
    begin = _confirmed(system, cycle)
    return walk(system, begin, low, high, direction, largest_step, max_points, stop_at)


def walk(
    system: System,
    begin: Point,
    low: float,
    high: float,
    direction: int,
    largest_step: float,
    max_points: int,
    stop_at: tuple[Kind, ...],
) -> Branch:
    """As `follow`, from a point of the branch."""
    neutral = len(begin.x) - begin.rank
    points, found, ends = [begin], [], ["start", "start"]
    for side, sign in enumerate((-1, 1)):
        if sign != -direction:
            more, events, ends[side] = _one_way(
                system, begin, sign, neutral, (low, high), largest_step, max_points, stop_at
            )
            points = [*points, *more] if sign == 1 else [*more[::-1], *points]
            found = [*found, *events] if sign == 1 else events[::-1]
    return _branch(system, points, found, neutral, tuple(ends))


@entry(host=True)
def sweep(rule, loss: LossFn, cycle: Cycle, step_sizes, *, rank_tol: float | None = None) -> Branch:
    """The branch at given step sizes, increasing or decreasing, each found from the one before: natural continuation.

    It ends where the next step size has no cycle nearby, at a fold at the latest.

    Raises
    ------
    ValueError
        As `follow`, or if the step sizes are not monotone.
    """
    sizes = check_step_sizes(step_sizes, np.float64 if np.ndim(step_sizes) else None).astype(float)
    gaps = np.diff(sizes) if sizes.ndim else np.zeros(0)
    if not ((gaps > 0).all() or (gaps < 0).all()):
        raise ValueError("step_sizes: expected a monotone vector, got one that turns; sort it, or run twice")
    system = _system(rule, loss, cycle, float(np.ptp(sizes)) or float(sizes.max()), rank_tol)
    now = _confirmed(system, cycle)
    neutral = len(now.x) - now.rank
    points, found, end = [], [], "range"
    for eta in np.atleast_1d(sizes):
        then = system.solve(now.x, float(eta), fixed=True)
        if then is None or np.linalg.norm(then.x - now.x) > 0.5 * system.length(now.x):
            end = "no cycle nearby"
            break
        if points:
            between = find_between(system, now, then, neutral, fixed=True)
            found += [_event(system, kind, point) for kind, point in between]
        points.append(then)
        now = then
    if not points:
        raise ValueError(
            f"no cycle of period {cycle.period} near the one given at step size {float(np.atleast_1d(sizes)[0]):g}; "
            f"start nearer to its own, {float(cycle.step_size):g}"
        )
    return _branch(system, points, found, neutral, ("range", end))


@entry(host=True)
def cycle_points(rule, loss: LossFn, branch: Branch):
    """The parameters along every cycle of a branch, every leaf [points, period, ...]."""
    along = _Along(rule, loss, branch.period)
    dtype = np.result_type(*jax.tree.leaves(rule.theta(branch.states)))
    return map_points(along, (branch.states, branch.step_sizes.astype(dtype)))


class _Along(NamedTuple):
    """The parameters along a cycle, from one of its states; equal ones compile once."""

    rule: Any
    loss: Any
    period: int

    def __call__(self, point):
        state, step_size = point
        return rollout(once(self.rule, self.loss, state), self.period)(self.loss, state, step_size)[1]


def _check_range(cycle, low, high):
    low, high, eta = check_positive(low, "low"), check_positive(high, "high"), float(cycle.step_size)
    if not (low < high and low <= eta <= high):
        raise ValueError(
            f"expected low < high with the step size of the cycle, {eta:g}, between them, got {low:g} and {high:g}; "
            "widen the range"
        )


def _system(rule, loss, cycle, span, rank_tol):
    state = jax.tree.map(lambda leaf: leaf[0], cycle.states)
    return System(rule, loss, state, cycle.period, span, rank_tol, float(cycle.scale))


def _confirmed(system, cycle):
    begin = system.solve(system.vector(system.like), float(cycle.step_size), fixed=True)
    if begin is None:
        raise ValueError(
            f"expected a cycle of period {cycle.period} at step size {float(cycle.step_size):g}, got one that Newton's "
            f"method does not confirm (residual {float(cycle.residual):.2g}); look at `cycle.converged`"
        )
    return begin


def _one_way(system, begin, sign, neutral, limits, largest_step, max_points, stop_at):
    """Points, bifurcations and the reason of the end, in one direction."""
    low, high = limits
    unit = system.length(begin.x)
    step, largest = 0.1 * largest_step * unit, largest_step * unit
    now = begin._replace(tangent=sign * begin.tangent * (1 if begin.tangent[-1] >= 0 else -1))
    points, events = [], []
    while len(points) < max_points:
        if (now.step_size >= high and now.tangent[-1] > 0) or (now.step_size <= low and now.tangent[-1] < 0):
            return points, events, "range"
        then = _advance(system, now, step, neutral, limits)
        if then is None:
            step /= 2
            if step > _SMALLEST_STEP * unit:
                continue
            return points, events, "the branch could not be followed"
        if (birth := _birth(system, now, then)) is not None:
            return [*points, *_closing(system, now, birth)], [*events, birth], "birth"
        for kind, point in find_between(system, now, then, neutral):
            events.append(_event(system, kind, point))
            points.append(point)
            if kind in stop_at:
                return points, events, kind.value
        points.append(then)
        now, step = then, min(1.5 * step, largest)
    return points, events, "max_points"


def _advance(system, now: Point, step: float, neutral: int, limits) -> Point | None:
    """The next point at about this distance, or at the end of the range; None if the step was too long."""
    x = now.x + step * now.tangent[:-1]
    eta = now.step_size + step * system.weight * now.tangent[-1]
    clipped = min(max(eta, limits[0]), limits[1])
    if clipped != eta:
        share = (clipped - now.step_size) / (eta - now.step_size)
        then = system.solve(now.x + share * (x - now.x), clipped, now.tangent, fixed=True)
    else:
        then = system.solve(x, eta, now.tangent)
    if then is None or then.tangent @ now.tangent < _COSINE:
        return None
    moved = np.append(then.x - now.x, (then.step_size - now.step_size) / system.weight)
    changes = [abs(test(then, neutral) - test(now, neutral)) for test in (flip_test, unit_test)]
    if np.linalg.norm(moved) > 2 * step or max(changes) > _TEST_CHANGE:
        return None
    return then


def _birth(system: System, now: Point, then: Point) -> Bifurcation | None:
    """The flip of the cycle of half the period, where a doubled one is about to shrink to it."""
    size, shrunk = np.linalg.norm(now.half), np.linalg.norm(then.half)
    turned = now.half @ then.half < 0
    if not (system.halves and (turned or shrunk < 0.7 * size)):
        return None
    mother = system.of_period(system.period // 2)
    # The square of the size is linear in the step size, near the birth.
    slope = (size**2 - shrunk**2 * (-1 if turned else 1)) / (now.step_size - then.step_size)
    if slope == 0 or not np.isfinite(slope):
        return None
    return locate_flip(mother, now.x + now.half / 2, now.step_size, now.step_size - size**2 / slope)


def _closing(system: System, now: Point, birth: Bifurcation) -> list[Point]:
    """The last points before a birth, which the branch reaches as a square root, and the birth itself."""
    x, apart = system.vector(birth.state), now.step_size - birth.step_size
    points = []
    for share in (0.7, 0.4, 0.2):
        point = system.solve(x + share * (now.x - x), birth.step_size + share**2 * apart, now.tangent, fixed=True)
        if point is None or not 0.5 * share < np.linalg.norm(point.half) / np.linalg.norm(now.half) < 2 * share:
            break
        points.append(point)
    # Run through twice, the cycle that it is born from has the squares of its multipliers.
    return [*points, Point(x, birth.step_size, birth.multipliers**2, now.tangent, np.zeros_like(x), now.rank)]


def locate_flip(system: System, x: np.ndarray, first: float, second: float) -> Bifurcation | None:
    """The flip of a cycle by the secant method over the step size, from two that are near it; None if not found."""
    reach = 3 * abs(second - first)
    points = [system.solve(x, first, fixed=True), system.solve(x, second, fixed=True)]
    for _ in range(50):
        if None in points or abs(points[1].step_size - first) > reach:
            return None
        values = [np.abs(point.multipliers + 1).min() * np.sign(flip_test(point, 0)) for point in points]
        if points[0].step_size == points[1].step_size or values[0] == values[1]:
            break
        gap = points[1].step_size - points[0].step_size
        eta = points[1].step_size - gap * values[1] / (values[1] - values[0])
        points = [points[1], system.solve(points[1].x, eta, fixed=True)]
    found = points[1]
    if found is None or abs(flip_test(found, 0)) > 1e3 * np.finfo(system.dtype).eps:
        return None
    return _event(system, Kind.FLIP, found)._replace(birth=True)


def _event(system: System, kind: Kind, point: Point) -> Bifurcation:
    state = system.state(point.x)
    return Bifurcation(kind, point.step_size, state, system.period, point.multipliers, scale=system.scale)


def _branch(system: System, points: list[Point], found: list, neutral: int, ends: tuple[str, str]) -> Branch:
    states = [system.state(point.x) for point in points]
    return Branch(
        period=system.period, step_sizes=np.array([point.step_size for point in points]),
        states=jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *states),
        multipliers=np.stack([point.multipliers for point in points]), neutral=neutral,
        stable=np.array([is_stable(point.multipliers, neutral) for point in points]), bifurcations=tuple(found),
        ends=ends,
    )  # fmt: skip
