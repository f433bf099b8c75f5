r"""Stability of descent at a point: multipliers of the update map, thresholds, kinds of critical point, det(I - eta H).

Everything is linearisation, written for one point; `multipliers` takes any update rule as an argument, the rest is
about plain gradient descent, $G(\theta) = \theta - \eta \nabla L(\theta)$ with $DG = I - \eta \nabla^2 L$.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float, Int8, Int32

from gdstab import curvature
from gdstab._types import LossFn, Scalar, State, Theta
from gdstab._validate import check_box, check_positive, check_resolution
from gdstab.curvature import Inertia


class Kind(enum.IntEnum):
    """What a critical point is, by the signs of its Hessian's eigenvalues; int8 on the device."""

    MINIMUM = 0  # none negative, and the loss is at its floor or none is zero
    STRICT_SADDLE = 1  # at least one negative; a maximum counts as one
    DEGENERATE = 2  # the second order does not decide, or the Hessian is not finite


class Classification(NamedTuple):
    r"""The kind (a `Kind`) and $(n_-, n_0, n_+)$."""

    kind: Int8[Array, ""]
    inertia: Inertia


class Stability(enum.IntEnum):
    """Whether a fixed point of gradient descent is stable in the sense of Lyapunov; int8 on the device."""

    UNDECIDED = 0  # a multiplier on the unit circle: linearisation says nothing
    STABLE = 1
    UNSTABLE = 2


class Determinant(NamedTuple):
    """A determinant as `sign * exp(log_abs)`; `sign` is 0 and `log_abs` -inf where it vanishes."""

    sign: Scalar
    log_abs: Scalar


def multipliers(rule, loss: LossFn, state: State, step_size: Scalar | float) -> Complex[Array, " n"]:
    r"""Eigenvalues of the Jacobian of the whole update map at `state`, largest modulus first.

    For gradient descent these are $1 - \eta \lambda_i(\nabla^2 L)$; for heavy ball with momentum $\beta$ the roots of
    $\mu^2 - (1 + \beta - \eta\lambda_i)\mu + \beta$ (Polyak 1964). A fixed point is linearly stable if all lie inside
    the unit circle. Defective multipliers are only accurate to $\sqrt\epsilon$.

    Parameters
    ----------
    rule
        Anything with `step(loss, state, step_size) -> state`, such as an `updates.UpdateRule`.
    state
        Arrays. Integer ones (step counters) are held fixed and left out: $n$ counts the floating-point entries.

    Raises
    ------
    ValueError
        If the state has no floating-point leaf.
    """
    moving, fixed = eqx.partition(state, eqx.is_inexact_array)
    if not jax.tree.leaves(moving):
        raise ValueError("expected a state with floating-point arrays, got none; pass `rule.init(theta, step_size)`")
    flat, unravel = ravel_pytree(moving)

    def step(x):
        moved = rule.step(loss, eqx.combine(unravel(x), fixed), step_size)
        return ravel_pytree(eqx.filter(moved, jax.tree.map(eqx.is_inexact_array, state)))[0]

    with jax.default_matmul_precision("highest"):
        jacobian = jax.jacfwd(step)(flat)
    # General eigenvalues, since the Jacobian of momentum is not symmetric. TPUs have none: they go through the host.
    values = lax.platform_dependent(jacobian, tpu=_host_eigenvalues, default=jnp.linalg.eigvals)
    return values[jnp.argsort(-jnp.abs(values))]


def _host_eigenvalues(matrix):
    dtype = np.result_type(matrix.dtype, np.complex64)
    shape = jax.ShapeDtypeStruct(matrix.shape[:-1], dtype)

    def call(values):
        return np.linalg.eigvals(values).astype(dtype)

    return jax.pure_callback(call, shape, matrix, vmap_method="broadcast_all")


def threshold_from(sharpness: Callable[[LossFn, Theta], Scalar]) -> Callable[[LossFn, Theta], Scalar]:
    r"""Build `(loss, theta) -> 2 / λ_max` from whatever computes $\lambda_{\max}$ (dense, Lanczos, a formula)."""

    def threshold(loss, theta):
        top = sharpness(loss, theta)
        safe = jnp.where(top > 0, top, 1)  # the unused branch must stay differentiable
        return jnp.where(top > 0, 2 / safe, jnp.where(jnp.isnan(top), jnp.nan, jnp.inf))

    return threshold


def threshold(loss: LossFn, theta: Theta) -> Scalar:
    r"""$2/\lambda_{\max}(\nabla^2 L(\theta))$: the largest linearly stable step size at a minimum (inf if $\le 0$).

    >>> import jax.numpy as jnp
    >>> print(threshold(lambda t: 0.5 * (t[0] * t[1] - 1) ** 2, jnp.array([1.0, 1.0])))  # 2 / (x^2 + y^2)
    1.0
    """
    return threshold_from(curvature.sharpness)(loss, theta)


