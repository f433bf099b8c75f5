"""Gradient descent that counts, beside its parameters, the updates it spends near each level of the loss."""

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int32

from gdstab._types import Theta
from gdstab.updates import UpdateRule, gradient_descent


class Clocked(NamedTuple):
    """Parameters, and how many updates led to a loss near each level."""

    theta: Theta
    near: Int32[Array, " levels"]


@lru_cache(maxsize=64)  # of numbers: it holds nothing of anybody's
def descent_with_clock(levels: tuple[float, ...], band: float) -> UpdateRule:
    """Gradient descent; `state.near` counts the updates whose loss is within `band` of a level, relative to it.

    The loss is the one that the stopping rule asks for, so that a compiled loop evaluates it once.

    Examples
    --------
    >>> rule = descent_with_clock((1.0, 4.0), 0.1)
    >>> state = rule.init(jnp.array(4.0), 0.25)
    >>> for _ in range(3):
    ...     state = rule.step(lambda x: x**2, state, 0.25)
    >>> float(state.theta), state.near.tolist()
    (0.5, [1, 1])
    """
    descent = gradient_descent()

    def begin(theta, step_size):
        return Clocked(descent.init(theta, step_size), jnp.zeros(len(levels), jnp.int32))

    def step(loss, state, step_size):
        theta = descent.step(loss, state.theta, step_size)
        value = loss(theta)
        heights = jnp.asarray(levels, value.dtype)
        close = jnp.abs(value - heights) <= jnp.asarray(band, value.dtype) * heights
        return Clocked(theta, state.near + close.astype(jnp.int32))

    return UpdateRule(begin, step, lambda state: state.theta)
