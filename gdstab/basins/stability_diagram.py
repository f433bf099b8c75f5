"""Where, in the plane of step size and momentum, orbits return to a minimum: the engine against a formula."""

import dataclasses
import enum
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gdstab import ensembles
from gdstab._types import LossFn, Scalar
from gdstab.losses.pullback import First, Pullback
from gdstab.outcomes import Outcome, StoppingRule
from gdstab.updates import UpdateRule

_NEAR = 30
"""An orbit that converges within so many displacements of its minimum has returned."""


class Verdict(enum.IntEnum):
    """What becomes of an orbit that starts near a minimum."""

    RETURNS = 0  # converges near where it started
    LEAVES = 1  # converges elsewhere
    CYCLES = 2
    DIVERGES = 3
    UNDECIDED = 4


class Diagram(NamedTuple):
    """A verdict for every step size and momentum; one momentum only for rules that have none."""

    step_sizes: np.ndarray  # [steps]
    betas: np.ndarray  # [betas]
    verdict: np.ndarray  # [steps, betas], see `Verdict`
    updates: np.ndarray  # [steps, betas]
    threshold: np.ndarray  # [betas], the closed form
    lane_steps: int


class Decayed(eqx.Module):
    r"""$L + \frac w2 \theta^T P \theta$ less its value at a point: critical where weight decay has its fixed point."""

    loss: LossFn
    decay: Float[Array, " dim"]  # w P
    value: Scalar

    def __call__(self, theta):
        """The value at one point."""
        return self.loss(theta) + jnp.sum(self.decay * theta**2) / 2 - self.value


def diagram(
    rule: UpdateRule, loss: LossFn, theta: np.ndarray, betas: np.ndarray, threshold: np.ndarray,
    stopping: StoppingRule, *, num: int = 160, displacement: float = 1e-3, decay: np.ndarray | None = None,
    progress: Callable | None = None,
) -> Diagram:  # fmt: skip
    """One orbit from near the minimum `theta` for every step size and momentum.

    The `num` step sizes run from a quarter of the smallest threshold to 1.25 times the largest, evenly, or
    geometrically where these are far apart. With weight decay orbits are said to converge where loss and decay together
    are critical, since the gradient of the loss does not vanish.

    Parameters
    ----------
    rule
        On parameters `(theta, beta)`, as `updates.named_family` makes it; adaptive ones at a frozen second moment.
    threshold
        The largest stable step size in closed form, for every momentum.
    displacement
        How far from the minimum the orbits start.
    decay
        What the rule's weight decay amounts to, $w P$ with the preconditioner $P$, [dim].
    """
    dtype = theta.dtype
    # Near a flip the two modes of momentum are almost parallel: their sum can pause, and look like a cycle, on its way.
    stopping = dataclasses.replace(stopping, cycle_tol=64 * float(np.finfo(dtype).eps))
    low, high = threshold.min() / 4, threshold.max() * 1.25
    step_sizes = (np.geomspace if high > 30 * low else np.linspace)(low, high, num)
    watched = loss
    if decay is not None:
        watched, rule = _watch_decay(loss, theta, jnp.asarray(decay, dtype), rule)
    away = np.cos(np.arange(1, theta.size + 1) * 2.4)  # along no axis and no symmetry
    start = theta + (displacement * away / np.linalg.norm(away)).astype(dtype)
    points = (np.tile(start, (len(betas), 1)), betas.astype(dtype))
    found = ensembles.run(
        rule, Pullback(watched, First()), points, step_sizes.astype(dtype), stopping, progress=progress
    )
    distance = np.linalg.norm(np.asarray(found.theta[0], float) - theta, axis=-1)
    return Diagram(
        step_sizes, betas, _verdicts(found.outcome, distance <= _NEAR * displacement), found.steps, threshold,
        found.lane_steps,
    )  # fmt: skip


def _watch_decay(loss, theta, decay, rule):
    """What vanishes where the rule rests, for the stopping rule to watch; and the rule, at work on the loss itself."""
    value = Decayed(loss, decay, jnp.zeros((), theta.dtype))(jnp.asarray(theta))
    under = Pullback(loss, First())
    return Decayed(loss, decay, value), rule._replace(step=lambda _, state, size: rule.step(under, state, size))


def _verdicts(outcome: np.ndarray, near: np.ndarray) -> np.ndarray:
    verdict = np.full(outcome.shape, Verdict.UNDECIDED, np.int8)
    verdict[outcome == Outcome.CYCLING] = Verdict.CYCLES
    verdict[(outcome == Outcome.DIVERGED) | (outcome == Outcome.NONFINITE)] = Verdict.DIVERGES
    verdict[(outcome == Outcome.CONVERGED) & near] = Verdict.RETURNS
    verdict[(outcome == Outcome.CONVERGED) & ~near] = Verdict.LEAVES
    return verdict


def compare(found: Diagram) -> dict:
    """How the verdicts agree with the closed form.

    `contradictions` are lanes that return above the threshold, or leave, cycle or diverge below it; `farthest` is the
    largest relative distance of one of them from its threshold. `undecided_below` are orbits that are too slow, close
    below it, and `slow_within` the same distance for them. `measured` is the largest relative distance between the
    threshold and the step size up to which all return, which is at least as large as the grid is fine.
    """
    below = found.step_sizes[:, None] < found.threshold
    gap = np.abs(found.step_sizes[:, None] / found.threshold - 1)
    returns = found.verdict == Verdict.RETURNS
    slow = below & (found.verdict == Verdict.UNDECIDED)
    wrong = (returns != below) & ~slow
    steps = np.diff(found.step_sizes)
    last = np.where(returns.all(axis=0), len(steps), np.argmin(returns, axis=0) - 1)
    edge = np.where(last < 0, 0, found.step_sizes[last])
    return {
        "lanes": int(found.verdict.size),
        "counts": {v.name.lower(): int((found.verdict == v).sum()) for v in Verdict},
        "contradictions": int(wrong.sum()),
        "farthest": float(gap[wrong].max()) if wrong.any() else 0.0,
        "undecided_below": int(slow.sum()),
        "slow_within": float(gap[slow].max()) if slow.any() else 0.0,
        "measured": float(np.max(np.abs(edge / found.threshold - 1))),
        "spacing": float(np.max(steps / found.step_sizes[:-1])),
        "lane_steps": found.lane_steps,
    }
