r"""The constants of Theorem 3 measured in a tube around a trajectory: $\beta$, $\gamma$ and $m(t)$.

They are suprema over balls; here they are maxima over points drawn from these balls, and so bound them *from below*: a
bound made of them is an estimate. It comes close where the Hessian varies little over the ball.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab import _arguments as arguments
from gdstab._compiling import jit
from gdstab._types import LossFn, Scalar, Theta
from gdstab._validate import check_count, check_positive

Extremes = Callable[[LossFn, Theta], tuple[Scalar, Scalar]]


class TubeConstants(NamedTuple):
    """What was found in the tube, time by time; every number is a lower bound of a supremum."""

    growth: Float[Array, " times"]
    r"""m: the largest $-\lambda_{\min}$ of the Hessian in the ball."""
    smoothness: Float[Array, " times"]
    r"""The largest spectral norm of the Hessian in the ball; $\beta$ is the maximum over time."""
    gradient: Float[Array, " times"]
    r"""The largest norm of the gradient in the ball; $\gamma$ is the maximum over time."""


@arguments.closed_form(undefined=True, loss=arguments.function, num_samples=arguments.count, key=arguments.random_key)
def tube_constants(
    loss: LossFn, path: Theta, radius: float, key: PRNGKeyArray, num_samples: int = 64, extremes: Extremes | None = None
) -> TubeConstants:
    r"""Sample the balls of radius $\epsilon$ around the points of a path ([D] Theorem 3).

    Each ball gives its centre, and `num_samples` points, every other on its sphere (where suprema of convex functions
    lie) and the rest uniform within.

    Parameters
    ----------
    path
        Parameters with a leading axis of times on every leaf, as `Flow.observed`.
    extremes
        `extremes(loss, theta)` -> least and largest Hessian eigenvalue; by default exact, from the whole Hessian, whose
        n^2 entries are made for all samples of a ball at once.

    Raises
    ------
    ValueError
        If the radius is not positive, or there is no sample.

    Examples
    --------
    >>> found = tube_constants(lambda x: jnp.sum(x**4), jnp.array([[1.0], [2.0]]), 0.1, jax.random.key(0))
    >>> bool(abs(found.gradient[0] - 4 * 1.1**3) < 1e-12), bool(abs(found.growth[1] + 12 * 1.9**2) < 1e-12)
    (True, True)
    """
    radius = np.asarray(check_positive(radius, "radius"), jnp.result_type(*jax.tree.leaves(path)))
    num_samples = check_count(num_samples, "num_samples")
    return TubeConstants(*_measure(loss, path, radius, key, num_samples, _extremes if extremes is None else extremes))


@arguments.closed_form(values=arguments.points)
def interval_maxima(values: Float[Array | np.ndarray, "*batch times"]) -> Float[np.ndarray, "*batch intervals"]:
    """The larger of the values at the two ends of each interval.

    >>> interval_maxima(np.array([1.0, 3.0, 2.0])).tolist()
    [3.0, 3.0]
    """
    values = np.asarray(values)
    return np.maximum(values[..., :-1], values[..., 1:])


@jit
def _measure(loss, path, radius, key, num_samples, extremes):
    first = jax.tree.map(lambda leaf: leaf[0], path)
    size, unravel = ravel_pytree(first)[0].size, ravel_pytree(first)[1]
    points = jax.vmap(lambda theta: ravel_pytree(theta)[0])(path)

    def at(point):
        least, largest = extremes(loss, unravel(point))
        slope = jax.grad(lambda flat: loss(unravel(flat)))(point)
        return -least, jnp.maximum(jnp.abs(least), jnp.abs(largest)), jnp.linalg.norm(slope)

    def ball(given):
        centre, key = given
        nearby = centre[None, :] + radius * _offsets(key, num_samples, size, centre.dtype)
        found = jax.vmap(at)(jnp.concatenate([centre[None, :], nearby]))
        return tuple(jnp.max(each) for each in found)

    with jax.default_matmul_precision("highest"):
        return lax.map(ball, (points, jax.random.split(key, len(points))))


def _offsets(key, num, size, dtype):
    """Points of the unit ball, every other on its sphere."""
    key_direction, key_length = jax.random.split(key)
    directions = jax.random.normal(key_direction, (num, size), dtype)
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    lengths = jax.random.uniform(key_length, (num,), dtype) ** (1 / size)
    return directions * jnp.where(jnp.arange(num) % 2 == 0, jnp.ones((), dtype), lengths)[:, None]


def _extremes(loss, theta):
    flat, unravel = ravel_pytree(theta)
    spectrum = jnp.linalg.eigvalsh(jax.hessian(lambda x: loss(unravel(x)))(flat))
    return spectrum[0], spectrum[-1]
