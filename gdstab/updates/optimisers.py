"""Any deterministic optax optimiser as an update rule."""

import contextlib
import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Var
from optax.contrib import ScheduleFreeState

from gdstab._types import LossFn
from gdstab.updates.rules import Applied, UpdateRule


def from_optax(factory: Any, *, autonomous: bool = True) -> UpdateRule:
    r"""Any deterministic optax optimiser as an update rule on the state (theta, optax state).

    The step size is traced: the optimiser is built anew, at trace time, in every step, and never stored. Value,
    gradient and value function are passed to transforms that take them. Steps run under standard dtype promotion, and
    every leaf is returned in the dtype it came in.

    Parameters
    ----------
    factory
        `factory(step_size) -> optax.GradientTransformation`: `optax.adam`, or `lambda s: optax.sgd(s, momentum=0.9)`.
        It may not branch on the step size. Scale a schedule instead of passing the step size into one:
        `lambda s: optax.sgd(lambda count: s * schedule(count))`. Name a lambda once and reuse it: each new one
        compiles anew.
    autonomous
        Say False for schedules, where one step is not one map iterated; those of optax are recognised, and refused
        without it. The bias correction of Adam also counts its steps, but it fades, and such rules are called
        autonomous here.

    Returns
    -------
    The update rule; rules made by the same arguments are equal, and compile once. Its parameters, at which verdicts,
    labels and results look, are those that optax evaluates: of `optax.contrib.schedule_free` the averages x, not the
    points y of the gradients; of `optax.lookahead`, which must be outermost, the slow ones; else those that move.

    Raises
    ------
    ValueError
        Here, if the factory is no function; in `init`, if it branches on the step size, returns no transformation,
        stores the step size, draws random numbers, or holds a schedule without `autonomous=False`.

    Examples
    --------
    >>> import jax.numpy as jnp, optax
    >>> rule = from_optax(optax.sgd)
    >>> state = rule.init(jnp.array([2.0]), 0.25)
    >>> rule.theta(rule.step(lambda theta: jnp.sum(theta**2), state, 0.25)).tolist()
    [1.0]
    """
    if not callable(factory):
        raise ValueError(
            f"expected a function step_size -> optax.GradientTransformation, got {type(factory).__name__}; "
            "pass `optax.adam` or `lambda s: optax.sgd(s, momentum=0.9)`, not an optimiser already built"
        )
    return UpdateRule(Applied(begin_optax, factory, autonomous), Applied(step_optax, factory), evaluated, autonomous)


def evaluated(state):
    """The parameters of a state (theta, optax state) that are evaluated, see `from_optax`."""
    params, memory = state
    if isinstance(params, optax.LookaheadParams):
        return params.slow
    for part in jax.tree.leaves(memory, is_leaf=_is_schedule_free):
        if _is_schedule_free(part):
            return jax.tree.map(partial(_average, part.b1), params, part.z)
    return params


def _is_schedule_free(node) -> bool:
    return isinstance(node, ScheduleFreeState)


def _average(b1, y, z):
    """The x of y = (1 - b1) z + b1 x."""
    b1 = b1.astype(y.dtype)
    return (y - (1 - b1) * z.astype(y.dtype)) / b1


def begin_optax(factory, autonomous: bool, theta, step_size):
    """The state (theta, optax state) of the optimiser at its start; what is no deterministic rule is refused here."""
    params = optax.LookaheadParams(theta, theta) if _looks_ahead(_build(factory, step_size)) else theta

    def begin(size):
        with _lenient_dtypes():
            return _build(factory, size).init(params)

    # Traced even where the step size is a number, so that a factory that branches on it fails here and not in a sweep.
    traced, shapes = jax.make_jaxpr(begin, return_shape=True)(step_size)
    _refuse_random(shapes)
    _refuse_inner_lookahead(shapes)
    if autonomous:
        _refuse_schedule(shapes)
    _refuse_stored_step_size(traced.jaxpr)
    # A leaf that began weakly typed, or as a Python number, would change type at the first step.
    return params, jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), begin(step_size), shapes)


