"""One orbit: `rollout` keeps what is observed along it, `settle` runs it to its verdict."""

from collections.abc import Callable
from typing import overload

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int8, Int32

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, State, Theta
from gdstab._validate import as_state, check_count, check_loss, is_concrete
from gdstab.outcomes import (
    Outcome,
    StoppingRule,
    anchor_stride,
    begin_cycle_test,
    check_floor,
    moving,
    typical_size,
    update_cycle_test,
    verdict,
)
from gdstab.updates import UpdateRule


@overload
def rollout(rule: UpdateRule, loss: int, /, *, observe: Callable | None = None) -> Callable: ...
@overload
def rollout(
    rule: UpdateRule, loss: LossFn, theta: Theta, step_size, num_steps: int, *, observe: Callable | None = None
) -> Theta: ...
@entry
def rollout(rule, loss, theta=None, step_size=None, num_steps=None, *, observe=None):
    r"""One orbit, from its start on: $\theta_0, \dots, \theta_T$, along a leading axis of length `num_steps + 1`.

    Iteration is unconditional: an orbit that diverges runs on into inf and nan. It can be jitted, vmapped and
    differentiated, and an eager call compiles only once.

    Parameters
    ----------
    rule, loss, theta, step_size
        As in `settle`.
    observe
        `observe(state)` is kept, by default the parameters.

    Returns
    -------
    What was observed. In the short form `rollout(rule, num_steps)` a function `(loss, state, step_size) -> (last
    state, observations)` for exactly so many updates, which observes after every update and not at the start: for
    whoever goes on from the last state.

    Raises
    ------
    ValueError
        If the loss is no real scalar, `theta` holds anything but real floating-point numbers, or the number of steps is
        negative.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> rollout(gradient_descent(), lambda x: 0.5 * x**2, 8.0, 0.5, 3).tolist()
    [8.0, 4.0, 2.0, 1.0]
    >>> last, path = rollout(gradient_descent(), 3)(lambda x: 0.5 * x**2, jnp.array(8.0), jnp.array(0.5))
    >>> path.tolist()
    [4.0, 2.0, 1.0]
    """
    observe = rule.theta if observe is None else observe
    if theta is None:
        return _walk(rule, check_count(loss, "num_steps", least=0), observe)
    walk, theta = _walk(rule, check_count(num_steps, "num_steps", least=0), observe), check_loss(loss, theta)

    def whole(theta, step_size):
        state = rule.init(theta, step_size)
        _, path = walk(loss, state, step_size)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), observe(state), path)

    return staged(whole, theta, jnp.asarray(step_size, jnp.result_type(*jax.tree.leaves(theta))))


def _walk(rule, num_steps, observe):
    def run(loss, state, step_size):
        state = as_state(state)

        def body(state, _):
            state = rule.step(loss, state, step_size)
            return state, observe(state)

        return lax.scan(body, state, length=num_steps)

    return run


@recorded({"outcome": (), "steps": (), "period": (), "loss": (), "theta": (), "state": ()}, codes={"outcome": Outcome})
class Settled(eqx.Module):
    """Where one orbit ended, and why."""

    theta: Theta
    outcome: Int8[Array, ""]
    steps: Int32[Array, ""]  # updates applied when the verdict fell
    period: Int32[Array, ""]  # 0 unless the outcome is CYCLING
    loss: Scalar
    state: State


@entry
def settle(
    rule: UpdateRule, loss: LossFn, theta: Theta, step_size: Float[Array, ""] | float, stopping: StoppingRule
) -> Settled:
    """Run one orbit until `stopping` passes a verdict: the definition that `ensembles.run` holds for every lane.

    It can be jitted and vmapped; for more than a few orbits `ensembles.run` is far faster, because here a batch runs
    until its slowest member is done. A loss that is below its floor where the orbit converged is refused
    (`outcomes.check_floor`); under `jit` nothing can be refused: look at `loss`.

    Raises
    ------
    ValueError
        If the loss is no real scalar, or `theta` holds anything but real floating-point numbers.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> end = settle(gradient_descent(), lambda x: 0.5 * x**2, jnp.array(1.0), 0.5, StoppingRule(loss_tol=0.01))
    >>> Outcome(int(end.outcome)).name, int(end.steps), float(end.theta)
    ('CONVERGED', 3, 0.125)
    """
    theta = check_loss(loss, theta)
    step_size = jnp.asarray(step_size, jnp.result_type(*jax.tree.leaves(theta)))
    return settle_from(rule, loss, rule.init(theta, step_size), step_size, stopping)


