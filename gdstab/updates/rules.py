"""What a discrete dynamical system is here, how it moves tangent vectors, and the simplest one: gradient descent."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

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
