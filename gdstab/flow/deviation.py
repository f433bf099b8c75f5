r"""How far descent strays from gradient flow: $\|\theta_k - \theta(k\eta)\|_2$ over time, for many step sizes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Int8

from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._numerics import sum_squares
from gdstab._types import LossFn, Scalar, Theta
from gdstab._validate import as_theta, check_count, check_loss, check_one_dtype, check_positive, check_step_sizes
from gdstab.flow.gradient_flow import follow
from gdstab.flow.method import Method
from gdstab.flow.status import FlowStatus
from gdstab.updates import gradient_descent


class ModifiedLoss(eqx.Module):
    r"""$\tilde L = L + \frac{\eta}{4} \|\nabla L\|^2$: its flow is followed by descent up to $O(\eta^2)$.

    That of L only up to $O(\eta)$ (Barrett and Dherin, arXiv:2009.11162, Theorem 3.1, by backward error analysis). The
    loss must be twice differentiable along the way.

    Examples
    --------
    >>> float(ModifiedLoss(lambda x: 0.5 * jnp.sum(x**2), 0.1)(jnp.array([2.0])))
    2.1
    """

    loss: LossFn
    step_size: ArrayLike

    def __call__(self, theta: Theta) -> Scalar:
        """The value at one point."""
        value, gradient = jax.value_and_grad(self.loss)(theta)
        return value + jnp.asarray(self.step_size, value.dtype) / 4 * sum_squares(gradient)


_OVER_BOTH = (
    "times", "updates", "distance", "modified_distance", "distance_to_finest", "travelled", "loss", "flow_loss",
    "flow_error", "distance_error", "observed", "flow_observed",
)  # fmt: skip


@recorded(
    dict.fromkeys(_OVER_BOTH, ("step", "record"))
    | {"step_sizes": "step", "theta": "step", "flow_theta": (), "status": (), "time": (), "num_steps": ()},
    codes={"status": FlowStatus},
)
class Deviation(eqx.Module):
    r"""Descent beside the flow: arrays [steps, times], behind the starts' axis if there is one.

    Row i holds step size $\eta_i$ at its own updates: `updates[i]` of them are made at `times[i]`, their product with
    $\eta_i$. The first column is the start. Where the flow has stopped early, see `status`, what compares with it is
    NaN; a descent that overflows is infinitely far away.
    """

    step_sizes: Float[Array | np.ndarray, "*starts steps"]
    updates: Int[Array | np.ndarray, "*starts steps times"]
    times: Float[Array | np.ndarray, "*starts steps times"]
    distance: Float[Array | np.ndarray, "*starts steps times"]
    r"""$\|\theta_k - \theta(k\eta)\|_2$."""
    modified_distance: Float[Array | np.ndarray, "*starts steps times"] | None
    """The same from the flow of `ModifiedLoss`, which is another one for each step size; None unless asked for."""
    distance_to_finest: Float[Array | np.ndarray, "*starts steps times"]
    """From descent with the smallest step size; where their times differ, they do so by less than one step."""
    travelled: Float[Array | np.ndarray, "*starts steps times"]
    r"""$\|\theta_k - \theta_0\|_2$ of descent: what to hold the distances against."""
    loss: Float[Array | np.ndarray, "*starts steps times"]
    flow_loss: Float[Array | np.ndarray, "*starts steps times"]
    flow_error: Float[Array | np.ndarray, "*starts steps times"] | None
    """Distance of the flow from one at a tenth of the tolerances, or with twice the step; None unless asked for."""
    distance_error: Float[Array | np.ndarray, "*starts steps times"] | None
    """By how much `distance` from that second flow is another one; None unless asked for."""
    observed: Any
    """`observe(theta)` of descent, further axes behind the times; None unless asked for."""
    flow_observed: Any
    theta: Theta
    """The last points of descent, [steps, ...]."""
    flow_theta: Theta
    """The last point of the flow."""
    status: Int8[Array | np.ndarray, "*starts"]
    """Of the flow, a `FlowStatus`; FINISHED if it came to the end."""
    time: Float[Array | np.ndarray, "*starts"]
    """How far the flow came."""
    num_steps: Int[Array | np.ndarray, "*starts"]
    """Steps of the flow's solver."""