@entry
def settle_from(
    rule: UpdateRule, loss: LossFn, state: State, step_size: Float[Array, ""] | float, stopping: StoppingRule
) -> Settled:
    """As `settle`, from a state of the rule, with the momentum and the counters it has."""
    state = jax.tree.map(jnp.asarray, as_state(state))
    step_size = jnp.asarray(step_size, jnp.result_type(*jax.tree.leaves(rule.theta(state))))
    zero = jnp.zeros((), jnp.int32)
    cycles = stopping.max_period is not None
    stride = anchor_stride(stopping.max_period) if cycles else 1

    def look(state, steps, test):
        """Decide at the present state: (goes on, cycle test, period)."""
        theta = rule.theta(state)
        undecided = moving(loss, theta, stopping)
        in_budget = steps < stopping.max_steps
        if not cycles:
            return undecided & in_budget, test, zero
        lag = steps % stride
        fresh = begin_cycle_test(state, theta)
        test = jax.tree.map(lambda new, old: jnp.where(lag == 0, new, old), fresh, test)
        test, period = update_cycle_test(test, state, theta, lag, stopping)
        period = jnp.where(undecided & (steps >= stride), period, 0)
        return undecided & (period == 0) & in_budget, test, period

    def body(carry):
        state, steps, test, _, _ = carry
        state, steps = rule.step(loss, state, step_size), steps + 1
        goes_on, test, period = look(state, steps, test)
        return state, steps, test, period, goes_on

    goes_on, test, period = look(state, zero, begin_cycle_test(state, rule.theta(state)))
    state, steps, _, period, _ = lax.while_loop(lambda c: c[-1], body, (state, zero, test, period, goes_on))
    theta = rule.theta(state)
    seen = verdict(loss, theta, stopping)
    period = jnp.where(seen == Outcome.NONFINITE, 0, period)  # a cycle on which the loss is no number
    outcome = jnp.where(period > 0, jnp.int8(Outcome.CYCLING), seen)
    value = loss(theta)
    known = is_concrete(outcome) and is_concrete(value)
    if stopping.loss_tol is not None and known and int(outcome) == Outcome.CONVERGED:
        excess = float(value) - float(getattr(loss, "loss_floor", 0.0))
        check_floor(loss, excess, stopping.loss_tol, value.dtype, lambda: typical_size(loss, [theta]))
    return Settled(theta, outcome, steps, period, value, state)


def shifted(rule: UpdateRule, state: State, change: Theta) -> State:
    """The state with its parameters moved by `change`, all else as it is.

    Where the parameters are in a state is where `rule.theta` has a derivative.
    """
    floating, fixed = eqx.partition(state, eqx.is_inexact_array)
    _, pull = jax.vjp(lambda some: rule.theta(eqx.combine(some, fixed)), floating)
    (moved,) = pull(change)
    return eqx.combine(jax.tree.map(jnp.add, floating, moved), fixed)


def extent(tree: Theta) -> Scalar:
    """The largest modulus of an entry: a length that neither overflows nor vanishes where its square would."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([size.astype(jnp.result_type(*sizes)) for size in sizes]))


def escape_from(theta: Theta) -> float:
    """How far parameters must go to have escaped, by default: far in units of 1 and in their own."""
    dtype, size = jnp.result_type(*jax.tree.leaves(theta)), float(extent(theta))
    most = 0.5 * float(jnp.finfo(dtype).max) ** 0.5
    return min(1e6 * max(1.0, size), most) if size else most  # from 0 no unit is known


def aside(theta: Theta, length: Scalar | float) -> Theta:
    """A change of the parameters of that length (as `extent` has it), along no axis and no symmetry."""
    flat, unravel = ravel_pytree(theta)
    return unravel((length / jnp.arange(1, flat.size + 1, dtype=flat.dtype)).astype(flat.dtype))
