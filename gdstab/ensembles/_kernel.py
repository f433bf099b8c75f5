"""What runs on the device: blocks of lanes, each with its own early exit, the lanes on the trailing axis.

A lane's verdict depends on its own state only. The mask of moving lanes is carried from update to update: a compiler
may evaluate an expression twice with different rounding, and a lane frozen by one copy must not be counted by the
other. Lanes are frozen with `where`, never by a zero step, which would turn inf into nan.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int8, Int32

from gdstab._compiling import Entry
from gdstab._types import LossFn, State
from gdstab.outcomes import (
    Outcome,
    StoppingRule,
    anchor_stride,
    begin_cycle_test,
    lacking,
    moving,
    update_cycle_test,
    verdict,
)
from gdstab.sampling import GROUP
from gdstab.updates import UpdateRule


class Lanes(NamedTuple):
    """Orbits side by side; every leaf has the lanes on its last axis."""

    state: State
    count: Int32[Array, "*blocks lanes"]  # updates applied
    alive: Bool[Array, "*blocks lanes"]  # whether the lane moves; False where it only pads
    period: Int32[Array, "*blocks lanes"]  # 0 until a cycle is confirmed
    step_size: Float[Array, "*blocks lanes"] | Float[Array, "*blocks"]  # the latter where all lanes share it


class Swept(NamedTuple):
    """What a pass returns, `[blocks, ..., lanes]` each; only what is asked for, because writing it costs time."""

    state: State | None
    count: Int32[Array, "blocks lanes"]
    period: Int32[Array, "blocks lanes"] | None
    step_size: Float[Array, "*blocks lanes"] | Float[Array, "*blocks"]
    outcome: Int8[Array, "blocks lanes"]
    loss: Float[Array, "blocks lanes"] | None
    lowest: Float[Array, " blocks"] | None  # of loss - loss_floor over the lanes that converged, 0 if none is below


def over_lanes(fn: Callable, *, shared: int = 0) -> Callable:
    """`vmap` with the lanes last, so that products of small matrices stay elementwise loops over lanes.

    Of the last `shared` arguments those that are scalars serve all lanes.
    """

    def batched(*args):
        axes = [-1] * (len(args) - shared) + [-1 if jnp.ndim(x) else None for x in args[len(args) - shared :]]
        return jax.vmap(fn, in_axes=tuple(axes), out_axes=-1)(*args)

    return batched


class LaneLoss(eqx.Module):
    """A loss as the engine calls it: its infimum worked out once, and batched by its own `on_lanes` if it has one.

    `vmap` moves lanes to the front of every intermediate array, which is slow for products of small matrices. A loss
    that says how it is evaluated on lanes at the back, `on_lanes(theta) -> [lanes]`, is evaluated so, and its gradient
    too, whatever the update rule. `lanes_together`, if it has that, is the least number of lanes of a CPU's block.
    """

    loss: LossFn
    loss_floor: Any

    def __getattr__(self, name):
        """What a rule may ask of a loss beside its value."""
        if name in {"num_samples", "on_samples", "residual"}:
            return getattr(self.loss, name)
        raise AttributeError(name)

    def __call__(self, theta):
        """The loss at one point."""
        if not hasattr(self.loss, "on_lanes"):
            return self.loss(theta)
        arrays, static = eqx.partition(self.loss, lambda leaf: not callable(leaf))
        return _by_lanes(static)(arrays, theta)


def _by_lanes(static) -> Callable:
    """Value of a loss with `on_lanes`, `(arrays of the loss, theta) -> value`, that `vmap` and `grad` keep on lanes."""

    def total(theta, arrays):
        return jnp.sum(eqx.combine(arrays, static).on_lanes(theta))

    @jax.custom_batching.custom_vmap
    def value(arrays, theta):
        return eqx.combine(arrays, static).on_lanes(theta)

    @jax.custom_batching.custom_vmap
    def slope(arrays, theta):
        return jax.grad(total)(theta, arrays)

    @value.def_vmap
    def _(size, batched, arrays, theta):
        del size, batched  # only theta ever is
        last = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), theta)
        return eqx.combine(arrays, static).on_lanes(last), True

    @slope.def_vmap
    def _(size, batched, arrays, theta):
        del size, batched
        last = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), theta)
        gradient = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), jax.grad(total)(last, arrays))
        return gradient, jax.tree.map(lambda _: True, gradient)

    @jax.custom_jvp
    def loss(arrays, theta):
        return value(arrays, theta)

    @loss.defjvp
    def _(primals, tangents):
        arrays, theta = primals
        products = jax.tree.map(lambda g, moved: jnp.sum(g * moved), slope(arrays, theta), tangents[1])
        return loss(arrays, theta), sum(jax.tree.leaves(products))

    return loss


def _freeze(goes_on, new, old):
    """`new` where a lane goes on. Outside `vmap`, which would move the lanes to the front here."""
    return jax.tree.map(lambda n, o: jnp.where(jnp.broadcast_to(goes_on, n.shape), n, o), new, old)


def _tick(rule: UpdateRule, loss: LossFn, stopping: StoppingRule, lanes: Lanes) -> Lanes:
    """One update of every lane that moves."""
    moved = over_lanes(partial(rule.step, loss), shared=1)(lanes.state, lanes.step_size)
    state = _freeze(lanes.alive, moved, lanes.state)
    count = lanes.count + lanes.alive.astype(lanes.count.dtype)
    alive = lanes.alive & over_lanes(lambda state: moving(loss, rule.theta(state), stopping))(state)
    return lanes._replace(state=state, count=count, alive=alive)


def _cycle_tick(rule, loss, stopping, lanes: Lanes, test, lag) -> tuple[Lanes, tuple]:
    """As `_tick`, and look whether the lane is back at the anchor it had `lag` updates ago."""
    goes_on = lanes.alive & (lanes.period == 0)
    lanes = _tick(rule, loss, stopping, lanes._replace(alive=goes_on))

    def look(state, test):
        return update_cycle_test(test, state, rule.theta(state), lag, stopping)

    test, found = over_lanes(look)(lanes.state, test)
    return lanes._replace(period=jnp.where(goes_on, found, lanes.period)), test


def _advance(rule, loss, stopping, lanes: Lanes, start, stop, updates_per_test: int) -> Lanes:
    """Move one block from step `start` to `stop`, or until none of its lanes moves."""

    def plain(lanes, t, until):
        def body(carry):
            lanes, t = carry
            lanes = _tick(rule, loss, stopping, lanes)
            for ahead in range(1, updates_per_test):  # no lane goes beyond `until`, whatever the updates per test
                ticked = _tick(rule, loss, stopping, lanes)
                lanes = jax.tree.map(partial(jnp.where, t + ahead < until), ticked, lanes)
            return lanes, t + updates_per_test

        lanes, t = lax.while_loop(lambda c: jnp.any(c[0].alive) & (c[1] < until), body, (lanes, t))
        return lanes, jnp.minimum(t, until)

    if stopping.max_period is None:
        return plain(lanes, start, stop)[0]
    stride, window = anchor_stride(stopping.max_period), 2 * stopping.max_period

    def round_(carry):
        lanes, t = carry
        anchor = jnp.maximum(stride, (t + stride - 1) // stride * stride)
        lanes, t = plain(lanes, t, jnp.minimum(anchor, stop))
        test = over_lanes(lambda state: begin_cycle_test(state, rule.theta(state)))(lanes.state)

        def body(carry):
            lanes, test, t = carry
            lanes, test = _cycle_tick(rule, loss, stopping, lanes, test, t + 1 - anchor)
            return lanes, test, t + 1

        def looking(carry):
            lanes, _, t = carry
            return jnp.any(lanes.alive) & (t >= anchor) & (t < stop) & (t < anchor + window)

        lanes, _, t = lax.while_loop(looking, body, (lanes, test, t))
        return lanes._replace(alive=lanes.alive & (lanes.period == 0)), t

    return lax.while_loop(lambda c: jnp.any(c[0].alive) & (c[1] < stop), round_, (lanes, start))[0]


def _sweep(static: "Static", system: "System", lanes: Lanes, real, start, stop) -> Swept:
    """Advance one block, then say how its lanes ended; UNDECIDED for those that go on beyond `stop`.

    Lanes that are not `real` only pad.
    """
    rule, loss, stopping, _ = system
    lanes = _advance(rule, loss, stopping, lanes, start, stop, static.updates_per_test)

    def lane(state, alive, period):
        theta = rule.theta(state)
        seen = verdict(loss, theta, stopping)
        # What stopped has a verdict; should rounding differ from the loop's, it can only be one of these.
        otherwise = jnp.where(period > 0, jnp.int8(Outcome.CYCLING), lacking(stopping))
        stopped = jnp.where(seen == Outcome.UNDECIDED, otherwise, seen)
        # What moves where the budget ends may stand where the loss is no number.
        unstopped = jnp.where(last & (seen == Outcome.NONFINITE), seen, jnp.int8(Outcome.UNDECIDED))
        seen = jnp.where(alive, unstopped, stopped)
        period = jnp.where(seen == Outcome.CYCLING, period, 0)
        value = loss(theta) if static.want_loss or floored else None
        excess = jnp.where(seen == Outcome.CONVERGED, value - loss.loss_floor, 0) if floored else None
        return seen, period, value if static.want_loss else None, excess

    last, floored = stop >= stopping.max_steps, stopping.loss_tol is not None
    outcome, period, value, excess = over_lanes(lane)(lanes.state, lanes.alive, lanes.period)
    period = None if stopping.max_period is None else period
    state = lanes.state if static.want_state else None
    lowest = jnp.min(jnp.where(real, excess, 0), initial=0) if floored else None
    return Swept(state, lanes.count, period, lanes.step_size, outcome, value, lowest)


class System(NamedTuple):
    """What is run: its arrays and floats are arguments of a pass, the rest is what a pass is compiled for."""

    rule: UpdateRule
    loss: LaneLoss
    stopping: StoppingRule
    source: Callable | None  # of the initial points; None where they are given


class Static(NamedTuple):
    """How a pass is cut up, and what it returns."""

    chunk: int
    block: int
    updates_per_test: int
    want_loss: bool
    want_state: bool


def begin(static: Static, system: System, points, window, step_size, num_lanes, stop) -> Swept:
    """First pass over points `[chunk, ...]`, or over those that a source makes from `window = (group, offset)` on.

    The step size is a scalar for all lanes, or `[chunk]`. Lanes from `num_lanes` on only pad.
    """
    rule, loss, stopping, source = system

    def block(number, points, step_size):
        position = number * static.block + lax.iota(jnp.int32, static.block)
        if window is not None:
            group, offset = window
            index = offset + jnp.minimum(position, jnp.maximum(num_lanes - 1, 0))
            points, numbers = source(index, group), group.astype(jnp.uint32) * GROUP + index.astype(jnp.uint32)
        elif rule.numbered:
            points, numbers = points
        theta = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), points)
        if rule.numbered:
            state = over_lanes(partial(_init_numbered, rule), shared=1)(numbers, theta, step_size)
        else:
            state = over_lanes(rule.init, shared=1)(theta, step_size)
        real = position < num_lanes
        alive = over_lanes(lambda state: moving(loss, rule.theta(state), stopping))(state) & real
        zeros = jnp.zeros(static.block, jnp.int32)
        return _sweep(static, system, Lanes(state, zeros, alive, zeros, step_size), real, jnp.int32(0), stop)

    num_blocks = static.chunk // static.block
    points = jax.tree.map(lambda leaf: leaf.reshape(num_blocks, static.block, *leaf.shape[1:]), points)
    step_size = step_size.reshape(num_blocks, -1) if step_size.ndim else jnp.broadcast_to(step_size, num_blocks)
    return lax.map(lambda each: block(*each), (lax.iota(jnp.int32, num_blocks), points, step_size))


def _init_numbered(rule, number, theta, step_size):
    return rule.init(theta, step_size, number)


def resume(static: Static, system: System, lanes: Lanes, start, stop) -> Swept:
    """Later passes: the stragglers, densely packed."""
    return lax.map(lambda block: _sweep(static, system, block, block.alive, start, stop), lanes)


CPU_OPTIONS = {
    # XLA's newer loop emitters take twice as long on these small kernels as the older ones (see benchmarks/).
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_prefer_vector_width": 512,
}


def compiled(platform: str, entry: Entry, static: Static) -> tuple[Callable, Callable]:
    """`begin` and `resume` of a system, `(its numbers, ...) -> Swept`, jitted for a platform, and kept in its entry."""

    def make():
        options, trace = CPU_OPTIONS if platform == "cpu" and _accepted() else None, entry.slot.trace
        return tuple(jax.jit(partial(trace, partial(fn, static)), compiler_options=options) for fn in (begin, resume))

    return entry.once((platform, static), make)


@lru_cache(maxsize=1)
def _accepted() -> bool:
    """Whether this version of XLA knows `CPU_OPTIONS`: they are its own, without a promise."""
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except Exception:  # whatever an unknown option raises in this version
        return False
    return True
