r"""Where the Jacobian $I - \eta \nabla^2 L$ of gradient descent is singular."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab import curvature
from gdstab._compiling import jit
from gdstab._types import LossFn, Scalar, Theta
from gdstab._validate import check_box, check_positive, check_resolution


class Determinant(NamedTuple):
    """A determinant as `sign * exp(log_abs)`; `sign` is 0 and `log_abs` -inf where it vanishes."""

    sign: Scalar
    log_abs: Scalar


def jacobian_determinant(loss: LossFn, theta: Theta, step_size: Scalar | float) -> Determinant:
    r"""$\det(I - \eta \nabla^2 L(\theta))$ by `slogdet`; the map is locally invertible where it is not zero.

    >>> import jax.numpy as jnp
    >>> sign, log_abs = jacobian_determinant(lambda x: jnp.sum(x**2), jnp.ones(2), 0.75)
    >>> print(sign * jnp.exp(log_abs))
    0.25
    """
    H = curvature.hessian(loss, theta)
    with jax.default_matmul_precision("highest"):
        return Determinant(*jnp.linalg.slogdet(jnp.eye(*H.shape, dtype=H.dtype) - jnp.asarray(step_size, H.dtype) * H))


@jit
def _one_by_one(fn: Callable, points):
    return lax.map(fn, points)


class _PlaneDeterminant(eqx.Module):
    r"""$(s, t) \mapsto \det(I - \eta H)$ at $\theta_0 + s u + t v$."""

    loss: LossFn
    origin: Float[Array, " n"]
    directions: Float[Array, "2 n"]
    unravel: Callable
    step_size: Float[Array, ""]

    def __call__(self, coordinates):
        point = self.origin + jnp.matmul(coordinates, self.directions, precision="highest")
        return jacobian_determinant(lambda x: self.loss(self.unravel(x)), point, self.step_size)


def singular_set(
    loss: LossFn,
    box,
    step_size: float,
    *,
    resolution: int | tuple[int, int] = 201,
    plane: tuple[Theta, Theta, Theta] | None = None,
    map_points: Callable = _one_by_one,
) -> list[Float[np.ndarray, "vertices 2"]]:
    r"""The set $S(G) = \{\det(I - \eta \nabla^2 L) = 0\}$ on a plane, as polygonal curves in the plane's coordinates.

    Parameters
    ----------
    box
        `((s_min, s_max), (t_min, t_max))`: the window in the coordinates of the plane.
    resolution
        Grid points per axis, at least 2. Curves come from marching squares; where $\det$ touches zero without
        changing sign, or two curves pass within one cell, they can be missed.
    plane
        `(origin, direction_s, direction_t)`, each shaped as `theta`; by default the two coordinates of a loss whose
        `theta` is a vector of two.
    map_points
        `map_points(fn, points) -> values`; `ensembles.map_points` uses all cores, the default one.

    Returns
    -------
    A list of curves; closed ones repeat their first vertex. Empty if there is none in the window.
    """
    from contourpy import LineType, contour_generator  # noqa: PLC0415  (optional: the core runs without it)

    step_size = check_positive(step_size, "step_size")
    sides, counts = check_box(box, 2), check_resolution(resolution, 2)
    if min(counts) < 2:
        raise ValueError(f"resolution: expected at least 2 points per axis for contours, got {counts}; raise it")
    origin, first, second = plane if plane is not None else (jnp.zeros(2), *jnp.eye(2))
    flat, unravel = ravel_pytree(origin)
    directions = jnp.stack([ravel_pytree(first)[0], ravel_pytree(second)[0]])
    if directions.shape[1:] != flat.shape:
        raise ValueError(
            f"plane: expected directions of {flat.size} entries like its origin, got {directions.shape[1]}"
        )
    s, t = (np.linspace(*side, count, dtype=flat.dtype) for side, count in zip(sides, counts, strict=True))
    points = np.stack(np.meshgrid(s, t), axis=-1).reshape(-1, 2)
    value = _PlaneDeterminant(loss, flat, directions, unravel, jnp.asarray(step_size, flat.dtype))
    sign, log_abs = (np.asarray(part, float) for part in map_points(value, jnp.asarray(points)))
    log_abs = np.where(np.isfinite(sign), log_abs, np.nan)
    height = sign * np.exp(log_abs - np.nanmax(log_abs, initial=-np.inf, where=log_abs > -np.inf))
    # Where the Hessian is not finite there is nothing to draw.
    height = np.ma.masked_invalid(height.reshape(len(t), len(s)))
    return contour_generator(s, t, height, line_type=LineType.Separate).lines(0.0)


class NonSingularity(NamedTuple):
    """What sampled points say about the map theta -> theta - eta grad L being non-singular (null sets pull back)."""

    share_singular: float
    """Share of the points where the Jacobian is singular to within the tolerance."""
    share_negative: float
    """Share where the determinant is negative; strictly between 0 and 1 there is a singular set between them."""
    constant: bool
    """Whether the determinant is the same at all points, as it is for every quadratic loss."""
    singular: bool
    """Whether it is singular at all points: the map then sends sets of positive measure to null sets."""


class _Factors(eqx.Module):
    r"""The sign and $\log|\cdot|$ of $\det(I - \eta H)$, and its smallest factor against the largest."""

    loss: LossFn
    step_size: Float[Array, ""]

    def __call__(self, theta):
        values = curvature.eigenvalues(self.loss, theta)
        factors = 1 - self.step_size * values
        size = jnp.abs(factors)
        relative = jnp.min(size) / jnp.max(1 + jnp.abs(self.step_size * values))
        return jnp.prod(jnp.sign(factors)), jnp.sum(jnp.log(size)), relative


def non_singularity(
    loss: LossFn,
    points: Theta,
    step_size: float,
    *,
    tol: float | None = None,
    map_points: Callable = _one_by_one,
) -> NonSingularity:
    r"""Look for singular Jacobians $I - \eta \nabla^2 L$ at `points` [points, ...].

    $|\det|$ counts as zero where its smallest factor $|1 - \eta\lambda_i|$ is at most `tol` times the scale
    $1 + \eta\max|\lambda_i|$: a product of many factors below one would pass under any fixed bound. By default `tol`
    is $\epsilon^{3/4}$. For an analytic loss with a non-constant determinant the singular set is null and the map
    non-singular, so `share_singular` is 0 almost surely. The one failure is a constant determinant 0: linear
    regression (a network with $h = 1$ layer) at $\eta = 1/\lambda_i$, where `singular` is True. Points without a
    finite Hessian are left out.
    """
    size = check_positive(step_size, "step_size")
    dtype = jnp.result_type(*jax.tree.leaves(points))
    sign, log_abs, relative = map(np.asarray, map_points(_Factors(loss, jnp.asarray(size, dtype)), points))
    if not (finite := np.isfinite(relative)).any():
        raise ValueError(
            "points: expected a finite Hessian at one of them at least, got none; sample nearer the origin"
        )
    sign, log_abs, relative = sign[finite], log_abs[finite], relative[finite]
    eps = float(jnp.finfo(dtype).eps)
    zero = relative <= (eps**0.75 if tol is None else tol)
    singular = bool(zero.all())
    same = not zero.any() and bool((sign == sign[0]).all()) and bool(np.ptp(log_abs) <= 10 * eps**0.5)
    share_negative = float(np.mean((sign < 0) & ~zero))
    return NonSingularity(float(zero.mean()), share_negative, singular or same, singular)
