"""The integer state of a rule as a clock: whether its influence fades, or after how many steps it comes round.

Tools that look at one map (fixed points, multipliers, cycles) hold the integers of a state fixed. That is right where
their influence dies out, as that of the bias correction of Adam. Where the step is another at every count, as with
accumulated gradients, the map to look at is that of a whole round of the clock: the stroboscopic map of a periodically
forced system. Which of the two holds is found by trying: the step is taken at a few generic states, at the integers
that the rule itself arrives at early, late and very late.
"""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from gdstab._trials import IDLE, Clock, Trial, Untimed, counts, is_number
from gdstab._types import LossFn, State


class Rounds(NamedTuple):
    """The step of a rule taken several times, `steps` or one whole round, its integers put back; equal ones are one.

    Integers are held at their late values, or advance from there where they are a phase. The number of steps may be
    traced; where it then is no whole number of rounds the floats become NaN, and ValueError is raised otherwise.
    """

    rule: Any
    steps: Any = None

    def __call__(self, loss, state, step_size):
        clock = clock_of(self.rule, loss, state)
        steps = clock.period if self.steps is None else self.steps
        check_rounds(clock, steps)

        def body(_, now):
            moved = self.rule.step(loss, now, step_size)
            return moved if clock.period > 1 else _keep(moved, state=now)

        moved = _keep(lax.fori_loop(0, steps, body, clock.late(state)), state=state)
        if clock.period == 1 or not isinstance(steps, jax.core.Tracer):
            return moved
        fits = steps % clock.period == 0
        return jax.tree.map(lambda x: jnp.where(fits, x, jnp.nan) if eqx.is_inexact_array(x) else x, moved)


def check_rounds(clock: Clock, steps) -> None:
    """Refuse a number of steps that is no multiple of the round; one that is traced passes."""
    if not isinstance(steps, jax.core.Tracer) and int(steps) % clock.period:
        raise ValueError(
            f"period: expected a multiple of {clock.period}, since an integer in the state of this rule is a phase and "
            f"its step comes round after {clock.period} steps only; got {int(steps)}, pass a multiple"
        )


def whole(rule, loss: LossFn, state: State):
    """The rule whose one step is a whole round of `rule`; the rule itself where its integers say nothing to it."""
    return rule if clock_of(rule, loss, state).idle else with_step(rule, Rounds(rule))


def once(rule, loss: LossFn, state: State):
    """The rule whose steps lead along a cycle: integers at their late values, held or, where they are a phase, not."""
    return rule if clock_of(rule, loss, state).period > 1 else with_step(rule, Rounds(rule, 1))


def strobed(rule, loss: LossFn, state: State):
    """The rule looked at once in every round only, integers and all: orbits of the rule itself, seen at one phase."""
    period = clock_of(rule, loss, state).period
    return rule if period == 1 else with_step(rule, _Strobe(rule, period))


class _Strobe(NamedTuple):
    """So many steps of a rule as one; equal ones are one."""

    rule: Any
    steps: int

    def __call__(self, loss, state, step_size):
        return lax.fori_loop(0, self.steps, lambda _, now: self.rule.step(loss, now, step_size), state)


def with_step(rule, step: Callable):
    """The rule with another step; anything that has a step will do as a rule."""
    return rule._replace(step=step) if hasattr(rule, "_replace") else _Rule(step, getattr(rule, "theta", None))


class _Rule(NamedTuple):
    step: Callable
    theta: Any
    autonomous: bool = True


def clock_of(rule, loss: LossFn | None, state: State) -> Clock:
    """How the step of a rule depends on the integers in its state; found once for a rule and shapes of its state.

    The values in the state do not matter, and of the loss only its attributes, if the rule asks for them.

    Raises
    ------
    ValueError
        If the step neither settles nor comes round: a schedule, random numbers, integers that depend on the orbit.
    """
    if isinstance(rule.step, Rounds | _Strobe) or not any(map(counts, jax.tree.leaves(state))):
        return IDLE
    known, method = _memory(rule.step)
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(state) if is_number(leaf))
    key = method, jax.tree.structure(state), shapes
    if key not in known:
        with jax.ensure_compile_time_eval():
            try:
                known[key] = Trial(rule, loss, state).clock()
            except Untimed as refused:
                known[key] = str(refused)
    if isinstance(known[key], str):
        raise ValueError(known[key])
    return known[key]


_KNOWN: dict[int, tuple[weakref.ref, dict]] = {}


def _memory(step: Callable) -> tuple[dict, Any]:
    """What is known of a step, for as long as that lives; and which method of its owner it is."""
    owner, method = getattr(step, "__self__", step), getattr(step, "__name__", None)
    number = id(owner)
    try:
        if number not in _KNOWN:
            _KNOWN[number] = weakref.ref(owner, lambda _: _KNOWN.pop(number, None)), {}
    except TypeError:  # it cannot be watched, so nothing is kept
        return {}, method
    return _KNOWN[number][1], method


def _keep(moved: State, state: State) -> State:
    """What has moved, but for the integers."""
    return jax.tree.map(lambda new, old: new if eqx.is_inexact_array(old) else old, moved, state)
