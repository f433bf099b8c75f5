"""The equation of cycles, G^p(x) = x over (x, step size), on the host: correct a guess, and linearise there."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gdstab._clocks import check_rounds, clock_of
from gdstab._compiling import jit
from gdstab._numerics import magnitude
from gdstab.orbits import fold, newton


class Point(NamedTuple):
    """One point of a branch of cycles."""

    x: np.ndarray  # [n], the floating-point entries of a state of the cycle
    step_size: float
    multipliers: np.ndarray  # [n], complex, largest modulus first
    tangent: np.ndarray  # [n + 1], of the branch, in (x, step size / weight)
    half: np.ndarray  # [n], from x to the state half a period later; vanishes where the cycle has half the period.
    # 0 where there is none of half the period, be it odd, or no whole number of rounds of the phase of the rule.
    rank: int  # of DG^p - I


class System:
    """The cycles of one period of a rule on a loss, as one equation.

    `like` is a state of the structure of those sought, and `scale` their size, by default its own. Lengths along a
    branch are measured in (x, step size / weight), with a weight such that `span` of the step size is as long as
    `length(like)`.
    """

    def __init__(self, rule, loss, like, period: int, span: float, rank_tol: float | None = None, scale: float = 0.0):
        clock = clock_of(rule, loss, like)
        check_rounds(clock, period)
        self.rule, self.loss, self.period = rule, loss, period
        self.like = clock.late(jax.tree.map(jnp.asarray, like))
        self.halves = period % (2 * clock.period) == 0
        start = self.vector(self.like)
        self.dtype = start.dtype
        self.scale = max(float(scale), float(np.linalg.norm(start)))
        self.unit = self.length(start)
        self.weight = span / self.unit
        self.rank_tol = float(np.finfo(self.dtype).eps) ** 0.5 if rank_tol is None else rank_tol

    def of_period(self, period: int) -> "System":
        """The same for cycles of another period."""
        return System(self.rule, self.loss, self.like, period, self.weight * self.unit, self.rank_tol, self.scale)

    def length(self, x: np.ndarray) -> float:
        """The size of a state on which others are near or far: its own, and at least about the `scale`."""
        return magnitude(self.scale) + float(np.linalg.norm(x))

    def vector(self, state) -> np.ndarray:
        """The floating-point entries of a state."""
        return np.asarray(ravel_pytree(eqx.filter(state, eqx.is_inexact_array))[0])

    def state(self, x: np.ndarray):
        """The state with these floating-point entries."""
        return _state(self.like, jnp.asarray(x, self.dtype))

    def solve(self, x, step_size: float, along: np.ndarray | None = None, *, fixed: bool = False) -> Point | None:
        """The point of the branch near a guess; None if Newton's method does not converge.

        Its tangent has the direction of `along`, by default that of growing step sizes. With `fixed` the step size is
        kept; otherwise the correction is orthogonal to the branch.
        """
        x, eta, jacobian, by_eta, half, converged = _solve(
            self.rule, self.loss, self.like, np.asarray(x, self.dtype), np.asarray(step_size, self.dtype),
            np.int32(self.period), np.int32(self.period // 2 if self.halves else 0),
            np.asarray(0.0 if fixed else self.weight, self.dtype), self.rank_tol, np.asarray(self.scale, self.dtype),
        )  # fmt: skip
        if not converged:
            return None
        jacobian = np.asarray(jacobian)
        shifted = jacobian - np.eye(len(x), dtype=self.dtype)
        sizes = np.linalg.svd(shifted, compute_uv=False)
        rank = int((sizes > self.rank_tol * sizes[0]).sum()) if sizes[0] > 0 else 0
        values = np.linalg.eigvals(jacobian).astype(complex)
        values = values[np.argsort(-np.abs(values), kind="stable")]
        tangent = self._tangent(np.column_stack([shifted, self.weight * np.asarray(by_eta)]), along)
        return Point(np.asarray(x), float(eta), values, tangent, np.asarray(half), rank)

    def between(self, a: Point, b: Point, share: float, *, fixed: bool = False) -> Point | None:
        """The point of the branch beside the chord from one point to another, at a share of its length."""
        x = (1 - share) * a.x + share * b.x
        step_size = (1 - share) * a.step_size + share * b.step_size
        along = np.append(b.x - a.x, (b.step_size - a.step_size) / self.weight)
        return self.solve(x, step_size, along, fixed=fixed)

    def _tangent(self, slopes, along):
        """Where the equation has a kernel of several dimensions, that vector of it which is nearest to `along`."""
        _, sizes, basis = np.linalg.svd(slopes)
        kernel = basis[np.append(sizes <= self.rank_tol * sizes[0], True)]
        if along is None:
            along = np.append(np.zeros(len(slopes)), 1.0)
        tangent = kernel.T @ (kernel @ along)
        size = np.linalg.norm(tangent)
        return tangent / size if size > 1e-6 * np.linalg.norm(along) else basis[-1]


@jit
def _solve(rule, loss, like, x, step_size, period, half, weight, rank_tol, scale):
    found = newton(rule, loss, _state(like, x), step_size, period, weight=weight, rank_tol=rank_tol, scale=scale)
    moved = fold(rule, half).step(loss, found.state, found.step_size)
    here, there = (ravel_pytree(eqx.filter(state, eqx.is_inexact_array))[0] for state in (found.state, moved))
    return here, found.step_size, found.jacobian, found.sensitivity, there - here, found.converged


def _state(like, x):
    floating, fixed = eqx.partition(like, eqx.is_inexact_array)
    return eqx.combine(ravel_pytree(floating)[1](x), fixed)
