"""Designs: coverage over 1000 seeded repetitions against exact shares, limits that are known, validation."""

import numpy as np
import pytest
from scipy import special, stats
from scipy.stats import qmc

from gdstab.estimators import (
    clopper_pearson_interval,
    effective_sample_size,
    plain,
    poststratified,
    replicates,
    stratified,
    weighted,
)
from gdstab.theory import scalar

REPETITIONS = 1000
STEP = 0.3  # of L = (1 - xy)^2


def trapped(points):
    return scalar.trapping_energy(points, STEP, scale=1.0) < 0


def exact(box):
    return scalar.trapping_area(STEP, scale=1.0, box=box) / np.prod(np.diff(np.asarray(box, float)))


def box_of(share):
    """A square around the ellipse in which it has this share; up to 0.3 it holds the whole ellipse."""
    half = np.sqrt(scalar.trapping_area(STEP, scale=1.0) / share) / 2
    return ((-half, half), (-half, half))


def covers(estimate, truth):
    assert np.isfinite(estimate.low).all()
    assert ((estimate.low >= 0) & (estimate.low <= estimate.high) & (estimate.high <= 1)).all()
    return np.mean((estimate.low <= truth) & (truth <= estimate.high))


def wanted(share, samples):
    """93 % where both counts are at least 10; below that 95 %, less two standard errors of 1000 repetitions."""
    many = samples * min(share, 1 - share) >= 10
    return 0.93 if many else 0.95 - 2 * np.sqrt(0.95 * 0.05 / REPETITIONS)


def grid_counts(rng, cells, each, box):
    """Hits per cell of a grid of `cells` by `cells`, rows snaking so that successive cells are neighbours."""
    sides = np.asarray(box, float)
    index = np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), axis=-1)
    index[1::2] = index[1::2, ::-1]
    index = index.reshape(-1, 1, 2)
    hits = []
    for _ in range(REPETITIONS):
        unit = (index + rng.random((cells**2, each, 2))) / cells
        hits.append(trapped(sides[:, 0] + unit * (sides[:, 1] - sides[:, 0])).sum(axis=1))
    return np.array(hits)


@pytest.mark.parametrize(
    ("cells", "each", "box"),
    [
        (16, 1, ((-4, 4), (-4, 4))),
        (15, 1, ((-4, 4), (-4, 4))),
        (10, 2, ((-4, 4), (-4, 4))),
        (5, 10, ((-4, 4), (-4, 4))),
        (16, 1, box_of(0.05)),
        (12, 3, box_of(0.03)),
        (16, 1, box_of(0.01)),
        (8, 3, ((-1, 1), (-1, 1))),  # all trapped but for little: p near 1
    ],
)
def test_stratified_grid_covers_the_exact_basin(rng, cells, each, box):
    truth, samples = exact(box), cells**2 * each
    estimate = stratified(grid_counts(rng, cells, each, box), each)
    assert covers(estimate, truth) >= wanted(truth, samples)
    assert abs(np.mean(estimate.value) - truth) <= 4 * np.std(estimate.value) / np.sqrt(REPETITIONS) + 1e-12


