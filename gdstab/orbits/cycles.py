r"""One cycle of the update map: Newton's method on its p-fold map, its multipliers, its stability.

A cycle is one of the *state* map, so that momentum is part of it. It is one of the floating-point entries, $n$ in
number: a step counter whose influence fades (bias correction) is held at its limit. An integer whose influence does not
fade (accumulated gradients, cyclic rules) is a phase: periods are whole rounds of it, counted in steps.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Complex, Float, Int32

from gdstab import stability
from gdstab._clocks import Rounds, clock_of, once, strobed
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._types import LossFn, Scalar, State, Theta
from gdstab._validate import as_state, check_autonomous, check_count, check_loss, check_step_sizes
from gdstab.orbits._ends import distance, run_on, why_not
from gdstab.orbits.single import aside, escape_from, rollout, shifted
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.stability.maps import coarseness, is_rough
from gdstab.stability.units import part_units
from gdstab.updates import UpdateRule

_NEWTON_STEPS = 40
_PATIENCE = 4  # Newton steps without a smaller residual, after which it has converged or never will


class Refined(NamedTuple):
    """Where Newton's method ended: a point of the cycle, and the linearisation of the p-fold map there."""

    state: State
    step_size: Scalar
    jacobian: Float[Array, "n n"]  # of the p-fold map
    sensitivity: Float[Array, " n"]  # its derivative by the step size
    residual: Scalar  # how far the p-fold map moves the state, in units of its first part
    converged: Bool[Array, ""]  # the residual is at rounding
    scale: Scalar  # the size of the state against which it is


@recorded(
    {"step_size": (), "theta": "phase", "states": "phase", "multipliers": "multiplier", "neutral": (), "residual": (),
     "converged": (), "scale": ()},
    attrs=("period", "phases"), rows="phase",
)  # fmt: skip
class Cycle(eqx.Module):
    r"""A cycle $s_0 \mapsto s_1 \mapsto \dots \mapsto s_p = s_0$ of the state map; a fixed point has period 1."""

    states: State  # every leaf with a leading axis of length `period`
    theta: Theta  # the parameters along it, likewise
    step_size: Scalar
    multipliers: Complex[Array, " n"]  # of the p-fold map, largest modulus first
    neutral: Int32[Array, ""]  # directions in which the cycle is one of a continuum, as along a manifold of minima
    residual: Scalar
    converged: Bool[Array, ""]
    scale: Scalar  # the size of a state against which the residual is small: of the orbit that ended here, if one did
    period: int = eqx.field(static=True)
    phases: int = eqx.field(static=True, default=1)  # steps of a round of the rule, of which the period is a multiple

    @property
    def radius(self) -> Scalar:
        """The largest modulus of the multipliers, the `neutral` ones (nearest to 1) left out."""
        order = jnp.argsort(jnp.abs(self.multipliers - 1))
        kept = jnp.arange(order.size, dtype=jnp.int32) >= self.neutral
        return jnp.max(jnp.where(kept, jnp.abs(self.multipliers[order]), 0), initial=0)

    @property
    def stable(self) -> Bool[Array, ""]:
        """Whether the linearisation attracts in all directions but the neutral ones."""
        return self.radius < 1


def fold(rule: UpdateRule, period: int | Int32[Array, ""]) -> UpdateRule:
    r"""The rule whose one step is `period` steps of `rule`, the integer leaves of the state put back.

    Its fixed points are the cycles of `rule`, and `stability.multipliers(fold(rule, p), ...)` are their multipliers.
    Counters are held at their limits; those that are a phase advance, and the period must be a multiple of their round.
    The period may be traced: one that is no such multiple gives NaN then, and a ValueError otherwise.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> float(fold(gradient_descent(), 3).step(lambda x: 0.5 * x**2, jnp.array(8.0), 0.5))
    1.0
    """
    return UpdateRule(rule.init, Rounds(rule, period), rule.theta, rule.autonomous)


