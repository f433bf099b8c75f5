"""At which level of the loss each orbit of a shallow ReLU network ended, at which kind of point, with which neurons.

Nothing is forced onto a level: an end without a vanishing gradient is *not converged*, one with a vanishing gradient
and a loss on no level is *off the ladder*, and both are counted. `descent_with_clock` counts, as it goes, the updates
that it spends near each level.
"""

from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from gdstab import losses
from gdstab._types import Theta
from gdstab.outcomes import Outcome
from gdstab.theory import relu
from gdstab.updates import UpdateRule, gradient_descent

ZERO, OFF_LADDER, NOT_CONVERGED, CYCLING, GONE = relu.ZERO_LEVEL, relu.NO_LEVEL, -3, -4, -5
"""In place of the number of breakpoints of a level: loss zero; on no level; still moving; in a cycle; diverged."""
NAMES = {
    ZERO: "zero", OFF_LADDER: "off the ladder", NOT_CONVERGED: "not converged", CYCLING: "cycling", GONE: "diverged",
}  # fmt: skip
SADDLES = (relu.CriticalType.SADDLE_A, relu.CriticalType.SADDLE_B, relu.CriticalType.SADDLE_DEGENERATE)
LOOSE = 1e-5
"""Tolerance of `theory.relu.classify` where its default finds nothing: a gradient of 1e-9 leaves breakpoints this far
from their places where the curvature is small."""


class Ladder(NamedTuple):
    """A network against an affine target, and the losses of its critical points."""

    loss: losses.ShallowReLU
    kinks: tuple[int, ...]  # breakpoints of each level, 0, 2, ... <= N
    values: np.ndarray  # [levels], the losses, falling
    threshold: float  # of Theorem 1.2
    rtol: float

    @property
    def problem(self) -> dict:
        """Interval, target and leak, as the functions of `theory.relu` take them."""
        return {**self.affine, "leak": float(self.loss.leak)}

    @property
    def affine(self) -> dict:
        """The same without the leak."""
        return {"interval": self.loss.interval, "target": self.loss.target.coefficients}

    @property
    def zero(self) -> float:
        """The loss below which an orbit counts as at level zero."""
        return self.rtol * float(self.values[-1])


class Ends(NamedTuple):
    """How some orbits ended, [orbits] each."""

    level: np.ndarray  # int16, breakpoints of the level, or one of the negative codes above
    kind: np.ndarray  # int8, `theory.relu.CriticalType` of those at a level or at zero, else NOT_CRITICAL
    pattern: np.ndarray  # int64, how many neurons are of each type, see `pattern_name`; -1 for those that are gone
    gradient: np.ndarray  # its norm; nan for those that are gone


def make_ladder(loss: losses.ShallowReLU, rtol: float) -> Ladder:
    """The levels of a network's loss.

    Raises
    ------
    ValueError
        If the target is no affine function, or constant, or `rtol` so large that zero meets the lowest level.
    """
    if not 0 < rtol < 0.1:
        raise ValueError(f"expected --rtol between 0 and 0.1, got {rtol}; a level must not reach the next one")
    if not isinstance(loss.target, losses.Polynomial):
        raise ValueError("expected an affine target, got straight pieces; the levels are known for affine targets only")
    affine = {"interval": loss.interval, "target": loss.target.coefficients}
    found = relu.levels(loss.neurons, **affine)
    threshold = relu.threshold(loss.neurons, **affine)
    return Ladder(loss, tuple(found), np.array(list(found.values())), threshold, rtol)


