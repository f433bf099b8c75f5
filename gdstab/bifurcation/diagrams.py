"""Orbit diagrams: what is left of every orbit once its transient is over, against the step size."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn
from gdstab._validate import check_box, check_count, check_step_sizes
from gdstab.bifurcation._lanes import Walk, check_lanes, check_observe, chunk_size, escape
from gdstab.ensembles import map_points
from gdstab.orbits import extent
from gdstab.updates import UpdateRule

_SLAB = 2**22  # kept values that are on the host at once, where they are only counted


@recorded(
    {"period": ("step_size", "start"), "escaped": ("step_size", "start"), "state": ("step_size", "start"),
     "values": ("step_size", "start", "kept"), "counts": ("step_size", "bin"), "outside": "step_size",
     "edges": "edge", "bounded": "step_size", "common_period": "step_size"},
    coords={"step_size": "step_sizes"}, attrs=("lane_steps", "run_seconds"),
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class OrbitDiagram:
    """What the orbits of all (step size, start) pairs do in the end."""

    step_sizes: Float[np.ndarray, " steps"]
    escaped: Bool[np.ndarray, "steps starts"]
    period: Int32[np.ndarray, "steps starts"]
    """Of the cycle that an orbit settled on, 1 for a fixed point; 0 if it escaped or none was found, be it that the
    orbit is still on its way, has a longer period, or none."""
    state: Any
    """The last states, every leaf [steps, starts, ...]."""
    values: np.ndarray | None
    """The observations after the transient, [steps, starts, kept], NaN for orbits that escaped; None if counted."""
    counts: Int64[np.ndarray, "steps bins"] | None
    """Of the observations of bounded orbits in each bin; None if they are kept one by one."""
    edges: Float[np.ndarray, " edges"] | None
    outside: Int64[np.ndarray, " steps"] | None
    """Observations of bounded orbits beyond the range of the bins."""
    lane_steps: int
    """Updates of all orbits together, those included that escaped orbits were spared."""
    run_seconds: float

    @property
    def bounded(self) -> Float[np.ndarray, " steps"]:
        """Share of the starts whose orbits did not escape."""
        return 1 - self.escaped.mean(axis=1)

    @property
    def common_period(self) -> Int32[np.ndarray, " steps"]:
        """The period that most of the bounded orbits have, 0 where most have none; -1 where all orbits escaped."""
        found = np.full(len(self.step_sizes), -1, np.int32)
        for row, (period, escaped) in enumerate(zip(self.period, self.escaped, strict=True)):
            if not escaped.all():
                found[row] = np.bincount(period[~escaped]).argmax()
        return found


@entry(host=True)
def orbit_diagram(
    rule: UpdateRule,
    loss: LossFn,
    step_sizes,
    starts,
    *,
    transient: int,
    kept: int,
    observe: Callable | None = None,
    max_period: int = 16,
    escape_radius: float | None = None,
    bins: int | None = None,
    value_range=None,
    progress: Callable[[int, int], None] | None = None,
) -> OrbitDiagram:
    r"""Run every start with every step size, discard the transient, and keep or count what is observed afterwards.

    With `bins` the observations of each step size are counted as they come, so that memory stays fixed however many
    there are; without, all of them are returned.

    Parameters
    ----------
    rule
        Any autonomous `updates.UpdateRule`; orbits are those of its state, momentum included.
    step_sizes
        A vector, in any order.
    starts
        Initial parameters [starts, ...], or a pytree of such arrays; their dtype is that of the run.
    transient, kept
        Updates to discard, and updates to observe after them.
    observe
        `observe(theta) -> number`; by default the first parameter. It compiles anew for each function object.
    max_period
        Periods from 1 to this are looked for, right after the transient (see `outcomes.CycleTest` for the test and its
        tolerance). A fixed point counts if the steps shrink, or are at rounding, and an orbit beside it stays near: a
        slow passage of a saddle has period 0.
    escape_radius
        An orbit has escaped when its parameters are beyond this norm or not finite at one of the looks, which are
        taken every eighth update of the transient, and at each one afterwards. By default $10^6 \max(1, r)$, $r$ the
        largest parameter of the starts.
    bins, value_range
        Number of bins and (low, high) of a histogram for each step size, both ends included.
    progress
        Called on the host as `progress(orbits, updates)` since the last call.

    Raises
    ------
    ValueError
        If `transient`, `kept`, `max_period` or `bins` is not a positive integer, `value_range` is missing or empty, the
        rule has a schedule, or starts, step sizes, loss or `observe` cannot be used.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: (1 - x * x) ** 2 / 4  # x -> (1 + eta) x - eta x^3
    >>> diagram = orbit_diagram(
    ...     gradient_descent(), loss, [0.5, 1.2, 1.27], jnp.array([0.3, 0.8]), transient=4000, kept=4
    ... )
    >>> diagram.period.tolist()
    [[1, 1], [2, 2], [4, 4]]
    >>> sorted(set(diagram.values[1, 0].round(6).tolist()))  # x y = 1/1.2 and x^2 + y^2 = 2.2/1.2
    [0.73129, 1.139538]
    """
    begin = time.perf_counter()
    starts, num_starts, dtype = check_lanes(rule, loss, starts, escape_radius)
    step_sizes = np.atleast_1d(check_step_sizes(step_sizes, dtype))
    counts = {"transient": transient, "kept": kept, "max_period": max_period}
    transient, kept, max_period = (check_count(value, name) for name, value in counts.items())
    low, high, bins = _check_bins(bins, value_range)
    walk = Walk(rule, loss, escape(starts, escape_radius))
    orbit = _Orbit(walk, check_observe(observe, starts), transient, kept, max_period, bins, low, high)
    room = _Room(len(step_sizes), num_starts, kept, bins)
    updates, chunk = transient + kept + 2 * max(max_period, 2), chunk_size(rule, starts)
    size = _slab_size(len(step_sizes) * num_starts, kept, bins)
    for first, lanes in _slabs(len(step_sizes) * num_starts, size):
        row, column = np.divmod(lanes, num_starts)
        points = jax.tree.map(lambda leaf, column=column: leaf[column], starts)
        room.put(first, map_points(orbit, (points, step_sizes[row]), chunk=chunk))
        if progress is not None:
            new = min(size, room.total - first)
            progress(new, new * updates)
    return OrbitDiagram(
        step_sizes=step_sizes, **room.fields(), edges=None if not bins else np.linspace(low, high, bins + 1),
        lane_steps=room.total * updates, run_seconds=time.perf_counter() - begin,
    )  # fmt: skip


class _Orbit(eqx.Module):
    """One (start, step size) pair: escaped or not, period, last state, and the values or the numbers of their bins."""

    walk: Walk
    observe: Callable = eqx.field(static=True)
    transient: int
    kept: int
    max_period: int
    bins: int
    low: float
    high: float

    def __call__(self, pair):
        theta, step_size = pair
        state = self.walk.advance(self.walk.rule.init(theta, step_size), step_size, self.transient)
        period = self.walk.period(state, step_size, self.max_period, extent(theta))
        seen = self.place if self.bins else self.observe
        state, values = self.walk.observe(state, step_size, self.kept, seen)
        escaped = ~self.walk.inside(state)
        nothing = jnp.asarray(self.bins if self.bins else jnp.nan, values.dtype)
        return escaped, jnp.where(escaped, 0, period), state, jnp.where(escaped, nothing, values)

    def place(self, theta):
        """The bin of an observation; `bins` stands for all that is beyond the range."""
        value = self.observe(theta)
        low, high = jnp.asarray(self.low, value.dtype), jnp.asarray(self.high, value.dtype)
        place = jnp.minimum(jnp.floor((value - low) * (self.bins / (high - low))), self.bins - 1)
        inside = (value >= low) & (value <= high)
        return jnp.where(inside, place, self.bins).astype(_bin_dtype(self.bins))


class _Room:
    """The arrays of a diagram, flat over the lanes, as slabs fill them."""

    def __init__(self, steps: int, starts: int, kept: int, bins: int):
        self.steps, self.starts, self.kept, self.bins = steps, starts, kept, bins
        self.total = steps * starts
        self.parts = []
        self.counts = np.zeros((steps, bins + 1), np.int64) if bins else None

    def put(self, first: int, found) -> None:
        """A slab of lanes, from lane `first` on; what is behind the last lane is dropped."""
        escaped, period, state, values = jax.tree.map(lambda leaf: leaf[: self.total - first], found)
        if self.bins:
            self._count(first, values)
            values = np.zeros(0)
        self.parts.append((escaped, period, state, values))

    def _count(self, first: int, places: np.ndarray) -> None:
        """Row by row, which keeps the conversions of `bincount` in the cache."""
        for row in range(first // self.starts, (first + len(places) - 1) // self.starts + 1):
            some = places[max(row * self.starts - first, 0) : (row + 1) * self.starts - first]
            self.counts[row] += np.bincount(some.ravel(), minlength=self.bins + 1)

    def fields(self) -> dict:
        """As `OrbitDiagram` names them."""
        escaped, period, state, values = jax.tree.map(lambda *leaves: np.concatenate(leaves), *self.parts)
        shape, counts, outside = (self.steps, self.starts), None, None
        escaped = escaped.reshape(shape)
        if self.bins:
            spared = np.count_nonzero(escaped, axis=1) * self.kept
            counts, outside = self.counts[:, :-1], self.counts[:, -1] - spared
        return {
            "escaped": escaped, "period": period.reshape(shape),
            "state": jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), state),
            "values": None if self.bins else values.reshape(*shape, -1), "counts": counts, "outside": outside,
        }  # fmt: skip


def _slab_size(total: int, kept: int, bins: int) -> int:
    """Lanes of a slab; they may as well be one slab if everything is returned anyway."""
    return min(total, max(_SLAB // kept, 1024)) if bins else min(total, 2**20)


def _slabs(total: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """First lane and lanes of each slab, the last one filled up with its last lane: one shape, one compilation."""
    for first in range(0, total, size):
        yield first, np.minimum(np.arange(first, first + size), total - 1)


def _bin_dtype(bins: int):
    return jnp.int16 if bins < 2**15 else jnp.int32


def _check_bins(bins: int | None, value_range) -> tuple[float, float, int]:
    """Range and number of bins; 0 of them where everything is kept."""
    if bins is None:
        if value_range is not None:
            raise ValueError("value_range: it is the range of a histogram; pass `bins` too")
        return 0.0, 1.0, 0
    if value_range is None:
        raise ValueError("expected `value_range=(low, high)` with `bins`, got none; a small run without bins shows it")
    ((low, high),) = check_box((value_range,), 1)
    return float(low), float(high), check_count(bins, "bins")
