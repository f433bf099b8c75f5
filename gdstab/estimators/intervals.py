"""Intervals for one share of counted hits: Wilson, Clopper-Pearson, the rule of three."""

from typing import TypeAlias

import numpy as np
from scipy import special

Interval: TypeAlias = tuple[np.ndarray, np.ndarray]


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
    hits, n = _check_counts(hits, n)
    z = special.ndtri((1 + _check_confidence(confidence)) / 2)
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
    hits, n = _check_counts(hits, n)
    tail = (1 - _check_confidence(confidence)) / 2
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
    _, n = _check_counts(0, n)
    high = np.asarray(np.minimum(-np.log1p(-_check_confidence(confidence)) / n, 1.0))
    return np.zeros_like(high), high


def _check_counts(hits, n) -> tuple[np.ndarray, np.ndarray]:
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
    if (n < 1).any():
        raise ValueError(f"`n` must be at least 1, but got {int(n.min())}; no samples say nothing about a share")
    wrong = (hits < 0) | (hits > n)
    if wrong.any():
        raise ValueError(
            f"`hits` must be from 0 to `n`, but {int(wrong.sum())} are not, the first {int(hits[wrong][0])} of "
            f"{int(n[wrong][0])}; are the arguments swapped?"
        )
    return hits, n


def _check_confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be strictly between 0 and 1, such as 0.95, but got {confidence}.")
    return float(confidence)