@entry
def deviation(
    loss: LossFn,
    theta0: Theta,
    step_sizes: ArrayLike | Sequence[float],
    time: ArrayLike,
    *,
    points: int = 200,
    times: ArrayLike | Sequence[float] | None = None,
    pad: bool = False,
    modified: bool = False,
    estimate_error: bool = False,
    observe: Callable[[Theta], Any] | None = None,
    map_points: Callable | None = None,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    step: float | None = None,
    solver: diffrax.AbstractSolver | None = None,
    max_steps: int = 100_000,
    escape_radius: float = 1e6,
) -> Deviation:
    r"""Follow the flow once and descent with every step size beside it, and record $\|\theta_k - \theta(k\eta)\|_2$.

    All march together from one recorded time to the next, so that memory holds one point of each, whatever the number
    of updates. Each descent is recorded after its last update up to the recorded time: if all step sizes divide the
    largest, those times are the same for all, and ends of the solver's steps; otherwise the flow is interpolated, to
    the order of its solver less one. Non-smooth losses: see `gradient_flow`.

    Parameters
    ----------
    theta0
        The start, any pytree of real arrays of one dtype; with `map_points` many of them, along a leading axis.
    step_sizes
        A scalar or a vector; say $\eta / r$ for r = 1, 2, 5, 10, 20.
    time
        How far to go, at least the largest step size.
    points
        Times recorded beside 0, at the most: multiples of the largest step size, evenly apart.
    times
        Instead of `points`: the times to record, ascending, from the largest step size to `time` and no closer than it.
    pad
        Whether to repeat time 0 where fewer than `points` fit, so that other step sizes compile nothing anew.
    modified
        Whether to follow the flow of `ModifiedLoss` too, once for each step size.
    estimate_error
        Whether to follow the flow a second time, at a tenth of the tolerances or with twice the `step`, for
        `flow_error` and `distance_error`.
    observe
        Anything else of the parameters to keep at the recorded times, of descent and of the flow.
    map_points
        As for `gradient_flows`; `ensembles.map_points` uses all cores.
    rtol, atol, step, solver, max_steps, escape_radius
        Of the flow, as for `gradient_flow`; `max_steps` between two recorded times.

    Raises
    ------
    ValueError
        If a step size, `time`, a tolerance or the step is not positive, `time` is shorter than a step, or leaves of
        `theta0` differ in dtype.

    Examples
    --------
    >>> found = deviation(lambda x: 0.5 * jnp.sum(x**2), jnp.array([1.0]), [0.1, 0.05], 1.0, points=10)
    >>> bool(abs(found.distance[0, -1] - (jnp.exp(-1.0) - 0.9**10)) < 1e-7)
    True
    """
    theta0 = as_theta(theta0)
    one = theta0 if map_points is None else jax.tree.map(lambda leaf: leaf[0], theta0)
    check_loss(loss, one)
    check_one_dtype(one)
    dtype = np.dtype(jnp.result_type(*jax.tree.leaves(one)))
    method = Method.of(dtype, rtol, atol, escape_radius, step, solver, max_steps)
    step_sizes = np.atleast_1d(check_step_sizes(step_sizes, dtype))
    schedule = plan(step_sizes, check_positive(time, "time"), check_count(points, "points"), times, pad=pad)
    march = _March(loss, schedule.arrays(dtype), method, schedule.common, modified, estimate_error, observe)
    return _run(march, jax.tree.map(jnp.asarray, theta0)) if map_points is None else map_points(march, theta0)


