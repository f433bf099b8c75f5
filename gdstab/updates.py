"""How one step is taken: gradient descent, and any deterministic optax optimiser, as discrete dynamical systems."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Var

from gdstab._types import LossFn, State, Theta


class UpdateRule(NamedTuple):
    """A discrete dynamical system: how a state begins, how it moves, and where its parameters stand.

    Momentum, counters and second moments are part of the state, so every tool works on every rule. Two rules made by
    the same call are equal and hash alike, so that a compiled function is found again.
    """

    init: Callable[..., State]  # (theta, step_size) -> state
    step: Callable[..., State]  # (loss, state, step_size) -> state; structure, shapes and dtypes are kept
    theta: Callable[..., Theta]  # state -> parameters
    autonomous: bool = True  # False where the map changes with the number of steps taken, as under a schedule


def gradient_descent() -> UpdateRule:
    r"""Gradient descent, $\theta \mapsto \theta - \eta \nabla L(\theta)$; its state is `theta` itself.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> rule = gradient_descent()
    >>> state = rule.init(jnp.array([2.0]), 0.25)
    >>> rule.step(lambda theta: jnp.sum(theta**2), state, 0.25).tolist()
    [1.0]
    """
    return UpdateRule(_begin_descent, _descend, _identity, True)


def _begin_descent(theta, step_size):
    del step_size  # momentum-free
    return theta


def _descend(loss, theta, step_size):
    gradient = jax.grad(loss)(theta)
    return jax.tree.map(lambda leaf, slope: leaf - jnp.asarray(step_size, leaf.dtype) * slope, theta, gradient)


def _identity(theta):
    return theta


@functools.lru_cache(maxsize=1024)
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
        Say False for schedules, where one step is not one map iterated. The bias correction of Adam also counts its
        steps, but it fades, and such rules are called autonomous here.

    Returns
    -------
    The update rule, the same object for the same arguments.

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
    return UpdateRule(
        functools.partial(_begin_optax, factory), functools.partial(_step_optax, factory), _first, autonomous
    )


def _first(state):
    return state[0]


def _begin_optax(factory, theta, step_size):
    def begin(size):
        with _lenient_dtypes():
            return _build(factory, size).init(theta)

    # Traced even where the step size is a number, so that a factory that branches on it fails here and not in a sweep.
    traced, shapes = jax.make_jaxpr(begin, return_shape=True)(step_size)
    _refuse_random(shapes)
    _refuse_stored_step_size(traced.jaxpr)
    # A leaf that began weakly typed, or as a Python number, would change type at the first step.
    return theta, jax.tree.map(lambda leaf, shape: jnp.asarray(leaf, shape.dtype), begin(step_size), shapes)


def _step_optax(factory, loss: LossFn, state, step_size):
    theta, memory = state
    value, gradient = jax.value_and_grad(loss)(theta)
    with _lenient_dtypes():
        transform = _build(factory, step_size)
        updates, moved = transform.update(gradient, memory, theta, value=value, grad=gradient, value_fn=loss)
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
                "remove the noise: a stochastic rule is no dynamical system on its state"
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
