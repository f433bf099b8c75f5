"""From a few cycles to all branches that hang together with them by flips."""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from gdstab._numerics import magnitude
from gdstab._types import LossFn
from gdstab._validate import check_count
from gdstab.bifurcation.cascade import doubled
from gdstab.bifurcation.continuation import Branch, cycle_points, follow
from gdstab.bifurcation.points import Kind
from gdstab.orbits import Cycle, refine


class Followed(NamedTuple):
    """A branch, and the parameters along its cycles."""

    branch: Branch
    theta: Any  # every leaf [points, period, ...]


def explore(
    rule,
    loss: LossFn,
    cycles: Iterable[Cycle],
    low: float,
    high: float,
    *,
    doublings: int = 2,
    max_branches: int = 24,
    largest_step: float = 0.02,
    max_points: int = 400,
) -> list[Followed]:
    """Follow these cycles from `low` to `high`, then the ones born at their flips, and the ones they were born from.

    Parameters
    ----------
    cycles
        Each at a step size from `low` to `high`; one that lies on a branch found before is not followed again.
    doublings
        How many times in a row a flip is left for the cycle of twice the period.
    largest_step, max_points
        As in `follow`.

    Raises
    ------
    ValueError
        As `follow`.
    """
    doublings = check_count(doublings, "doublings", least=0)
    max_branches = check_count(max_branches, "max_branches")
    waiting, found = deque((cycle, doublings) for cycle in cycles), []
    reach = 3 * largest_step
    while waiting and len(found) < max_branches:
        cycle, left = waiting.popleft()
        if any(_passes(one, cycle, reach, high - low) for one in found):
            continue
        branch = follow(rule, loss, cycle, low, high, largest_step=largest_step, max_points=max_points)
        found.append(Followed(branch, cycle_points(rule, loss, branch)))
        for point in branch.bifurcations:
            if point.kind is not Kind.FLIP:
                continue
            if point.birth:
                mother = refine(rule, loss, point.state, point.step_size, point.period, scale=point.scale)
                if mother.converged:
                    waiting.append((mother, left + 1))
            elif left:
                try:
                    daughter, _ = doubled(rule, loss, point)
                except ValueError:  # the normal form says that there is one, a manifold of minima that there is none
                    continue
                if low <= float(daughter.step_size) <= high:
                    waiting.append((daughter, left - 1))
    return found


def _passes(one: Followed, cycle: Cycle, reach: float, span: float) -> bool:
    """Whether a branch passes by a cycle of the same period, however that is numbered."""
    if one.branch.period != cycle.period:
        return False
    near = np.abs(one.branch.step_sizes - float(cycle.step_size)) <= reach * span
    if not near.any():
        return False
    points = _flat(one.theta, 2)[near]  # [near, period, dim]
    first = _flat(cycle.theta, 1)[0]
    apart = np.linalg.norm(points - first, axis=-1).min(axis=1)
    return bool((apart <= reach * (magnitude(cycle.scale) + np.linalg.norm(first))).any())


def _flat(theta, axes: int) -> np.ndarray:
    """All parameters as one trailing axis."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(theta)]
    return np.concatenate([leaf.reshape(*leaf.shape[:axes], -1) for leaf in leaves], axis=-1)
