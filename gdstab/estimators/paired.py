r"""Two shares under common random numbers: their difference and ratio from the 2 x 2 table of what happened to each.

A sample is a hit in both, in the first only, in the second only, or in none: `n11`, `n10`, `n01`, `n00`. Only the
discordant samples n10 + n01 say which share is larger; that is why common random numbers pay.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

from gdstab.estimators.intervals import (
    Estimate,
    Interval,
    check_confidence,
    check_counts,
    clopper_pearson_interval,
    few_at,
)


def paired_difference(n11, n10, n01, n00, confidence: float = 0.95) -> Estimate:
    r"""Difference $p_1 - p_2 = (n_{10} - n_{01})/n$ of two shares that were counted on the same samples.

    The interval inverts the score test of Tango (1998, Statist. in Medicine 17): all $\delta$ with

    $$|n_{10} - n_{01} - n \delta| \le z \sqrt{n\,(2 \tilde q + \delta (1 - \delta))},$$

    $\tilde q$ the likeliest $p_{01}$ where $p_{10} = p_{01} + \delta$; at $\delta = 0$ this is McNemar's test (method
    "tango"). With fewer than `few_at` the confidence (20 at 95 %) discordant samples it is $p_{10}$ less $p_{01}$, end
    against end, each in its Clopper-Pearson interval at half the error: at least the stated probability (method
    "clopper-pearson").

    Parameters
    ----------
    n11, n10, n01, n00
        Integers or arrays of integers that broadcast, not all 0.

    Returns
    -------
    An `Estimate` of the broadcast shape; the standard error is $\sqrt{n_{10} + n_{01} - (n_{10} - n_{01})^2 / n}/n$.

    Raises
    ------
    ValueError
        If a count is negative or no integer, shapes do not broadcast, all four are 0, or `confidence` is out of range.

    Examples
    --------
    >>> change = paired_difference(500, 60, 20, 420)
    >>> print(change.method, f"{change.value:.3f} [{change.low:.4f}, {change.high:.4f}]")
    tango 0.040 [0.0231, 0.0584]
    """
    _, b, c, _, n = _check_table(n11, n10, n01, n00)
    confidence = check_confidence(confidence)
    z = special.ndtri((1 + confidence) / 2)

    def against(sign):
        def excess(delta):
            return b - c - n * delta - sign * z * np.sqrt(n * _tango_variance(b, c, n, delta))

        return _bisect(excess, np.full(n.shape, -1.0), np.full(n.shape, 1.0))

    first, second = (_ends(count, n, confidence) for count in (b, c))
    few = b + c < few_at(confidence)
    low = np.where(few, first[0] - second[1], against(1.0))
    high = np.where(few, first[1] - second[0], against(-1.0))
    error = np.sqrt(np.maximum(b + c - (b - c) ** 2 / n, 0)) / n
    return Estimate(np.asarray((b - c) / n), low, high, np.asarray(error), _methods(few, "tango"))


def paired_ratio(n11, n10, n01, n00, confidence: float = 0.95) -> Estimate:
    r"""Ratio $p_1 / p_2 = (n_{11} + n_{10}) / (n_{11} + n_{01})$ of two shares that were counted on the same samples.

    The interval inverts the score test of Nam and Blackwelder (2002, Statist. in Medicine 21): all $\varphi$ with

    $$|n_{1\cdot} - \varphi\, n_{\cdot 1}| \le z \sqrt{n\, \varphi\, (\tilde p_{10} + \tilde p_{01})},$$

    the two the likeliest where $p_1 = \varphi p_2$ (method "nam-blackwelder"). With fewer than `few_at` the confidence
    (20 at 95 %) discordant samples, or hits in either share, it is $(1 - q_{01}) / (1 - q_{10})$, end against end, each
    $q$, the share among samples hit at least once, in its Clopper-Pearson interval at half the error: at least the
    stated probability (method "clopper-pearson"). Samples that were never hit say nothing; if there are no others, the
    value is NaN and the interval (0, inf). Arguments and errors as in `paired_difference`; the standard error is the
    delta method's.

    Examples
    --------
    >>> change = paired_ratio(500, 60, 20, 420)
    >>> print(change.method, f"{change.value:.3f} [{change.low:.4f}, {change.high:.4f}]")
    nam-blackwelder 1.077 [1.0435, 1.1149]
    """
    a, b, c, _, _ = _check_table(n11, n10, n01, n00)
    confidence = check_confidence(confidence)
    z = special.ndtri((1 + confidence) / 2)
    m, first, second = a + b + c, a + b, a + c
    few = (b + c < few_at(confidence)) | (np.minimum(first, second) < few_at(confidence))

    def against(sign):
        def excess(log_ratio):
            ratio = np.exp(log_ratio)
            return first - ratio * second - sign * z * np.sqrt(_nam_variance(a, b, c, ratio))

        return np.exp(_bisect(excess, np.full(m.shape, -45.0), np.full(m.shape, 45.0)))

    (low10, high10), (low01, high01) = (_ends(count, np.maximum(m, 1), confidence) for count in (b, c))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = first / second
        error = value * np.sqrt((b + c) / (first * second))
        low = np.where(few, (1 - high01) / (1 - low10), against(1.0))
        high = np.where(few, (1 - low01) / (1 - high10), against(-1.0))
    low, high = np.where(m > 0, low, 0.0), np.where(m > 0, high, np.inf)
    return Estimate(np.asarray(value), low, high, np.asarray(error), _methods(few, "nam-blackwelder"))


def _tango_variance(b, c, n, delta):
    """2 q + delta (1 - delta), with q the larger root of 2 n q^2 + B q - c delta (1 - delta) = 0."""
    linear, constant = (2 * n - b + c) * delta - b - c, c * delta * (1 - delta)
    q = _larger_root(2 * n, linear, constant)
    return np.maximum(2 * q + delta * (1 - delta), 0)


def _nam_variance(a, b, c, ratio):
    """Times n; where p1 = ratio p2, the likeliest share t of n01 among samples hit once solves a quadratic."""
    m = a + b + c
    linear = a * (ratio**2 - 1) - b - c * (2 - ratio**2)
    t = _larger_root((1 + ratio) * m, linear, c * (ratio - 1))
    return np.maximum(m * (ratio - 1 + (1 + ratio) * t), 0)


def _larger_root(square, linear, constant):
    """The larger root of square t^2 + linear t - constant = 0, without the difference of close numbers."""
    root = np.sqrt(np.maximum(linear**2 + 4 * square * constant, 0))
    down = linear > 0
    far = np.where(down, linear + root, 1.0)
    return np.where(down, 2 * constant / far, (root - linear) / np.where(square > 0, 2 * square, 1.0))


def _bisect(excess: Callable, low, high) -> np.ndarray:
    """Where a function that falls through zero does so, to the last bit or two, elementwise."""
    for _ in range(64):
        middle = (low + high) / 2
        above = excess(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)


def _ends(count, n, confidence) -> Interval:
    return clopper_pearson_interval(count.astype(np.int64), n.astype(np.int64), (1 + confidence) / 2)


def _methods(few, many: str) -> np.ndarray:
    return np.where(few, "clopper-pearson", many)


def _check_table(n11, n10, n01, n00) -> list[np.ndarray]:
    """The four counts and their sum, float64, of one shape."""
    try:
        cells = np.broadcast_arrays(*(np.asarray(count) for count in (n11, n10, n01, n00)))
    except ValueError as error:
        raise ValueError(
            f"`n11`, `n10`, `n01`, `n00` must broadcast, got shapes {[np.shape(x) for x in (n11, n10, n01, n00)]}; "
            "count the same samples in all four"
        ) from error
    if not all(np.issubdtype(cell.dtype, np.integer) for cell in cells):
        raise ValueError(f"expected four integer counts, got {[str(x.dtype) for x in cells]}; pass counts, not shares")
    total = sum(cell.astype(np.int64) for cell in cells)
    return [check_counts(cell, total)[0] for cell in cells] + [np.asarray(total, np.float64)]
