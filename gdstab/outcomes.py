"""How an orbit ends: the verdicts, the rule that passes them, the test for cycles, and how two verdicts merge."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, Int32

from gdstab._numerics import sum_squares
from gdstab._types import LossFn, State, Theta
from gdstab._validate import check_positive, is_concrete, real, whole
from gdstab._verdicts import (
    Outcome,
    Verdict,
    as_verdicts,
    names,
    own_verdict,
)

__all__ = [
    "CycleTest",
    "Outcome",
    "StoppingRule",
    "Verdict",
    "anchor_stride",
    "begin_cycle_test",
    "check_floor",
    "check_range",
    "floor_of",
    "merge_outcomes",
    "moving",
    "names",
    "part_numbers",
    "resolution",
    "typical_size",
    "update_cycle_test",
    "verdict",
]
__dir__ = __all__.copy  # nothing else is for users

_ROUNDINGS = 256  # what rounding may leave of a loss, in units of epsilon times its size


class StoppingRule(eqx.Module):
    r"""When an orbit is over, asked of the initial point and after every update, in the order of the parameters below.

    Parameters
    ----------
    escape_radius
        `NONFINITE` if $\theta$ holds inf or nan, `DIVERGED` if $\|\theta\|_2$ over all parameters exceeds it, whatever
        the loss there. Inside the ball `NONFINITE` if the loss is nan or $-\infty$, or if `grad_tol` is set, the loss
        does not meet its tolerance and the gradient holds nan. A loss of $+\infty$ may be an overflow on the way out:
        the orbit goes on, and is `NONFINITE` if it ends there. With neither tolerance the loss is looked at where the
        orbit ends only.
    loss_tol
        `CONVERGED` if `loss - loss_floor <= loss_tol`; `None` switches the test off. A loss says its infimum in
        an attribute `loss_floor` (0 if it has none; `-inf` says that there is no infimum). A value below it, by more
        than rounding, where an orbit converged is an error: see `check_floor`.
    grad_tol
        `CONVERGED` if $\|\nabla L\|_2$ is at most this; `None` switches the test off. It accepts saddles too:
        `basins.refine` tells them from minima.
    max_period
        `CYCLING` if the state, momentum included, returns to itself within `cycle_tol` after 2 to `max_period` steps,
        confirmed one period later (see `CycleTest`); `None` switches the test off.
    cycle_tol
        Relative to the size of the state and of the orbit itself, so that units do not matter (see `CycleTest`); by
        default the square root of the dtype's machine epsilon.
    max_steps
        Updates at the most; an orbit that is then without a verdict is `UNDECIDED`.
    until
        Verdicts of one's own, `{name: predicate}`: functions of `theta` that give one truth value, such as an accuracy
        reached or a constraint left. They come before all that looks at the loss, in their order; their codes are 5, 6,
        and so on (see `names`), and counts have their names.

    Examples
    --------
    >>> StoppingRule(max_steps=0).max_steps
    0
    >>> names(StoppingRule(until={"left": lambda theta: theta[0] < 0}))[-2:]
    ('nonfinite', 'left')
    >>> StoppingRule(max_period=1)
    Traceback (most recent call last):
    ...
    ValueError: `max_period` must be None or an integer of at least 2 (a fixed point has period 1), but got 1.
    """

    loss_tol: float | None = eqx.field(default=1e-12, converter=real)
    grad_tol: float | None = eqx.field(default=None, converter=real)
    escape_radius: float = eqx.field(default=1e6, converter=real)
    max_steps: int = eqx.field(default=10_000, converter=whole)
    max_period: int | None = eqx.field(static=True, default=None, converter=whole)
    cycle_tol: float | None = eqx.field(default=None, converter=real)
    until: tuple[Verdict, ...] = eqx.field(default=(), converter=as_verdicts)

    def __check_init__(self):
        for name in ("loss_tol", "grad_tol", "cycle_tol"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"`{name}` must be None or a finite number of at least 0, but got {value!r}.")
        check_positive(self.escape_radius, "`escape_radius`")
        if not (type(self.max_steps) is int and 0 <= self.max_steps < 2**31 - 1):
            raise ValueError(f"`max_steps` must be an integer from 0 to 2^31 - 2, but got {self.max_steps!r}.")
        if self.max_period is not None and not (type(self.max_period) is int and self.max_period >= 2):
            raise ValueError(
                "`max_period` must be None or an integer of at least 2 (a fixed point has period 1), "
                f"but got {self.max_period!r}."
            )


def check_range(stopping: StoppingRule, dtype) -> None:
    """Refuse, on the host, radii and tolerances whose squares a dtype cannot hold (norms are compared squared)."""
    info = jnp.finfo(dtype)
    largest, smallest = math.sqrt(float(info.max)), math.sqrt(float(info.tiny))
    if stopping.escape_radius > largest:
        raise ValueError(
            f"`escape_radius` {stopping.escape_radius:g} is too large for {info.dtype}: use at most {largest:.1g}."
        )
    if stopping.grad_tol is not None and 0 < stopping.grad_tol < smallest:
        raise ValueError(
            f"`grad_tol` {stopping.grad_tol:g} is below what {info.dtype} can tell from 0: "
            f"use at least {smallest:.1g}, or 0, or None."
        )


def resolution(loss_floor: float, dtype) -> float:
    """The distance of neighbouring numbers at the floor of a loss, halved: less than that above it is not seen."""
    return float(jnp.finfo(dtype).eps) * abs(loss_floor) / 2 if math.isfinite(loss_floor) else 0.0


def typical_size(loss: LossFn, points: list[Theta]) -> float:
    """Median of |loss| at some points, at their halves and doubles, and at zero: what its rounding is measured by."""
    scaled = [jax.tree.map(lambda leaf, c=c: leaf * leaf.dtype.type(c), p) for p in points for c in (0, 0.5, 1, 2)]
    sizes = np.abs([float(loss(point)) for point in scaled])
    return float(np.median(sizes[np.isfinite(sizes)])) if np.isfinite(sizes).any() else 0.0


def check_floor(loss: LossFn, lowest: float, loss_tol: float, dtype, size: Callable[[], float]) -> None:
    """Refuse, on the host, a loss that was below its floor where an orbit converged: it proves the floor wrong.

    Parameters
    ----------
    lowest
        The least `loss - loss_floor` seen at an end.
    size
        What rounding is measured by, such as `typical_size`; only asked for if `lowest` is negative beyond doubt.

    Examples
    --------
    >>> check_floor(lambda x: x**2 - 1, -0.5, 1e-12, "float32", lambda: 1.0)
    Traceback (most recent call last):
    ...
    ValueError: the loss took the value -0.5 where an orbit converged, below its floor 0 (it declares none): ...
    """
    floor = float(getattr(loss, "loss_floor", 0.0))
    rounding = _ROUNDINGS * float(jnp.finfo(dtype).eps)
    if not lowest < -(loss_tol + rounding * abs(floor)) or -lowest <= loss_tol + rounding * max(abs(floor), size()):
        return
    declared = "" if hasattr(loss, "loss_floor") else " (it declares none)"
    raise ValueError(
        f"the loss took the value {floor + lowest:.6g} where an orbit converged, below its floor {floor:g}{declared}: "
        "give it its infimum as an attribute `loss_floor` (--loss.floor on the command line; -inf if it has none), or "
        "stop by the gradient with `loss_tol=None` and a `grad_tol`."
    )


def floor_of(loss: LossFn):
    """The infimum of a loss, 0 if it declares none; None if it declares that it has none."""
    floor = getattr(loss, "loss_floor", 0.0)
    return None if is_concrete(floor) and float(floor) == -math.inf else floor


def _inside(theta: Theta, stopping: StoppingRule) -> Bool[Array, ""]:
    """Whether `theta` is in the ball; False where it is not finite."""
    dtype = jnp.result_type(*jax.tree.leaves(theta))
    return sum_squares(theta) <= jnp.asarray(stopping.escape_radius, dtype) ** 2


def _excess(loss: LossFn, theta: Theta, stopping: StoppingRule):
    """What the loss exceeds its floor by, and its tolerance; a loss without one exceeds it unless it is nan or -inf."""
    dtype, floor = jnp.result_type(*jax.tree.leaves(theta)), floor_of(loss)
    tol = -jnp.inf if stopping.loss_tol is None or floor is None else stopping.loss_tol
    return loss(theta) - jnp.asarray(0.0 if floor is None else floor, dtype), jnp.asarray(tol, dtype)


def _slope(loss: LossFn, theta: Theta, stopping: StoppingRule):
    """The square of the gradient's norm, and of its tolerance."""
    square = sum_squares(jax.grad(loss)(theta))
    return square, jnp.asarray(stopping.grad_tol, square.dtype) ** 2


