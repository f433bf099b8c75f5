"""Lyapunov exponents of many orbits; bounded ones told apart by them: periodic, quasi-periodic or chaotic."""

import dataclasses
import enum
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int8, Int32

from gdstab import ensembles, estimators, lyapunov
from gdstab._contract import entry
from gdstab._datasets import LANES, recorded
from gdstab._numerics import sum_squares
from gdstab._types import LossFn
from gdstab._validate import as_theta, check_autonomous, check_count, check_step_sizes
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule

RECURRENCE = 1e-3
"""A return closer than this share of the size of the orbit is nearly a period: that is not called quasi-periodic."""

_FEW_BLOCKS = 8
_LOOK = 64  # steps in which such a return is looked for, at least
_LEAST = 512  # orbits that are followed together, at least: one shape, so that it compiles once
_CHUNK = 256  # the same at most on a CPU, where their states stay in the first-level cache


class Regime(enum.IntEnum):
    """How an orbit ends, bounded ones by their largest Lyapunov exponent; int8 in arrays."""

    UNDECIDED = 0  # bounded, and its exponent does not tell: run more steps
    CONVERGED = 1  # the verdict of the stopping rule
    PERIODIC = 2  # the verdict of the stopping rule; the period is known
    QUASI_PERIODIC = 3  # the exponent is 0 within its error, and the orbit does not nearly return
    CHAOTIC = 4  # the exponent is positive by three standard errors, and above what algebraic growth looks like
    DIVERGED = 5  # left the ball of radius `escape_radius`, be it late
    NONFINITE = 6


BOUNDED = (Regime.CONVERGED, Regime.PERIODIC, Regime.QUASI_PERIODIC, Regime.CHAOTIC, Regime.UNDECIDED)
"""The regimes that stay in the ball, in the order in which they are reported."""


@recorded(
    dict.fromkeys(("regime", "period", "exponent", "standard_error", "theta"), LANES),
    coords={"step_size": "step_sizes"}, attrs=("num_steps", "lane_steps", "compile_seconds", "run_seconds"),
    codes={"regime": Regime},
)  # fmt: skip
@dataclasses.dataclass(frozen=True, eq=False)
class Regimes:
    """Refined verdicts of an ensemble: arrays of the shape that `ensembles.run` gives its results."""

    regime: Int8[np.ndarray, "*lanes"]
    """A `Regime` per orbit."""
    period: Int32[np.ndarray, "*lanes"]
    """0 unless the regime is PERIODIC."""
    exponent: Float[np.ndarray, "*lanes"]
    """The largest Lyapunov exponent, NaN where it was not asked for or the orbit left."""
    standard_error: Float[np.ndarray, "*lanes"]
    theta: Any
    """The last parameters, further axes behind the lanes."""
    step_sizes: np.ndarray
    num_steps: int
    """Updates behind an exponent, the transient included; they come after those behind the verdict."""
    lane_steps: int
    compile_seconds: float
    """Of the engine; a first call spends some more in `run_seconds`."""
    run_seconds: float

    def rows(self, confidence: float = 0.95) -> list[dict]:
        """One row per step size: orbits per regime, shares of the bounded ones with intervals, exponents, periods.

        Intervals are those of `estimators.plain`: Clopper-Pearson for few, Wilson for many. They are about random
        initial points, drawn independently.
        """
        if self.regime.ndim != 2:
            raise ValueError(
                f"expected orbits for each of several step sizes, got an array of shape {self.regime.shape}; run them "
                "with a vector of step sizes and `product=True`"
            )
        return [self._row(i, confidence) for i in range(len(self.step_sizes))]

    def _row(self, i: int, confidence: float) -> dict:
        regime = self.regime[i]
        counts = {kind.name.lower(): int((regime == kind).sum()) for kind in Regime}
        bounded = sum(counts[kind.name.lower()] for kind in BOUNDED)
        exponents = self.exponent[i][np.isfinite(self.exponent[i])]
        periods, numbers = np.unique(self.period[i][regime == Regime.PERIODIC], return_counts=True)
        return {
            "step_size": float(self.step_sizes[i]),
            "counts": counts,
            "bounded": bounded,
            "bounded_share": _share(bounded, regime.size, confidence),
            "shares": {kind.name.lower(): _share(counts[kind.name.lower()], bounded, confidence) for kind in BOUNDED},
            "periods": {str(period): int(number) for period, number in zip(periods, numbers, strict=True)},
            "exponents": int(exponents.size),
            "exponent": dict(
                zip(("low", "median", "high"), np.quantile(exponents, (0.05, 0.5, 0.95)).tolist(), strict=True)
            ) if exponents.size else None,
            "standard_error": float(np.median(self.standard_error[i][np.isfinite(self.exponent[i])]))
            if exponents.size else None,
        }  # fmt: skip


