"""Shares from designs other than plain sampling: strata, post-strata, randomised replicates."""

import numpy as np
from scipy import special

from gdstab.estimators._limits import brief, choose, estimate, gamma_interval, widened_normal
from gdstab.estimators.intervals import (
    Estimate,
    Interval,
    check_confidence,
    check_counts,
    clopper_pearson_interval,
    few_at,
    plain,
)


def stratified(hits, n, weights=None, confidence: float = 0.95) -> Estimate:
    r"""Share $\sum_l w_l\, \text{hits}_l / n_l$ from independent samples in each of the strata, with a safe interval.

    The variance is estimated within the strata, $\sum_l a_l^2\, h_l (n_l - h_l) / (n_l - 1)$ with $a_l = w_l / n_l$.
    Strata with one sample show none: they are paired in the order given, and a pair that disagrees counts
    $\max(a_i, a_j)^2$, which is too much on average and never too little (collapsed strata: Cochran 1977, Sampling
    Techniques, 5A.12), so let neighbours be alike; one left over counts $a^2/4$. The interval is normal with
    $z^2 \max_l a_l^2$ added, see `gdstab.estimators._limits` (method "stratified").

    With few hits or misses, fewer than `few_at` the confidence (20 at 95 %) in effect, an interval for small counts is
    used. Where the samples are in proportion to the weights it is "clopper-pearson" on the pooled counts: these are a
    sum of independent unequal trials, whose tails beyond one from the mean are no heavier than the binomial ones
    (Hoeffding 1956, Ann. Math. Statist. 27, theorem 4); for a mean below 1 a lone hit can be a little likelier, but
    there the other end never errs, and both together err no more than stated. Otherwise it is "gamma", of Fay and Feuer
    (1997, Statist. in Medicine 16) for weighted counts, of the hits or of the misses, whichever are fewer.

    Parameters
    ----------
    hits
        Integers [..., strata].
    n
        Samples per stratum, fixed by the design: an integer or integers [strata], at least 1.
    weights
        Probabilities of the strata, [strata], positive, scaled to sum 1; by default equal.

    Returns
    -------
    An `Estimate` of shape [...].

    Raises
    ------
    ValueError
        If shapes do not fit, counts are out of range, or a weight is not positive and finite.

    Examples
    --------
    >>> estimate = stratified([100, 97, 3, 0], 100)
    >>> print(estimate.method, f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    stratified 0.5000 [0.4847, 0.5153]
    """
    hits, n, weights = _check_strata(hits, n, weights)
    confidence = check_confidence(confidence)
    a = weights / n
    value, variance = np.sum(a * hits, axis=-1), _within(hits, n, a)
    few = _effective(hits, n, a) < few_at(confidence)
    normal = widened_normal(value, variance, a.max(), confidence, "stratified")
    if np.allclose(n, weights * n.sum(), rtol=1e-9, atol=0):
        low, high = clopper_pearson_interval(hits.sum(axis=-1).astype(np.int64), np.int64(n.sum()), confidence)
        return choose(few, normal._replace(low=low, high=high, method=np.asarray("clopper-pearson")), normal)
    low, high = _two_sided_gamma(
        np.stack([value, np.sum(a * (n - hits), axis=-1)]),
        np.stack([np.sum(a**2 * hits, axis=-1), np.sum(a**2 * (n - hits), axis=-1)]),
        a.max(),
        confidence,
    )
    return choose(few, normal._replace(low=low, high=high, method=np.asarray("gamma")), normal)


def poststratified(hits, n, probabilities, confidence: float = 0.95) -> Estimate:
    r"""Share $\sum_l P_l\, \text{hits}_l / n_l$ from one plain sample that is sorted into strata afterwards.

    Given how many samples fell into each stratum this is `stratified` with known probabilities $P_l$ (Holt and Smith
    1979, J. R. Statist. Soc. A 142), and so is its interval. Where a stratum has fewer than two samples, or hits or
    misses are few, `plain` answers for the pooled counts instead, which are those of a plain sample
    whatever fell where.

    Parameters
    ----------
    hits, n
        Integers [..., strata]; `n` may be 0 in some strata, not in all.
    probabilities
        Of the strata, [strata], positive, scaled to sum 1.

    Returns
    -------
    An `Estimate` of shape [...]; its method is "poststratified" or one of `plain`.

    Raises
    ------
    ValueError
        As in `stratified`.

    Examples
    --------
    >>> estimate = poststratified([50, 2, 0], [51, 27, 25], [0.5, 0.25, 0.25])
    >>> print(estimate.method, f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    poststratified 0.5087 [0.4589, 0.5585]
    """
    hits, n, probabilities = _check_strata(hits, n, probabilities, least=0)
    confidence = check_confidence(confidence)
    a = probabilities / np.maximum(n, 1)
    usable = (n >= 2).all(axis=-1) & (_effective(hits, n, a) >= few_at(confidence))
    variance = np.sum(a**2 * hits * (n - hits) / np.maximum(n - 1, 1), axis=-1)
    normal = widened_normal(np.sum(a * hits, axis=-1), variance, a.max(axis=-1), confidence, "poststratified")
    pooled = plain(*(count.sum(axis=-1).astype(np.int64) for count in (hits, n)), confidence)
    return choose(usable, normal, pooled)