@entry
def newton(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    period: int | Int32[Array, ""],
    *,
    weight: Scalar | float = 0.0,
    rank_tol: float | None = None,
    scale: Scalar | float = 0.0,
) -> Refined:
    r"""Solve $G_\eta^p(s) = s$ by Newton's method in the least squares sense, from a state nearby.

    The step is that of smallest norm, $-(DG^p - I)^+ (G^p(s) - s)$, singular values below `rank_tol` times the largest
    taken as zero (by default $\sqrt\epsilon$). So it converges, quadratically, also where the cycle is one of a
    continuum: on the manifold of minima it ends at about the nearest one. With `weight` $w > 0$ the step size moves
    too, as $\eta = \eta_0 + w \sigma$ with $\sigma$ one more unknown: the correction is then orthogonal to the branch,
    which may turn back in $\eta$ (Moore-Penrose continuation: Dhooge, Govaerts and Kuznetsov 2003, ACM TOMS 29).

    `converged` says whether the residual came down to rounding of the state, whose size is that of the guess or of the
    solution, or `scale`, whichever is the largest, at a point near which the map does what its Jacobian says (none at a
    jump or a kink); what it ended at is the best point it saw. Momentum and parameters, which have different units, are
    weighted such that each acts on the other alike. The period, the weight and the scale may be traced: one compilation
    serves all.
    """
    floating, fixed = eqx.partition(state, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(floating)
    dtype = flat.dtype
    weight = jnp.asarray(weight, dtype)
    rcond = float(jnp.finfo(dtype).eps) ** 0.5 if rank_tol is None else rank_tol
    displacement, linearised = _displacement(fold(rule, period), loss, lambda x: eqx.combine(unravel(x), fixed))

    def body(carry):
        (x, eta), value, (by_x, by_eta), best, smallest, idle, steps = carry
        slopes = jnp.column_stack([by_x * units[None] / units[:, None], weight * by_eta / units])
        change = jnp.linalg.lstsq(slopes, value / units, rcond=rcond)[0]
        x, eta = x - change[:-1] * units, eta - weight * change[-1]
        value, slopes = linearised(x, eta)
        size = jnp.linalg.norm(value / units)
        better = size < smallest
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (x, eta, slopes), best)
        idle = jnp.where(size < 0.5 * smallest, 0, idle + 1)  # shrinking by rounding is no progress
        return (x, eta), value, slopes, best, jnp.where(better, size, smallest), idle, steps + 1

    def goes_on(carry):
        smallest, idle, steps = carry[-3:]
        return (smallest > 0) & (idle < _PATIENCE) & (steps < _NEWTON_STEPS)

    start = flat, jnp.asarray(step_size, dtype)
    value, slopes = linearised(*start)
    units = part_units(slopes[0], floating, rule.theta(state))
    begin = (start, value, slopes, (*start, slopes), jnp.linalg.norm(value / units), jnp.int32(0), jnp.int32(0))
    *_, (x, eta, (by_x, by_eta)), residual, _, _ = lax.while_loop(goes_on, body, begin)
    # Rounding in one step is amplified along the cycle by about the norm of the Jacobian at the most; where that is
    # enormous, as of adaptive rules near a critical point, a small residual means nothing.
    sizes = [jnp.linalg.norm(flat / units), jnp.linalg.norm(x / units), jnp.asarray(scale, dtype)]
    eps, scale = jnp.finfo(dtype).eps, jnp.max(jnp.stack(sizes))
    slope = jnp.linalg.norm(by_x * units[None] / units[:, None])
    amplified = 100 * (1 + slope) * jnp.sqrt(jnp.asarray(period, dtype))
    converged = residual <= eps * scale * jnp.minimum(amplified, 0.01 * eps**-0.5)
    jacobian = by_x + jnp.eye(x.size, dtype=dtype)
    # Where the map jumps or has a kink the method converges to what is no cycle, with multipliers that say nothing.
    matrix = jacobian * units[None] / units[:, None]  # of the map between states in their units
    there = lambda z: z + displacement(z * units, eta)[0] / units  # noqa: E731
    rough = is_rough(there, x / units, matrix, coarseness(state), size=scale)
    converged &= jnp.isfinite(residual) & ~rough
    return Refined(eqx.combine(unravel(x), fixed), eta, jacobian, by_eta, residual, converged, scale)