def moving(loss: LossFn, theta: Theta, stopping: StoppingRule) -> Bool[Array, ""]:
    """Whether the orbit goes on from `theta`. All comparisons are False for nan, which ends it."""
    goes_on = _inside(theta, stopping)
    if stopping.loss_tol is not None or stopping.grad_tol is not None:
        excess, tol = _excess(loss, theta, stopping)
        goes_on &= excess > tol
    if stopping.grad_tol is not None:
        square, tol = _slope(loss, theta, stopping)
        goes_on &= square > tol
    if stopping.until:
        goes_on &= own_verdict(theta, stopping.until) == Outcome.UNDECIDED
    return goes_on


def verdict(loss: LossFn, theta: Theta, stopping: StoppingRule) -> Int8[Array, ""]:
    """The outcome that one point earns by itself where its orbit ends, as int8; cycles need `CycleTest`.

    >>> import jax.numpy as jnp
    >>> rule = StoppingRule(loss_tol=1e-3, escape_radius=10.0)
    >>> [Outcome(int(verdict(lambda x: x**2, jnp.asarray(x), rule))).name for x in (0.01, 1.0, 11.0, jnp.inf)]
    ['CONVERGED', 'UNDECIDED', 'DIVERGED', 'NONFINITE']
    >>> Outcome(int(verdict(jnp.log, jnp.asarray(-1.0), rule))).name  # the logarithm of -1 is nan, its slope is finite
    'NONFINITE'
    """
    converged, undecided, diverged, nonfinite = (
        jnp.int8(code) for code in (Outcome.CONVERGED, Outcome.UNDECIDED, Outcome.DIVERGED, Outcome.NONFINITE)
    )
    excess, tol = _excess(loss, theta, stopping)
    decided = jnp.where(excess <= tol, converged, undecided)
    if stopping.grad_tol is not None:
        square, tol = _slope(loss, theta, stopping)
        otherwise = jnp.where(jnp.isnan(square), nonfinite, undecided)
        decided = merge_outcomes(decided, jnp.where(square <= tol, converged, otherwise))
    decided = jnp.where(jnp.isfinite(excess), decided, nonfinite)
    if stopping.until:
        decided = merge_outcomes(own_verdict(theta, stopping.until), decided)
    decided = jnp.where(_inside(theta, stopping), decided, diverged)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(theta)]).all()
    return jnp.where(finite, decided, nonfinite)