def classify(
    loss: LossFn, theta: Theta, *, tol: Scalar | float | None = None, loss_tol: Scalar | float = 1e-10
) -> Classification:
    r"""Kind of the critical point at `theta`, where an orbit ended; with $(n_-, n_0, n_+)$.

    `MINIMUM`: no eigenvalue below $-\text{tol}$, and either the loss is at its floor ($L - L_{\text{floor}} \le$
    `loss_tol`, with `loss.loss_floor`, 0 if it has none) or no eigenvalue is within $\pm\text{tol}$. Minima on a
    manifold have zero eigenvalues, and only the floor tells them from degenerate points. `STRICT_SADDLE`: an
    eigenvalue below $-\text{tol}$. `DEGENERATE`: the rest. That the gradient vanishes is not tested.

    Parameters
    ----------
    tol
        By default $\sqrt\epsilon \max|\lambda_i|$, wider than that of `curvature.inertia`, because orbits end near
        critical points and not on them. At an excess loss $\delta = L - L_{\text{floor}}$ within `loss_tol` the zero
        eigenvalues of a least-squares loss are off by about $\sqrt\delta\,\|D^2 f\|$; there `tol` grows to
        $10 \sqrt{\delta \max|\lambda_i|} / \|\theta\|$, which has the same scaling, but to no more than
        $10^{-3} \max|\lambda_i|$. A number given is taken as it is.
    """
    return _classify(loss, theta, tol, loss_tol)[1]


def _classify(loss, theta, tol, loss_tol):
    """The Hessian's eigenvalues, and what `classify` says of them."""
    flat_loss, flat = curvature.flatten(loss, theta)
    values = curvature.eigenvalues(flat_loss, flat)
    with jax.default_matmul_precision("highest"):
        excess = flat_loss(flat) - jnp.asarray(getattr(loss, "loss_floor", 0.0), flat.dtype)
    at_floor = excess <= jnp.asarray(loss_tol, flat.dtype)
    if tol is None:
        scale = jnp.max(jnp.abs(values))
        off = (
            10
            * jnp.sqrt(jnp.maximum(excess, 0) * scale)
            / jnp.maximum(jnp.linalg.norm(flat), jnp.finfo(flat.dtype).tiny)
        )
        tol = jnp.sqrt(jnp.finfo(flat.dtype).eps).astype(flat.dtype) * scale
        tol = jnp.where(at_floor, jnp.maximum(tol, jnp.minimum(off, 1e-3 * scale)), tol)
    counts = curvature.count_signs(values, tol)
    minimum = (counts.negative == 0) & (at_floor | (counts.zero == 0)) & jnp.all(jnp.isfinite(values))
    kind = jnp.where(minimum, Kind.MINIMUM, Kind.DEGENERATE)
    kind = jnp.where(counts.negative > 0, Kind.STRICT_SADDLE, kind)
    return values, Classification(kind.astype(jnp.int8), counts)


def lyapunov_stable(
    loss: LossFn,
    theta: Theta,
    step_size: Scalar | float,
    *,
    tol: Scalar | float | None = None,
    loss_tol: Scalar | float = 1e-10,
) -> Int8[Array, ""]:
    r"""Whether the critical point `theta` is a stable fixed point of gradient descent: a `Stability`.

    `UNSTABLE` if a multiplier $1 - \eta\lambda_i$ lies outside $[-1, 1]$: $\lambda_{\min} < 0$ or
    $\eta\lambda_{\max} > 2$. `STABLE` at a minimum (as `classify` says) with $\eta\lambda_{\max} < 2$, for an analytic
    loss: the descent lemma and the Lojasiewicz inequality bound the length of nearby orbits, so zero eigenvalues do no
    harm (Absil, Mahony and Andrews 2005, SIAM J. Optim. 16, section 3). Otherwise `UNDECIDED`;
    so in particular at $\eta\lambda_{\max} = 2$ to within $\sqrt\epsilon$, where Theorem 15 of paper A says unstable
    and higher orders decide.
    """
    values, (kind, counts) = _classify(loss, theta, tol, loss_tol)
    top = jnp.asarray(step_size, values.dtype) * values[-1]
    slack = jnp.finfo(top.dtype).eps ** 0.5 * 2
    stable = (kind == Kind.MINIMUM) & (top < 2 - slack)
    unstable = (counts.negative > 0) | (top > 2 + slack)
    decided = jnp.where(stable, Stability.STABLE, Stability.UNDECIDED)
    return jnp.where(unstable, Stability.UNSTABLE, decided).astype(jnp.int8)


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


def center_stable_dimension(
    loss: LossFn, theta: Theta, step_size: Scalar | float, tol: Scalar | float | None = None
) -> Int32[Array, ""]:
    r"""Number of multipliers of modulus at most 1: the $\lambda_i$ in $[0, 2/\eta]$, both ends widened by `tol`.

    It is the dimension of the centre-stable manifold of the fixed point `theta` (Shub 1987, theorem III.7). If it is
    less than $n$ at every point of a set, and the map is non-singular, almost no orbit converges to that set
    (Lee et al. 2019, Math. Program. 176, theorem 2). By default `tol` is $\sqrt\epsilon \max|\lambda_i|$.
    """
    values = curvature.eigenvalues(loss, theta)
    if tol is None:
        tol = jnp.finfo(values.dtype).eps ** 0.5 * jnp.max(jnp.abs(values))
    tol = jnp.asarray(tol, values.dtype)
    inside = (values >= -tol) & (values <= 2 / jnp.asarray(step_size, values.dtype) + tol)
    return jnp.sum(inside, dtype=jnp.int32)


@eqx.filter_jit
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

    check_positive(step_size, "step_size")
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
