"""The flattest point of M: a minimax problem on a manifold."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from gdstab import curvature
from gdstab._compiling import jit
from gdstab._numerics import rank_tolerance, tolerance
from gdstab._types import LossFn, Point, Theta
from gdstab.minima.manifold import (
    Residual,
    flat_loss,
    flat_residual,
    jacobian,
    off,
    residual_norm,
    residual_size,
    settle,
    split,
)

BETA_LADDER = (3e0, 3e1, 3e2, 3e3, 3e4, 3e5, 3e6, 3e7)
"""Values of beta, in units of one over the sharpness at the start, with which `flattest` smooths the maximum."""


class Flattest(NamedTuple):
    """The flattest minimum found, and how far to trust it."""

    theta: Theta
    sharpness: float
    r"""$\lambda_{max}$ there: an upper bound on the minimum over M."""
    stationarity: float
    """Norm of the least-norm combination of the gradients on M that the smoothing gives, over the sharpness."""
    residual_norm: float
    reached: Float[np.ndarray, " starts"]
    """The sharpness reached from every start."""


def flattest(
    loss: LossFn, starts: Sequence[Theta], *, residual: Residual = None, max_iterations: int = 300
) -> Flattest:
    r"""Minimise $\lambda_{max}(\nabla^2 L)$ over M, from several starts.

    The maximum is not smooth where eigenvalues meet, so it is replaced by
    $\beta^{-1} \log \sum_i e^{\beta \lambda_i}$, which exceeds it by at most $\log(n) / \beta$. For a rising ladder of
    $\beta$, BFGS runs in a chart of M centred at the last point, $\theta(z) = \theta_0 + T z + N y(z)$ with T, N
    the tangent and normal spaces and y by Newton's method; the gradient in z is that of the implicit function theorem.
    The ladder ends at a relative excess near $10^{-7}$, which is also the accuracy where eigenvalues meet; where the
    largest is simple, the accuracy is that of BFGS.

    Parameters
    ----------
    starts
        Points to begin from, for example `[project(...).theta, ...]`; each is projected first. Starts that do not
        reach M are left out.

    Raises
    ------
    ValueError
        If the loss has no residual, or no start reaches M.
    """
    found = []
    for theta in starts:
        r, x, unravel = flat_residual(loss, theta, residual)
        x, _ = settle(r, x)
        norm, bound = off(r, x)
        if norm <= bound:
            found.append(_descend(eqx.Partial(flat_loss, loss, unravel), r, x, max_iterations))
    if not found:
        raise ValueError(
            f"none of the {len(starts)} starts could be projected to M: is the minimum attained? Try others."
        )
    tops = np.array([top for _, top, _ in found])
    x, top, stationarity = found[int(np.argmin(tops))]
    return Flattest(unravel(x), float(top), stationarity, float(residual_norm(r, x)), tops)


class _Chart(NamedTuple):
    """Where M is parametrised, and how smooth the maximum is made."""

    loss: Callable
    residual: Callable
    centre: Point
    tangent: Float[Array, "dim n"]
    normal: Float[Array, "codim n"]
    beta: Array


def _descend(on_flat, r, x, max_iterations):
    """Climb the ladder of `flattest` from one point of M."""
    scale = _top(on_flat, x)
    best, best_top, stationarity = x, float(scale), np.inf
    for beta in BETA_LADDER:
        normal, tangent = (jnp.asarray(rows) for rows in split(r, best))
        if tangent.shape[0] == 0:
            return best, best_top, 0.0
        chart = _Chart(on_flat, r, best, tangent, normal, jnp.asarray(beta, x.dtype) / scale)

        def objective(z, chart=chart):
            value, gradient, _ = _smooth_sharpness(chart, jnp.asarray(z, x.dtype))
            return float(value / scale), np.asarray(gradient / scale, np.float64)

        options = {"maxiter": max_iterations, "gtol": tolerance(x.dtype, 1e-2)}
        z = minimize(objective, np.zeros(tangent.shape[0]), jac=True, method="BFGS", options=options).x
        _, gradient, moved = _smooth_sharpness(chart, jnp.asarray(z, x.dtype))
        top = float(_top(on_flat, moved))
        norm, bound = off(r, moved)
        if norm <= bound and top < best_top:
            best, best_top = moved, top
            stationarity = float(jnp.linalg.norm(gradient) / scale)
    return best, best_top, stationarity


@jit
def _top(on_flat, x):
    return curvature.eigenvalues(on_flat, x)[-1]


@jit
def _smooth_sharpness(chart, z):
    """Value, gradient in the chart's z, and the point of M; the value is infinite outside the chart."""
    on_flat, r, centre, tangent, normal, beta = chart
    start = centre + z @ tangent
    rcond = rank_tolerance((1, centre.size), centre.dtype)

    def newton(_, x):
        return x - (jnp.linalg.pinv(jacobian(r, x) @ normal.T, rtol=rcond) @ r(x)) @ normal

    x = jax.lax.fori_loop(0, 12, newton, start)

    def smooth(x):
        return jax.nn.logsumexp(beta * curvature.eigenvalues(on_flat, x)) / beta

    value, gradient = jax.value_and_grad(smooth)(x)
    J = jacobian(r, x)
    pulled = (normal @ gradient) @ jnp.linalg.pinv(J @ normal.T, rtol=rcond) @ J  # implicit function theorem
    inside = jnp.linalg.norm(r(x)) <= tolerance(x.dtype, 1e-2) * residual_size(r, x, J)
    return jnp.where(inside, value, jnp.inf), tangent @ (gradient - pulled), x
