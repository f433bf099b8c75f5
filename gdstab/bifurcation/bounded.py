"""Up to which step size there are bounded orbits: bisection on whether all of some orbits escape."""

from typing import NamedTuple

import numpy as np

from gdstab import ensembles
from gdstab._contract import entry
from gdstab._types import LossFn
from gdstab._validate import check_count, check_positive, check_step_sizes
from gdstab.bifurcation._lanes import check_lanes, escape
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule


class LastBounded(NamedTuple):
    """A bracket around the step size at which the last of the orbits escapes."""

    low: float  # some orbit is bounded here; 0 if none is at the beginning of the range
    high: float  # and none here; inf if some is at the end of the range
    survivors: int  # bounded orbits at `low`
    longest: int  # updates until the last one escaped at `high`: close to the end of the budget, `high` is too large


@entry(host=True)
def last_bounded(
    rule: UpdateRule,
    loss: LossFn,
    starts,
    low: float,
    high: float,
    *,
    max_steps: int = 20_000,
    escape_radius: float | None = None,
    rtol: float = 1e-8,
) -> LastBounded:
    r"""Bisect for the largest step size at which some of the orbits from `starts` stay bounded for `max_steps` updates.

    Just past the end of bounded orbits most of them linger for long before they find the way out, so a finite budget
    puts the end too high, by less the larger `max_steps` is. Between step sizes with and without bounded orbits there
    may be several edges: one of them is found.

    Parameters
    ----------
    low, high
        The range. If no orbit is bounded at `low`, the bracket is (0, `low`), and if some is at `high`, (`high`, inf).
    rtol
        Width of the bracket relative to its lower end, at least 4 units of rounding.
    rule, loss, starts, escape_radius
        As in `orbit_diagram`, but an orbit has escaped as soon as one update takes it out of the ball.

    Raises
    ------
    ValueError
        If the range is empty, `rtol` is too small for the dtype, or as `orbit_diagram`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: (1 - x * x) ** 2 / 4  # bounded orbits end at 2
    >>> found = last_bounded(gradient_descent(), loss, jnp.array([0.3, 0.7, 1.1]), 1.5, 3.0)
    >>> abs(found.low - 2) < 1e-5, found.high - found.low < 1e-7
    (True, True)
    """
    starts, _, dtype = check_lanes(rule, loss, starts, escape_radius)
    low, high = check_positive(low, "low"), check_positive(high, "high")
    if not low < high:
        raise ValueError(f"expected a range of step sizes with low < high, got {low} to {high}; widen it")
    least = 4 * float(np.finfo(dtype).eps)
    if check_positive(rtol, "rtol") < least:
        raise ValueError(f"rtol: expected at least {least:.2g}, which {dtype} resolves, got {rtol}; raise it")
    stopping = StoppingRule(None, None, escape(starts, escape_radius), check_count(max_steps, "max_steps"))

    def survivors(step_size: float) -> tuple[int, int]:
        size = check_step_sizes(step_size, dtype)
        result = ensembles.run(rule, loss, starts, size, stopping, keep=())
        return int(np.count_nonzero(result.outcome == Outcome.UNDECIDED)), int(result.steps.max())

    bounded, longest = survivors(low)
    if not bounded:
        return LastBounded(0.0, low, 0, longest)
    at_high, longest = survivors(high)
    if at_high:
        return LastBounded(high, float("inf"), at_high, longest)
    while high - low > rtol * low:
        middle = (low + high) / 2
        number, steps = survivors(middle)
        if number:
            low, bounded = middle, number
        else:
            high, longest = middle, steps
    return LastBounded(low, high, bounded, longest)
