"""The cascade of period doublings: from flip to flip, each new cycle found from the normal form of the last one's.

From a few cycles `explore` comes to all branches that hang together with them by flips.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from gdstab._contract import entry
from gdstab._datasets import recorded, variables
from gdstab._numerics import magnitude
from gdstab._results import frame
from gdstab._types import LossFn, State
from gdstab._validate import check_count, check_positive
from gdstab.bifurcation._system import Point, System
from gdstab.bifurcation.continuation import Branch, cycle_points, follow, walk
from gdstab.bifurcation.normal_forms import FlipForm, flip_form
from gdstab.bifurcation.points import Bifurcation, Kind
from gdstab.orbits import Cycle, find_cycle, refine

_PAST_THE_FLIP = (0.02, 0.05, 0.005)  # by how much the multiplier has passed -1 where the doubled cycle is looked for
_LARGEST_STEP, _MOST_POINTS = 0.05, 400


@recorded(dict.fromkeys(("step_sizes", "periods", "multipliers", "slopes", "coefficients"), "flip"), attrs=("ended",))
class Cascade(NamedTuple):
    """Period doublings, in their order."""

    flips: tuple[Bifurcation, ...]
    forms: tuple[FlipForm, ...]  # the normal form of each
    ended: str  # "count" if all were found that were asked for, else why no more

    @property
    def multipliers(self) -> np.ndarray:
        """Of the normal forms, [flips]; so are `slopes` and `coefficients`."""
        return np.array([form.multiplier for form in self.forms], float)

    @property
    def slopes(self) -> np.ndarray:
        """Of the multipliers by the step size, [flips]."""
        return np.array([form.slope for form in self.forms], float)

    @property
    def coefficients(self) -> np.ndarray:
        """Of the cubic terms, [flips]: above 0 where the doubled cycle attracts."""
        return np.array([form.coefficient for form in self.forms], float)

    @property
    def step_sizes(self) -> np.ndarray:
        """Where the period doubles, [doublings]."""
        return np.array([flip.step_size for flip in self.flips])

    @property
    def periods(self) -> np.ndarray:
        """The period that doubles there, [doublings]."""
        return np.array([flip.period for flip in self.flips])

    @property
    def ratios(self) -> np.ndarray:
        """Ratios of successive gaps, [doublings - 2]; they tend to Feigenbaum's 4.669..."""
        gaps = np.diff(self.step_sizes)
        return gaps[:-1] / gaps[1:]

    @property
    def accumulation(self) -> float:
        r"""Where the doublings accumulate, by Aitken's extrapolation of the last three; NaN with fewer than three."""
        if len(self.flips) < 3:
            return float("nan")
        a, b, c = self.step_sizes[-3:]
        return float(c + (c - b) / ((b - a) / (c - b) - 1))


@entry(host=True)
def doubled(rule, loss: LossFn, flip: Bifurcation, *, rank_tol: float | None = None) -> tuple[Cycle, FlipForm]:
    """The cycle of twice the period a little past a flip (before it, if it is subcritical), and the normal form.

    Raises
    ------
    ValueError
        If there is none near where the normal form puts it, as at a minimum of a manifold that is not the flattest:
        the oscillation then drifts along the manifold (`FlipForm.drift`) instead of closing.
    """
    system = System(rule, loss, flip.state, flip.period, 1.0, rank_tol, flip.scale)
    form = flip_form(rule, loss, flip.state, flip.step_size, flip.period, rank_tol=rank_tol)
    found = _doubled(system, flip, form)
    if isinstance(found, str):
        raise ValueError(f"{found}; look at the normal form of the flip")
    state = system.state(found.x)
    cycle = refine(rule, loss, state, found.step_size, 2 * flip.period, rank_tol=rank_tol, scale=flip.scale)
    return cycle, form


def _doubled(system: System, flip: Bifurcation, form: FlipForm) -> Point | str:
    """A point of the doubled cycle, or why there is none."""
    x, slope = system.vector(flip.state), float(form.amplitude_slope)
    if not np.isfinite(slope) or slope == 0:
        return f"the flip at step size {flip.step_size:.6g} is degenerate: its cubic coefficient vanishes"
    shift, direction, bend = (np.asarray(part) for part in (form.shift, form.direction, form.bend))
    twice = system.of_period(2 * flip.period)
    for past in _PAST_THE_FLIP:
        change = np.sign(slope) * past / abs(float(form.slope))
        size = np.sqrt(slope * change)
        guess = x + change * shift + size * direction + size**2 / 2 * bend
        found = twice.solve(guess, flip.step_size + change, fixed=True)
        if found is not None and 0.5 < np.linalg.norm(found.half) / (2 * size) < 2:
            return found
    drift = float(np.linalg.norm(form.drift))
    drifts = drift * size > 1e-6  # in p steps, over the size of the oscillation
    why = f", since oscillations drift along a continuum of cycles there (by {drift:.2g})" if drifts else ""
    return f"no cycle of period {2 * flip.period} was found near the flip at step size {flip.step_size:.6g}{why}"