@entry(host=True)
def exponents(
    rule: UpdateRule,
    loss: LossFn,
    initial,
    step_sizes,
    num_steps: int,
    *,
    transient: int = 0,
    escape_radius: float = 1e6,
    product: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Largest finite-time Lyapunov exponents over `num_steps` updates, and their standard errors from 8 blocks.

    Parameters
    ----------
    rule, loss, initial, step_sizes, product
        As in `ensembles.run`.
    num_steps, transient
        Updates in all, and how many of the first do not count: with none, what one sees is how initial points part.
    escape_radius
        An orbit that ends outside, or not finite, has no exponent: NaN.

    Raises
    ------
    ValueError
        As `lyapunov.largest`, or if points and step sizes do not fit.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: 0.5 * x[0] ** 2
    >>> exponent, _ = exponents(gradient_descent(), loss, jnp.ones((2, 1)), jnp.array([0.5, 0.75]), 100)
    >>> np.exp(exponent).round(6).tolist()
    [[0.5, 0.5], [0.25, 0.25]]
    """
    check_autonomous(rule, "exponents")
    num_steps = check_count(num_steps, "num_steps")
    plan = lyapunov.plan(num_steps, transient, blocks=_FEW_BLOCKS)
    if hasattr(initial, "num_points"):
        numbers = np.arange(initial.num_points)
        initial = initial.take(numbers) if hasattr(initial, "take") else initial(numbers)
    points = as_theta(jax.tree.map(np.asarray, initial))
    dtype, num = jax.tree.leaves(points)[0].dtype, jax.tree.leaves(points)[0].shape[0]
    step_sizes = check_step_sizes(step_sizes, dtype)
    if not product and step_sizes.shape not in {(), (num,)}:
        raise ValueError(f"expected one step size for each of {num} points, got {step_sizes.size}; pass `product=True`")
    shape = (*step_sizes.shape, num) if product else (num,)
    sizes = np.broadcast_to(step_sizes[:, None] if len(shape) == 2 else step_sizes, shape).ravel()
    lanes = points if len(shape) == 1 else _take(points, np.arange(sizes.size) % num)
    seen = _follow(_Follow(rule, loss, num_steps, plan.discard, 1, _FEW_BLOCKS, begin=True), (lanes, sizes))
    inside = seen.size <= escape_radius  # False for nan
    return tuple(np.where(inside, values, np.nan).reshape(shape) for values in (seen.exponent, seen.error))


@entry(host=True)
def regimes(
    rule: UpdateRule,
    loss: LossFn,
    initial,
    step_sizes,
    *,
    stopping: StoppingRule,
    num_steps: int = 4000,
    transient: int | None = None,
    converged: bool = False,
    product: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Regimes:
    r"""Run orbits to their verdicts, then tell those that stay bounded apart by their largest Lyapunov exponent.

    Orbits that are CYCLING or UNDECIDED go on for `num_steps` updates with a tangent vector. The former are periodic,
    but for those that turn out chaotic: in 32 bits, one that passes an unstable cycle closely looks like it.
    With $\lambda$ its exponent, $s$ the standard error and $N$ the steps behind it, it is chaotic if $\lambda > 3s$ and
    $\lambda > 2 \ln N / N$ (a tangent vector that grows like $n^2$ looks like that); quasi-periodic if
    $|\lambda| \le s$ and no return within the next steps is closer than `RECURRENCE` times its size; else it stays
    undecided: near a bifurcation, on a cycle longer than `max_period`, or chaotic too weakly.

    Parameters
    ----------
    rule, loss, initial, step_sizes, product, progress
        As in `ensembles.run`; points that are given lie in memory, and so do the last states of all lanes.
    stopping
        With `max_period`, and `max_steps` beyond `outcomes.anchor_stride(max_period)`, where the search for cycles
        begins. Without a loose tolerance: a chaotic orbit comes close to a minimum by chance.
    num_steps, transient
        As in `lyapunov.largest`.
    converged
        Whether orbits that converged get an exponent too, that of the point where they ended.

    Raises
    ------
    ValueError
        As `ensembles.run` and `lyapunov.largest`, and if `stopping` looks for no cycles.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> well = lambda x: 0.25 * (1 - x[0] ** 2) ** 2
    >>> points, sizes = jnp.array([[0.3], [3.0]]), jnp.array([0.8, 1.1, 1.5])
    >>> found = regimes(gradient_descent(), well, points, sizes, stopping=StoppingRule(max_period=8, max_steps=2000))
    >>> [[Regime(code).name for code in row] for row in found.regime]
    [['CONVERGED', 'DIVERGED'], ['PERIODIC', 'DIVERGED'], ['CHAOTIC', 'DIVERGED']]
    """
    begin = time.perf_counter()
    num_steps = check_count(num_steps, "num_steps")
    plan = lyapunov.plan(num_steps, transient)
    check_autonomous(rule, "exponents")
    if stopping.max_period is None:
        raise ValueError("expected a stopping rule that looks for cycles, got `max_period=None`; pass 64, say")
    ends = ensembles.run(
        rule, loss, initial, step_sizes, stopping, product=product, keep=("theta", "state"), progress=progress
    )
    asked = [Outcome.UNDECIDED, Outcome.CYCLING, *([Outcome.CONVERGED] if converged else [])]
    lanes = np.flatnonzero(np.isin(ends.outcome, asked))
    follow = _Follow(rule, loss, num_steps, plan.discard, max(_LOOK, stopping.max_period))
    seen = _follow(follow, _take((_flat(ends.state, ends.outcome.ndim), _sizes(ends)), lanes))
    return Regimes(
        **_refine(ends, lanes, seen, seen.size <= stopping.escape_radius, plan.counted),  # not inside: larger, or nan
        step_sizes=ends.step_sizes,
        num_steps=num_steps,
        lane_steps=ends.lane_steps + lanes.size * (num_steps + follow.look),
        compile_seconds=ends.compile_seconds,
        run_seconds=time.perf_counter() - begin - ends.compile_seconds,
    )


def _sizes(ends: ensembles.EnsembleResult) -> np.ndarray:
    """The step size of every lane, flat."""
    sizes, shape = ends.step_sizes, ends.outcome.shape
    return np.broadcast_to(sizes[:, None] if len(shape) == 2 else sizes, shape).ravel()


def _refine(ends: ensembles.EnsembleResult, lanes, seen: "_Seen", inside, counted: int) -> dict:
    """The arrays of `Regimes`: verdicts of the engine, and what following some of its lanes adds to them."""
    shape = ends.outcome.shape
    regime = _REGIMES[ends.outcome.ravel()]
    judged, before = _judge(seen, inside, counted), regime[lanes]
    mistaken = (before == Regime.PERIODIC) & np.isin(judged, (Regime.CHAOTIC, Regime.DIVERGED))
    regime[lanes] = np.where((before == Regime.UNDECIDED) | mistaken, judged, before)
    exponent, error = np.full((2, regime.size), np.nan, seen.exponent.dtype)
    exponent[lanes], error[lanes] = (np.where(inside, values, np.nan) for values in (seen.exponent, seen.error))
    theta = _flat(ends.theta, len(shape))
    for old, new in zip(jax.tree.leaves(theta), jax.tree.leaves(seen.theta), strict=True):
        old[lanes] = new
    return {
        "regime": regime.reshape(shape),
        "period": np.where(regime.reshape(shape) == Regime.PERIODIC, ends.period, 0).astype(np.int32),
        "exponent": exponent.reshape(shape),
        "standard_error": error.reshape(shape),
        "theta": jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), theta),
    }


_REGIMES = np.array([Regime.PERIODIC if o is Outcome.CYCLING else Regime[o.name] for o in Outcome], np.int8)
"""The regime that each outcome begins with."""


class _Seen(NamedTuple):
    """What is found out about one orbit by following it further."""

    exponent: Any
    error: Any
    theta: Any
    size: Any  # the largest norm of its parameters on the last steps
    recurrence: Any  # its nearest return over its farthest point


class _Follow(eqx.Module):
    """Follow one orbit from a state; equal to the next of its kind, so that it compiles once."""

    rule: UpdateRule = eqx.field(static=True)
    loss: LossFn
    num_steps: int = eqx.field(static=True)
    discard: int = eqx.field(static=True)
    look: int = eqx.field(static=True)
    blocks: int = eqx.field(static=True, default=lyapunov.BLOCKS)
    begin: bool = eqx.field(static=True, default=False)  # whether it is from parameters, not from a state

    def __call__(self, start):
        state, step_size = start
        state = self.rule.init(state, step_size) if self.begin else state
        found = lyapunov.largest(
            self.rule, self.loss, state, step_size, self.num_steps, transient=self.discard, blocks=self.blocks
        )
        anchor = self.rule.theta(found.state)
        dtype = jnp.result_type(*jax.tree.leaves(anchor))

        def body(carry, _):
            state, size, near, far = carry
            state = self.rule.step(self.loss, state, step_size)
            theta = self.rule.theta(state)
            distance = sum_squares(jax.tree.map(jnp.subtract, theta, anchor))
            size = jnp.maximum(size, sum_squares(theta))
            return (state, size, jnp.minimum(near, distance), jnp.maximum(far, distance)), None

        first = found.state, sum_squares(anchor), jnp.asarray(jnp.inf, dtype), jnp.zeros((), dtype)
        (_, size, near, far), _ = lax.scan(body, first, length=self.look)
        recurrence = jnp.sqrt(near / jnp.where(far > 0, far, 1))
        return _Seen(found.value, found.standard_error, anchor, jnp.sqrt(size), recurrence)


def _follow(follow: _Follow, start) -> _Seen:
    """All of them, padded where they are few."""
    total = jax.tree.leaves(start)[0].shape[0]
    if not total:
        shapes = jax.eval_shape(
            follow, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), start)
        )
        return jax.tree.map(lambda leaf: np.zeros((0, *leaf.shape), leaf.dtype), shapes)
    rows = np.minimum(np.arange(max(total, _LEAST)), total - 1)
    chunk = _CHUNK if jax.default_backend() == "cpu" else None
    return _take(ensembles.map_points(follow, _take(start, rows), chunk=chunk), slice(total))


def _judge(seen: _Seen, inside: np.ndarray, counted: int) -> np.ndarray:
    """The regimes of orbits whose verdict was open."""
    chaotic = (seen.exponent > 3 * seen.error) & (seen.exponent > 2 * np.log(counted) / counted)
    neutral = (np.abs(seen.exponent) <= seen.error) & (seen.recurrence >= RECURRENCE)
    kinds = [Regime.DIVERGED, Regime.CHAOTIC, Regime.QUASI_PERIODIC]
    return np.select([~inside, chaotic, neutral], kinds, Regime.UNDECIDED).astype(np.int8)


def _flat(tree, axes: int):
    """With the lanes on one axis; a copy."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]).copy(), tree)


def _take(tree, rows):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)


def _share(hits: int, total: int, confidence: float) -> dict | None:
    """A share and its interval; None of nothing."""
    if not total:
        return None
    found = estimators.plain(hits, total, confidence)
    names = ("value", "low", "high", "method")
    return dict(zip(names, (*(float(getattr(found, name)) for name in names[:3]), str(found.method)), strict=True))
