"""What a critical point is, and whether gradient descent is stable there."""

import enum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int8, Int32

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._staging import staged
from gdstab._types import LossFn, Scalar, Theta
from gdstab.curvature import Inertia

_RAYS, _LENGTHS = 4, 49
_ROUNDINGS = 64  # what rounding may leave of a loss, in units of epsilon times its floor


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


@arguments.closed_form(
    loss=arguments.function, theta=arguments.parameters, tol=arguments.tolerance, loss_tol=arguments.tolerance
)
def classify(
    loss: LossFn, theta: Theta, *, tol: Scalar | float | None = None, loss_tol: Scalar | float | None = None
) -> Classification:
    r"""Kind of the critical point at `theta`, where an orbit ended; with $(n_-, n_0, n_+)$.

    `MINIMUM`: no eigenvalue below $-\text{tol}$, and either the loss is at the floor that it declares
    ($L - L_{\text{floor}} \le$ `loss_tol` with `loss.loss_floor`) or no eigenvalue is within $\pm\text{tol}$. Minima
    on a manifold have zero eigenvalues, and only the floor tells them from degenerate points: a function that declares
    none is taken to have the floor 0 as long as it is nowhere below on some rays from `theta`, which $x^2 - y^4$ is.
    `STRICT_SADDLE`: an eigenvalue below $-\text{tol}$. `DEGENERATE`: the rest. That the gradient vanishes is not
    tested.

    Parameters
    ----------
    tol
        By default $\sqrt\epsilon \max|\lambda_i|$, wider than that of `curvature.inertia`, because orbits end near
        critical points and not on them. At an excess loss $\delta = L - L_{\text{floor}}$ within `loss_tol` the zero
        eigenvalues of a least-squares loss are off by about $\sqrt\delta\,\|D^2 f\|$; there `tol` grows to
        $10 \sqrt{\delta \max|\lambda_i|} / \|\theta\|$, which has the same scaling, but to no more than
        $10^{-3} \max|\lambda_i|$. A number given is taken as it is.
    loss_tol
        By default $10^{-10} \max|\lambda_i| \|\theta\|^2$, which is a loss in the same units, or what rounding
        leaves of the floor, $64\,\epsilon |L_{\text{floor}}|$, where that is more.
    """
    return _classify(loss, theta, tol, loss_tol)[1]


def _classify(loss, theta, tol, loss_tol):
    """The Hessian's eigenvalues, and what `classify` says of them."""
    flat_loss, flat = curvature.flatten(loss, theta)
    values = curvature.eigenvalues(flat_loss, flat)
    with jax.default_matmul_precision("highest"):
        floor = jnp.asarray(getattr(loss, "loss_floor", 0.0), flat.dtype)
        excess = staged(flat_loss, flat) - floor
    scale, size = jnp.max(jnp.abs(values)), jnp.linalg.norm(flat)
    if loss_tol is None:
        rounding = _ROUNDINGS * jnp.finfo(flat.dtype).eps * jnp.where(jnp.isfinite(floor), jnp.abs(floor), 0)
        loss_tol = jnp.maximum(1e-10 * scale * size**2, rounding)
    at_floor = excess <= jnp.asarray(loss_tol, flat.dtype)
    if not hasattr(loss, "loss_floor"):
        at_floor &= ~staged(lambda x: _goes_below_zero(flat_loss, x), flat)
    if tol is None:
        off = 10 * jnp.sqrt(jnp.maximum(excess, 0) * scale) / jnp.maximum(size, jnp.finfo(flat.dtype).tiny)
        tol = jnp.sqrt(jnp.finfo(flat.dtype).eps).astype(flat.dtype) * scale
        tol = jnp.where(at_floor, jnp.maximum(tol, jnp.minimum(off, 1e-3 * scale)), tol)
    counts = curvature.count_signs(values, tol)
    minimum = (counts.negative == 0) & (at_floor | (counts.zero == 0)) & jnp.all(jnp.isfinite(values))
    kind = jnp.where(minimum, Kind.MINIMUM, Kind.DEGENERATE)
    kind = jnp.where(counts.negative > 0, Kind.STRICT_SADDLE, kind)
    return values, Classification(kind.astype(jnp.int8), counts)


def _goes_below_zero(loss, theta):
    r"""Whether a loss is below 0, by more than rounding, on rays from a point: then 0 is not its floor.

    The rays lead over 16 decades of length, some of them into the kernel of the Hessian, where a degenerate point falls
    off first. Rounding is measured by the largest value at the same distance.
    """
    n = theta.size
    values, basis = jnp.linalg.eigh(curvature.hessian(loss, theta))
    flat = (jnp.abs(values) <= jnp.finfo(theta.dtype).eps ** 0.5 * jnp.max(jnp.abs(values))).astype(theta.dtype)
    generic = jnp.asarray(np.random.default_rng(0).standard_normal((n, _RAYS)), theta.dtype)
    kernel = jnp.matmul(basis, flat[:, None] * generic, precision="highest")
    rays = jnp.concatenate([generic, kernel], axis=1)
    rays = rays / jnp.maximum(jnp.linalg.norm(rays, axis=0, keepdims=True), jnp.finfo(theta.dtype).tiny)
    size = jnp.linalg.norm(theta)
    lengths = jnp.where(size > 0, size, 1) * jnp.logspace(-8, 8, _LENGTHS, dtype=theta.dtype)
    steps = lengths[:, None, None] * jnp.concatenate([rays, -rays], axis=1).T[None]  # [lengths, rays, n]
    found = jax.vmap(jax.vmap(lambda step: loss(theta + step)))(steps)
    found = jnp.where(jnp.isfinite(found), found, 0)
    scale = jnp.max(jnp.abs(found), axis=1, keepdims=True)
    return jnp.any(found < -256 * jnp.finfo(theta.dtype).eps * scale)


@arguments.closed_form(
    loss=arguments.function,
    theta=arguments.parameters,
    step_size=arguments.positive,
    tol=arguments.tolerance,
    loss_tol=arguments.tolerance,
)
def lyapunov_stable(
    loss: LossFn,
    theta: Theta,
    step_size: Scalar | float,
    *,
    tol: Scalar | float | None = None,
    loss_tol: Scalar | float | None = None,
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


@arguments.closed_form(
    loss=arguments.function, theta=arguments.finite_parameters, step_size=arguments.positive, tol=arguments.tolerance
)
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
