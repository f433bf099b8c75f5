"""Traces and spectral densities from random vectors, with standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._staging import staged
from gdstab._types import LossFn, Point, Theta
from gdstab._validate import check_count
from gdstab.curvature.exact import flatten, hvp
from gdstab.curvature.extremes import extreme_eigenvalues, lanczos


class Estimate(NamedTuple):
    """A random estimate and its standard error."""

    value: Float[Array, "*shape"]
    sem: Float[Array, "*shape"]


@recorded({"density": "eigenvalue", "sem": "eigenvalue"}, coords={"eigenvalue": "grid"})
class SpectralDensity(NamedTuple):
    """A smoothed density of eigenvalues (it integrates to 1) on a grid, with its standard error pointwise."""

    grid: Float[Array, " grid"]
    density: Float[Array, " grid"]
    sem: Float[Array, " grid"]


def _monte_carlo(integrand: Callable, like: Point, key: Key[Array, ""], num_samples: int) -> Estimate:
    """Average `integrand(v)` over random signs `v` through matfree, with an unbiased standard error."""
    from matfree import stochtrace  # noqa: PLC0415  (optional: the core runs without it)

    num_samples = check_count(num_samples, "num_samples", least=2)  # one has no standard error
    sampler = stochtrace.sampler_signs(like, num=num_samples)
    estimate = stochtrace.estimator_monte_carlo_mean_and_sem(lambda _, v: integrand(v), sampler=sampler)
    with jax.default_matmul_precision("highest"):
        value, sem = estimate(None, key)
    return Estimate(value, sem * (num_samples / (num_samples - 1)) ** 0.5)  # matfree divides by n, not n - 1


def trace(loss: LossFn, theta: Theta, key: Key[Array, ""], *, num_samples: int = 64) -> Estimate:
    r"""$\operatorname{tr} \nabla^2 L$ by `num_samples` Hessian-vector products with random signs (Hutchinson 1990)."""
    flat_loss, flat = flatten(loss, theta)

    def estimate(flat, key):
        return _monte_carlo(lambda v: jnp.vdot(v, hvp(flat_loss, flat, v)), flat, key, num_samples)

    return staged(estimate, flat, key)


@entry
def spectral_density(
    loss: LossFn,
    theta: Theta,
    key: Key[Array, ""],
    *,
    grid: Float[Array, " grid"] | None = None,
    width: float | None = None,
    num_matvecs: int = 64,
    num_samples: int = 16,
) -> SpectralDensity:
    r"""$\rho(t) = \frac1n \sum_i g_\sigma(t - \lambda_i)$ by stochastic Lanczos quadrature, with standard errors.

    $g_\sigma$ is the Gaussian of standard deviation $\sigma$ = `width`, by default 2 % of the range of the spectrum;
    the grid has by default 256 points and reaches $5\sigma$ beyond it. Lin, Saad and Yang (2016, SIAM Review 58);
    Ghorbani, Krishnan and Xiao (2019, arXiv:1901.10159, algorithm 1). Averages come from matfree. The quadrature is
    exact once `num_matvecs` reaches $n$; the standard error speaks of the random signs only.
    """
    flat_loss, flat = flatten(loss, theta)
    return staged(
        lambda *arrays: _density(flat_loss, *arrays, num_matvecs=num_matvecs, num_samples=num_samples),
        flat, key, grid, None if width is None else jnp.asarray(width, flat.dtype),
    )  # fmt: skip


def _density(flat_loss, flat, key, grid, width, *, num_matvecs, num_samples) -> SpectralDensity:
    key_range, key_signs, key_fresh = jax.random.split(key, 3)
    n, dtype = flat.shape[0], flat.dtype
    if grid is None or width is None:
        low, high = extreme_eigenvalues(flat_loss, flat, num_matvecs=num_matvecs, key=key_range)
        spread, largest = high.value - low.value, jnp.maximum(jnp.abs(low.value), jnp.abs(high.value))
        floor = jnp.sqrt(jnp.finfo(dtype).eps).astype(dtype) * jnp.where(largest > 0, largest, 1)
        sigma = width if width is not None else jnp.maximum(spread / 50, floor)  # a repeated eigenvalue has no range
        grid = grid if grid is not None else jnp.linspace(low.value - 5 * sigma, high.value + 5 * sigma, 256)
    else:
        sigma = width

    def density(v):
        _, T = lanczos(lambda u: hvp(flat_loss, flat, u), v, key_fresh, min(num_matvecs, n))
        nodes, vectors = jnp.linalg.eigh(T)
        z = (grid[:, None] - nodes[None, :]) / sigma
        return jnp.exp(-(z**2) / 2) @ vectors[0] ** 2 / (sigma * (2 * np.pi) ** 0.5)

    value, sem = _monte_carlo(density, flat, key_signs, num_samples)
    return SpectralDensity(grid, value, sem)