@entry
def refine(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    period: int,
    *,
    rank_tol: float | None = None,
    scale: Scalar | float = 0.0,
) -> Cycle:
    r"""The cycle of period `period` (or of a divisor of it) near `state`, by Newton's method; for one point, jittable.

    Where the rule has a phase, such as accumulated gradients, the period is a multiple of its round.

    Its multipliers are the eigenvalues of $DG(s_{p-1}) \cdots DG(s_0)$. Look at `converged`: where there is no cycle
    nearby the result is none. `rank_tol` and `scale` as in `newton`.

    Raises
    ------
    ValueError
        If the rule is not autonomous (a schedule; integers in its state that neither fade nor come round), or the
        period is not a positive integer, or no multiple of the round of its phase.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda x: (1 - x * x) ** 2 / 4  # x -> (1 + eta) x - eta x^3
    >>> cycle = refine(gradient_descent(), loss, jnp.array(0.7), 1.2, 2)
    >>> bool(cycle.converged), bool(cycle.stable)
    (True, True)
    >>> round(float(1.2 * cycle.theta[0] * cycle.theta[1]), 12)  # exactly 1: theory.symmetric_line
    1.0
    """
    check_autonomous(rule, "cycles")
    period, state = check_count(period, "period"), as_state(state)
    check_loss(loss, rule.theta(state))
    dtype = jnp.result_type(*jax.tree.leaves(rule.theta(state)))
    return _refine(rule, loss, state, jnp.asarray(step_size, dtype), period, rank_tol, jnp.asarray(scale, dtype))


@jit
def _refine(rule, loss, state, step_size, period, rank_tol, scale):
    clock = clock_of(rule, loss, state)
    found = newton(rule, loss, clock.late(state), step_size, period, rank_tol=rank_tol, scale=scale)
    states, theta = _along(rule, loss, found.state, found.step_size, period)
    multipliers = stability.multipliers(fold(rule, period), loss, found.state, found.step_size)
    moves = found.jacobian - jnp.eye(found.sensitivity.size, dtype=found.jacobian.dtype)
    units = part_units(moves, eqx.filter(state, eqx.is_inexact_array), rule.theta(state))
    rtol = float(jnp.finfo(moves.dtype).eps) ** 0.5 if rank_tol is None else rank_tol
    neutral = moves.shape[0] - jnp.linalg.matrix_rank(moves * units[None] / units[:, None], rtol)
    return Cycle(
        states, theta, found.step_size, multipliers, neutral.astype(jnp.int32), found.residual, found.converged,
        found.scale, period, clock.period,
    )  # fmt: skip


