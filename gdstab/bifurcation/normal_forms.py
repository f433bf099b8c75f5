r"""The flip bifurcation's normal form: whether a stable orbit of twice the period is born, and how fast it opens.

Where a multiplier of the cycle passes -1, the p-fold map $G$ is on its centre manifold conjugate to
$\xi \mapsto \mu \xi + c\, \xi^3$, $\mu$ near -1 (Kuznetsov 2004, Elements of Applied Bifurcation Theory, section 5.4).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int32

from gdstab._clocks import check_rounds, clock_of
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._types import LossFn, Scalar, State
from gdstab.orbits import fold


class FlipForm(eqx.Module):
    r"""$\xi \mapsto \mu \xi + c\, \xi^3$ at a flip; the state is $s + \xi q + \tfrac12 \xi^2 h$, with $|q| = 1$."""

    multiplier: Scalar  # mu
    slope: Scalar  # of mu by the step size, along the branch of cycles
    coefficient: Scalar  # c
    direction: Float[Array, " n"]  # q
    bend: Float[Array, " n"]  # h
    shift: Float[Array, " n"]  # of the cycle, per unit of step size
    drift: Float[Array, " n"]  # per xi^2 and p steps, along the directions in which the cycle is one of a continuum

    @property
    def supercritical(self) -> Bool[Array, ""]:
        """Whether the orbit of twice the period attracts: it is born where the cycle has lost its stability."""
        return self.coefficient > 0

    @property
    def amplitude_slope(self) -> Scalar:
        r"""$\xi^2$ of the orbit of twice the period, $-(d\mu / d\eta) / c$ per unit of step size past the flip."""
        return -self.slope / self.coefficient


@entry
def flip_form(
    rule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    period: int | Int32[Array, ""] = 1,
    *,
    rank_tol: float | None = None,
) -> FlipForm:
    r"""Normal form of the cycle of `state` at a step size where one of its multipliers is -1; for one point, jittable.

    With $A = DG$, $Aq = -q$, $p^T A = -p^T$, $p \cdot q = 1$, and $B, C$ the second and third derivatives of $G$,
    $$c = \tfrac16\, p \cdot C(q, q, q) + \tfrac12\, p \cdot B(q, h), \qquad h = (I - A)^+ B(q, q).$$
    For gradient descent at a minimum on the line $c = (3 L'''^2 - L'' L'''') / (3 L''^2)$
    (`theory.catapult.flip_coefficient`). The derivatives, up to the fourth of the loss, are nested forward ones.

    On a manifold of minima pass a minimum and its own threshold $2 / \lambda_{\max}$ (`stability.threshold`). There
    $I - A$ is singular, and $h$ is taken within its range (singular values below `rank_tol` times the largest count as
    zero, by default $\sqrt\epsilon$): $c$ belongs to the loss restricted to the normal space. What is left out is
    `drift`, the part of $\tfrac12 B(q, q)$ outside of that range. Where it vanishes, as at the flattest minimum, the
    orbit of period 2 is one of the full map. Elsewhere the oscillation moves along the manifold, for gradient descent
    by $-\tfrac12 \eta\, \xi^2\, \nabla_M \lambda_{\max}$ in a step: down in sharpness.

    Parameters
    ----------
    rule, loss, state, period
        As in `orbits.refine`, with the state on the cycle.
    step_size
        At the flip: `direction` is the singular vector of $A + I$ for its smallest singular value.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> form = flip_form(gradient_descent(), loss, jnp.ones(2), 0.5)
    >>> round(float(form.slope), 6), round(float(form.amplitude_slope), 6), bool(form.supercritical)
    (-4.0, 1.0, True)
    """
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))
    check_rounds(clock_of(rule, loss, state), period)
    return _flip_form(rule, loss, state, jnp.asarray(step_size, dtype), jnp.asarray(period, jnp.int32), rank_tol)


@jit
def _flip_form(rule, loss, state, eta, period, rank_tol):
    floating, fixed = eqx.partition(state, eqx.is_inexact_array)
    x, unravel = ravel_pytree(floating)
    folded = fold(rule, period)

    def G(x, eta):
        moved = folded.step(loss, eqx.combine(unravel(x), fixed), eta)
        return ravel_pytree(eqx.filter(moved, eqx.is_inexact_array))[0]

    def along(v, of=lambda y: G(y, eta)):
        return lambda y: jax.jvp(of, (y,), (v,))[1]

    with jax.default_matmul_precision("highest"):
        A, by_eta = jax.jacfwd(G, argnums=(0, 1))(x, eta)
        identity = jnp.eye(x.size, dtype=x.dtype)
        left, _, right = jnp.linalg.svd(A + identity)
        q, p = right[-1] * _sign(right[-1]), left[:, -1]
        p = p / jnp.vdot(p, q)
        rtol = float(jnp.finfo(x.dtype).eps) ** 0.5 if rank_tol is None else rank_tol
        resolvent = jnp.linalg.pinv(identity - A, rtol=rtol)
        first = along(q)
        second = along(q, first)
        quadratic, cubic = second(x), along(q, second)(x)
        bend, shift = resolvent @ quadratic, resolvent @ by_eta
        mixed = along(bend, first)(x)
        # A q along the branch: both the step size and the cycle move.
        turned = jax.jvp(lambda y, e: jax.jvp(lambda z: G(z, e), (y,), (q,))[1], (x, eta), (shift, jnp.ones_like(eta)))
        drift = (quadratic - (identity - A) @ bend) / 2
    return FlipForm(
        multiplier=jnp.vdot(p, turned[0]), slope=jnp.vdot(p, turned[1]),
        coefficient=jnp.vdot(p, cubic) / 6 + jnp.vdot(p, mixed) / 2, direction=q, bend=bend, shift=shift, drift=drift,
    )  # fmt: skip


def predicted_amplitude(form: FlipForm, step_size, flip_step_size):
    r"""$\xi = \sqrt{-(d\mu/d\eta)(\eta - \eta_0) / c}$ to first order, half the distance of the two points; else NaN.

    Arrays of step sizes are taken. The relative error is of first order in $\eta - \eta_0$.
    """
    square = form.amplitude_slope * (jnp.asarray(step_size, form.slope.dtype) - flip_step_size)
    return jnp.sqrt(jnp.where(square >= 0, square, jnp.nan))


def _sign(v):
    """So that the largest entry of a vector times this is positive."""
    return jnp.where(v[jnp.argmax(jnp.abs(v))] < 0, -1, 1).astype(v.dtype)
