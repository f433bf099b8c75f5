"""How often the intervals of every estimator hold the truth, at shares, sizes, weights and designs that are unkind.

    python benchmarks/bench_coverage.py [--only plain weighted volume] [--repetitions 4000]

Where the counts can be summed over (one share, pairs), coverage is exact, worst over many true values, those just
outside an interval's ends among them; else it is that of seeded repetitions. `wilson_interval` promises its coverage on
average only and is there for comparison: `plain` is what the package takes. Rows go to
`benchmarks/results/coverage.jsonl`, with the coverage that is stated, the one found, where it is worst, and the mean
width of the intervals there.
"""

import argparse
from itertools import product

import jax
import measuring
import numpy as np
from scipy import stats
from scipy.stats import qmc

from gdstab import estimators
from gdstab.basins import volumes, walks

jax.config.update("jax_enable_x64", True)


def row(estimator, design, truths, low, high, confidence=0.95, repetitions=0, weights=None):
    """One row from intervals [repetitions, ...] and as many truths; `weights` are the probabilities of exact sums."""
    truths = np.asarray(truths, float)
    inside = (low <= truths * (1 + 1e-12)) & (truths <= high * (1 + 1e-12) + 1e-15)
    share = np.average(inside, axis=0, weights=weights)
    worst = int(np.argmin(share)) if np.ndim(share) else ()
    width = np.average(np.broadcast_to(high - low, inside.shape), axis=0, weights=weights)
    return {
        "estimator": estimator,
        "design": design,
        "stated": confidence,
        "coverage": float(np.asarray(share)[worst]),
        "at": float(truths[worst]) if truths.ndim else float(truths),
        "mean_width": float(np.asarray(width)[worst]),
        "repetitions": repetitions or "exact",
    }


def shares_of(low, high):
    """True shares on a grid, near 0, and just outside of every end."""
    ends = np.r_[low * (1 - 1e-9), high * (1 + 1e-9)]
    shares = np.unique(np.r_[np.linspace(0, 1, 401), np.geomspace(1e-6, 0.1, 200), ends])
    return shares[(shares >= 0) & (shares <= 1)]


def one_share(repetitions, rng):
    """Exact sums over the binomial counts."""
    del repetitions, rng
    ways = {
        "wilson_interval": estimators.wilson_interval,
        "clopper_pearson_interval": estimators.clopper_pearson_interval,
        "plain": lambda hits, n, confidence: estimators.plain(hits, n, confidence)[1:3],
    }
    for (name, interval), n, confidence in product(ways.items(), (1, 10, 100, 1000), (0.8, 0.95, 0.99, 0.999)):
        hits = np.arange(n + 1)
        low, high = interval(hits, n, confidence)
        yield worst_share(name, n, hits, low, high, confidence)
    for n in (1, 10, 1000):
        hits = np.arange(n + 1)
        bounds = estimators.undecided_bounds(hits, 0, n)
        yield worst_share("undecided_bounds", n, hits, bounds.low, bounds.high, 0.95)
        # It is used where nothing was hit, and bounds the share from above.
        high = np.where(hits == 0, estimators.rule_of_three(n)[1], 1.0)
        yield worst_share("rule_of_three", n, hits, np.zeros(n + 1), high, 0.95)