def lacking(stopping: StoppingRule) -> Int8[Array, ""]:
    """The outcome of what stopped, if a second look, rounded in another way, finds no verdict: it was at an edge."""
    tested = stopping.loss_tol is not None or stopping.grad_tol is not None or not stopping.until
    return jnp.int8(Outcome.CONVERGED if tested else len(Outcome))


def merge_outcomes(old: Int8[Array, "*n"], new: Int8[Array, "*n"]) -> Int8[Array, "*n"]:
    """The first verdict stands: `new` counts only where `old` is UNDECIDED."""
    return jnp.where(old == Outcome.UNDECIDED, new, old)


_SIZE = 3.0
"""Of squares: where states are of size 1 it is about the square of 1 + |s|."""


class CycleTest(NamedTuple):
    r"""A stored state $s_T$ of the orbit, and what has been seen since of the distances to it.

    The state is all that the rule carries in real numbers: parameters, which are all there is for gradient descent,
    momentum, second moments. These have different units, so each part $g$ of it is measured by its own size,
    $$d_q^2 = \sum_g \frac{\|g_{T+q} - g_T\|^2}{3 \max(\|g_T\|^2, \max_{r \le q} \|g_{T+r} - g_T\|^2)},$$
    that of the anchor or of the way the orbit has gone from there: neither the units of $\theta$ nor those of the
    loss change an answer. The period $p$ is the first $q$ with $d_q \le \text{tol}$. It counts if $p \ge 2$, if
    $d_{2p}$ is as small, and if the orbit is really near a cycle: along the slowest direction the returns shrink by
    $\rho = d_{2p}/d_p - 1$, so what is left to go is about $d_p/(1 - \rho)$, and this must be below a tenth of the
    cycle's size $\min_{q<p} d_q$. A slow approach to a fixed point with multiplier near -1 fails there: what is left to
    go is half of $d_1$, however small $d_2$. Nor is it a cycle where parameters stand still to rounding while what
    belongs to them, such as a momentum that is all rounding by then, goes round.
    """

    anchor: list[list[Array]]  # the leaves of each part
    sizes: list[Float[Array, ""]]  # squared, of each part at the anchor, or the farthest it has been from there
    period: Int32[Array, ""]  # the first return; 0 while there is none
    gap: Float[Array, ""]  # d_p
    size: Float[Array, ""]  # min of d_q over q < p
    moved: Float[Array, ""] | None  # the largest d_q^2 of the parameters alone; None where the state is nothing else


