r"""Where the Jacobian $I - \eta \nabla^2 L$ of gradient descent is singular."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._numerics import length, rank_tolerance
from gdstab._staging import one_by_one, staged
from gdstab._types import LossFn, Scalar, Theta
from gdstab._validate import check_box, check_positive, check_resolution


class Determinant(NamedTuple):
    """A determinant as `sign * exp(log_abs)`; `sign` is 0 and `log_abs` -inf where it vanishes."""

    sign: Scalar
    log_abs: Scalar


@arguments.closed_form(loss=arguments.function, theta=arguments.finite_parameters, step_size=arguments.positive)
def jacobian_determinant(loss: LossFn, theta: Theta, step_size: Scalar | float) -> Determinant:
    r"""$\det(I - \eta \nabla^2 L(\theta))$ by `slogdet`; the map is locally invertible where it is not zero.

    >>> import jax.numpy as jnp
    >>> sign, log_abs = jacobian_determinant(lambda x: jnp.sum(x**2), jnp.ones(2), 0.75)
    >>> print(sign * jnp.exp(log_abs))
    0.25
    """
    return Determinant(*staged(_log_determinant, curvature.hessian(loss, theta), step_size))


def _log_determinant(H, step_size):
    with jax.default_matmul_precision("highest"):
        return jnp.linalg.slogdet(jnp.eye(*H.shape, dtype=H.dtype) - jnp.asarray(step_size, H.dtype) * H)


class _PlaneHeight(eqx.Module):
    r"""$(s, t) \mapsto \operatorname{sign} \det M / \|M^{-1} b\|$ with $M = I - \eta H$ at $\theta_0 + s u + t v$.

    A product of n factors leaves the range of floats, and one that vanishes with 199 others draws a plateau. This
    vanishes where the determinant does, linearly in its smallest factor, b being a vector in general position.
    """

    loss: LossFn
    origin: Float[Array, " n"]
    directions: Float[Array, "2 n"]
    unravel: Callable
    step_size: Float[Array, ""]

    def __call__(self, coordinates):
        point = self.origin + jnp.matmul(coordinates, self.directions, precision="highest")
        H = curvature.hessian(lambda x: self.loss(self.unravel(x)), point)
        size = len(H)
        with jax.default_matmul_precision("highest"):
            lu, swaps = jax.scipy.linalg.lu_factor(jnp.eye(size, dtype=H.dtype) - self.step_size * H)
            found = jax.scipy.linalg.lu_solve((lu, swaps), jnp.cos(2.4 * jnp.arange(1, size + 1, dtype=H.dtype)))
        swapped = jnp.where(swaps == jnp.arange(size, dtype=swaps.dtype), 1, -1).astype(H.dtype)
        sign = jnp.prod(jnp.sign(jnp.diagonal(lu)) * swapped)
        height = sign / length(found)
        return jnp.where((sign == 0) & jnp.all(jnp.isfinite(H)), 0, height)


@arguments.closed_form(loss=arguments.function)
def singular_set(
    loss: LossFn,
    box,
    step_size: float,
    *,
    resolution: int | tuple[int, int] = 201,
    plane: tuple[Theta, Theta, Theta] | None = None,
    map_points: Callable = one_by_one,
) -> list[Float[np.ndarray, "vertices 2"]]:
    r"""The set $S(G) = \{\det(I - \eta \nabla^2 L) = 0\}$ on a plane, as polygonal curves in the plane's coordinates.

    Parameters
    ----------
    box
        `((s_min, s_max), (t_min, t_max))`: the window in the coordinates of the plane.
    resolution
        Grid points per axis, at least 2. Curves come from marching squares, to within a cell; where $\det$ touches zero
        without changing sign, or two curves pass within one cell, they can be missed.
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
    value = _PlaneHeight(loss, flat, directions, unravel, jnp.asarray(step_size, flat.dtype))
    height = np.asarray(map_points(value, jnp.asarray(points)), float)
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
    r"""The sign and $\log|\cdot|$ of $\det(I - \eta H)$, its smallest factor, and the sum of their inverses.

    Both are in units of $1 + \eta \max|\lambda_i|$, to which the factors are rounded.
    """

    loss: LossFn
    step_size: Float[Array, ""]

    def __call__(self, theta):
        values = curvature.eigenvalues(self.loss, theta)
        factors = 1 - self.step_size * values
        size = jnp.abs(factors)
        relative = size / jnp.max(1 + jnp.abs(self.step_size * values))
        return jnp.prod(jnp.sign(factors)), jnp.sum(jnp.log(size)), jnp.min(relative), jnp.sum(1 / relative)


@arguments.closed_form(loss=arguments.function, tol=arguments.tolerance)
def non_singularity(
    loss: LossFn, points: Theta, step_size: float, *, tol: float | None = None, map_points: Callable = one_by_one
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
    sign, log_abs, relative, condition = map(np.asarray, map_points(_Factors(loss, jnp.asarray(size, dtype)), points))
    if not (finite := np.isfinite(relative)).any():
        raise ValueError(
            "points: expected a finite Hessian at one of them at least, got none; sample nearer the origin"
        )
    sign, log_abs, relative, condition = (part[finite] for part in (sign, log_abs, relative, condition))
    rounded = rank_tolerance((1,), dtype)
    zero = relative <= (rounded if tol is None else tol)
    singular = bool(zero.all())
    same = not zero.any() and bool((sign == sign[0]).all()) and bool(np.ptp(log_abs) <= rounded * condition.max())
    share_negative = float(np.mean((sign < 0) & ~zero))
    return NonSingularity(float(zero.mean()), share_negative, singular or same, singular)