def strata(shape, count):
    """True shares per stratum, of every kind that could fool a variance estimate."""
    return {
        "edge": np.where(np.arange(count) < count // 2, 1.0, 0.0),
        "one": np.r_[np.ones(count // 2), 0.5, np.zeros(count - count // 2 - 1)],
        "rare": np.r_[np.ones(count // 2), np.full(count - count // 2, 1.0 / count)],
        "rare both": np.r_[np.full(count // 2, 1 - 0.5 / count), np.full(count - count // 2, 1.5 / count)],
        "half": np.full(count, 0.5),
        "few": np.full(count, min(12.0 / count, 0.9)),
        "rows": np.tile([0.9, 0.1], count)[:count],
        "ramp": np.linspace(0, 1, count),
    }[shape]


@pytest.mark.parametrize("shape", ["edge", "one", "rare", "rare both", "half", "few", "rows", "ramp"])
@pytest.mark.parametrize("each", [1, 2, 3, 10])
def test_stratified_covers_whatever_the_strata(rng, shape, each):
    for count in (24, 61, 400):
        p = strata(shape, count)
        estimate = stratified(rng.binomial(each, p, (REPETITIONS, count)), each)
        assert covers(estimate, p.mean()) >= wanted(p.mean(), each * count), count


@pytest.mark.parametrize("shape", ["edge", "one", "rare", "rare both", "half", "ramp"])
def test_unequal_weights_and_allocations_cover(rng, shape):
    for count in (20, 100):
        p, weights = strata(shape, count), rng.dirichlet(np.ones(count) * 2)
        for n in (np.full(count, 4), rng.integers(1, 12, count)):
            estimate = stratified(rng.binomial(n, p, (REPETITIONS, count)), n, weights)
            assert covers(estimate, weights @ p) >= 0.93


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.003, 0.02])
def test_few_hits_in_unequal_strata_fall_back_and_cover(rng, share):
    n, weights = np.array([5, 20, 40, 200]), np.array([0.4, 0.3, 0.2, 0.1])
    for p in (np.full(4, share), np.array([share, 0, 0, 0]), np.array([0, 0, 0, min(10 * share, 1)])):
        hits = rng.binomial(n, p, (REPETITIONS, 4))
        few, many = stratified(hits, n, weights), stratified(n - hits, n, weights)
        assert set(np.unique(few.method)) <= {"gamma", "stratified"}
        assert few.method[hits.sum(axis=1) < 20].tolist() == ["gamma"] * int((hits.sum(axis=1) < 20).sum())
        assert covers(few, weights @ p) >= 0.95 - 0.014
        np.testing.assert_allclose([few.low, few.high], [1 - many.high, 1 - many.low], atol=1e-12)


def test_gamma_interval_is_the_exact_poisson_one_for_equal_weights():
    # One sample in a stratum of no weight to speak of makes the design unequal; what is left is a plain count.
    hits, n = np.array([7, 0]), np.array([100_000, 1])
    low, high = stratified(hits, n, np.array([1.0, 1e-9]))[1:3]
    np.testing.assert_allclose(low * 1e5, stats.chi2.ppf(0.025, 14) / 2, rtol=1e-6)
    np.testing.assert_allclose(high * 1e5, stats.chi2.ppf(0.975, 16) / 2, rtol=1e-6)
    low, high = stratified(np.array([0, 0]), n, np.array([1.0, 1e-9]))[1:3]
    assert low == 0
    np.testing.assert_allclose(high * 1e5, np.log(40), rtol=1e-6)


def test_stratified_by_hand():
    hits, n = np.array([[10, 7, 3, 0, 6]]), 10
    estimate = stratified(hits, n)
    variance = np.sum(hits * (n - hits) / 9) / 2500
    np.testing.assert_allclose(estimate.value, 26 / 50)
    np.testing.assert_allclose(estimate.standard_error, np.sqrt(variance))
    z = stats.norm.ppf(0.975)
    np.testing.assert_allclose((estimate.high - estimate.low) / 2, z * np.sqrt(variance + z**2 / 2500))
    for ours, scaled in zip(estimate, stratified(hits[0], np.full(5, 10), np.full(5, 3.0)), strict=True):
        assert ours[0] == scaled


def test_single_samples_are_paired_with_their_neighbours():
    hits = np.r_[np.ones(25, int), np.zeros(25, int)]
    assert stratified(hits, 1).standard_error == pytest.approx(1 / 50)  # the pair (24, 25) disagrees
    assert stratified(np.r_[1, hits[1:-1], 0][::-1], 1).standard_error == pytest.approx(1 / 50)
    assert stratified(np.r_[1, hits], 1).standard_error == pytest.approx(0.5 / 51)  # the last stands alone: 1/4
    alternating = np.tile([1, 0], 25)
    assert stratified(alternating, 1).standard_error == pytest.approx(np.sqrt(25) / 50)


def test_strata_pay_and_small_counts_are_pooled():
    estimate = stratified(np.r_[np.full(50, 20), 10, np.zeros(49, int)], 20)
    pooled = plain(1010, 2000)
    assert estimate.method == "stratified"
    assert estimate.high - estimate.low < 0.3 * (pooled.high - pooled.low)
    few = stratified(np.r_[19, np.zeros(99, int)], 20)
    assert few.method == "clopper-pearson"
    assert (few.low, few.high) == clopper_pearson_interval(19, 2000)


@pytest.mark.parametrize("probabilities", [[0.25, 0.25, 0.25, 0.25], [0.6, 0.25, 0.1, 0.05]])
@pytest.mark.parametrize("p", [[0.9, 0.5, 0.1, 0.0], [1, 1, 0.02, 0], [0.05, 0.05, 0.05, 0.05], [0.001, 0, 0, 0.01]])
def test_poststratified_covers(rng, probabilities, p):
    for samples in (40, 400):
        n = rng.multinomial(samples, probabilities, REPETITIONS)
        hits = rng.binomial(n, p)
        estimate, truth = poststratified(hits, n, probabilities), np.dot(probabilities, p)
        assert covers(estimate, truth) >= wanted(truth, samples)
        sorted_, pooled = estimate.method == "poststratified", plain(hits.sum(axis=1), np.full(REPETITIONS, samples))
        assert (sorted_ | (estimate.high == pooled.high)).all()
    if p == [1, 1, 0.02, 0]:
        assert sorted_.mean() > 0.99
        assert np.mean((estimate.high - estimate.low) / (pooled.high - pooled.low)) < 0.4


def test_poststratified_without_samples_in_a_stratum_is_plain():
    estimate, pooled = poststratified([30, 0, 25], [60, 0, 40], [0.5, 0.1, 0.4]), plain(55, 100)
    assert (estimate.method, estimate.low, estimate.high) == ("wilson", pooled.low, pooled.high)


@pytest.fixture(scope="module")
def scrambled():
    """Sets of 128 points, each scrambled on its own, eight to a repetition."""
    sets = [qmc.Sobol(2, rng=seed).random_base2(7) for seed in range(8 * REPETITIONS)]
    return np.array(sets).reshape(REPETITIONS, 8, 128, 2)


@pytest.mark.parametrize("share", [0.35, 0.1, 0.04, 0.012, 0.002])
def test_sobol_replicates_cover_the_exact_basin(scrambled, share):
    box = box_of(share)
    truth, sides = exact(box), np.asarray(box)
    hits = trapped(sides[:, 0] + scrambled * (sides[:, 1] - sides[:, 0])).sum(axis=-1)
    estimate = replicates(hits, 128)
    student = hits.sum(axis=1) >= 30
    assert ((estimate.method == "student") == student).all()
    assert covers(estimate, truth) >= wanted(truth, 8 * 128)
    if share > 0.3:
        independent = plain(hits.sum(axis=1), 8 * 128)
        assert np.mean(estimate.high - estimate.low) < 0.7 * np.mean(independent.high - independent.low)


def test_replicates_that_agree_by_chance_keep_a_width(rng):
    # A fraction f of replicates counts one more: where f is small none may show it, and the spread is zero.
    for replicas in (2, 8, 30):
        for fraction in (0.0, 0.02, 0.1, 0.5):
            hits = 100 + (rng.random((REPETITIONS, replicas)) < fraction)
            assert covers(replicates(hits, 256), (100 + fraction) / 256) >= 0.93


def test_replicates_are_student_and_fall_back():
    hits = np.array([40, 44, 47, 39, 50])
    estimate = replicates(hits, 100)
    error = stats.sem(hits / 100)
    np.testing.assert_allclose(estimate.standard_error, error)
    low, high = stats.t.interval(0.95, 4, loc=hits.mean() / 100, scale=error)
    assert low - 0.003 < estimate.low < low
    assert high < estimate.high < high + 0.003
    assert replicates([0, 0, 29], 100).method == "clopper-pearson"
    assert replicates([100, 100, 71], 100).method == "clopper-pearson"
    assert replicates([0, 0, 30], 100).method == "student"


def importance(rng, samples, tilt, share, heavy):
    """Points of density tilt x^(tilt - 1), their weights to be uniform, and hits at the end of large or small ones."""
    x = rng.random((REPETITIONS, samples)) ** (1 / tilt)
    return x ** (1 - tilt) / tilt, x > 1 - share if heavy else x < share


@pytest.mark.parametrize("tilt", [1.0, 0.5, 0.7])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.02, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("heavy", [True, False])
def test_weighted_covers(rng, tilt, share, heavy):
    w, hit = importance(rng, 500, tilt, share, heavy)
    sums = [(np.sum(w * chosen, axis=1), np.sum(w**2 * chosen, axis=1)) for chosen in (hit, np.ones_like(hit))]
    estimate = weighted(*sums, 1 / tilt)
    assert covers(estimate, share) >= 0.93
    if share <= 0.003:
        assert covers(estimate, share) >= 0.95 - 0.014
        assert ((estimate.method == "gamma") == (sums[0][0] ** 2 < 20 * sums[0][1]) | (sums[0][0] == 0)).all()
    assert (effective_sample_size(*sums[1]) <= 500 * (1 + 1e-12)).all()


RARE = [  # samples, then per kind of point: how many of them are expected, its weight, its chance to be a hit
    (20, [(0.2, 1.0, 0), (19.8, 1e-3, 0.3)]),
    (1000, [(0.5, 1.0, 0), (999.5, 1e-4, 0.015)]),
    (300, [(0.75, 1.0, 0), (86, 1e-3, 0), (20.5, 1e-4, 1)]),  # and weight 0 elsewhere
    (300, [(0.75, 1.0, 1), (86, 1e-3, 1), (20.5, 1e-4, 0)]),
    (50, [(0.7, 1.0, 0), (1.2, 0.5, 0), (12, 1e-3, 1), (12, 0.03, 0)]),
    (1000, [(2.0, 1.0, 0), (30, 0.1, 0.5), (900, 0.01, 0.02)]),
    (200, [(1.0, 1.0, 1), (199, 0.01, 0)]),
    (5000, [(0.0, 1.0, 0), (5000, 1e-2, 0.4)]),  # the bound is never reached
    (100, [(0.3, 1.0, 1), (0.3, 1.0, 0), (99, 1e-6, 0.5)]),
]


@pytest.mark.parametrize("design", RARE)
def test_weights_that_were_not_drawn_are_reckoned_with(rng, design):
    # At seven of the nine an interval of the hits alone, over the total that was seen, covered less, down to 22 %.
    samples, kinds = design
    expected, weight, chance = np.array(kinds).T
    number = rng.multinomial(samples, np.r_[expected, max(samples - expected.sum(), 0)] / samples, 4000)[:, :-1]
    hits = rng.binomial(number, chance)
    sums = [(counts @ weight, counts @ weight**2) for counts in (hits, number)]
    drawn = sums[1][0] > 0
    sums = [tuple(part[drawn] for part in pair) for pair in sums]
    share = expected * chance @ weight / (expected @ weight)
    assert covers(weighted(*sums, 1.0), share) >= 0.94
    mirrored = weighted(tuple(a - b for a, b in zip(sums[1], sums[0], strict=True)), sums[1], 1.0)
    np.testing.assert_allclose(mirrored.low, 1 - weighted(*sums, 1.0).high, atol=1e-9)


def test_a_heavier_bound_only_widens_and_units_do_not_matter():
    sums = (6.0, 7.0), (40.0, 60.0)
    low, high = np.array([weighted(*sums, largest)[1:3] for largest in (2.0, 5.0, 50.0, 1e3, 1e9)]).T
    assert (np.diff(low) < 0).all()
    assert (np.diff(high) > 0).all()
    assert (low[-1], high[-1]) == pytest.approx((0, 1), abs=1e-6)
    for unit in (1e-100, 1e-3, 1e100):
        scaled = weighted(*((a * unit, b * unit**2) for a, b in sums), 5.0 * unit)
        np.testing.assert_allclose(scaled[1:3], (low[1], high[1]), rtol=1e-9)
    # Hits that are few beside a total that is known well: Garwood's interval of a Poisson count, over the total.
    low, high = weighted((7.0, 7.0), (1e5, 1e5), 1.0)[1:3]
    np.testing.assert_allclose((low * 1e5, high * 1e5), (stats.chi2.ppf([0.025, 0.975], [14, 16]) / 2), rtol=1e-3)


def test_misses_lost_in_the_rounding_of_sums():
    rng = np.random.default_rng(5)
    w = rng.random(400)
    every = w.sum(), (w**2).sum()
    backwards = w[::-1].cumsum()[-1], (w[::-1] ** 2).cumsum()[-1]
    found, whole = weighted(backwards, every, 1.0), weighted(every, every, 1.0)
    np.testing.assert_allclose(found[:3], whole[:3], rtol=1e-12)
    assert whole.high == 1
    assert 0.97 < whole.low < 1
    light = weighted(every, (every[0] + 1e-9, every[1] + 1e-18), 1.0)  # a miss whose square is lost beside the others
    assert np.isfinite(light.low + light.high)
    np.testing.assert_allclose(light.low, whole.low, atol=1e-6)


def test_weighted_with_equal_weights_is_binomial():
    estimate = weighted((3 * 120.0, 9 * 120.0), (3 * 400.0, 9 * 400.0), 3.0)
    z = special.ndtri(0.975)
    np.testing.assert_allclose(estimate.standard_error, np.sqrt(0.3 * 0.7 / 400))
    np.testing.assert_allclose(estimate.high - 0.3, z * np.sqrt(0.3 * 0.7 / 400 + z**2 / 400**2))
    assert effective_sample_size(1200.0, 3600.0) == 400


def test_one_answer_per_row_whatever_the_batch(rng):
    hits = rng.integers(0, 5, (3, 4, 12))
    whole = stratified(hits, 4)
    assert all(field.shape == (3, 4) for field in whole)
    for row in np.ndindex(3, 4):
        for ours, one in zip(whole, stratified(hits[row], 4), strict=True):
            assert ours[row] == one
    assert all(field.shape == (3, 4) for field in replicates(hits, 9))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stratified(3, 4), "strata on the last axis"),
        (lambda: stratified([3, 4], [4, 4, 4]), "strata on the last axis"),
        (lambda: stratified([3, 5], 4), "from 0 to `n`"),
        (lambda: stratified([3, 0], [4, 0]), "at least 1"),
        (lambda: stratified([3, 4], 4, [1.0, 0.0]), "positive finite weights"),
        (lambda: stratified([3, 4], 4, [1.0]), "positive finite weights"),
        (lambda: stratified([3, 4], 4, confidence=95.0), "strictly between 0 and 1"),
        (lambda: poststratified([0, 0], [0, 0], [0.5, 0.5]), "at least one sample"),
        (lambda: poststratified([1, 0], [2, -1], [0.5, 0.5]), "at least 0"),
        (lambda: replicates([4], 8), "at least two replicates"),
        (lambda: replicates([4, 4], [8, 8]), "at least two replicates"),
        (lambda: replicates([4, 9], 8), "from 0 to `n`"),
        (lambda: weighted(1.0, (2.0, 2.0), 1.0), "pairs"),
        (lambda: weighted((3.0, 3.0), (2.0, 2.0), 1.0), "first .* = .3.0, 3.0, 2.0, 2.0, 1.0"),
        (lambda: weighted((1.0, 1.0), (2.0, 2.0), 0.5), "no weight above `largest`"),
        (lambda: weighted((1.0, np.nan), (2.0, 2.0), 1.0), "check what was summed"),
        (lambda: effective_sample_size(0.0, 0.0), "positive weights"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