@entry(host=True)
def find_cycle(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: float,
    max_period: int = 8,
    *,
    max_steps: int = 100_000,
    escape_radius: float | None = None,
    grad_tol: float | None = None,
) -> Cycle:
    r"""The cycle, of least period, on which the orbit from `state` ends: found by running it, refined by Newton.

    The orbit is run until it comes back to itself after at most `max_period` steps (`outcomes.CycleTest`), or a step is
    short against its own extent. Newton's method must then lead to a cycle nearby that attracts: from one that does
    not, such as a saddle that the orbit passes slowly, it is run on, pushed off if it rests there. So the answer
    depends neither on the units of the loss nor on those of the parameters. Where the rule has a phase (accumulated
    gradients), the period is a multiple of its round, and the orbit is looked at once in each.

    Parameters
    ----------
    state
        A state of the rule: `rule.init(theta, step_size)`, which for gradient descent is `theta`.
    escape_radius
        By default $10^6 \max(1, \max_j |\theta_j|)$, of the parameters given.
    grad_tol
        A norm of the gradient, in the units of the loss, at which the orbit rests in any case; by default none.

    Raises
    ------
    ValueError
        If no cycle is found within the budget: the orbit leaves the ball of radius `escape_radius`, or is still
        without a period after `max_steps`; if `max_period` is no positive integer; if the rule is not autonomous
        (a schedule; integers in its state that neither fade nor come round).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: (1 - theta[0] * theta[1]) ** 2
    >>> cycle = find_cycle(gradient_descent(), loss, jnp.array([0.5, 0.6]), 0.55)
    >>> cycle.period, [round(float(mu.real), 6) for mu in cycle.multipliers]
    (2, [0.8, 0.18])
    """
    check_autonomous(rule, "cycles")
    max_period, state = check_count(max_period, "max_period"), as_state(state)
    check_loss(loss, rule.theta(state))
    dtype = jnp.result_type(*jax.tree.leaves(rule.theta(state)))
    step_size = jnp.asarray(check_step_sizes(step_size, dtype))
    phases = clock_of(rule, loss, state).period
    longest = max(max_period // phases, 1)
    radius = escape_from(rule.theta(state)) if escape_radius is None else escape_radius
    stopping = StoppingRule(None, grad_tol, radius, -(-max_steps // phases), longest if longest > 1 else None)
    return _attractor(rule, loss, state, step_size, stopping, phases)


def minimal_period(cycle: Cycle, tol: float | None = None) -> int:
    r"""The least period of a cycle: the first divisor d of its period with $|\theta_{i+d} - \theta_i| \le$ `tol`
    $\max_j |\theta_j|$ for all i.

    By default `tol` is $10 \sqrt\epsilon$: closer than that to its flip a doubled cycle cannot be told from it.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(cycle.theta)]
    flat = np.concatenate([leaf.reshape(cycle.period, -1) for leaf in leaves], axis=1)
    eps = float(np.finfo(flat.dtype).eps)
    near = (10 * eps**0.5 if tol is None else tol) * np.abs(flat).max(initial=0)
    # What Newton's method leaves of a fixed point at 0 is no cycle, though it hops about 0.
    near = max(near, float(cycle.residual) * eps**-0.5)
    divisors = (d for d in range(cycle.phases, cycle.period, cycle.phases) if cycle.period % d == 0)
    return next((d for d in divisors if np.abs(np.roll(flat, d, axis=0) - flat).max() <= near), cycle.period)


def _attractor(rule, loss, state, step_size, stopping, phases: int) -> Cycle:
    """The cycle that the orbit does not leave any more; tolerances shrink from passage to passage."""
    eps = float(jnp.finfo(step_size.dtype).eps)
    tol, away, patience, done, cycle = eps**0.5, -1.0, 0, 0, None
    points, seen = jax.tree.map(lambda leaf: leaf[None], rule.theta(state)), strobed(rule, loss, state)
    while True:
        rest = dataclasses.replace(stopping, max_steps=stopping.max_steps - done, cycle_tol=tol)
        end = run_on(seen, loss, state, step_size, rest, points, away, patience)
        done, state, reach = done + int(end.steps), end.state, float(end.reach)
        theta, outcome, period = rule.theta(state), Outcome(int(end.outcome)), phases * max(int(end.period), 1)
        if not end.left and outcome == Outcome.UNDECIDED and done < stopping.max_steps:  # at rest, or all but
            away = max(eps**0.5 * reach, eps**2.5)
            state = shifted(rule, state, aside(theta, away))
            continue
        if not end.period and outcome != Outcome.CONVERGED:
            raise ValueError(why_not(outcome, cycle, stopping, done, step_size, phases))
        cycle = _refine(rule, loss, state, step_size, period, None, end.reach)
        apart = distance(theta, cycle.theta)
        if cycle.converged and (apart <= eps**0.2 * reach or outcome == Outcome.CONVERGED):
            least = minimal_period(cycle)
            if least != period:
                start = jax.tree.map(lambda leaf: leaf[0], cycle.states)
                cycle = _refine(rule, loss, start, step_size, least, None, end.reach)
            excess = float(cycle.radius) - 1
            if excess <= 100 * eps**0.75:
                return cycle
            # Long enough for what rounding leaves of the mode that grows to come up.
            points, away, patience = cycle.theta, 8 * apart, 8 + int(min(-3 * np.log(eps) / np.log1p(excess), 1e9))
        tol = max(tol / 16, 4 * eps)


def _displacement(rule, loss, state_of):
    """Build `(x, eta) -> G(x) - x`, twice, and `(x, eta) -> (G(x) - x, its derivatives by x and eta)`."""

    def displacement(x, eta):
        moved = rule.step(loss, state_of(x), eta)
        value = ravel_pytree(eqx.filter(moved, eqx.is_inexact_array))[0] - x
        return value, value

    def linearised(x, eta):
        with jax.default_matmul_precision("highest"):
            slopes, value = jax.jacfwd(displacement, argnums=(0, 1), has_aux=True)(x, eta)
        return value, slopes

    return displacement, linearised


def _along(rule, loss, state, step_size, period):
    """States and parameters along a cycle, from `state` on."""
    run = rollout(once(rule, loss, state), period - 1, observe=lambda s: (s, rule.theta(s)))
    rest = run(loss, state, step_size)[1]
    return jax.tree.map(lambda first, more: jnp.concatenate([first[None], more]), (state, rule.theta(state)), rest)
