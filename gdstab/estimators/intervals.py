"""Intervals for one share of counted hits: Wilson, Clopper-Pearson, the rule of three; and what is undecided."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy import special

Interval: TypeAlias = tuple[np.ndarray, np.ndarray]
FEW = 20
"""Up to 95 %: fewer hits (or misses), and an exact method takes over from one that leans on the normal law."""


class Estimate(NamedTuple):
    """One number and how surely, or arrays of them; every field has the same shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray  # of `value`, estimated; 0 where nothing varied, so lean on the interval
    method: np.ndarray  # the name of the interval that was used


class UndecidedBounds(NamedTuple):
    """A share whose undecided samples are counted out, then in, and the interval around both."""

    share_low: np.ndarray
    share_high: np.ndarray
    low: np.ndarray
    high: np.ndarray


def wilson_interval(hits, n, confidence: float = 0.95) -> Interval:
    r"""Score interval of Wilson (1927, J. Amer. Statist. Assoc. 22) for a share of which `hits` of `n` were counted.

    $$\frac{\hat p + z^2/2n \pm z \sqrt{\hat p (1 - \hat p)/n + z^2/4n^2}}{1 + z^2/n}, \qquad \hat p = \text{hits}/n,$$

    with $z$ the normal quantile at $(1 + \text{confidence})/2$. It never collapses to a point, and covers the true
    share with about the stated probability on average over shares; near 0 and 1 it can cover less. Where the
    coverage must be guaranteed take `clopper_pearson_interval`.

    Parameters
    ----------
    hits, n
        Integers or arrays of integers that broadcast, $0 \le \text{hits} \le n$, $n \ge 1$.
    confidence
        Strictly between 0 and 1.

    Returns
    -------
    (low, high), float64, of the broadcast shape; `low` is exactly 0 at `hits = 0`, `high` exactly 1 at `hits = n`.

    Raises
    ------
    ValueError
        If a count is no integer or out of range, or `confidence` is not between 0 and 1.

    Examples
    --------
    >>> low, high = wilson_interval(0, 100)
    >>> print(f"{low:.4f} {high:.4f}")
    0.0000 0.0370
    """
    hits, n = check_counts(hits, n)
    z = special.ndtri((1 + check_confidence(confidence)) / 2)
    p = hits / n
    centre = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    return np.where(hits == 0, 0.0, low), np.where(hits == n, 1.0, high)


def clopper_pearson_interval(hits, n, confidence: float = 0.95) -> Interval:
    r"""Exact interval of Clopper and Pearson (1934, Biometrika 26): it covers with at least the stated probability.

    With $\alpha = 1 - \text{confidence}$, `low` is the $\alpha/2$ quantile of Beta(hits, n - hits + 1) and `high` the
    $1 - \alpha/2$ quantile of Beta(hits + 1, n - hits). Parameters, result and errors as in `wilson_interval`.

    >>> low, high = clopper_pearson_interval([0, 5, 10], 10)
    >>> print(low.round(4), high.round(4))
    [0.     0.1871 0.6915] [0.3085 0.8129 1.    ]
    """
    hits, n = check_counts(hits, n)
    tail = (1 - check_confidence(confidence)) / 2
    # The largest argument at the two ends only avoids a parameter 0, which has no quantile; the ends are known.
    low = special.betaincinv(np.maximum(hits, 1), n - hits + 1, tail)
    high = special.betainccinv(hits + 1, np.maximum(n - hits, 1), tail)
    return np.where(hits == 0, 0.0, low), np.where(hits == n, 1.0, high)


def rule_of_three(n, confidence: float = 0.95) -> Interval:
    r"""One-sided interval $(0, -\ln(1 - \text{confidence})/n)$ for a share that was hit 0 times of `n`; 3/n at 95 %.

    It contains the exact $1 - (1 - \text{confidence})^{1/n}$ (Hanley and Lippman-Hand 1983, JAMA 249), so it covers
    with at least the stated probability. Errors as in `wilson_interval`.

    >>> print(f"{rule_of_three(1000)[1]:.6f}")
    0.002996
    """
    _, n = check_counts(0, n)
    high = np.asarray(np.minimum(-np.log1p(-check_confidence(confidence)) / n, 1.0))
    return np.zeros_like(high), high