def anchor_stride(max_period: int) -> int:
    """Steps between two anchors: a power of two, so that at most a quarter of the updates carry the test."""
    return max(128, 1 << (4 * (2 * max_period + 1) - 1).bit_length())


def begin_cycle_test(state: State, theta: Theta) -> CycleTest:
    """Take `state` as the anchor; `theta` are its parameters, whose shapes tell the parts of the state apart."""
    anchor = _parts(state, theta)
    sizes = [sum_squares(part) for part in anchor]
    infinite = jnp.full((), jnp.inf, jnp.result_type(*sizes))
    moved = jnp.zeros_like(infinite) if len(anchor) > 1 else None
    return CycleTest(anchor, sizes, jnp.zeros((), jnp.int32), infinite, infinite, moved)


def update_cycle_test(
    test: CycleTest, state: State, theta: Theta, lag: Int32[Array, ""], stopping: StoppingRule
) -> tuple[CycleTest, Int32[Array, ""]]:
    """Look at the state `lag` updates after the anchor: the updated test, and the period if it was confirmed here."""
    parts = _parts(state, theta)
    moves = [
        sum_squares([leaf - at for leaf, at in zip(part, anchor, strict=True)])
        for part, anchor in zip(parts, test.anchor, strict=True)
    ]
    sizes = [jnp.maximum(size, move) for size, move in zip(test.sizes, moves, strict=True)]
    dtype = test.gap.dtype
    least = float(jnp.finfo(dtype).tiny)  # nothing over nothing is nothing
    shares = [(move / jnp.maximum(_SIZE * size, least)).astype(dtype) for move, size in zip(moves, sizes, strict=True)]
    distance = jnp.sqrt(sum(shares))
    eps = jnp.finfo(dtype).eps
    tol = jnp.asarray(eps**0.5 if stopping.cycle_tol is None else stopping.cycle_tol, dtype)

    returned = (test.period == 0) & (lag >= 1) & (lag <= stopping.max_period) & (distance <= tol)
    period = jnp.where(returned, lag, test.period)
    gap = jnp.where(returned, distance, test.gap)
    searching = (period == 0) & (lag >= 1)
    size = jnp.where(searching, jnp.minimum(test.size, distance), test.size)

    again = (period >= 2) & (lag == 2 * period) & (distance <= 2 * tol)
    near = gap * gap <= jnp.asarray(0.1, dtype) * size * (2 * gap - distance)
    at_rounding = jnp.maximum(gap, distance) <= 16 * eps  # the ratio of two roundings says nothing
    moved = test.moved
    if moved is not None:
        own = {id(leaf) for leaf in jax.tree.leaves(theta)}
        kept = [all(id(leaf) in own for leaf in part) for part in parts]  # none where `theta` is worked out of them
        moved = jnp.maximum(
            moved, sum(share for share, is_theta in zip(shares, kept, strict=True) if is_theta or not any(kept))
        )
        again &= moved > (16 * eps) ** 2
    confirmed = jnp.where(again & (near | at_rounding), period, 0)
    return CycleTest(test.anchor, sizes, period, gap, size, moved), confirmed


def _parts(state: State, theta: Theta) -> list[list[Array]]:
    """The real leaves of a state, those together that share a unit: what is shaped like the parameters, else each.

    Numbers beside parameters that are none, such as powers of a decay rate, fade and have no size of their own: they
    are left out.
    """
    shape = _shape(theta)
    parts = [
        [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        for tree in jax.tree.leaves(state, is_leaf=lambda tree: _shape(tree) == shape)
        if _shape(tree) == shape or jnp.ndim(tree)
    ]
    return [part for part in parts if part]


def part_numbers(state: State, theta: Theta) -> np.ndarray:
    """To which part of a state, as `CycleTest` has them, each of its numbers belongs, in the order of its leaves."""
    shape = _shape(theta)
    parts = jax.tree.leaves(state, is_leaf=lambda tree: _shape(tree) == shape)
    sizes = [sum(jnp.size(leaf) for leaf in jax.tree.leaves(part)) for part in parts]
    return np.repeat(np.arange(len(sizes)), sizes)


def _shape(tree) -> tuple:
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