class Schedule(NamedTuple):
    """When each descent is recorded; the first axis is that of the windows between two recorded times."""

    step_sizes: np.ndarray  # [steps]
    ends: np.ndarray  # [times], the first is 0
    updates: np.ndarray  # [times, steps], the last of each descent up to that time
    common: bool  # whether all of them fall on the ends

    def arrays(self, dtype) -> tuple:
        """What the march needs: step sizes, ends, updates, and the times of those, never behind the end."""
        times = self.ends[:, None] if self.common else np.minimum(self.updates * self.step_sizes, self.ends[:, None])
        times = np.broadcast_to(times, self.updates.shape)
        return self.step_sizes.astype(dtype), self.ends.astype(dtype), self.updates, times.astype(dtype)


def plan(
    step_sizes: np.ndarray, time: float, points: int, times: ArrayLike | Sequence[float] | None = None,
    *, pad: bool = False,
) -> Schedule:  # fmt: skip
    """Choose the recorded times, multiples of the largest step size unless they are given.

    With `pad` the first is repeated up to `points`, so that shapes do not depend on the step sizes.

    Examples
    --------
    >>> schedule = plan(np.array([0.2, 0.1]), 1.0, 2)
    >>> schedule.ends.tolist(), schedule.updates.tolist(), schedule.common
    ([0.0, 0.4, 1.0], [[0, 0], [2, 4], [5, 10]], True)
    """
    rounding = 8 * np.finfo(step_sizes.dtype).eps
    step_sizes = step_sizes.astype(np.float64)
    largest = step_sizes.max()
    if time < largest * (1 - rounding):
        raise ValueError(f"time: expected at least one step of {largest:g}, got {time:g}; lengthen it")
    if times is None:
        most = _floor(time / largest, rounding)
        ends = largest * np.unique(np.round(np.linspace(0, most, min(points, most) + 1)))
    else:
        ends = np.concatenate([np.zeros(1), np.asarray(times, np.float64).ravel()])
        if not (np.diff(ends) >= largest * (1 - rounding)).all() or ends[-1] > time * (1 + rounding):
            raise ValueError(
                f"times: expected times up to {time:g} that lie at least the largest step size {largest:g} apart and "
                f"from 0, got {np.asarray(times).tolist()}; keep fewer"
            )
    if pad:
        ends = np.pad(ends, (max(points + 1 - len(ends), 0), 0), mode="edge")
    updates = _floor(ends[:, None] / step_sizes, rounding)
    if updates.max() >= 2**31:
        raise ValueError(f"step_sizes: the smallest needs {updates.max()} updates; shorten the time or drop it")
    common = bool((np.abs(updates * step_sizes - ends[:, None]) <= rounding * ends[:, None]).all())
    return Schedule(step_sizes, ends, updates.astype(np.int32), common)


def _floor(ratio, rounding):
    return np.floor(ratio * (1 + rounding)).astype(np.int64)


class _Followed(NamedTuple):
    """A flow on its march; one that has stopped stays where it was."""

    theta: Theta
    time: Scalar
    status: Int8[Array, ""]
    num_steps: Int[Array, ""]


