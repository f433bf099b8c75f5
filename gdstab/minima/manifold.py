"""Points of M, its tangent and normal spaces, its dimension."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from gdstab._compiling import jit
from gdstab._numerics import rank_tolerance, tolerance
from gdstab._staging import one_by_one
from gdstab._types import LossFn, Point, Scalar, Theta
from gdstab._validate import as_theta, check_count
from gdstab.sampling import gaussian

Residual = Callable[[Theta], Array] | None


#
# The residual and its Jacobian
#


def flat_residual(loss: LossFn, theta: Theta, residual: Residual):
    """The residual as a function of flat vectors, the flat point, and the way back."""
    theta = as_theta(theta)
    residual = getattr(loss, "residual", None) if residual is None else residual
    if residual is None:
        raise ValueError(
            f"{type(loss).__name__} has no `residual`: give the loss a method `residual(theta)`, an array that is zero "
            "exactly on its minima, or pass `residual=`, e.g. lambda theta: network(theta, inputs) - targets."
        )
    flat, unravel = ravel_pytree(theta)
    return eqx.Partial(_evaluate, residual, unravel), flat, unravel


def flat_loss(loss: LossFn, unravel: Callable, x: Point) -> Scalar:
    """The loss of a flat vector."""
    return loss(unravel(x))


def _evaluate(residual, unravel, x):
    return ravel_pytree(residual(unravel(x)))[0]


@jit
def jacobian(r: Callable, x: Point) -> Float[Array, "outputs n"]:
    """The Jacobian of the residual, at full matmul precision."""
    with jax.default_matmul_precision("highest"):
        return jax.jacrev(r)(x)


def correct(r: Callable, x: Point) -> Point:
    """One Gauss-Newton step of least norm: orthogonal to M in the limit, quadratically convergent."""
    J = jacobian(r, x)
    return x - jnp.linalg.pinv(J, rtol=rank_tolerance(J.shape, J.dtype)) @ r(x)


def split(r: Callable, x: Point) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal rows that span the normal and the tangent space, by SVD of the Jacobian."""
    J = np.asarray(jacobian(r, x))
    _, s, Vt = np.linalg.svd(J)
    rank = int(np.sum(s > rank_tolerance(J.shape, J.dtype) * s.max(initial=0.0)))
    return Vt[:rank], Vt[rank:]


@jit
def residual_norm(r: Callable, x: Point) -> Scalar:
    """Euclidean norm of the residual."""
    return jnp.linalg.norm(r(x))


@jit
def residual_size(r: Callable, x: Point, J: Float[Array, "outputs n"]) -> Scalar:
    """What a residual is small against, in its own units: its value at 0, such as targets, and its slope times x."""
    origin = jnp.linalg.norm(r(jnp.zeros_like(x)))
    return jnp.where(jnp.isfinite(origin), origin, 0) + jnp.linalg.norm(J) * jnp.linalg.norm(x)


def off(r: Callable, x: Point) -> tuple[float, float]:
    """The norm of the residual, and up to which of it a point is taken to be on M."""
    bound = tolerance(x.dtype) * float(residual_size(r, x, jacobian(r, x)))
    return float(residual_norm(r, x)), bound


def require_minimum(r: Callable, x: Point) -> None:
    """Refuse a point that is not on M, and say how far off it is."""
    norm, bound = off(r, x)
    if not norm <= bound:
        raise ValueError(
            f"theta must lie on M, but its residual has norm {norm:.3g} (tolerance {bound:.1g}): move it there with "
            "`minima.project(loss, theta).theta`."
        )


#
# Points on M and the spaces there
#


class Projection(NamedTuple):
    """A point moved to M."""

    theta: Theta
    residual_norm: Scalar
    """What is left of the residual: near rounding if the projection succeeded."""


def project(loss: LossFn, theta: Theta, *, residual: Residual = None, max_steps: int = 256) -> Projection:
    r"""Move `theta` to M: Levenberg-Marquardt on $\lVert r \rVert^2$ (optimistix), then two Gauss-Newton steps.

    Close to M the limit is the orthogonal projection up to second order in the distance, and convergence is quadratic
    where the Jacobian of the residual has constant rank. Can be jitted and mapped. Nothing is raised where no minimum
    was reached: look at `residual_norm`.

    Raises
    ------
    ValueError
        If the loss has no `residual` and none is passed.

    Examples
    --------
    >>> from gdstab.losses import ScalarProduct
    >>> found = project(ScalarProduct(), jnp.array([2.0, 1.0]))
    >>> bool(abs(found.theta[0] * found.theta[1] - 1) < 1e-12)
    True
    """
    r, x, unravel = flat_residual(loss, theta, residual)
    x, norm = settle(r, x, check_count(max_steps, "max_steps"))
    return Projection(unravel(x), norm)