def replicates(hits, n, confidence: float = 0.95) -> Estimate:
    r"""Mean share of independent randomised replicates, such as scrambled Sobol sets, with Student's interval.

    With `hits` in each of $R$ replicates of `n` points the standard error is that of the $R$ shares, and Student's
    quantile $t$ has $R - 1$ degrees of freedom (Owen 2013, Monte Carlo theory, methods and examples, ch. 17); the
    variance is widened by $(t / nR)^2$, see `gdstab.estimators._limits` (method "student").

    Fewer than 30 hits or 30 misses in all (beyond 95 %, than 1.5 times `few_at` the confidence) are too few for it:
    then it is "clopper-pearson" on the pooled counts. For points that are not independent that is no theorem. It rests
    on their variance, which for scrambled nets is at most a small multiple of the plain one (Owen 1997, SIAM J. Numer.
    Anal. 34) and in practice below it.

    Parameters
    ----------
    hits
        Integers [..., replicates], at least two of them.
    n
        Points of every replicate, one integer.

    Returns
    -------
    An `Estimate` of shape [...].

    Raises
    ------
    ValueError
        If there are fewer than two replicates, `n` is not one number, or counts are out of range.

    Examples
    --------
    >>> estimate = replicates([50, 52, 51, 50], 128)
    >>> print(estimate.method, f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    student 0.3965 [0.3734, 0.4196]
    """
    if np.ndim(n) != 0 or np.ndim(hits) < 1 or np.shape(hits)[-1] < 2:
        raise ValueError(
            f"expected hits of at least two replicates on the last axis and one `n`, got shapes {np.shape(hits)} and "
            f"{np.shape(n)}; one replicate says nothing about its own error"
        )
    hits, points = check_counts(hits, n)
    count, total = hits.shape[-1], points.sum(axis=-1)
    t = special.stdtrit(count - 1, (1 + check_confidence(confidence)) / 2)
    value, variance = hits.sum(axis=-1) / total, hits.var(axis=-1, ddof=1) * count / total**2
    half = t * np.sqrt(variance + (t / total) ** 2)
    student = estimate(value, value - half, value + half, variance, "student")
    pooled = hits.sum(axis=-1)
    low, high = clopper_pearson_interval(pooled.astype(np.int64), total.astype(np.int64), confidence)
    exact = student._replace(low=low, high=high, method=np.asarray("clopper-pearson"))
    return choose(np.minimum(pooled, total - pooled) < 1.5 * few_at(confidence), exact, student)


def _within(hits, n, a):
    """Variance of the stratified share, strata of one sample in pairs of neighbours; `n` and `a` are [strata]."""
    variance = np.sum(a**2 * hits * (n - hits) / np.maximum(n - 1, 1), axis=-1)  # 0 for a single sample
    single = np.flatnonzero(n == 1)
    first, second = single[: len(single) // 2 * 2].reshape(-1, 2).T
    disagree = hits[..., first] != hits[..., second]
    variance = variance + np.sum(disagree * np.maximum(a[first], a[second]) ** 2, axis=-1)
    return variance + (a[single[-1]] ** 2 / 4 if len(single) % 2 else 0.0)


def _effective(hits, n, a):
    """The smaller of the effective numbers of hits and of misses: the plain numbers where all samples count alike."""
    numbers = []
    for counts in (hits, n - hits):
        squares = np.sum(a**2 * counts, axis=-1)
        numbers.append(np.sum(a * counts, axis=-1) ** 2 / np.where(squares > 0, squares, 1))
    return np.minimum(*numbers) * (1 + 1e-9)  # 20 hits of equal weight are 20, whatever rounding says


def _two_sided_gamma(sums, squares, a, confidence) -> Interval:
    """Fay and Feuer's interval, of the misses where these are fewer in effect; axis 0 is (hits, misses)."""
    low, high = gamma_interval(sums, squares, a, confidence)
    counts = sums**2 / np.where(squares > 0, squares, 1)
    flip = counts[1] < counts[0]
    low, high = np.where(flip, 1 - high[1], low[0]), np.where(flip, 1 - low[1], high[0])
    return np.asarray(low.clip(0, 1)), np.asarray(high.clip(0, 1))


def _check_strata(hits, n, weights, least: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts [..., strata] in float64 and weights that sum to 1."""
    strata = np.shape(hits)[-1] if np.ndim(hits) else 0
    allowed = np.shape(hits)[-1:] if least else np.shape(hits)
    if not strata or (np.ndim(n) and np.shape(n) not in (allowed, (strata,))):
        raise ValueError(
            f"expected hits [..., strata] and samples per stratum of shape {allowed}, got shapes {np.shape(hits)} and "
            f"{np.shape(n)}; put the strata on the last axis"
        )
    shares = np.full(strata, 1.0) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (strata,) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(
            f"expected {strata} positive finite weights, one per stratum, got {brief(weights)}; leave a stratum of "
            "probability 0 out"
        )
    counts, samples = check_counts(hits, n, least=least)
    if (samples.sum(axis=-1) < 1).any():
        raise ValueError("expected at least one sample in all strata together, got none; draw some first")
    samples = np.broadcast_to(np.asarray(n, np.float64), (strata,)) if least else samples  # a design is one for all
    return counts, samples, shares / shares.sum()
