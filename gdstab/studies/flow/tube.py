"""The curvature along a flow, the constants around it, and how far paper D's bounds let descent stray from it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gdstab import curvature, ensembles
from gdstab._types import LossFn, Point
from gdstab.studies.flow import Flow
from gdstab.theory import flow_bounds


class Tube(NamedTuple):
    """At some of the recorded times; the constants are maxima over samples, and bound suprema from below."""

    rows: np.ndarray  # [grid], numbers of the recorded times
    smallest: np.ndarray  # [2, grid], of the Hessian, along the flow and along descent with the largest step
    largest: np.ndarray  # [2, grid]
    residual: float  # of the eigenpairs along the flow, the largest
    growth: np.ndarray  # [grid], m(t)
    smoothness: np.ndarray  # [grid], its maximum is beta
    gradient: np.ndarray  # [grid], its maximum is gamma
    bound: np.ndarray  # [steps, times], Theorem 3; inf from where it has passed the radius
    local: np.ndarray  # [steps, times], Theorem 2 with the product of both constants at each time
    max_step: float  # of (7), corrected; NaN where the constants are not finite


class Ends(eqx.Module):
    """Both ends of the spectrum of the Hessian."""

    dense_limit: int = eqx.field(static=True)
    num_matvecs: int = eqx.field(static=True)

    def __call__(self, loss: LossFn, theta: Point) -> tuple:
        """The least and the largest eigenvalue."""
        return self.with_residual(loss, theta)[:2]

    def with_residual(self, loss: LossFn, theta: Point) -> tuple:
        """The same, and the larger residual."""
        found = curvature.extreme_eigenvalues(loss, theta, dense_limit=self.dense_limit, num_matvecs=self.num_matvecs)
        low, high = found
        return low.value, high.value, jnp.maximum(low.residual, high.residual)


class _Along(eqx.Module):
    ends: Ends
    loss: LossFn

    def __call__(self, theta):
        return self.ends.with_residual(self.loss, theta)


def measure(loss: LossFn, flow: np.ndarray, descent: np.ndarray, times: np.ndarray, options: Flow, step_sizes) -> Tube:
    """The surroundings of a flow, [times, dim], at evenly chosen times; and the eigenvalues along a descent."""
    rows = np.unique(np.round(np.linspace(0, len(times) - 1, min(options.curvature_points, len(times)))).astype(int))
    ends = Ends(options.dense_limit, options.num_matvecs)
    along = ensembles.map_points(_Along(ends, loss), np.concatenate([flow[rows], descent[rows]]))
    smallest, largest, residual = np.asarray(along).reshape(3, 2, len(rows))
    key = jax.random.key(options.seed)
    found = flow_bounds.tube_constants(loss, jnp.asarray(flow[rows]), options.radius, key, options.samples, ends)
    growth, smoothness, gradient = (np.asarray(part, np.float64) for part in found)
    known = all(np.isfinite(part).all() for part in (growth, smoothness, gradient))
    if len(rows) == 1:
        bounds, max_step = np.zeros((len(step_sizes), 2, 1)), np.inf
    elif not known:  # the tube leaves the domain of the loss
        bounds, max_step = np.broadcast_to(np.where(times > 0, np.inf, 0.0), (len(step_sizes), 2, len(times))), np.nan
    else:
        inside = np.searchsorted(rows, np.arange(len(times) - 1), side="right") - 1  # the interval of the grid
        constants = [flow_bounds.interval_maxima(part)[inside] for part in (growth, smoothness, gradient)]
        bounds = [_bounds(times, *constants, options.radius, float(eta)) for eta in step_sizes]
        strength = float(smoothness.max()), float(gradient.max())
        max_step = float(flow_bounds.max_step(times, constants[0], *strength, options.radius))
    return Tube(
        rows, smallest, largest, float(residual[0].max()), growth, smoothness, gradient,
        *np.moveaxis(np.array(bounds), 1, 0), max_step,
    )  # fmt: skip


def _bounds(times, growth, smoothness, gradient, radius: float, step_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Theorem 3; and Theorem 2 with a defect that changes over time, as long as it stays within the radius."""
    uniform = flow_bounds.descent_bound(
        times, growth, float(smoothness.max()), float(gradient.max()), radius, step_size
    )
    local = flow_bounds.euler_bound(times, growth, step_size * smoothness * gradient)
    return uniform, np.where(np.logical_and.accumulate(local <= radius), local, np.inf)


def holds_until(times: np.ndarray, bound: np.ndarray) -> float:
    """The last time of the grid up to which a bound says something."""
    return float(times[max(int(np.isfinite(bound).sum()) - 1, 0)])
