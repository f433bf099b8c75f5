"""Gradient flow from many starts: where it ends, how long it stays near each critical value, the staircase."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import ensembles, flow
from gdstab._numerics import sum_squares
from gdstab._types import Theta
from gdstab.outcomes import Outcome
from gdstab.studies.overfitting.endings import Target

NUM_TIMES = 1200
"""Times at which the loss of an orbit is kept, 1.4 % apart for the default horizon; between them it is interpolated."""
FIRST_TIME = 1e-3
RTOL = 1e-6
ATOL = 1e-9


class _AtRest(eqx.Module):
    """Whether an orbit has come to a critical point: its loss is at the floor, or its gradient has vanished."""

    loss: Any
    tol: jax.Array

    def __call__(self, theta: Theta):
        loss, gradient = jax.value_and_grad(self.loss)(theta)
        low = loss - jnp.asarray(self.loss.loss_floor, loss.dtype) <= self.tol
        return low | (sum_squares(gradient) <= 1e-4 * self.tol)


class _Walk(eqx.Module):
    """One orbit of gradient flow: loss and norm of the gradient at the times, the last point, whether it settled."""

    at_rest: _AtRest
    times: jax.Array

    def __call__(self, theta: Theta):
        loss = self.at_rest.loss

        def observe(theta):
            value, gradient = jax.value_and_grad(loss)(theta)
            return value, jnp.sqrt(sum_squares(gradient))

        found = flow.gradient_flow(
            loss, theta, self.times[-1], rtol=RTOL, atol=ATOL, save_at=self.times, observe=observe, until=self.at_rest
        )
        return found.theta, found.settled, found.time, found.observed


class Walks(NamedTuple):
    """Orbits of gradient flow."""

    theta: tuple  # the last points, layers [orbits, ...]
    outcome: np.ndarray  # an `Outcome` each: the flow converges or is undecided
    time: np.ndarray  # of the last point
    times: np.ndarray  # [times]
    loss: np.ndarray  # [orbits, times]
    gradient: np.ndarray  # its norm


def walk(target: Target, starts: tuple, time: float, tol: float) -> Walks:
    """Follow gradient flow from every start until it rests or the time is over."""
    dtype = starts[0].dtype
    times = np.concatenate([np.zeros(1), np.geomspace(FIRST_TIME, time, NUM_TIMES - 1)]).astype(dtype)
    one = _Walk(_AtRest(target.loss, jnp.asarray(tol, dtype)), jnp.asarray(times))
    theta, settled, stop, (loss, gradient) = ensembles.map_points(one, starts)
    outcome = np.where(settled, Outcome.CONVERGED, Outcome.UNDECIDED).astype(np.int8)
    return Walks(theta, outcome, stop, times, loss, gradient)


def bands(values: np.ndarray, share: float) -> np.ndarray:
    """Half-widths around critical values: a share of the distance to the nearest other one."""
    gaps = np.abs(values[:, None] - values[None, :])
    np.fill_diagonal(gaps, np.inf)
    return share * gaps.min(axis=1)


def time_near(walks: Walks, values: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """For every orbit and critical value: the time its loss spends in the band, and the least gradient meanwhile.

    The loss falls along gradient flow, so an orbit enters and leaves once; both times are interpolated between those
    at which it was kept. 0 and NaN for an orbit that starts below; one that does not leave has the time up to the end.
    """
    half = bands(values, share)
    spent, least = np.zeros((len(walks.loss), len(values))), np.full((len(walks.loss), len(values)), np.nan)
    falling = np.minimum.accumulate(walks.loss, axis=1)
    for i, (loss, gradient) in enumerate(zip(falling, walks.gradient, strict=True)):
        enter, leave = (np.interp(-(values + sign * half), -loss, walks.times) for sign in (1, -1))
        visits = (loss[0] > values - half) & (loss[-1] <= values + half)
        spent[i] = np.where(visits, leave - enter, 0)
        for level in np.flatnonzero(visits):
            inside = np.abs(loss - values[level]) <= half[level]
            least[i, level] = gradient[inside].min(initial=np.inf)
    return spent, np.where(np.isinf(least), np.nan, least)
