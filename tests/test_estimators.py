"""Intervals for shares, differences, ratios, and stopped samples: against SciPy, exact and simulated coverage, ends."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from gdstab.estimators import (
    clopper_pearson_interval,
    examine,
    paired_difference,
    paired_ratio,
    plain,
    plan_looks,
    rule_of_three,
    sample_to_width,
    undecided_bounds,
    wilson_interval,
)
from gdstab.theory import scalar

REPETITIONS = 1000
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


def plain_interval(hits, n, confidence=0.95):
    return plain(hits, n, confidence)[1:3]


@pytest.mark.parametrize("n", [25, 100, 1000, 3000])
def test_plain_covers_exactly_as_promised(n):
    shares = np.unique(np.r_[np.linspace(0, 1, 801), np.linspace(0, 60 / n, 801).clip(0, 1), 10 / n])
    covered = coverage(plain_interval, n, shares)
    many = np.minimum(n * shares, n * (1 - shares)) >= 10
    assert covered[many].min() >= 0.93
    assert covered[~many].min() >= 0.95


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.99, 0.999, 0.9999])
def test_plain_errs_no_more_at_other_confidences(confidence):
    # At a fixed limit of 20 counts the error was 1.6, 2.8 and 5.5 times the stated one at the last three.
    for n in (100, 1000):
        shares = np.unique(np.r_[np.linspace(0, 0.5, 101), np.linspace(5, 60, 221) / n])
        assert (1 - coverage(plain_interval, n, shares, confidence=confidence)).max() <= 1.4 * (1 - confidence)


@pytest.mark.parametrize("step_size", [0.05, 0.3, 0.49])
def test_plain_covers_the_exact_basin(rng, step_size):
    box = ((-4.0, 4.0), (-4.0, 4.0))
    truth = scalar.trapping_area(step_size, scale=1.0, box=box) / 64
    points = rng.uniform(-4, 4, (REPETITIONS, 500, 2))
    hits = (scalar.trapping_energy(points, step_size, scale=1.0) < 0).sum(axis=1)
    for interval in (wilson_interval, clopper_pearson_interval, plain_interval):
        low, high = interval(hits, 500)
        assert np.mean((low <= truth) & (truth <= high)) >= 0.93


def test_plain_changes_its_method_at_twenty():
    estimate = plain(np.array([0, 19, 20, 80, 81, 100]), 100)
    assert estimate.method.tolist() == ["clopper-pearson"] * 2 + ["wilson"] * 2 + ["clopper-pearson"] * 2
    np.testing.assert_allclose(estimate.standard_error[2:4], 0.04)
    assert (estimate.low[1], estimate.high[1]) == clopper_pearson_interval(19, 100)
    assert (estimate.low[2], estimate.high[2]) == wilson_interval(20, 100)


def test_undecided_bounds_hold_whatever_the_undecided_become(rng):
    for hit, open_ in [(0.3, 0.1), (0.0, 0.02), (0.05, 0.0), (0.9, 0.1)]:
        counts = rng.multinomial(400, [hit, open_, max(1 - hit - open_, 0)], REPETITIONS)
        for interval, least in ((clopper_pearson_interval, 0.95 - 0.014), (wilson_interval, 0.93)):
            bounds = undecided_bounds(counts[:, 0], counts[:, 1], 400, interval=interval)
            assert np.mean((bounds.low <= hit) & (hit + open_ <= bounds.high)) >= least  # the whole range at once
            np.testing.assert_array_equal(bounds.share_low, counts[:, 0] / 400)
            np.testing.assert_array_equal(bounds.share_high, counts[:, :2].sum(axis=1) / 400)


def test_undecided_bounds_reduce_and_broadcast():
    bounds = undecided_bounds(np.array([[3], [7]]), np.array([0, 4, 10]), 20)
    assert all(field.shape == (2, 3) for field in bounds)
    np.testing.assert_array_equal(bounds.low[:, 0], clopper_pearson_interval([3, 7], 20)[0])
    np.testing.assert_array_equal(bounds.high[:, 0], clopper_pearson_interval([3, 7], 20)[1])
    assert (np.diff(bounds.high, axis=1) > 0).all()
    assert (np.diff(bounds.low, axis=1) == 0).all()
    assert undecided_bounds(0, 20, 20)[:] == (0, 1, 0, 1)
    with pytest.raises(ValueError, match="must not exceed `n`"):
        undecided_bounds([3, 15], 10, 20)
    with pytest.raises(ValueError, match="from 0 to `n`"):
        undecided_bounds(3, -1, 20)


TABLES = [(500, 60, 20, 420), (30, 25, 0, 945), (0, 40, 30, 0), (900, 1, 40, 59), (200, 300, 10, 5)]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_tango_and_nam_blackwelder_invert_the_score_test(table, confidence):
    # The restricted maximum of the likelihood is found numerically here, over p01 and over p11 + p10 + p01.
    table = np.multiply(table, 20 if confidence > 0.95 else 1)  # enough for the score test at this confidence
    n11, n10, n01, n00 = table
    n, z = sum(table), stats.norm.ppf((1 + confidence) / 2)

    def likeliest(p10_of, p11_of, top):
        def cost(p01):
            cells = np.array([p11_of(p01), p10_of(p01), p01])
            counts = np.array([n11, n10, n01])
            return -np.sum(counts[counts > 0] * np.log(np.maximum(cells[counts > 0], 1e-300)))

        return optimize.minimize_scalar(cost, bounds=top, method="bounded", options={"xatol": 1e-13}).x

    def tango(delta):
        def cost(q):
            counts = np.array([n10, n01, n11 + n00])
            cells = np.array([q + delta, q, 1 - 2 * q - delta])
            return -np.sum(counts[counts > 0] * np.log(np.maximum(cells[counts > 0], 1e-300)))

        ends = (max(0, -delta), (1 - delta) / 2)
        q = optimize.minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
        return (n10 - n01 - n * delta) ** 2 - z**2 * n * (2 * q + delta - delta**2)

    def nam(ratio):  # among samples hit at least once, 1 - p01 = ratio (1 - p10)
        ends = (max(0, 1 - ratio), 1 / (1 + ratio))
        p01 = likeliest(lambda t: 1 - (1 - t) / ratio, lambda t: (1 - t) / ratio - t, ends)
        spread = (n - n00) * ratio * (1 - (1 - p01) / ratio + p01)
        return (n11 + n10 - ratio * (n11 + n01)) ** 2 - z**2 * spread

    difference, ratio = paired_difference(*table, confidence), paired_ratio(*table, confidence)
    assert (difference.method, ratio.method) == ("tango", "nam-blackwelder")
    for end in (difference.low, difference.high):
        other = optimize.brentq(tango, *sorted((end - 1e-3, end + 1e-3)), xtol=1e-12)
        np.testing.assert_allclose(end, other, atol=2e-7)
    for end in (ratio.low, ratio.high):
        other = optimize.brentq(nam, end * 0.999, end * 1.001, xtol=1e-12)
        np.testing.assert_allclose(end, other, rtol=2e-6)


def test_pairs_swap_and_agree_with_mcnemar():
    first, swapped = (paired_difference(500, b, c, 420) for b, c in ((60, 20), (20, 60)))
    np.testing.assert_allclose([first.low, first.high], [-swapped.high, -swapped.low], atol=1e-12)
    first, swapped = (paired_ratio(500, b, c, 420) for b, c in ((60, 20), (20, 60)))
    np.testing.assert_allclose([first.low, first.high], [1 / swapped.high, 1 / swapped.low], rtol=1e-12)
    # The interval touches 0 exactly at the confidence of McNemar's test, (560 - 480)^2 / 1040; so does the ratio's 1.
    confidence = 1 - stats.chi2.sf(80**2 / 1040, 1)
    np.testing.assert_allclose(paired_difference(500, 560, 480, 420, confidence).low, 0, atol=1e-9)
    np.testing.assert_allclose(paired_ratio(500, 560, 480, 420, confidence).low, 1, atol=1e-9)


CELLS = [
    (0.3, 0.0, 0.0), (0.3, 0.002, 0.0), (0.3, 0.01, 0.0), (0.3, 0.03, 0.0), (0.3, 0.2, 0.0), (0.3, 0.05, 0.05),
    (0.1, 0.02, 0.2), (0.05, 0.0, 0.4), (0.0, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.04, 0.05), (0.97, 0.02, 0.001),
]  # fmt: skip


@pytest.mark.parametrize("cells", CELLS)
def test_pairs_cover(rng, cells):
    p11, p10, p01 = cells
    for n in (100, 1000):
        table = rng.multinomial(n, [p11, p10, p01, 1 - sum(cells)], 4 * REPETITIONS).T
        for estimate, truth in (
            (paired_difference(*table), p10 - p01),
            (paired_ratio(*table), (p11 + p10) / (p11 + p01)),
        ):
            assert not np.isnan(estimate.low + estimate.high).any()
            assert np.mean((estimate.low <= truth) & (truth <= estimate.high)) >= 0.93


@pytest.mark.parametrize(("p10", "p01"), [(0.0, 0.0), (0.001, 0.0), (0.004, 0.002), (0.0001, 0.003)])
def test_few_discordant_pairs_cover_at_least_as_stated(rng, p10, p01):
    for p11 in (0.0, 0.005, 0.4):
        table = rng.multinomial(1000, [p11, p10, p01, 1 - p11 - p10 - p01], REPETITIONS).T
        difference, ratio = paired_difference(*table), paired_ratio(*table)
        assert (difference.method == "clopper-pearson").all()
        assert np.mean((difference.low <= p10 - p01) & (p10 - p01 <= difference.high)) >= 0.95 - 0.014
        if p11 + p01 > 0:
            truth = (p11 + p10) / (p11 + p01)
            assert np.mean((ratio.low <= truth) & (truth <= ratio.high)) >= 0.95 - 0.014


def test_common_random_numbers_pay():
    # 2000 points, two step sizes whose basins are nested: the same points against points drawn anew.
    paired, apart = paired_difference(700, 60, 0, 1240), np.array([plain(760, 2000)[1:3], plain(700, 2000)[1:3]])
    independent = np.sqrt(np.sum((apart[:, 1] - apart[:, 0]) ** 2))
    assert paired.high - paired.low < 0.3 * independent


def test_ratio_without_hits_says_nothing():
    estimate = paired_ratio(0, 0, 0, 50)
    assert np.isnan(estimate.value)
    assert (estimate.low, estimate.high) == (0, np.inf)
    assert paired_ratio(0, 30, 0, 50).high == np.inf
    assert paired_ratio(0, 0, 30, 50).low == 0
    np.testing.assert_array_equal(paired_difference(np.full((2, 1), 9), [1, 50], 2, 30).value.shape, (2, 2))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((1, 2, -1, 4), "from 0 to `n`"),
        ((0, 0, 0, 0), "at least 1"),
        ((1.0, 2, 3, 4), "four integer counts"),
        (([1, 2], [1, 2, 3], 1, 1), "must broadcast"),
    ],
)
def test_bad_tables_are_named(table, message):
    for compare in (paired_difference, paired_ratio):
        with pytest.raises(ValueError, match=message):
            compare(*table)


def stopped(rng, plan, share):
    """The estimate of every repetition at the look where it stops, as arrays."""
    counts = rng.binomial(np.diff(plan.looks, prepend=0), share, (REPETITIONS, len(plan.looks))).cumsum(axis=1)
    looks = [examine(plan, look, counts[:, look]) for look in range(len(plan.looks))]
    reached = np.array([look.reached for look in looks])
    last = np.where(reached.any(axis=0), reached.argmax(axis=0), len(looks) - 1)
    rows = np.arange(REPETITIONS)
    low, high = (np.array([getattr(look, name) for look in looks])[last, rows] for name in ("low", "high"))
    return low, high, reached[last, rows], np.array(plan.looks)[last]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize(
    ("width", "relative", "budget"), [(0.1, False, 10**5), (0.02, False, 4000), (0.3, True, 20_000), (0.05, True, 2000)]
)
def test_stopping_does_not_spoil_the_coverage(rng, share, width, relative, budget):
    plan = plan_looks(width, budget, relative=relative)
    low, high, reached, n = stopped(rng, plan, share)
    assert np.mean((low <= share) & (share <= high)) >= 0.95 - 0.014
    assert (high - low)[reached].max(initial=0) <= width * (1.5 if relative else 1)
    assert (n[~reached] == budget).all()
    if not relative and budget == 10**5:
        assert reached.all()
        # What it costs against the fixed size that would have been right had the share been known.
        fixed = next(m for m in range(20, 10**4) if np.ptp(wilson_interval(round(share * m), m)) <= width)
        assert n.mean() <= 4 * max(fixed, plan.looks[0])


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_all_looks_cover_at_once_whoever_stops(rng, share):
    # He who stops as soon as the interval misses the truth does his worst; looks at 95 % each let him.
    plan = plan_looks(0.001, 20_000, growth=1.2)
    counts = rng.binomial(np.diff(plan.looks, prepend=0), share, (REPETITIONS, len(plan.looks))).cumsum(axis=1)
    ours = [examine(plan, look, counts[:, look]) for look in range(len(plan.looks))]
    assert np.mean([(look.low <= share) & (share <= look.high) for look in ours]) > 0.99
    assert np.all([(look.low <= share) & (share <= look.high) for look in ours], axis=0).mean() >= 0.95 - 0.014
    low, high = clopper_pearson_interval(counts, np.array(plan.looks))
    assert np.mean(((low <= share) & (share <= high)).all(axis=1)) < 0.9


@pytest.mark.parametrize("width", [0.5, 0.1, 0.013])
def test_looks_that_cannot_stop_are_left_out_and_the_last_always_stops(width):
    plan = plan_looks(width, 10**7)
    assert plan.looks[-1] < 10**7
    assert plan.confidence == 1 - 0.05 / len(plan.looks)
    hits = np.unique(np.linspace(0, plan.looks[-1], 2001).astype(int))
    assert examine(plan, len(plan.looks) - 1, hits).reached.all()
    if len(plan.looks) > 1:
        assert not examine(plan, len(plan.looks) - 2, plan.looks[-2] // 2).reached
    coarser = [n for n in (64, 96, 144, 216, 324, 486) if n < plan.looks[0]]
    for n in coarser:  # even an interval at 95 % would be too wide there, for whatever count
        low, high = clopper_pearson_interval(np.arange(n + 1), n)
        assert (high - low).min() > width


def test_sampling_draws_each_sample_once_and_stops():
    rng = np.random.default_rng(7)
    hit = rng.random((200_000, 2)) < [0.2, 0.9]
    asked = []

    def draw(start, stop):
        asked.append((start, stop))
        return hit[start:stop].sum(axis=0)

    estimate = sample_to_width(draw, 0.03, 200_000)
    assert estimate.reached.all()
    assert asked[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(asked))
    assert (estimate.n, estimate.look) == (asked[-1][1], len(asked))
    np.testing.assert_array_equal(estimate.value, hit[: estimate.n].mean(axis=0))
    assert (np.abs(estimate.value - [0.2, 0.9]) < 0.015).all()
    assert (estimate.high - estimate.low <= 0.03).all()


def test_a_budget_too_small_says_how_far_it_came():
    estimate = sample_to_width(lambda start, stop: (stop - start) // 2, 0.01, 1000)
    assert not estimate.reached
    assert estimate.n == 1000
    assert 0.05 < estimate.high - estimate.low < 0.1
    lonely = plan_looks(0.01, 50)
    assert (lonely.looks, lonely.confidence) == ((50,), 0.95)
    assert not sample_to_width(lambda *_: 0, 0.1, 5000, relative=True).reached


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_looks(0.0, 100), "width: expected a positive"),
        (lambda: plan_looks(1.5, 100), "less than 1"),
        (lambda: plan_looks(0.1, 0), "budget: expected an integer"),
        (lambda: plan_looks(0.1, 100, growth=1.0), "growth: expected a ratio"),
        (lambda: plan_looks(0.1, 100, first=0), "first: expected an integer"),
        (lambda: plan_looks(0.1, 100, 95.0), "strictly between 0 and 1"),
        (lambda: examine(plan_looks(0.1, 100), 9, 3), "look: expected 0 to"),
        (lambda: sample_to_width(lambda *_: 0.3, 0.1, 100), "pass counts, not shares"),
        (lambda: sample_to_width(lambda start, stop: stop - start + 1, 0.1, 100), "from 0 to `n`"),
    ],
)
def test_bad_plans_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
