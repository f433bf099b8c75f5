"""Intervals for shares: against SciPy's, exact coverage by summation over the binomial, ends, validation."""

import numpy as np
import pytest
from scipy import stats

from gdstab.estimators import clopper_pearson_interval, rule_of_three, wilson_interval

NAMES = {"wilson": wilson_interval, "exact": clopper_pearson_interval}


def coverage(interval, n, shares, **kwargs):
    """P(low <= p <= high) for each true share p, summed over all counts."""
    hits = np.arange(n + 1)
    low, high = interval(hits, n, **kwargs)
    inside = (low[:, None] <= shares) & (shares <= high[:, None])
    return np.sum(stats.binom.pmf(hits[:, None], n, shares) * inside, axis=0)


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_agrees_with_scipy(method, confidence):
    for hits, n in [(0, 1), (1, 1), (0, 50), (1, 50), (25, 50), (50, 50), (3, 1000), (999_999, 10**6)]:
        reference = stats.binomtest(hits, n).proportion_ci(confidence, method=method)
        np.testing.assert_allclose(NAMES[method](hits, n, confidence), reference, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("n", [1, 10, 10**9, 10**15])
def test_exact_interval_at_no_hits_is_closed_form(n):
    # SciPy's own interval, found by bracketing, is off by 2e-4 here at n = 1e9.
    np.testing.assert_allclose(clopper_pearson_interval(0, n)[1], -np.expm1(np.log(0.025) / n), rtol=1e-9)


@pytest.mark.parametrize("interval", NAMES.values())
def test_exact_ends_symmetry_and_order(interval):
    hits = np.arange(41)
    low, high = interval(hits, 40)
    assert low[0] == 0.0
    assert high[-1] == 1.0
    assert ((low <= hits / 40) & (hits / 40 <= high) & (low < high) & (low >= 0) & (high <= 1)).all()
    assert (np.diff(low) > 0).all()
    np.testing.assert_allclose(low, 1 - high[::-1], atol=1e-12)


def test_arrays_broadcast_and_equal_scalars():
    hits, n = np.array([[0], [3]]), np.array([5, 10, 2**40])
    low, high = clopper_pearson_interval(hits, n)
    assert low.shape == high.shape == (2, 3)
    assert (low[1, 2], high[1, 2]) == clopper_pearson_interval(3, 2**40)
    assert wilson_interval(np.int32(2**30), np.int32(2**31 - 1))[0] < 0.5  # squares of counts do not wrap


@pytest.mark.parametrize("n", [1, 10, 57])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_always_covers(n, confidence):
    shares = np.linspace(0, 1, 1001)
    assert coverage(clopper_pearson_interval, n, shares, confidence=confidence).min() >= confidence - 1e-12


def test_wilson_covers_on_average_and_is_shorter():
    shares = np.linspace(0.0005, 0.9995, 1000)
    covered = coverage(wilson_interval, 50, shares)
    assert abs(covered.mean() - 0.95) < 0.01
    assert covered.min() > 0.83  # Agresti and Coull 1998: the dip next to 0 and 1
    width = {name: np.mean(np.subtract(*interval(np.arange(51), 50)[::-1])) for name, interval in NAMES.items()}
    assert width["wilson"] < width["exact"]


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 10**8])
def test_rule_of_three_contains_the_exact_bound(n):
    low, high = rule_of_three(n)
    exact = -np.expm1(np.log(0.05) / n)
    assert low == 0
    assert exact <= high <= 1
    if n >= 1000:
        np.testing.assert_allclose(high, 3 / n, rtol=2e-3)
        np.testing.assert_allclose(high, exact, rtol=2 / n + 2e-3)


@pytest.mark.parametrize(
    ("hits", "n", "confidence", "message"),
    [
        (5, 4, 0.95, "are the arguments swapped"),
        (-1, 4, 0.95, "from 0 to `n`"),
        (0, 0, 0.95, "at least 1"),
        (0.5, 4, 0.95, "pass counts, not shares"),
        (1, 4, 95.0, "strictly between 0 and 1"),
        (1, 4, np.nan, "strictly between 0 and 1"),
        ([1, 2], [4, 4, 4], 0.95, "must broadcast"),
    ],
)
def test_bad_input_is_named(hits, n, confidence, message):
    for interval in NAMES.values():
        with pytest.raises(ValueError, match=message):
            interval(hits, n, confidence)
