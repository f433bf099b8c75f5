"""Where an orbit ends, in whatever units: it is run until it repeats itself or rests, small against its own extent."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32

from gdstab._compiling import jit
from gdstab._types import Scalar, State, Theta
from gdstab.orbits.single import extent
from gdstab.outcomes import Outcome, StoppingRule, anchor_stride, begin_cycle_test, moving, update_cycle_test, verdict


class Stop(NamedTuple):
    """Where an orbit was stopped, and why."""

    state: State
    outcome: Array  # of the last point by itself: UNDECIDED if it goes on
    steps: Int32[Array, ""]
    period: Int32[Array, ""]  # 1 if it rests, 0 if it does neither that nor cycle
    reach: Scalar  # its largest entry over about the second half of its steps
    left: Bool[Array, ""]  # whether it has been away from the points that it was to leave


def run_on(
    rule, loss, state: State, step_size, stopping: StoppingRule, points: Theta, away: float = -1.0, patience: int = 0
) -> Stop:
    """Run an orbit until it cycles or rests, or `stopping` ends it.

    It rests where a step is at most `stopping.cycle_tol` times its extent. Neither counts before it has been farther
    than `away` from `points` (parameters with a leading axis), by default from the first; it has `patience` steps for
    that.
    """
    dtype = step_size.dtype
    traced = jax.tree.map(lambda number: jnp.asarray(number, dtype), stopping)  # numbers would compile anew
    traced = eqx.tree_at(lambda rule: rule.max_steps, traced, jnp.asarray(stopping.max_steps, jnp.int32))
    return _run_on(
        rule, loss, state, step_size, traced, points, jnp.asarray(away, dtype), jnp.asarray(patience, jnp.int32)
    )


@jit
def _run_on(rule, loss, state, step_size, stopping, points, away, patience) -> Stop:
    zero = jnp.zeros((), jnp.int32)
    stride = 1 if stopping.max_period is None else anchor_stride(stopping.max_period)

    def look(state, before, steps, test, reach, left):
        theta = rule.theta(state)
        size = extent(theta)
        # The last two windows, each twice as long as the one before: what was long ago is no measure.
        fresh = (steps & (steps - 1)) == 0
        reach = jnp.where(fresh, jnp.stack([reach[1], size]), reach.at[1].max(size))
        left |= jnp.min(jax.vmap(lambda point: extent(_minus(theta, point)))(points)) > away
        rests = (steps > 0) & (extent(_minus(theta, before)) <= stopping.cycle_tol * jnp.max(reach))
        period = rests.astype(jnp.int32)
        if stopping.max_period is not None:
            lag = steps % stride
            anew = begin_cycle_test(state, theta)
            test = jax.tree.map(lambda new, old: jnp.where(lag == 0, new, old), anew, test)
            test, found = update_cycle_test(test, state, theta, lag, stopping)
            period = jnp.where((found > 0) & (steps >= stride), found, period)
        undecided = moving(loss, theta, stopping)
        period = jnp.where(undecided & left, period, 0)
        goes_on = undecided & (period == 0) & (steps < stopping.max_steps) & (left | (steps < patience))
        return goes_on, test, reach, left, period

    def body(carry):
        _, state, steps, test, reach, left, _ = carry
        moved, steps = rule.step(loss, state, step_size), steps + 1
        goes_on, test, reach, left, period = look(moved, rule.theta(state), steps, test, reach, left)
        return goes_on, moved, steps, test, reach, left, period

    theta = rule.theta(state)
    test = begin_cycle_test(state, theta)
    size = extent(theta)
    goes_on, test, reach, left, period = look(state, theta, zero, test, jnp.stack([size, size]), jnp.asarray(False))
    begin = goes_on, state, zero, test, reach, left, period
    _, state, steps, _, reach, left, period = lax.while_loop(lambda carry: carry[0], body, begin)
    return Stop(state, verdict(loss, rule.theta(state), stopping), steps, period, jnp.max(reach), left)


def distance(theta: Theta, points: Theta) -> float:
    """How far parameters are from the nearest of some points, as `extent` measures it."""
    return float(jnp.min(jax.vmap(lambda point: extent(_minus(theta, point)))(points)))


def why_not(outcome: Outcome, cycle, stopping, steps: int, step_size, phases: int) -> str:
    """What to say of an orbit that ends on no cycle; `cycle` is what Newton's method made of it, if it was asked."""
    if cycle is not None and not cycle.converged and outcome == Outcome.UNDECIDED:
        return (
            f"the orbit came near a cycle of period {cycle.period}, but Newton's method did not reach it (residual "
            f"{float(cycle.residual):.2g}); the map may not be smooth there, as that of an adaptive rule at a critical "
            "point is not"
        )
    return (
        f"expected an orbit that ends on a cycle of period up to {phases * (stopping.max_period or 1)} within "
        f"{phases * stopping.max_steps} steps, but at step size {float(step_size):g} it is {outcome.name.lower()} "
        f"after {phases * steps}; {_ADVICE[outcome]}"
    )


_ADVICE = {
    Outcome.UNDECIDED: "raise `max_period` or `max_steps`, or start elsewhere",
    Outcome.DIVERGED: "lower the step size, or start elsewhere",
    Outcome.NONFINITE: "lower the step size, or start where loss and gradient are finite",
}


def _minus(theta, other):
    return jax.tree.map(jnp.subtract, theta, other)