def classify_ends(ladder: Ladder, theta: np.ndarray, loss: np.ndarray, outcome: np.ndarray) -> Ends:
    """Level, kind and neurons of every end point `theta` [orbits, 3N + 1], from the verdicts of the engine.

    Loss, gradient and kind are found again by `theory.relu`, in float64 and by other formulas than the descent's.
    """
    there = (outcome == Outcome.CONVERGED) | (outcome == Outcome.UNDECIDED) | (outcome == Outcome.CYCLING)
    there &= np.isfinite(theta).all(axis=-1)
    ends = Ends(
        np.full(len(theta), GONE, np.int16), np.zeros(len(theta), np.int8),
        np.full(len(theta), -1), np.full(len(theta), np.nan),
    )  # fmt: skip
    if not there.any():
        return ends
    points, outcome = theta[there], outcome[there]
    exact, ends.gradient[there], _ = relu.risk_and_steepness(points, **ladder.problem)
    matched = relu.match_levels(exact, ladder.loss.neurons, rtol=ladder.rtol, **ladder.affine)
    matched = np.where(loss[there] <= ladder.zero, ZERO, matched)
    level = np.where((outcome == Outcome.CONVERGED) | (matched == ZERO), matched, NOT_CONVERGED)
    level = np.where((outcome == Outcome.CYCLING) & (matched != ZERO), CYCLING, level)
    ends.level[there] = level
    ends.kind[there], ends.pattern[there] = _kinds_and_patterns(ladder, points, level)
    return ends


def _kinds_and_patterns(ladder: Ladder, theta: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the default tolerance of `theory.relu`, or with `LOOSE` for ends at a level that it does not name."""
    unnamed = (relu.CriticalType.NOT_CRITICAL, relu.CriticalType.UNMATCHED)
    kind = np.where(level == ZERO, relu.CriticalType.GLOBAL_MINIMUM, relu.CriticalType.NOT_CRITICAL)
    pattern = patterns(theta, ladder.loss.interval)
    for tol in (None, LOOSE):
        some = np.flatnonzero((level >= 0) & np.isin(kind, unnamed))
        if some.size:
            kind[some] = relu.classify(theta[some], **ladder.problem, tol=tol)
            pattern[some] = patterns(theta[some], ladder.loss.interval, tol)
    return kind, pattern


def patterns(theta: np.ndarray, interval, tol: float | None = None) -> np.ndarray:
    """A number for how many neurons are of each type: the same for networks that differ by a permutation, [orbits]."""
    types = relu.neuron_types(theta, interval=interval, tol=tol)
    counts = (types[..., None] == np.arange(len(relu.NeuronType))).sum(axis=-2)
    return counts @ (types.shape[-1] + 1) ** np.arange(len(relu.NeuronType), dtype=np.int64)


def pattern_name(pattern: int, neurons: int) -> str:
    """What a number of `patterns` stands for, the most active type first.

    >>> pattern_name(4**1 * 2 + 4**5, neurons=3)
    '1 type-2, 2 inactive'
    """
    if pattern < 0:
        return "none"
    words = []
    for kind in reversed(relu.NeuronType):
        count = pattern // (neurons + 1) ** kind % (neurons + 1)
        words += [f"{count} {kind.name.lower().replace('_', '-')}"] if count else []
    return ", ".join(words)


def level_name(level: int) -> str:
    """How a level, or what an end has in its place, is called in tables.

    >>> level_name(2), level_name(ZERO)
    ('n = 2', 'zero')
    """
    return NAMES[level] if level < 0 else f"n = {level}"


class Clocked(NamedTuple):
    """Parameters, and how many updates led to a loss near each level."""

    theta: Theta
    near: Int32[Array, " levels"]


@lru_cache(maxsize=64)  # of numbers: it holds nothing of anybody's
def descent_with_clock(levels: tuple[float, ...], band: float) -> UpdateRule:
    """Gradient descent; `state.near` counts the updates whose loss is within `band` of a level, relative to it.

    The loss is the one that the stopping rule asks for, so that a compiled loop evaluates it once.

    Examples
    --------
    >>> rule = descent_with_clock((1.0, 4.0), 0.1)
    >>> state = rule.init(jnp.array(4.0), 0.25)
    >>> for _ in range(3):
    ...     state = rule.step(lambda x: x**2, state, 0.25)
    >>> float(state.theta), state.near.tolist()
    (0.5, [1, 1])
    """
    descent = gradient_descent()

    def begin(theta, step_size):
        return Clocked(descent.init(theta, step_size), jnp.zeros(len(levels), jnp.int32))

    def step(loss, state, step_size):
        theta = descent.step(loss, state.theta, step_size)
        value = loss(theta)
        heights = jnp.asarray(levels, value.dtype)
        close = jnp.abs(value - heights) <= jnp.asarray(band, value.dtype) * heights
        return Clocked(theta, state.near + close.astype(jnp.int32))

    return UpdateRule(begin, step, lambda state: state.theta)