def step_optax(factory, loss: LossFn, state, step_size):
    """One step of the optimiser that the factory builds, from the state (theta, optax state)."""
    theta, memory = state
    value, gradient = jax.value_and_grad(loss)(theta.fast if isinstance(theta, optax.LookaheadParams) else theta)
    with _lenient_dtypes():
        transform = _build(factory, step_size)
        told = {"value": value, "grad": gradient, "value_fn": loss}
        asked = inspect.signature(transform.update).parameters
        if not any(one.kind is one.VAR_KEYWORD for one in asked.values()):  # some take what they name, and nothing else
            told = {name: told[name] for name in asked if name in told}
        if "grad_fn" in asked:
            told["grad_fn"] = lambda moved, _: jax.grad(loss)(moved)
        updates, moved = transform.update(gradient, memory, theta, **told)
        moved = (optax.apply_updates(theta, updates), moved)
        if jax.tree.structure(moved) != jax.tree.structure(state):
            raise ValueError(
                f"expected an optimiser whose state keeps its structure, got {jax.tree.structure(moved)} after "
                f"{jax.tree.structure(state)}; initialise all of its state in `init`"
            )
        return jax.tree.map(lambda new, old: jnp.asarray(new, jnp.result_type(old)), moved, state)


def _build(factory, step_size):
    try:
        transform = factory(step_size)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            "expected a factory that takes a traced step size, got one that looks at its value (some optax schedules "
            "do); scale a schedule instead: `from_optax(lambda s: optax.sgd(lambda count: s * schedule(count)), "
            "autonomous=False)`"
        ) from error
    if not isinstance(transform, optax.GradientTransformation):
        raise ValueError(
            f"expected a factory that returns an optax.GradientTransformation, got {type(transform).__name__}; "
            "pass `optax.adam` or `lambda s: optax.sgd(s, momentum=0.9)`"
        )
    return optax.with_extra_args_support(transform)


@contextlib.contextmanager
def _lenient_dtypes():
    """Optax mixes dtypes and ranks freely; where JAX is set to be strict, its code runs under the defaults."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _refuse_random(memory):
    for path, leaf in jax.tree_util.tree_leaves_with_path(memory):
        name = jax.tree_util.keystr(path)
        raw_key = leaf.dtype == jnp.uint32 and leaf.shape[-1:] == (2,)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or (raw_key and "key" in name):
            raise ValueError(
                f"expected a deterministic optimiser, got one that draws random numbers (key at {name} of its state); "
                "take the rule without it, and add noise by updates.with_noise, which gives every lane a key of its own"
            )


def _looks_ahead(transform) -> bool:
    return getattr(transform.init, "__qualname__", "").startswith("lookahead.")


def _refuse_inner_lookahead(memory):
    def ahead(node):
        return isinstance(node, optax.LookaheadState)

    if not ahead(memory) and any(ahead(node) for node in jax.tree.leaves(memory, is_leaf=ahead)):
        raise ValueError(
            "expected optax.lookahead as the outermost transformation, got one inside of another; put the others into "
            "its fast optimiser"
        )


def _refuse_schedule(memory):
    def scheduled(node):
        return "Schedule" in type(node).__name__  # ScaleByScheduleState, WrappedScheduleState, ScheduleFreeState, ...

    if any(scheduled(node) for node in jax.tree.leaves(memory, is_leaf=scheduled)):
        raise ValueError(
            "expected an optimiser whose step is the same map every time, got one with a schedule; pass "
            "`autonomous=False`: orbits may follow it, fixed points and multipliers it has none"
        )


def _refuse_stored_step_size(jaxpr):
    """An optimiser that keeps the step size would move by the stored one, whatever `step` is given."""
    reached = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if reached.intersection(atom for atom in equation.invars if isinstance(atom, Var)):
            reached.update(equation.outvars)
    if reached.intersection(atom for atom in jaxpr.outvars if isinstance(atom, Var)):
        raise ValueError(
            "expected an optimiser whose state does not depend on the step size, got one that stores it (as "
            "optax.inject_hyperparams does); pass the plain factory, which is given the step size in every step"
        )