@entry(host=True)
def doublings(
    rule, loss: LossFn, state: State, low: float, high: float, count: int = 5, *, max_period: int = 8
) -> Cascade:
    r"""Follow the period-doubling cascade of the cycle that attracts `state` at step size `low`, up to `high`.

    The cycle is continued to its flip, a multiplier of -1, which is located to rounding; the normal form there leads to
    the cycle of twice the period, and so on, until `count` flips are found, or `high` is reached.

    Parameters
    ----------
    state
        A state of the rule, for gradient descent the parameters.
    max_period
        The longest period of the cycle to begin with.

    Raises
    ------
    ValueError
        As `orbits.find_cycle`, at `low`; or if `count` is no positive integer.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: (1 - x * x) ** 2 / 4  # the symmetric line, with k = step size
    >>> cascade = doublings(gradient_descent(), loss, jnp.array(0.9), 0.8, 2.0, count=2)
    >>> cascade.step_sizes.round(9).tolist(), cascade.periods.tolist()
    ([1.0, 1.236067977], [1, 2])
    """
    count = check_count(count, "count")
    low, high = check_positive(low, "low"), check_positive(high, "high")
    cycle = find_cycle(rule, loss, state, low, max_period)
    start, scale = jax.tree.map(lambda leaf: leaf[0], cycle.states), float(cycle.scale)
    system = System(rule, loss, start, cycle.period, high - low, scale=scale)
    now = system.solve(system.vector(system.like), low, fixed=True)
    flips, forms, ended = [], [], "count"
    while len(flips) < count:
        bound = high
        if len(flips) > 1:  # each gap is a fraction of the last one
            bound = min(high, now.step_size + 2 * abs(flips[-1].step_size - flips[-2].step_size))
        if bound <= now.step_size:
            ended = f"the step size {high:.6g} was reached"
            break
        system = System(rule, loss, system.state(now.x), system.period, bound - now.step_size, scale=scale)
        now = system.solve(now.x, now.step_size, fixed=True)  # again, since the tangent is in other units
        branch = walk(system, now, now.step_size, bound, 1, _LARGEST_STEP, _MOST_POINTS, (Kind.FLIP,))
        flip = next((point for point in branch.bifurcations if point.kind is Kind.FLIP and not point.birth), None)
        if flip is None:
            ended = f"no flip of period {system.period} up to step size {bound:.6g} ({branch.ends[1]})"
            break
        flips.append(flip)
        forms.append(flip_form(rule, loss, flip.state, flip.step_size, flip.period))
        if len(flips) < count:
            found = _doubled(system, flip, forms[-1])
            if isinstance(found, str):
                ended = found
                break
            now, system = found, system.of_period(2 * flip.period)
    return Cascade(tuple(flips), tuple(forms), ended)


class Followed(NamedTuple):
    """A branch, and the parameters along its cycles."""

    branch: Branch
    theta: Any  # every leaf [points, period, ...]

    def to_xarray(self):
        """As that of the branch, with the parameters over `point` and `phase` beside it."""
        return self.branch.to_xarray().assign(variables("theta", self.theta, ("point", "phase")))

    def to_dataframe(self):
        """One row a point of the branch, as a `pandas.DataFrame`."""
        return frame(self.to_xarray(), ("point",))


@entry(host=True)
def explore(
    rule,
    loss: LossFn,
    cycles: Iterable[Cycle],
    low: float,
    high: float,
    *,
    doublings: int = 2,
    max_branches: int = 24,
    largest_step: float = 0.02,
    max_points: int = 400,
) -> list[Followed]:
    """Follow these cycles from `low` to `high`, then the ones born at their flips, and the ones they were born from.

    Parameters
    ----------
    cycles
        Each at a step size from `low` to `high`; one that lies on a branch found before is not followed again.
    doublings
        How many times in a row a flip is left for the cycle of twice the period.
    largest_step, max_points
        As in `follow`.

    Raises
    ------
    ValueError
        As `follow`.
    """
    doublings = check_count(doublings, "doublings", least=0)
    max_branches = check_count(max_branches, "max_branches")
    waiting, found = deque((cycle, doublings) for cycle in cycles), []
    reach = 3 * largest_step
    while waiting and len(found) < max_branches:
        cycle, left = waiting.popleft()
        if any(_passes(one, cycle, reach, high - low) for one in found):
            continue
        branch = follow(rule, loss, cycle, low, high, largest_step=largest_step, max_points=max_points)
        found.append(Followed(branch, cycle_points(rule, loss, branch)))
        for point in branch.bifurcations:
            if point.kind is not Kind.FLIP:
                continue
            if point.birth:
                mother = refine(rule, loss, point.state, point.step_size, point.period, scale=point.scale)
                if mother.converged:
                    waiting.append((mother, left + 1))
            elif left:
                try:
                    daughter, _ = doubled(rule, loss, point)
                except ValueError:  # the normal form says that there is one, a manifold of minima that there is none
                    continue
                if low <= float(daughter.step_size) <= high:
                    waiting.append((daughter, left - 1))
    return found


def _passes(one: Followed, cycle: Cycle, reach: float, span: float) -> bool:
    """Whether a branch passes by a cycle of the same period, however that is numbered."""
    if one.branch.period != cycle.period:
        return False
    near = np.abs(one.branch.step_sizes - float(cycle.step_size)) <= reach * span
    if not near.any():
        return False
    points = _flat(one.theta, 2)[near]  # [near, period, dim]
    first = _flat(cycle.theta, 1)[0]
    apart = np.linalg.norm(points - first, axis=-1).min(axis=1)
    return bool((apart <= reach * (magnitude(cycle.scale) + np.linalg.norm(first))).any())


def _flat(theta, axes: int) -> np.ndarray:
    """All parameters as one trailing axis."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(theta)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)