class _March(eqx.Module):
    """The computation of `deviation` from one start."""

    loss: LossFn
    schedule: tuple
    method: Method
    common: bool
    modified: bool
    estimate_error: bool
    observe: Callable | None

    def __call__(self, theta0: Theta) -> Deviation:
        with jax.default_matmul_precision("highest"):
            return self._march(theta0)

    def _march(self, theta0):
        step_sizes, ends, updates, times = (jnp.asarray(part) for part in self.schedule)
        num, dtype = len(step_sizes), step_sizes.dtype
        zero = jnp.zeros((), dtype)
        flow = _Followed(theta0, zero, jnp.int8(FlowStatus.FINISHED), jnp.zeros((), jnp.int32))
        repeat = lambda tree: jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, *jnp.shape(leaf))), tree)  # noqa: E731
        modified = repeat(flow) if self.modified else None
        carry = (flow, flow if self.estimate_error else None, modified, repeat(theta0))

        def window(carry, row):
            end, made, updates, times = row
            flow, second, modified, thetas = carry
            descend = lambda lane: self._descend(*lane)  # noqa: E731
            thetas = lax.map(descend, (thetas, step_sizes, updates - made))
            flow, path = self._advance(flow, end, times)
            other_path = None
            if second is not None:
                second, other_path = self._advance(second, end, times, second=True)
            if modified is not None:
                modified = lax.map(lambda lane: self._correct(*lane), (modified, step_sizes, times))
            record = self._compare(theta0, thetas, flow, path, other_path, modified)
            return (flow, second, modified, thetas), record

        first = self._compare(theta0, carry[3], flow, carry[3], carry[3] if self.estimate_error else None, modified)
        rows = (ends[1:], updates[:-1], updates[1:], times[1:])
        (flow, _, _, thetas), records = lax.scan(window, carry, rows)
        records = jax.tree.map(lambda a, b: jnp.moveaxis(jnp.concatenate([a[None], b]), 0, 1), first, records)
        return Deviation(
            step_sizes=step_sizes, updates=updates.T, times=times.T, theta=thetas, flow_theta=flow.theta,
            status=flow.status, time=flow.time, num_steps=flow.num_steps, **records,
        )  # fmt: skip

    def _descend(self, theta, step_size, updates):
        rule = gradient_descent()
        return lax.fori_loop(0, updates, lambda _, theta: rule.step(self.loss, theta, step_size), theta)

    def _advance(self, flow, end, times=None, loss=None, second=False):
        """Follow to the end of the window; and the points at the times of each descent, [steps, ...]."""
        end = jnp.where(flow.status == FlowStatus.FINISHED, end, flow.time)
        method = self.method.paired(end - flow.time, second=second) if self.estimate_error else self.method
        interpolated = times is not None and not self.common
        order = jnp.argsort(times) if interpolated else None
        found = follow(
            self.loss if loss is None else loss, flow.theta, flow.time, end, method,
            times=times[order] if interpolated else None,
        )  # fmt: skip
        status = jnp.where(flow.status == FlowStatus.FINISHED, found.status, flow.status)
        path = None
        if interpolated:
            path = jax.tree.map(lambda leaf: leaf[jnp.argsort(order)], found.observed)
        elif times is not None:
            path = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(times), *leaf.shape)), found.theta)
        return _Followed(found.theta, found.time, status, flow.num_steps + found.num_steps.astype(jnp.int32)), path

    def _correct(self, flow, step_size, time):
        """Follow the modified flow of one step size to the time of its descent."""
        return self._advance(flow, time, loss=ModifiedLoss(self.loss, step_size))[0]

    def _compare(self, theta0, thetas, flow, path, other_path, modified):
        finest = jnp.argmin(self.schedule[0])
        goes_on = flow.status == FlowStatus.FINISHED
        valid = lambda values: jnp.where(goes_on, values, jnp.nan)  # noqa: E731
        distance, twice = _apart(thetas, path), other_path is not None
        observe = self.observe or (lambda _: None)
        return {
            "distance": valid(distance),
            "modified_distance": None if modified is None else jnp.where(
                modified.status == FlowStatus.FINISHED, _apart(thetas, modified.theta), jnp.nan
            ),
            "distance_to_finest": _apart(thetas, jax.tree.map(lambda leaf: leaf[finest][None], thetas)),
            "travelled": _apart(thetas, jax.tree.map(lambda leaf: leaf[None], theta0)),
            "loss": lax.map(self.loss, thetas),
            "flow_loss": valid(lax.map(self.loss, path)),
            "flow_error": valid(_apart(path, other_path)) if twice else None,
            "distance_error": valid(jnp.abs(distance - _apart(thetas, other_path))) if twice else None,
            "observed": lax.map(observe, thetas),
            "flow_observed": lax.map(observe, path),
        }  # fmt: skip


def _apart(a, b):
    """Distances along the leading axis, inf where a point is not finite."""
    gaps = jax.vmap(sum_squares)(jax.tree.map(lambda x, y: x - jnp.broadcast_to(y, x.shape), a, b))
    return jnp.where(jnp.isnan(gaps), jnp.inf, jnp.sqrt(gaps))


@jit
def _run(march, theta0):
    return march(theta0)
