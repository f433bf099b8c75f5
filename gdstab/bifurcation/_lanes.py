"""One orbit of a diagram: discard the transient, find the period, keep what is observed; and checks of its numbers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gdstab._clocks import clock_of, strobed
from gdstab._numerics import sum_squares
from gdstab._types import LossFn, State, Theta
from gdstab._validate import as_theta, check_autonomous, check_loss, check_positive
from gdstab.orbits import aside, escape_from, extent, shifted
from gdstab.outcomes import StoppingRule, begin_cycle_test, check_range, update_cycle_test
from gdstab.updates import UpdateRule

LOOK = 8
"""Updates between two looks at whether an orbit has escaped: a look at each would double the cost of an update."""
_THIRD = 32  # updates; an end is watched for three times as many before it counts
_CHUNK_BYTES = 2**15  # of the states that are advanced together on a CPU: what stays in its first cache


class Walk(eqx.Module):
    """How a state is advanced, whatever is asked of it on the way; an orbit that has escaped stands still."""

    rule: UpdateRule = eqx.field(static=True)
    loss: LossFn
    escape_radius: float

    def inside(self, state: State):
        """Whether the parameters are in the ball of radius `escape_radius`: not for inf and nan."""
        theta = self.rule.theta(state)
        return sum_squares(theta) <= jnp.asarray(self.escape_radius, _dtype(theta)) ** 2

    def block(self, state: State, step_size, updates: int) -> State:
        """That many updates, with one look before them."""
        moved = state
        for _ in range(updates):
            moved = self.rule.step(self.loss, moved, step_size)
        inside = self.inside(state)
        return jax.tree.map(lambda new, old: jnp.where(inside, new, old), moved, state)

    def advance(self, state: State, step_size, updates: int) -> State:
        """Any number of updates."""
        blocks, rest = divmod(updates, LOOK)
        state = lax.fori_loop(0, blocks, lambda _, now: self.block(now, step_size, LOOK), state)
        return lax.fori_loop(0, rest, lambda _, now: self.block(now, step_size, 1), state)

    def observe(self, state: State, step_size, updates: int, observe: Callable):
        """The last state, and `observe(theta)` after each update, [updates]."""

        def body(now, _):
            now = self.block(now, step_size, 1)
            return now, observe(self.rule.theta(now))

        return lax.scan(body, state, length=updates)

    def period(self, state: State, step_size, max_period: int, reach):
        """The period of the cycle that the orbit is on by now, int32; 0 if none up to `max_period` is found.

        `reach` is how far the orbit has been, as `orbits.extent` has it: what is small is small against that. Of a rule
        with a phase the period is a multiple of its round, in which the orbit is looked at once.
        """
        if (phases := clock_of(self.rule, self.loss, state).period) > 1:
            seen = Walk(strobed(self.rule, self.loss, state), self.loss, self.escape_radius)
            return phases * seen.period(state, step_size, max(max_period // phases, 1), reach)
        rule, stopping = self.rule, StoppingRule(max_period=max(max_period, 2))
        begin = begin_cycle_test(state, rule.theta(state))

        def body(lag, carry):
            now, test, period = carry
            now = self.block(now, step_size, 1)
            test, confirmed = update_cycle_test(test, now, rule.theta(now), lag, stopping)
            return now, test, jnp.where(period == 0, confirmed, period)

        begin = state, begin, jnp.zeros((), jnp.int32)
        now, _, period = lax.fori_loop(jnp.int32(1), jnp.int32(2 * max(max_period, 2) + 1), body, begin)
        theta = rule.theta(now)
        reach = jnp.maximum(reach, extent(theta))
        small = 2 * jnp.finfo(reach.dtype).eps ** 0.5 * reach
        step = extent(jax.tree.map(jnp.subtract, rule.theta(self.block(now, step_size, 1)), theta))
        still = step <= 64 * jnp.finfo(reach.dtype).eps * extent(theta)  # a momentum may go round at rounding
        slow = ((period == 0) | still) & (step <= small)
        found = self.inside(now) & (period <= max_period) & (slow | (period > 0))
        rests = self.rests(now, step_size, reach, found & slow)
        return jnp.where(found, jnp.where(slow & rests, 1, period), 0)

    def rests(self, state: State, step_size, reach, wanted):
        """Whether an orbit that is slow comes to rest: its steps shrink or are at rounding, one beside it stays near.

        A slow passage of a saddle and a chaotic orbit that is small in its units look like a fixed point for a while:
        the one leaves what is beside it, the steps of the other do not shrink. Lanes not `wanted` are spared.
        """
        rule, theta = self.rule, self.rule.theta(state)
        eps = jnp.finfo(reach.dtype).eps
        length = eps**0.5 * jnp.where(reach > 0, reach, eps**2)

        def body(carry):
            number, now, beside, steps, apart = carry
            then, beside = self.block(now, step_size, 1), self.block(beside, step_size, 1)
            moved = extent(jax.tree.map(jnp.subtract, rule.theta(then), rule.theta(now)))
            off = extent(jax.tree.map(jnp.subtract, rule.theta(beside), rule.theta(then)))
            third = number // _THIRD
            return number + 1, then, beside, steps.at[third].max(moved), apart.at[third].max(off)

        zero = jnp.zeros(3, reach.dtype)
        begin = jnp.int32(0), state, shifted(rule, state, aside(theta, length)), zero, zero
        carry = lax.while_loop(lambda carry: wanted & (carry[0] < 3 * _THIRD), body, begin)
        *_, steps, apart = carry
        rests = (steps[2] <= 0.9 * steps[0]) | (steps[2] <= 1024 * eps * extent(theta))
        # A mode that grows does not slow down, as a passing growth of momentum does.
        grows = (apart[2] > (1 + 64 * eps**0.5) * apart[1]) & (apart[2] * apart[0] >= 0.9 * apart[1] ** 2)
        leaves = (apart[2] > 1024 * eps * reach) & (grows | (apart[2] > 64 * length))
        return rests & ~leaves


def check_lanes(
    rule: UpdateRule, loss: LossFn, starts: Any, escape_radius: float | None
) -> tuple[Theta, int, np.dtype]:
    """The starts as NumPy arrays, their number and their dtype; refuses what cannot be run."""
    if getattr(rule, "numbered", False):
        check_autonomous(rule, "orbit diagram")
    if not rule.autonomous:
        raise ValueError(
            "expected a rule that is one map iterated, got one with a schedule, whose orbits settle on nothing; freeze "
            "the schedule at a value"
        )
    starts = as_theta(starts)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(starts)]
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(sizes) != 1 or None in sizes:
        raise ValueError(
            f"expected starts [points, ...] that share their leading axis, got shapes {[leaf.shape for leaf in leaves]}"
            "; add an axis to a single point"
        )
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise ValueError("expected finite starts, got some that are not; remove them")
    starts = jax.tree.unflatten(jax.tree.structure(starts), leaves)
    check_loss(loss, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), starts))
    dtype = np.dtype(_dtype(starts))
    clock_of(rule, loss, _one_state(rule, starts))
    if escape_radius is not None:
        check_range(StoppingRule(escape_radius=check_positive(escape_radius, "escape_radius")), dtype)
    return starts, sizes.pop(), dtype


def escape(starts: Theta, escape_radius: float | None) -> float:
    """The radius, by default one that is far for all starts in their own units."""
    return escape_from(starts) if escape_radius is None else float(escape_radius)


def check_observe(observe: Callable | None, starts: Theta) -> Callable:
    """What is observed, by default the first entry of the parameters; it must give one real number."""
    chosen = first_entry if observe is None else observe
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), starts)
    value = jax.eval_shape(chosen, one)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"observe: expected a function of theta that returns one real number, got {value}; return an array scalar"
        )
    return chosen


def first_entry(theta: Theta):
    """The first parameter."""
    return jax.tree.leaves(theta)[0].ravel()[0]


def chunk_size(rule: UpdateRule, starts: Theta) -> int | None:
    """Orbits to advance together: few on a CPU, so that they stay in its cache; elsewhere what memory allows."""
    if jax.default_backend() != "cpu":
        return None
    state = _one_state(rule, starts)
    size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return max(_CHUNK_BYTES // size, 16)


def _one_state(rule: UpdateRule, starts: Theta):
    """The shapes of the state of one orbit."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), starts)
    return jax.eval_shape(rule.init, one, jax.ShapeDtypeStruct((), _dtype(starts)))


def _dtype(theta: Theta):
    return jnp.result_type(*jax.tree.leaves(theta))
