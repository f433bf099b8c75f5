"""The largest stable step size: by the sharpness for gradient descent, by the multipliers for any rule."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from gdstab import _arguments as arguments
from gdstab import curvature
from gdstab._clocks import whole
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._numerics import rank_tolerance
from gdstab._types import LossFn, Scalar, State, Theta
from gdstab._validate import as_state, as_theta, check_positive
from gdstab.stability.fixed_points import check_rests, check_smooth, extend, slope
from gdstab.stability.maps import multipliers

_ROUND = 16
"""Step sizes that are tried in one call: one compilation, and the bracket shrinks by 17 in every round."""


@arguments.closed_form(sharpness=arguments.function)
def threshold_from(sharpness: Callable[[LossFn, Theta], Scalar]) -> Callable[[LossFn, Theta], Scalar]:
    r"""Build `(loss, theta) -> 2 / λ_max` from whatever computes $\lambda_{\max}$ (dense, Lanczos, a formula)."""

    def threshold(loss, theta):
        top = sharpness(loss, theta)
        safe = jnp.where(top > 0, top, 1)  # the unused branch must stay differentiable
        return jnp.where(top > 0, 2 / safe, jnp.where(jnp.isnan(top), jnp.nan, jnp.inf))

    return threshold


@arguments.closed_form(loss=arguments.function, theta=arguments.finite_parameters)
def threshold(loss: LossFn, theta: Theta) -> Scalar:
    r"""$2/\lambda_{\max}(\nabla^2 L(\theta))$: the largest linearly stable step size at a minimum (inf if $\le 0$).

    >>> import jax.numpy as jnp
    >>> print(threshold(lambda t: 0.5 * (t[0] * t[1] - 1) ** 2, jnp.array([1.0, 1.0])))  # 2 / (x^2 + y^2)
    1.0
    """
    return threshold_from(curvature.sharpness)(loss, theta)


@arguments.closed_form(
    loss=arguments.function, theta=arguments.finite_parameters, preconditioner=arguments.finite_parameters
)
def preconditioned_sharpness(loss: LossFn, theta: Theta, preconditioner: Theta) -> Scalar:
    r"""$\lambda_{\max}(P^{-1/2} \nabla^2 L P^{-1/2})$ for a diagonal $P > 0$, a tree like `theta`.

    It is the sharpness that adaptive rules see: $P = \operatorname{diag}(\sqrt\nu + \epsilon)$ for Adam and RMSprop
    (Cohen et al. 2022, arXiv:2207.14484).

    >>> import jax.numpy as jnp
    >>> print(round(float(preconditioned_sharpness(lambda t: jnp.sum(t**2), jnp.ones(2), jnp.array([0.5, 4.0]))), 6))
    4.0
    """
    flat, unravel = ravel_pytree(as_theta(theta))
    root = jnp.sqrt(ravel_pytree(preconditioner)[0])
    return curvature.sharpness(lambda z: loss(unravel(flat + z / root)), jnp.zeros_like(flat))


class Crossing(NamedTuple):
    """Where a multiplier leaves the unit circle as the step size grows."""

    step_size: float  # inf if none leaves up to the largest step size
    multiplier: complex  # the one that leaves: -1 at a flip, off the real axis at a Neimark-Sacker point
    bracket: float
    """Length of the last bracket of the bisection. It bounds no error: the multipliers have their own rounding, and are
    outside from modulus 1 + `tol` on, which displaces the step size by about `tol` over their speed."""

    @property
    def width(self) -> float:
        """The former name of `bracket`."""
        return self.bracket


@entry(host=True)
@arguments.closed_form(loss=arguments.function, theta=arguments.finite_parameters)
def threshold_of(
    rule,
    loss: LossFn,
    theta: Theta,
    low: float,
    high: float,
    *,
    state: State | None = None,
    rtol: float = 1e-10,
    tol: float | None = None,
) -> Crossing:
    r"""The step size in `[low, high]` at which a multiplier of any rule first leaves the unit circle.

    The interval is scanned in 16 geometric steps, and the first one with a multiplier outside is cut until it is
    `rtol` wide: an island of instability narrower than a step of the scan can be missed. Multipliers of modulus up to
    $1 + $ `tol` count as inside: along a manifold of minima some are 1 at every step size. Runs on the host.

    Parameters
    ----------
    rule, theta
        As for `extend`: adaptive rules with their second moment held.
    state
        The fixed point, where it is not the one that `extend` finds above `theta` (weight decay: see `fixed_point`). It
        must not depend on the step size.
    rtol
        Of the bracket.
    tol
        By default $\epsilon^{3/4}$ of the dtype, about 2e-12 in 64 bits, 6e-6 in 32; $8 \sqrt n\,\epsilon$ for a state
        of n numbers where that is more.

    Raises
    ------
    ValueError
        As `extend`; or if `low` is not below `high`, a multiplier is outside already at `low`, the state is no fixed
        point, or the map jumps or has a kink where the multiplier leaves (a line search begins to shorten the step).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import named
    >>> found = threshold_of(named("heavy-ball", beta=0.5), lambda t: 2 * t[0] ** 2, jnp.zeros(1), 0.01, 10.0)
    >>> round(found.step_size, 9), round(found.multiplier.real, 6)  # 2 (1 + beta) / lambda
    (0.75, -1.0)
    """
    low, high = check_positive(low, "low"), check_positive(high, "high")
    if low >= high:
        raise ValueError(f"expected low < high, got {low} and {high}; swap or widen them")
    state = extend(rule, loss, theta, low) if state is None else check_rests(rule, loss, as_state(state), low)
    dtype = jnp.result_type(*jax.tree.leaves(rule.theta(state)))
    eps = float(np.finfo(dtype).eps)
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))
    tol, rtol = rank_tolerance((size,), dtype) if tol is None else tol, max(check_positive(rtol, "rtol"), 4 * eps)

    def leading(step_sizes):
        return np.array(_leading(rule, loss, state, jnp.asarray(step_sizes, dtype)))

    sizes = np.geomspace(low, high, _ROUND)
    found = leading(sizes)
    if abs(found[0]) > 1 + tol or np.isnan(found[0]):
        raise ValueError(
            f"expected a fixed point that is stable at step size {low:g}, got a multiplier {found[0]:.6g}; lower "
            "`low`, or is it a saddle?"
        )
    while True:
        outside = ~(np.abs(found) <= 1 + tol)
        if not outside.any():
            _check_smooth(rule, loss, state, sizes[-1])
            return Crossing(np.inf, complex(found[-1]), 0.0)
        first = int(np.argmax(outside))
        low, high, multiplier = sizes[first - 1], sizes[first], complex(found[first])
        if high - low <= rtol * high:
            _check_smooth(rule, loss, state, low, high)
            return Crossing(float(low + high) / 2, multiplier, float(high - low))
        sizes = np.linspace(low, high, _ROUND)
        found = leading(sizes)
        found[0], found[-1] = 0, multiplier  # the ends are known


def _check_smooth(rule, loss, state, *step_sizes) -> None:
    """Refuse a crossing where the map does not do what its Jacobian says, in the direction that becomes unstable."""
    rule = whole(rule, loss, state)
    for eta in jnp.asarray(step_sizes, jnp.result_type(*jax.tree.leaves(rule.theta(state)))):
        matrix = slope(rule, loss, state, eta)
        values, vectors = np.linalg.eig(np.asarray(matrix, float))
        check_smooth(rule, loss, state, eta, matrix, vectors[:, np.abs(values).argmax()].real)


@jit
def _leading(rule, loss, state, step_sizes):
    return lax.map(lambda eta: multipliers(rule, loss, state, eta)[0], step_sizes)
