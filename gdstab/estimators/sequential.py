r"""Sampling until an interval is as narrow as wished, with a coverage that stopping does not spoil.

Who looks at a usual interval again and again, and may stop each time, ends with one that covers less than it says. Here
the looks are fixed beforehand, at sizes that grow geometrically; each of the J looks uses a Clopper-Pearson interval
that errs with probability at most (1 - confidence)/J. By the union bound all J intervals hold the share at once with at
least the stated confidence, so the one at hand does at whatever look one stops, and for whatever reason. That costs 2
to 3.5 times the samples of the one look that would have done, had the share been known.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gdstab._validate import check_count, check_positive
from gdstab.estimators.intervals import check_confidence, check_counts, clopper_pearson_interval


class Plan(NamedTuple):
    """When to look, and what each look may claim."""

    looks: tuple[int, ...]  # numbers of samples, increasing
    confidence: float  # of the interval of each look: 1 - (1 - confidence of the whole) / number of looks
    width: float
    relative: bool  # whether the interval must be as narrow as `width` times the share, or as `width` itself


class SequentialEstimate(NamedTuple):
    """A share at the look where sampling stopped; arrays where `draw` gives arrays."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    reached: np.ndarray  # False: the budget ended first, and high - low says how far it came
    n: int  # samples taken
    look: int  # how many looks were taken


def plan_looks(
    width: float, budget: int, confidence: float = 0.95, *, first: int = 64, growth: float = 1.5, relative: bool = False
) -> Plan:
    r"""Fix the looks $\lceil \text{first} \cdot \text{growth}^j \rceil$ up to `budget`, which is the last.

    Looks that cannot stop are left out, so that the others may err more: those where even no hit at all (if `relative`,
    hits alone) leaves the interval too wide, and, for an absolute width, those beyond the first where every count does.

    Parameters
    ----------
    width
        Of the whole interval, high - low; if `relative`, as a multiple of the share. Positive, absolute ones below 1.
    budget
        The most samples.
    first, growth
        The smallest look, and the ratio of successive ones, above 1.

    Raises
    ------
    ValueError
        If one of these is out of range.

    Examples
    --------
    >>> plan = plan_looks(0.1, 1000)
    >>> print(plan.looks, f"{plan.confidence:.4f}")
    (64, 96, 144, 216, 324, 486, 729, 1000) 0.9938
    """
    width, budget, first = check_positive(width, "width"), check_count(budget, "budget"), check_count(first, "first")
    confidence, growth = check_confidence(confidence), check_positive(growth, "growth")
    if growth <= 1:
        raise ValueError(f"growth: expected a ratio of successive looks above 1, got {growth}; pass 1.5, for instance")
    if not relative and width >= 1:
        raise ValueError(
            f"width: expected less than 1 for an interval of a share, got {width}; pass 0.01, for instance"
        )
    sizes, size = [], float(first)
    while size < budget:
        sizes.append(int(np.ceil(size)))
        size *= growth
    looks = [n for n in dict.fromkeys(sizes) if n < budget and _narrowest(n, confidence) <= width] + [budget]
    while not relative:  # fewer looks are narrower ones, which may make still fewer
        widths = [_widest(n, _each(confidence, len(looks))) for n in looks]
        enough = next((j for j, widest in enumerate(widths) if widest <= width), len(looks) - 1)
        if enough == len(looks) - 1:
            break
        looks = looks[: enough + 1]
    return Plan(tuple(looks), _each(confidence, len(looks)), width, bool(relative))


def examine(plan: Plan, look: int, hits) -> SequentialEstimate:
    """What look number `look`, from 0, says when `hits` of its samples were hits: an integer or an array of them.

    >>> plan = plan_looks(0.1, 1000)
    >>> late = examine(plan, 6, 200)
    >>> print(late.n, late.reached, f"{late.low:.3f} {late.high:.3f}")
    729 True 0.230 0.322
    """
    if not 0 <= look < len(plan.looks):
        raise ValueError(f"look: expected 0 to {len(plan.looks) - 1}, got {look}; the plan has no others")
    n = plan.looks[look]
    low, high = clopper_pearson_interval(hits, n, plan.confidence)
    value = np.asarray(hits) / n
    reached = high - low <= plan.width * (value if plan.relative else 1.0)
    return SequentialEstimate(np.asarray(value), low, high, np.asarray(reached), n, look + 1)


def sample_to_width(
    draw: Callable[[int, int], np.ndarray | int],
    width: float,
    budget: int,
    confidence: float = 0.95,
    *,
    first: int = 64,
    growth: float = 1.5,
    relative: bool = False,
) -> SequentialEstimate:
    r"""Sample until the interval of a share is as narrow as `width`, or the budget ends.

    Parameters
    ----------
    draw
        `draw(start, stop)` counts the hits among the independent samples number start, ..., stop - 1: an integer, or
        integers of one shape for several shares of the same samples. Then sampling goes on until all are narrow.
    width, budget, confidence, first, growth, relative
        As in `plan_looks`.

    Returns
    -------
    A `SequentialEstimate`. Each interval covers with at least the stated probability, whether its width was reached or
    not; where the budget ended first, `reached` is False.

    Raises
    ------
    ValueError
        As in `plan_looks`, or if `draw` returns no counts from 0 to stop - start.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> estimate = sample_to_width(lambda start, stop: rng.binomial(stop - start, 0.3), 0.05, 10**6)
    >>> print(estimate.n, f"{estimate.value:.4f}", bool(estimate.reached))
    3691 0.2969 True
    """
    plan = plan_looks(width, budget, confidence, first=first, growth=growth, relative=relative)
    hits, start = 0, 0
    for look, stop in enumerate(plan.looks):
        fresh = draw(start, stop)
        check_counts(fresh, stop - start)
        hits, start = hits + np.asarray(fresh, np.int64), stop
        estimate = examine(plan, look, hits)
        if estimate.reached.all():
            break
    return estimate


def _each(confidence: float, looks: int) -> float:
    return 1 - (1 - confidence) / looks


def _narrowest(n: int, confidence: float) -> float:
    """Width of the narrowest Clopper-Pearson interval of n samples, that of no hits, 1 - ((1 - confidence)/2)^(1/n)."""
    return -float(np.expm1(np.log((1 - confidence) / 2) / n))


def _widest(n: int, confidence: float) -> float:
    """And of the widest, that of half of them hits."""
    low, high = clopper_pearson_interval(n // 2, n, confidence)
    return float(high - low)