def plain(hits, n, confidence: float = 0.95) -> Estimate:
    r"""Share of hits among independent samples: Wilson's interval, and Clopper-Pearson's where either count is small.

    Small is below 20 hits or 20 misses (beyond 95 %, below `few_at` the confidence). Of a share with $np < 10$ fewer
    than 4 in 1000 runs see 20 hits, and then both intervals leave the share out: so at 95 % the coverage is that of
    Clopper-Pearson wherever $np < 10$ or $n(1-p) < 10$, and that of Wilson, never below 93 %, elsewhere. Arguments and
    errors as in `wilson_interval`.

    >>> few, many = plain(3, 1000), plain(300, 1000)
    >>> print(few.method, many.method, f"{many.value:.3f} [{many.low:.3f}, {many.high:.3f}]")
    clopper-pearson wilson 0.300 [0.272, 0.329]
    """
    score, exact = wilson_interval(hits, n, confidence), clopper_pearson_interval(hits, n, confidence)
    hits, n = check_counts(hits, n)
    share, few = hits / n, np.minimum(hits, n - hits) < few_at(confidence)
    low, high = (np.where(few, a, b) for a, b in zip(exact, score, strict=True))
    return Estimate(share, low, high, np.sqrt(share * (1 - share) / n), np.where(few, "clopper-pearson", "wilson"))


def few_at(confidence: float) -> int:
    r"""Below how many hits (or misses) an exact method takes over: `FEW` up to 95 %, growing like $z^6$ beyond.

    What skewness adds to an error, relative to it, is of the order of $z^3 / \sqrt{np}$ for a normal quantile z.

    >>> few_at(0.8), few_at(0.95), few_at(0.99), few_at(0.999)
    (20, 20, 104, 448)
    """
    z, usual = (special.ndtri((1 + level) / 2) for level in (confidence, 0.95))
    return FEW if confidence <= 0.95 else int(np.ceil(FEW * (z / usual) ** 6))


def undecided_bounds(
    hits, undecided, n, confidence: float = 0.95, interval: Callable[..., Interval] = clopper_pearson_interval
) -> UndecidedBounds:
    r"""What a share can be when `undecided` of `n` samples had no verdict: each may be a hit or a miss.

    `share_low` counts them out, hits/n, `share_high` counts them in, (hits + undecided)/n. `low` is the lower end of
    the interval of the first and `high` the upper end of that of the second. Each end errs with probability at most
    (1 - confidence)/2 where `interval` does, so that [low, high] holds the whole range from the share of sure hits
    to that of possible ones with the stated probability, whatever the undecided would have become.

    Parameters
    ----------
    hits, undecided, n
        Integers or arrays of integers that broadcast, $\text{hits} + \text{undecided} \le n$.
    interval
        Called as `interval(hits, n, confidence)`.

    Raises
    ------
    ValueError
        If hits and undecided exceed `n`, or as in `wilson_interval`.

    Examples
    --------
    >>> bounds = undecided_bounds(30, 5, 100)
    >>> print(bounds.share_low, bounds.share_high, f"{bounds.low:.4f} {bounds.high:.4f}")
    0.3 0.35 0.2124 0.4518
    """
    without, total = check_counts(hits, n)
    open_, total = check_counts(undecided, total.astype(np.int64))
    excess = without + open_ > total
    if excess.any():
        raise ValueError(
            f"`hits` + `undecided` must not exceed `n`, but {int(excess.sum())} do; count every sample once, "
            "undecided ones apart from hits"
        )
    possible = (without + open_).astype(np.int64)
    low, _ = interval(hits, n, confidence)
    _, high = interval(possible, total.astype(np.int64), confidence)
    low = np.broadcast_to(low, total.shape)
    return UndecidedBounds(np.asarray(without / total), np.asarray(possible / total), low, high)


def check_counts(hits, n, *, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Counts as float64 arrays of one shape: integers up to 2^53 are exact there and their squares do not wrap."""
    try:
        counts = np.broadcast_arrays(np.asarray(hits), np.asarray(n))
    except ValueError as error:
        raise ValueError(
            f"`hits` and `n` must broadcast, got shapes {np.shape(hits)}, {np.shape(n)}; give one `n`, or one each"
        ) from error
    for name, count in zip(("hits", "n"), counts, strict=True):
        if not np.issubdtype(count.dtype, np.integer):
            raise ValueError(f"`{name}` must hold integers, but got {count.dtype}; pass counts, not shares")
    hits, n = (count.astype(np.float64) for count in counts)
    if (n < least).any():
        raise ValueError(f"`n` must be at least {least}, but got {int(n.min())}; no samples say nothing about a share")
    wrong = (hits < 0) | (hits > n)
    if wrong.any():
        raise ValueError(
            f"`hits` must be from 0 to `n`, but {int(wrong.sum())} are not, the first {int(hits[wrong][0])} of "
            f"{int(n[wrong][0])}; are the arguments swapped?"
        )
    return hits, n


def check_confidence(confidence: float) -> float:
    """A confidence strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be strictly between 0 and 1, such as 0.95, but got {confidence}.")
    return float(confidence)
