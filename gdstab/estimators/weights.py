"""Shares from samples with importance weights: what the hits and the misses weigh, and what was not drawn might."""

import numpy as np

from gdstab.estimators._limits import brief, choose, gamma_interval, widened_normal
from gdstab.estimators.intervals import Estimate, Interval, check_confidence, few_at


def weighted(hit_sums, all_sums, largest, confidence: float = 0.95) -> Estimate:
    r"""Self-normalised share $\sum_{hits} w_i / \sum_{all} w_i$ of independent samples with importance weights.

    The variance is that of the delta method, $\sum_i w_i^2 (y_i - \hat p)^2 / (\sum_i w_i)^2$ with $y_i$ 1 for a hit
    and 0 for a miss (Owen 2013, ch. 9), to which $z^2 (w_{max} / \sum_i w_i)^2$ is added, because a sample of the
    largest weight that was not drawn could change the total (method "delta").

    With fewer than `few_at` the confidence (20 at 95 %) effective hits or misses, $(\sum w)^2 / \sum w^2$ over either,
    the weights of hits, A, and of misses, M, are bounded apart, as counts that are independent: each by the gamma
    limits $l \le A \le u$ of Fay and Feuer (1997, Statist. in Medicine 16), the upper ones as if one more of the
    largest weight had been seen. The distances to the limits add up in quadrature (Zou and Donner 2008, Statist. in
    Medicine 27): the lower end is the share s at which

    $$(1 - s) A - s M = \sqrt{(1 - s)^2 (A - l_A)^2 + s^2 (u_M - M)^2},$$

    and the upper end the same with hits and misses exchanged (method "gamma"). Neither end asks how many samples there
    were. A weight that could outweigh the sum of all leaves the share open, and the interval says so.

    Parameters
    ----------
    hit_sums, all_sums
        Pairs $(\sum w, \sum w^2)$ over the hits and over all samples; numbers or arrays that broadcast. They can be
        summed chunk by chunk.
    largest
        The largest weight that there can be, drawn or not; one above it contradicts the statement.

    Returns
    -------
    An `Estimate` of the broadcast shape. `effective_sample_size(*all_sums)` says what the weights cost.

    Raises
    ------
    ValueError
        If sums are negative, not finite, greater for the hits than for all, or contradict `largest`.

    Examples
    --------
    >>> estimate = weighted((60.0, 90.0), (200.0, 300.0), largest=2.0)
    >>> print(estimate.method, f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    delta 0.3000 [0.2132, 0.3868]
    >>> estimate = weighted((6.0, 6.0), (20.0, 20.0), largest=1000.0)  # one such would outweigh all
    >>> print(estimate.method, f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    gamma 0.3000 [0.0013, 0.9966]
    """
    hit, hit2, total, total2, largest = _check_weight_sums(hit_sums, all_sums, largest)
    confidence = check_confidence(confidence)
    # Differences of sums carry their rounding: below it there are no misses, and squares are taken at their largest.
    eps = np.finfo(float).eps
    miss = np.where(total - hit > 1e4 * eps * total, total - hit, 0.0)
    miss2 = np.minimum(np.maximum(total2 - hit2, eps * total2), largest * miss)
    value, a = hit / total, largest / total
    variance = (hit2 * (1 - value) ** 2 + miss2 * value**2) / total**2
    many = widened_normal(value, variance, a, confidence, "delta")
    sums, squares = np.stack([hit, miss]), np.stack([hit2, miss2])
    effective = np.min(sums**2 / np.where(sums > 0, squares, 1), axis=0) * (1 + 1e-9)  # 20 equal ones are 20
    few = effective < few_at(confidence)
    low, high = _apart(sums / total, squares / total**2, a, confidence)
    return choose(few, many._replace(low=low, high=high, method=np.asarray("gamma")), many)


def effective_sample_size(sum_w, sum_w2) -> np.ndarray:
    r"""How many equal weights tell as much as these do, $(\sum w)^2 / \sum w^2$ (Kish 1965, Survey Sampling, 11.7).

    >>> print(effective_sample_size(3.0, 5.0))  # the weights 1 and 2
    1.8
    """
    sum_w, sum_w2 = np.asarray(sum_w, np.float64), np.asarray(sum_w2, np.float64)
    if not ((sum_w > 0) & (sum_w2 > 0)).all():
        raise ValueError("expected sums of positive weights and of their squares, got one that is not; pass both > 0")
    return np.asarray(sum_w**2 / sum_w2)


def _apart(sums, squares, a, confidence) -> Interval:
    """Ends of the share of hits from limits of hits and misses, axis 0 of all."""
    below, above = gamma_interval(sums, squares, a, confidence)
    down, up = sums - below, above - sums
    # Of the odds r = s / (1 - s) the equation makes (M^2 - (u_M - M)^2) r^2 - 2 A M r + A^2 - (A - l_A)^2 = 0.
    first, second = sums, sums[::-1]
    left, right = below * (first + down), second**2 - up[::-1] ** 2
    other = first * second + np.sqrt(np.maximum((first * second) ** 2 - left * right, 0))
    odds = np.where(first > 0, left / np.where(first > 0, other, 1.0), 0.0)
    share = odds / (1 + odds)
    return np.asarray(share[0]), np.asarray(1 - share[1])


def _check_weight_sums(hit_sums, all_sums, largest) -> tuple[np.ndarray, ...]:
    try:
        (hit, hit2), (total, total2) = hit_sums, all_sums
        given = np.broadcast_arrays(*(np.asarray(one, np.float64) for one in (hit, hit2, total, total2, largest)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected pairs (sum of weights, sum of squares) that broadcast, got {brief(hit_sums)} and "
            f"{brief(all_sums)}; pass one pair for the hits and one for all samples"
        ) from error
    hit, hit2, total, total2, largest = given
    slack = 1 + 1e-9  # sums of the same weights in another order differ by rounding
    fine = np.isfinite(given).all(axis=0) & (np.minimum(hit, hit2) >= 0) & (np.minimum(total, total2) > 0)
    fine &= (hit <= total * slack) & (hit2 <= total2 * slack) & (total2 <= largest * total * slack)
    if not fine.all():
        raise ValueError(
            f"expected 0 <= sums over the hits <= sums over all samples, and no weight above `largest`, but "
            f"{int((~fine).sum())} entries break that, the first (hits, squares, all, squares, largest) = "
            f"{[float(one[~fine][0]) for one in given]}; check what was summed"
        )
    return given
