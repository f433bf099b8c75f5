r"""Lyapunov exponents of an update rule: how fast tangent vectors of its map grow along an orbit, $e^{\lambda n}$.

Every exponent is a mean of logarithms along the orbit, so it comes with a standard error: the means over consecutive
blocks of steps are compared with each other (batch means), which needs blocks longer than the orbit remembers. All is
written for one orbit of the map on the whole state, momentum included; integer leaves (step counters, phases) advance
with it and have no tangent.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gdstab._clocks import clock_of
from gdstab._compiling import jit
from gdstab._contract import entry
from gdstab._datasets import recorded
from gdstab._identity import is_number
from gdstab._numerics import sum_squares
from gdstab._types import LossFn, Scalar, State
from gdstab._validate import as_state, check_autonomous, check_count, check_loss
from gdstab.updates import UpdateRule
from gdstab.updates.rules import tangent_map

__all__ = [
    "BLOCKS",
    "Average",
    "Plan",
    "average",
    "batch_means",
    "largest",
    "plan",
    "spectrum",
]
__dir__ = __all__.copy  # nothing else is for users

DENSE_LIMIT = 256
"""Largest state whose whole spectrum is found: a step then factorises a matrix of that size."""

BLOCKS = 32
"""Consecutive parts of an orbit that are compared for the standard error."""


@recorded(
    {"value": "number", "standard_error": "number", "running": ("block", "number"), "state": ()},
    attrs=("block_length",),
)
class Average(eqx.Module):
    """Mean of a quantity along an orbit: one number, or `[num]` of them."""

    value: Float[Array, "*num"]
    standard_error: Float[Array, "*num"]  # from the scatter of the blocks; inf where the value is not finite
    running: Float[Array, "blocks *num"]  # the mean up to the end of each block: what one looks at for convergence
    state: State  # the last one
    block_length: int = eqx.field(static=True)  # steps; the standard error holds if the orbit forgets within them


@entry
def spectrum(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    num_steps: int,
    *,
    transient: int | None = None,
    num: int | None = None,
    blocks: int = BLOCKS,
) -> Average:
    r"""Lyapunov exponents of the orbit that starts at `state`, the largest first.

    The orthonormal frame $Q_t$ is carried along, $D\Phi(s_t)\, Q_t = Q_{t+1} R_{t+1}$, and
    $\lambda_i = \frac1N \sum_t \ln |R_{t,ii}|$ (Benettin et al. 1980, Meccanica 15). The sum of the whole spectrum is
    the mean of $\ln |\det D\Phi|$. One or two exponents take a Gram-Schmidt written out, so that they batch well; more
    take LAPACK.

    Parameters
    ----------
    rule
        Any autonomous `updates.UpdateRule`.
    state
        Where the orbit starts: `rule.init(theta, step_size)`. $n$ counts its floating-point entries.
    num_steps, transient
        Updates in all, and how many of the first to discard, while the frame already turns; by default a tenth. What
        does not fill the blocks is discarded with them.
    num
        How many exponents, the largest ones; by default all $n$, which is refused beyond `DENSE_LIMIT`.
    blocks
        Parts that are compared for the standard error, at least 8.

    Returns
    -------
    An `Average` of shape `[num]`. An exponent is -inf where the map loses a dimension (a step size of exactly 1 over a
    curvature), and not finite where the orbit left for infinity; its standard error is then inf. Traced, it is NaN
    where the map has no derivative.

    Raises
    ------
    ValueError
        If the rule follows a schedule or its integers neither fade nor come round, the state has no floating-point
        entry or too many, the steps are too few, or the map has no derivative along the orbit: it stays finite, and the
        exponents do not, or exceed half the logarithm of the resolution.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> loss = lambda theta: 0.5 * (theta[0] ** 2 + 3 * theta[1] ** 2)
    >>> found = spectrum(gradient_descent(), loss, jnp.array([1.0, 1.0]), 0.5, 200)
    >>> [round(float(value), 4) for value in jnp.exp(found.value)]
    [0.5, 0.5]
    """
    state, size = _check(rule, loss, state)
    if num is None and size > DENSE_LIMIT:
        raise ValueError(
            f"expected a state of at most {DENSE_LIMIT} numbers for the whole spectrum, got {size}; pass `num` for the "
            "first few exponents, or take `largest`"
        )
    num = size if num is None else check_count(num, "num")
    if num > size:
        raise ValueError(f"expected at most {size} exponents, one for each number in the state, got {num}; ask fewer")
    cut = plan(num_steps, transient, blocks)
    frame = jnp.stack([_generic(state, shift) for shift in range(num)])  # [num, n], a vector in each row
    return _run(_turn, cut, rule, loss, (state, _orthonormal(frame)[0]), step_size)


@entry
def largest(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    num_steps: int,
    *,
    transient: int | None = None,
    tangent: State | None = None,
    blocks: int = BLOCKS,
) -> Average:
    r"""The largest Lyapunov exponent, from one tangent vector: as cheap as a few updates, however large the state.

    Parameters
    ----------
    tangent
        The first vector: the floating-point leaves of `state`, others None. By default a fixed one in general
        position. A vector in an invariant subspace gives the exponent in there, as long as rounding keeps it in there.

    Other parameters and errors are those of `spectrum`; the result holds scalars.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> well = lambda x: 0.25 * (1 - x[0] ** 2) ** 2  # at step size 1.4 its descent is chaotic
    >>> found = largest(gradient_descent(), well, jnp.array([0.3]), 1.4, 20_000)
    >>> bool(found.value > 10 * found.standard_error)
    True
    """
    state, _ = _check(rule, loss, state)
    cut = plan(num_steps, transient, blocks)
    tangent = _unit(_unravel(state)(_generic(state)) if tangent is None else tangent)[0]
    return _run(_push, cut, rule, loss, (state, tangent), step_size)


@entry
def average(
    rule: UpdateRule,
    loss: LossFn,
    state: State,
    step_size: Scalar | float,
    num_steps: int,
    observe: Callable,
    *,
    transient: int | None = None,
    blocks: int = BLOCKS,
) -> Average:
    """Mean of `observe(loss, state, step_size)`, a scalar or vector, over the states that are updated.

    With the logarithm of a known multiplier this is an exponent in closed form, such as the one across an invariant
    line. Other parameters and errors are those of `spectrum`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from gdstab.updates import gradient_descent
    >>> def volume(loss, theta, step_size):
    ...     return jnp.log(jnp.abs(1 - step_size * 2.0))
    >>> found = average(gradient_descent(), lambda x: x[0] ** 2, jnp.array([1.0]), 0.25, 100, volume)
    >>> print(f"{found.value:.6f}")
    -0.693147
    """
    state, _ = _check(rule, loss, state)
    cut = plan(num_steps, transient, blocks)
    return _run(_Look(observe), cut, rule, loss, (state, None), step_size)


class Plan(NamedTuple):
    """How an orbit is cut up, in steps."""

    discard: int
    blocks: int
    block_length: int

    @property
    def counted(self) -> int:
        """Steps behind an average."""
        return self.blocks * self.block_length


def plan(num_steps: int, transient: int | None = None, blocks: int = BLOCKS) -> Plan:
    """What `num_steps` updates are for, or why they are too few: see `spectrum`.

    >>> plan(1000)
    Plan(discard=104, blocks=32, block_length=28)
    """
    num_steps, blocks = check_count(num_steps, "num_steps"), check_count(blocks, "blocks", least=8)
    transient = num_steps // 10 if transient is None else check_count(transient, "transient", least=0)
    if transient >= num_steps:
        raise ValueError(
            f"expected a transient below the {num_steps} steps in all, got {transient}: nothing would be left to "
            "average; raise `num_steps`, or lower `transient`"
        )
    length = (num_steps - transient) // blocks
    if length < 2:
        raise ValueError(
            f"expected at least 2 steps in each of {blocks} blocks, {2 * blocks} in all, got {num_steps - transient} "
            "behind the transient; raise `num_steps`, or lower `transient`"
        )
    return Plan(num_steps - length * blocks, blocks, length)


def _check(rule: UpdateRule, loss: LossFn, state: State) -> tuple[State, int]:
    """The state as arrays, and the number of its floating-point entries, if it has exponents at all."""
    check_autonomous(rule, "exponents")
    state = as_state(state)
    check_loss(loss, rule.theta(state))
    clock_of(rule, loss, state)  # refuses what is no one map, nor one that comes round
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))
    if not size:
        raise ValueError("expected a state with floating-point arrays, got none; pass `rule.init(theta, step_size)`")
    return state, size


def _run(advance: Callable, cut: Plan, rule: UpdateRule, loss: LossFn, carry, step_size) -> Average:
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(carry[0], eqx.is_inexact_array)))
    found = _accumulate(advance, cut, rule, loss, carry, jnp.asarray(step_size, dtype))
    return found if isinstance(advance, _Look) else _measurable(found, rule)


def _measurable(found: Average, rule: UpdateRule) -> Average:
    r"""The exponents, refused where the map has no derivative along the orbit; traced, they become NaN.

    That is where the orbit stays finite and they are NaN or inf, or more than $\tfrac12 \ln \epsilon^{-1}$: a step that
    stretches so much, time and again, makes of rounding half of all digits, and of the next one all.
    """
    dtype = found.value.dtype
    most = -0.5 * math.log(float(jnp.finfo(dtype).eps))
    bounded = jnp.isfinite(sum_squares(rule.theta(found.state)))
    rough = bounded & ~jnp.all(found.value <= most)  # -inf where the map loses a dimension is right
    if isinstance(rough, jax.core.Tracer):
        unknown = jnp.where(rough, jnp.nan, found.value), jnp.where(rough, jnp.inf, found.standard_error)
        return eqx.tree_at(lambda tree: (tree.value, tree.standard_error), found, unknown)
    if rough:
        raise ValueError(
            "expected an update map with a derivative along the orbit, got exponents that no orbit can have in this "
            "precision: the map jumps or divides by zero (quasi-Newton memories and adaptive rules do as they come to "
            "rest); take fewer steps, before the orbit rests, or hold the second moment by `updates.frozen`"
        )
    return found


@partial(jit, traced=is_number)  # the floats of a loss too, so that a sweep over them compiles once
def _accumulate(advance, cut, rule, loss, carry, step_size) -> Average:
    step = partial(advance, rule, loss, step_size)
    carry, _ = lax.scan(lambda carry, _: (step(carry)[0], None), carry, length=cut.discard)

    def block(carry, _):
        def body(carry, _):
            carry, total = carry
            carry, seen = step(carry)
            return (carry, total + seen), None

        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(step, carry)[1])
        (carry, total), _ = lax.scan(body, (carry, zero), length=cut.block_length)
        return carry, total / cut.block_length

    (state, _), means = lax.scan(block, carry, length=cut.blocks)
    value, error = batch_means(means)
    counts = jnp.arange(1, cut.blocks + 1, dtype=means.dtype).reshape(-1, *(1,) * (means.ndim - 1))
    return Average(value, error, jnp.cumsum(means, axis=0) / counts, state, cut.block_length)


def batch_means(means: Float[Array, "blocks *num"]) -> tuple[Float[Array, "*num"], Float[Array, "*num"]]:
    r"""Mean of block means, and its standard error $s / \sqrt{B}$; inf where the mean is not finite.

    It is too small if the blocks are shorter than the memory of the orbit, and too large (never too small) where sums
    stay bounded, as for an exponent that a change of coordinates makes constant.
    """
    value = jnp.mean(means, axis=0, keepdims=True)
    finite = jnp.isfinite(value)
    scatter = jnp.where(finite, means - jnp.where(finite, value, 0), 0)
    variance = jnp.sum(scatter * scatter, axis=0) / (means.shape[0] - 1)
    return value[0], jnp.where(finite[0], jnp.sqrt(variance / means.shape[0]), jnp.inf)


def _turn(rule, loss, step_size, carry):
    """One update of a state and of the frame above it, in rows; with the logarithms of the diagonal of R."""
    state, frame = carry
    moved, push = tangent_map(rule, loss, state, step_size)
    unravel = _unravel(state)
    rows = jax.vmap(lambda row: ravel_pytree(push(unravel(row)))[0])(frame)
    frame, diagonal = _orthonormal(rows)
    return (moved, frame), jnp.log(jnp.abs(diagonal))


def _push(rule, loss, step_size, carry):
    """One update of a state and of a unit tangent vector; with the logarithm of its growth."""
    state, tangent = carry
    moved, push = tangent_map(rule, loss, state, step_size)
    tangent, growth = _unit(push(tangent))
    return (moved, tangent), jnp.log(growth)


class _Look(NamedTuple):
    """One update of a state, with what is seen before it; equal to the next one of the same function."""

    observe: Callable

    def __call__(self, rule, loss, step_size, carry):
        state, _ = carry
        return (rule.step(loss, state, step_size), None), self.observe(loss, state, step_size)


def _unit(tangent) -> tuple[Any, Scalar]:
    """A vector over its length, and the length; where it vanished, the vector stays 0 and its logarithm -inf."""
    length = jnp.sqrt(sum_squares(tangent))
    safe = jnp.where(length > 0, length, 1)
    return jax.tree.map(lambda leaf: leaf / safe.astype(leaf.dtype), tangent), length


def _orthonormal(rows: Float[Array, "num n"]) -> tuple[Float[Array, "num n"], Float[Array, " num"]]:
    """Rows made orthonormal from the first to the last, and the diagonal of R."""
    num, size = rows.shape
    if num == 1 or num == size == 2:
        first, length = _unit(rows[0])
        if num == 1:
            return first[None], length[None]
        first = jnp.where(length > 0, first, jnp.zeros_like(first).at[0].set(1))
        second = jnp.stack([-first[1], first[0]])  # in the plane there is no choice, whatever the second row is
        return jnp.stack([first, second]), jnp.stack([length, second[0] * rows[1, 0] + second[1] * rows[1, 1]])
    frame, triangle = jnp.linalg.qr(rows.T)
    return frame.T, jnp.diagonal(triangle)


def _generic(state: State, shift: int = 0) -> Float[Array, " n"]:
    """A vector in general position, another for each shift: multiples of irrational numbers, modulo 1."""
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(state, eqx.is_inexact_array)))
    places = jnp.arange(1, size + 1, dtype=dtype)
    return (places * (0.618033988749895 + shift * 0.414213562373095)) % 1.0 - 0.5


def _unravel(state: State) -> Callable:
    return ravel_pytree(eqx.filter(state, eqx.is_inexact_array))[1]
