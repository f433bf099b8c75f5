"""What a discrete dynamical system is here, how it moves tangent vectors, and the simplest one: gradient descent."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from gdstab._types import LossFn, State, Theta


class UpdateRule(NamedTuple):
    r"""A discrete dynamical system $s \mapsto G_\eta(s)$: how a state begins, moves, and where its parameters stand.

    Momentum, counters and second moments are part of the state, so every tool works on every rule. All three functions
    are pure, for one orbit, written in `jax.numpy`; `gdstab.testing.check_rule` tries whether they keep this contract.

    Parameters
    ----------
    init
        `init(theta, step_size) -> state`, with `theta(init(theta, step_size))` equal to `theta`.
    step
        `step(loss, state, step_size) -> state`: structure, shapes and dtypes are kept. `loss` is a function of one
        `theta`; `step_size` is traced and of the dtype of the parameters, so bring numbers of your own to
        `leaf.dtype`, and do not branch on it.
    theta
        `theta(state) -> parameters`: what verdicts look at and results hold.
    autonomous
        False where the map changes with the number of steps taken for good, as under a schedule: then there are
        orbits, basins and verdicts, and no fixed points, multipliers, cycles or exponents; those tools refuse it.
    numbered
        True of a rule that draws random numbers: `init(theta, step_size, number=0)` then takes the number of the
        starting point, from which every lane makes a key of its own. See `updates.stochastic`.

    Notes
    -----
    A state is any pytree of arrays. Its floating-point leaves are what moves: tangent vectors, Jacobians and distances
    are those of all of them. Its integers are a clock. One whose influence fades, such as the step count of Adam's bias
    correction, is held where it has faded; one that comes round, such as that of accumulated gradients, makes the map
    that of a whole round; what neither fades nor comes round is refused unless `autonomous` is False. Where the
    parameters of a state are not what it computes with (averages, slow weights), `theta` decides which are looked at.

    Two rules made of the same three functions are equal and hash alike, so that a compiled function is found again:
    define them once, at the top of a module, and not in a loop.

    Examples
    --------
    Gradient descent that averages what it visits, and is judged by the average:

    >>> import jax, jax.numpy as jnp
    >>> def begin(theta, step_size):
    ...     return theta, theta
    >>> def step(loss, state, step_size):
    ...     theta, mean = state
    ...     theta = theta - step_size * jax.grad(loss)(theta)
    ...     return theta, (mean + theta) / 2
    >>> averaged = UpdateRule(begin, step, lambda state: state[1])
    >>> averaged.theta(averaged.step(jnp.sum, begin(jnp.ones(1), 0.5), 0.5)).tolist()
    [0.75]
    """

    init: Callable[..., State]
    step: Callable[..., State]
    theta: Callable[..., Theta]
    autonomous: bool = True
    numbered: bool = False


class Applied(functools.partial):
    """A function with its first arguments, equal to another one of the same objects."""

    def __eq__(self, other):
        """Whether the other one does the same."""
        return (
            type(other) is type(self)
            and self.func is other.func
            and len(self.args) == len(other.args)
            and all(mine is its for mine, its in zip(self.args, other.args, strict=True))
        )

    def __hash__(self):
        """By the identity of all that it holds."""
        return hash((self.func, *map(id, self.args)))


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


def tangent_map(rule: UpdateRule, loss: LossFn, state: State, step_size) -> tuple[State, Callable]:
    """The next state, and the map on tangent vectors, which are the floating-point leaves of a state."""
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)

    def step(moving):
        moved = rule.step(loss, eqx.combine(moving, fixed), step_size)
        return eqx.filter(moved, jax.tree.map(eqx.is_inexact_array, state))

    def push(tangent):
        with jax.default_matmul_precision("highest"):
            return jax.jvp(step, (moving,), (tangent,))[1]

    return rule.step(loss, state, step_size), push
