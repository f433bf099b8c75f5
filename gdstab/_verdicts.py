"""What an orbit can end as: the five verdicts, those of one's own behind them, and what all of them are called."""

import enum
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int8

from gdstab._types import Theta

_MOST = 100  # codes are kept in 8 bits


class Outcome(enum.IntEnum):
    """Why an orbit stopped; the value is what the device arrays hold (int8)."""

    UNDECIDED = 0  # the budget ended first: raise `max_steps` or loosen a tolerance
    CONVERGED = 1  # the loss or the gradient met its tolerance
    CYCLING = 2  # came back to itself after 2 .. max_period steps, twice
    DIVERGED = 3  # left the ball of radius `escape_radius`
    NONFINITE = 4  # overflow, or outside of the domain of the loss: inf or nan in parameters, loss or gradient


NAMES = tuple(verdict.name.lower() for verdict in Outcome)
"""Of the five, in lower case, by code."""


class Verdict(eqx.Module):
    """A verdict of one's own: the orbit ends where `reached(theta)` is true."""

    name: str = eqx.field(static=True)
    reached: Callable[[Theta], Any]


def as_verdicts(until: Any) -> tuple[Verdict, ...]:
    """Predicates by name as verdicts, in their order.

    >>> as_verdicts({"Left": abs})
    Traceback (most recent call last):
    ...
    ValueError: until: expected names such as 'accurate', in lower case and none of (...), got 'Left'; rename it
    """
    given = list(until.items()) if isinstance(until, Mapping) else [(each.name, each.reached) for each in until]
    for place, (name, reached) in enumerate(given):
        taken = NAMES + tuple(other for other, _ in given[:place])
        if not (isinstance(name, str) and name.isidentifier() and name == name.lower()) or name in taken:
            raise ValueError(
                f"until: expected names such as 'accurate', in lower case and none of {taken}, got {name!r}; rename it"
            )
        if not callable(reached):
            raise ValueError(f"until: expected a function of theta for {name!r}, got {reached!r}; give a predicate")
    if len(given) > _MOST:
        raise ValueError(f"until: expected at most {_MOST} verdicts, got {len(given)}; put several into one")
    return tuple(Verdict(*each) for each in given)


def names(stopping: Any = None) -> tuple[str, ...]:
    """What the codes of outcomes mean under a stopping rule, in lower case: its own verdicts are behind the five.

    >>> names()
    ('undecided', 'converged', 'cycling', 'diverged', 'nonfinite')
    """
    return NAMES + tuple(own.name for own in getattr(stopping, "until", ()))


def own_verdict(theta: Theta, until: tuple[Verdict, ...]) -> Int8[Array, ""]:
    """The code of the first verdict of one's own that holds, UNDECIDED if none does."""
    code = jnp.int8(Outcome.UNDECIDED)
    for place in reversed(range(len(until))):
        holds = jnp.asarray(until[place].reached(theta))
        if holds.shape or holds.dtype != bool:
            raise ValueError(
                f"until: expected {until[place].name!r} to give one truth value for a point, got {holds.dtype} of "
                f"shape {holds.shape}; compare, and take jnp.all or jnp.any"
            )
        code = jnp.where(holds, jnp.int8(len(NAMES) + place), code)
    return code