def worst_share(name, n, hits, low, high, confidence):
    """Coverage for every share, in pieces that fit into memory."""
    shares = shares_of(low, high)
    pieces = [
        row(name, f"n = {n}", part, low[:, None], high[:, None], confidence, weights=chance)
        for part in np.array_split(shares, len(shares) // 200 + 1)
        for chance in [stats.binom.pmf(hits[:, None], n, part)]
    ]
    return min(pieces, key=lambda piece: piece["coverage"])


CELLS = [
    (0.3, 0.0, 0.0), (0.3, 0.01, 0.0), (0.3, 0.2, 0.0), (0.05, 0.0, 0.4), (0.0, 0.1, 0.1), (0.5, 0.25, 0.25),
    (0.9, 0.04, 0.05), (0.97, 0.02, 0.001), (0.25, 0.74, 0.008), (0.6, 0.39, 0.0), (0.0, 0.9, 0.09),
]  # fmt: skip


def pairs(repetitions, rng):
    """Exact for 60 samples, all tables summed; drawn for more."""
    n = 60
    tables = np.array([(a, b, c, n - a - b - c) for a, b, c in product(range(n + 1), repeat=3) if a + b + c <= n]).T
    exact = {confidence: both(tables, confidence) for confidence in (0.95, 0.99)}
    for cells in CELLS:
        p = [*cells, 1 - sum(cells)]
        chance = stats.multinomial.pmf(tables.T, n, np.maximum(p, 0) / np.maximum(p, 0).sum())
        for confidence, found in exact.items():
            yield from pair_rows(found, p, f"n = {n}, {cells}", confidence, 0, chance)
        for more in (400, 3000):
            drawn = rng.multinomial(more, np.maximum(p, 0) / np.maximum(p, 0).sum(), repetitions).T
            yield from pair_rows(both(drawn, 0.95), p, f"n = {more}, {cells}", 0.95, repetitions)


def both(tables, confidence):
    """The two comparisons of the same tables."""
    ways = estimators.paired_difference, estimators.paired_ratio
    return {way.__name__: way(*tables, confidence) for way in ways}


def pair_rows(found, p, design, confidence, repetitions, weights=None):
    truths = {"paired_difference": p[1] - p[2], "paired_ratio": (p[0] + p[1]) / (p[0] + p[2]) if p[0] + p[2] else None}
    for name, truth in truths.items():
        if truth is not None:
            high = np.minimum(found[name].high, 1e9)  # inf has no mean width
            yield row(name, design, truth, found[name].low, high, confidence, repetitions, weights)


def strata(count):
    """True shares per stratum that could fool an estimate of their variance."""
    half = count // 2
    return {
        "edge": np.where(np.arange(count) < half, 1.0, 0.0),
        "one undecided": np.r_[np.ones(half), 0.5, np.zeros(count - half - 1)],
        "rare": np.r_[np.ones(half), np.full(count - half, 1.0 / count)],
        "rare both": np.r_[np.full(half, 1 - 0.5 / count), np.full(count - half, 1.5 / count)],
        "few": np.full(count, min(12.0 / count, 0.9)),
        "alternating": np.tile([0.9, 0.1], count)[:count],
        "ramp": np.linspace(0, 1, count),
    }


def stratification(repetitions, rng):
    """Equal and unequal strata with one to twelve samples, and plain samples sorted afterwards."""
    for count in (2, 24, 101):
        for name, p in strata(count).items():
            weights = rng.dirichlet(np.ones(count) * 2)
            designs = {
                "one each": (1, None),
                "three each": (3, None),
                "four each, unequal weights": (4, weights),
                "1 to 12, unequal weights": (rng.integers(1, 13, count), weights),
                "200 in one, 2 in others": (np.r_[200, np.full(count - 1, 2)], weights),
            }
            for design, (n, w) in designs.items():
                found = estimators.stratified(rng.binomial(n, p, (repetitions, count)), n, w)
                truth = p.mean() if w is None else w @ p
                yield row("stratified", f"{count} strata, {name}, {design}", truth, *found[1:3], 0.95, repetitions)
            for samples in (40, 400, 4000):
                n = rng.multinomial(samples, weights, repetitions)
                found = estimators.poststratified(rng.binomial(n, p), n, weights)
                design = f"{count} strata, {name}, {samples} samples"
                yield row("poststratified", design, weights @ p, *found[1:3], 0.95, repetitions)


REGIONS = {
    "half a checkerboard of 64 x 64": (lambda x, y: (np.floor(64 * x) + np.floor(64 * y)) % 2 == 0, 0.5),
    "disc of share 0.35": (lambda x, y: (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.35 / np.pi, 0.35),
    "disc of share 0.004, off centre": (lambda x, y: (x - 0.31) ** 2 + (y - 0.77) ** 2 < 0.004 / np.pi, 0.004),
    "slab of 1/300": (lambda x, y: (x > 0.4) & (x < 0.4 + 1 / 300) & (y >= 0), 1 / 300),
    "corner of share 0.02": (lambda x, y: (x < 0.02**0.5) & (y > 1 - 0.02**0.5), 0.02),
    "oblique stripes": (lambda x, y: (37 * x + 53 * y) % 1 < 0.1, 0.1),
    "teeth below a line": (lambda x, y: y < 0.5 + 0.02 * ((128 * x) % 1), 0.51),
    "all but a sliver": (lambda x, y: x + y > 0.02, 1 - 0.0002),
}


def sobol(repetitions, rng):
    """Scrambled Sobol sets of 128 points, against regions of known area."""
    for replicas in (2, 8):
        sets = [qmc.Sobol(2, rng=rng).random_base2(7) for _ in range(replicas * repetitions)]
        x, y = np.moveaxis(np.array(sets).reshape(repetitions, replicas, 128, 2), -1, 0)
        for name, (region, area) in REGIONS.items():
            found = estimators.replicates(region(x, y).sum(axis=-1), 128)
            yield row("replicates", f"{replicas} of 128, {name}", area, *found[1:3], 0.95, repetitions)


RARE = {  # samples, then per kind of point: expected number, weight, chance to be a hit
    "1 % are 1000 times as heavy, never hits": (20, [(0.2, 1.0, 0), (19.8, 1e-3, 0.3)]),
    "1 in 2000 is 10^4 times as heavy, never hit": (1000, [(0.5, 1.0, 0), (999.5, 1e-4, 0.015)]),
    "a rare heavy miss, misses, light hits, zeros": (300, [(0.75, 1.0, 0), (86, 1e-3, 0), (20.5, 1e-4, 1)]),
    "the same, hits for misses": (300, [(0.75, 1.0, 1), (86, 1e-3, 1), (20.5, 1e-4, 0)]),
    "three sizes": (1000, [(2.0, 1.0, 0), (30, 0.1, 0.5), (900, 0.01, 0.02)]),
    "a heavy hit among light misses": (200, [(1.0, 1.0, 1), (199, 0.01, 0)]),
    "a bound that is never reached": (5000, [(5000, 1e-2, 0.4)]),
    "rare ones of both kinds": (100, [(0.3, 1.0, 1), (0.3, 1.0, 0), (99, 1e-6, 0.5)]),
    "equal weights, few hits": (100, [(100, 1.0, 0.03)]),
    "many heavy, few light hits": (5000, [(570, 1.0, 0), (16, 1e-4, 1), (4413, 0.1, 1)]),
}


def importance(repetitions, rng):
    """Weights of a few sizes, of a power law, and log-normal ones up to a bound."""
    for name, (samples, kinds) in RARE.items():
        expected, weight, chance = np.array(kinds).T
        p = np.r_[expected, max(samples - expected.sum(), 0)] / samples
        number = rng.multinomial(samples, p / p.sum(), repetitions)[:, :-1]
        hits = rng.binomial(number, chance)
        truth = expected * chance @ weight / (expected @ weight)
        sums = [(counts @ weight, counts @ weight**2) for counts in (hits, number)]
        yield weight_row(name, sums, 1.0, truth, repetitions)
    for tilt, share, heavy in product((0.3, 0.7), (0.003, 0.1, 0.5), (True, False)):
        x = rng.random((repetitions, 300)) ** (1 / tilt)  # of density tilt x^(tilt - 1), weighted to be uniform
        hit, w = (x > 1 - share) if heavy else (x < share), x ** (1 - tilt) / tilt
        sums = [(np.sum(w * chosen, axis=1), np.sum(w**2 * chosen, axis=1)) for chosen in (hit, np.ones_like(hit))]
        where = "heavy" if heavy else "light"
        yield weight_row(f"density x^{tilt - 1:.1f}, {where} end", sums, 1 / tilt, share, repetitions)
    population = np.minimum(np.exp(3 * stats.norm.ppf((np.arange(10**6) + 0.5) / 10**6)), 1e3)
    for share, heavy in product((0.01, 0.3), (True, False)):
        edge = int(share * 10**6)
        marked = np.arange(10**6) >= 10**6 - edge if heavy else np.arange(10**6) < edge * 3
        drawn = rng.integers(0, 10**6, (repetitions, 400))
        w, hit = population[drawn], marked[drawn]
        sums = [(np.sum(w * chosen, axis=1), np.sum(w**2 * chosen, axis=1)) for chosen in (hit, np.ones_like(hit))]
        truth = population[marked].sum() / population.sum()
        yield weight_row(f"log-normal, {'heaviest' if heavy else 'lightest'} {share}", sums, 1e3, truth, repetitions)


def weight_row(name, sums, largest, truth, repetitions):
    drawn = sums[1][0] > 0
    found = estimators.weighted(*(tuple(part[drawn] for part in pair) for pair in sums), largest)
    return row("weighted", name, truth, *found[1:3], 0.95, repetitions)


def stopping(repetitions, rng):
    """Stopped where the interval is narrow, absolute and relative widths, also by who stops when it errs."""
    plans = {
        "0.1": estimators.plan_looks(0.1, 10**5),
        "0.02, budget 4000": estimators.plan_looks(0.02, 4000),
        "0.3 of the share": estimators.plan_looks(0.3, 20_000, relative=True),
        "0.001, 1.2 times as many each": estimators.plan_looks(0.001, 20_000, growth=1.2),
    }
    for (name, plan), share in product(plans.items(), (1e-4, 0.02, 0.3, 0.5, 0.97)):
        counts = rng.binomial(np.diff(plan.looks, prepend=0), share, (repetitions, len(plan.looks))).cumsum(axis=1)
        looks = [estimators.examine(plan, look, counts[:, look]) for look in range(len(plan.looks))]
        low, high, reached = (
            np.array([getattr(look, field) for look in looks]) for field in ("low", "high", "reached")
        )
        last = np.where(reached.any(axis=0), reached.argmax(axis=0), len(looks) - 1), np.arange(repetitions)
        yield row("sample_to_width", f"width {name}", share, low[last], high[last], 0.95, repetitions)
        missed = (low > share) | (high < share)
        worst = np.where(missed.any(axis=0), missed.argmax(axis=0), last[0]), last[1]
        yield row(
            "sample_to_width", f"width {name}, stopped at a miss", share, low[worst], high[worst], 0.95, repetitions
        )


class Membership:
    """A set that is known instead of orbits."""

    def __init__(self, dim, inside):
        self.centre, self.inside, self.orbits, self.undecided = np.zeros(dim), inside, 0, 0

    def __call__(self, points):
        self.orbits += len(points)
        return self.inside(points)


SETS = {
    "square, 2 dimensions": (2, lambda x: np.abs(x).max(axis=1) < 1, 4.0),
    "diamond, 8 dimensions": (8, lambda x: np.abs(x).sum(axis=1) < 1, 2.0**8 / 40320),
}


def volume(repetitions, rng):
    """Whole estimates of bodies in place of basins; 256 walks in 4 groups, the fewest allowed, 20 runs to a pilot."""
    for name, (dim, inside, exact) in SETS.items():
        ends, run = [], Membership(dim, inside)
        for number in range(repetitions):
            if number % 20 == 0:
                points, enough = walks.spread(run, walks.first_points(run, 256, rng), 16, rng)
                ladder, points = walks.fit_ladder(run, points, enough, rng)
            ends.append(volumes._estimate(run, ladder, points, 16, enough, 4, 0.95, rng).log_interval)
        low, high = np.exp(np.array(ends)).T
        yield row("volume", name, exact, low, high, 0.95, repetitions)


JOBS = {
    "plain": one_share, "pairs": pairs, "strata": stratification, "sobol": sobol, "weighted": importance,
    "sequential": stopping, "volume": volume,
}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repetitions", type=int, default=4000)
    options = parser.parse_args()
    for job in options.only:
        measuring.write("coverage", list(JOBS[job](options.repetitions, np.random.default_rng(0))))