@jit
def settle(r: Callable, x: Point, max_steps: int = 256) -> tuple[Point, Scalar]:
    """Levenberg-Marquardt, then Gauss-Newton: the point reached and the norm of its residual."""
    tol = 64 * float(jnp.finfo(x.dtype).eps)
    solver = optx.LevenbergMarquardt(rtol=tol, atol=tol)
    # Its damping and tolerances are in units of 1: powers of two, so that those change no rounding.
    unit, height = _power_of_two(jnp.max(jnp.abs(x), initial=0)), _power_of_two(jnp.linalg.norm(r(x)))
    with jax.default_matmul_precision("highest"):
        # Its own numbers are of the default dtype, and refuse to be mixed with points of another.
        wide = lambda y: y.astype(jnp.result_type(float))  # noqa: E731
        scaled = lambda y, _: wide(r(y.astype(x.dtype) * unit) / height)  # noqa: E731
        found = optx.least_squares(scaled, solver, wide(x / unit), max_steps=max_steps, throw=False).value
        x = found.astype(x.dtype) * unit
    polished = correct(r, correct(r, x))
    before, after = jnp.linalg.norm(r(x)), jnp.linalg.norm(r(polished))
    better = after <= before  # false where the polished point is not finite
    return jnp.where(better, polished, x), jnp.where(better, after, before)


def _power_of_two(length: Scalar) -> Scalar:
    """The nearest one; 1 for 0 and what is not finite."""
    usable = (length > 0) & jnp.isfinite(length)
    return jnp.where(usable, jnp.exp2(jnp.round(jnp.log2(jnp.where(usable, length, 1)))), 1)


def normal_space(loss: LossFn, theta: Theta, *, residual: Residual = None) -> Float[Array, "codim n"]:
    r"""Orthonormal rows that span the normal space of M at `theta`, in the order of `ravel_pytree(theta)`.

    The right singular vectors of the residual's Jacobian that belong to its rank: singular values above
    `max(n eps, eps^(3/4))` times the largest, $8 \sqrt n$ for n where that is less. ValueError if `theta` is not on M.
    """
    r, x, _ = flat_residual(loss, theta, residual)
    require_minimum(r, x)
    return jnp.asarray(split(r, x)[0])


def tangent_space(loss: LossFn, theta: Theta, *, residual: Residual = None) -> Float[Array, "dim n"]:
    """Orthonormal rows that span the tangent space of M at `theta`, the complement of `normal_space`.

    Examples
    --------
    >>> from gdstab.losses import ScalarProduct
    >>> tangent_space(ScalarProduct(), jnp.array([1.0, 1.0])).round(6)[0] @ jnp.ones(2)
    Array(0., dtype=float64)
    """
    r, x, _ = flat_residual(loss, theta, residual)
    require_minimum(r, x)
    return jnp.asarray(split(r, x)[1])


def dimension(loss: LossFn, theta: Theta, *, residual: Residual = None) -> int:
    """Dimension of M at `theta`: parameters minus the rank of the residual's Jacobian. ValueError if not on M."""
    return tangent_space(loss, theta, residual=residual).shape[0]


def sample(
    loss: LossFn,
    key: PRNGKeyArray,
    num: int,
    like: Theta,
    *,
    spread: float = 1.0,
    residual: Residual = None,
    map: Callable = one_by_one,  # noqa: A002
) -> Projection:
    r"""Project `num` Gaussian points, of standard deviation `spread`, to M; leaves have shape [num, ...].

    `like` gives the structure and shapes of one point. The law on M is the image of the Gaussian, not a uniform
    measure. For linear networks `theory.factorisations.random_factorisation` draws exact minima instead.
    """
    flat, unravel = ravel_pytree(as_theta(like))
    draws = gaussian(key, num, flat.shape[0], spread, dtype=flat.dtype)
    return map(lambda theta: project(loss, theta, residual=residual), jax.vmap(unravel)(draws))
